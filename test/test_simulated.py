"""The error model of the simulated predictor: exact when it is off, and each term as large as it says when it is on."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from sources_scene import SMALL, pose

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.rays import RayCamera, camera_from_rays, make_rays
from da3_ros.predictors import open_predictor
from da3_ros.predictors.simulated import SimulatedPredictor
from da3_ros.slam.window import unpack
from da3_ros.types import Frame, Prediction, Rays, Truth, Window

OFF = {
    "window_log_scale": 0.0,
    "depth_patch": 0.0,
    "depth_pixel": 0.0,
    "edge_bleed": 0.0,
    "focal": 0.0,
    "rotation_deg": 0.0,
    "translation": 0.0,
    "random_gauge": False,
}
VIEWS = 4
STEP_NS = 100_000_000


def frame(index: int) -> Frame:
    """A box before a slanted wall, with a hole; the image is not looked at."""
    v, u = np.mgrid[0:48, 0:64].astype(np.float32)
    depth = 3.0 + 0.01 * u + 0.005 * v
    depth[16:32, 20:40] = 1.2
    depth[:6, :6] = np.nan
    return Frame(
        index, (index + 1) * STEP_NS, np.zeros((48, 64, 3), np.uint8), SMALL, Truth(depth, pose(3 * (index % 50)))
    )


def window(start: int = 0, number: int = 1, views: int = VIEWS) -> Window:
    """Overlapping windows, as they occur; draws depend on the stamps, so any number of starts is a sample."""
    return Window(number, tuple(frame(start + i) for i in range(views)), tuple(range(views)))


def predictor(seed: int = 0, **on: object) -> SimulatedPredictor:
    """Every term off but these."""
    values = {f"simulated.{key}": value for key, value in {**OFF, **on}.items()}
    made = open_predictor(configuration.updated(Config(), {**values, "seed": seed}))
    assert isinstance(made, SimulatedPredictor)
    return made


def cameras(prediction: Prediction, known: bool = True) -> list[RayCamera]:
    """What the rays say, at the size of the image."""
    rays = prediction.rays
    assert rays is not None
    return [
        camera_from_rays(ray, weight, SMALL.size, SMALL if known else None)
        for ray, weight in zip(rays.rays, rays.confidence, strict=True)
    ]


def poses(prediction: Prediction) -> np.ndarray:
    """Poses (N, 4, 4) in the window."""
    return np.stack([c.T_frame_cam for c in cameras(prediction)])


def true_poses(w: Window) -> np.ndarray:
    """Poses (N, 4, 4) relative to the first view."""
    T = np.stack([f.truth.T_world_cam for f in w.frames])
    return se3.inverse(T[0]) @ T


def log_error(prediction: Prediction) -> np.ndarray:
    """Log depth over truth (N, h, w), NaN where there is none."""
    return np.log(prediction.depth / np.stack([f.truth.depth for f in prediction.window.frames]))


def same(a: Prediction, b: Prediction) -> bool:
    assert a.rays is not None
    assert b.rays is not None
    pairs = ((a.depth, b.depth), (a.confidence, b.confidence), (a.rays.rays, b.rays.rays))
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


# ---------------------------------------------------------------- everything off


def test_with_every_term_off_depth_is_the_truth():
    prediction = predictor().predict(window())
    for depth, confidence, f in zip(prediction.depth, prediction.confidence, prediction.window.frames, strict=True):
        np.testing.assert_array_equal(depth, f.truth.depth)
        np.testing.assert_array_equal(confidence > 0.9, np.isfinite(f.truth.depth))
        assert (confidence[~np.isfinite(f.truth.depth)] == 0).all()
        assert confidence.max() < 1


def test_with_every_term_off_rays_give_back_the_cameras():
    prediction = predictor().predict(window())
    np.testing.assert_allclose(poses(prediction), true_poses(prediction.window), atol=2e-6)
    for fit in cameras(prediction, known=False):
        for name in ("fx", "fy", "cx", "cy"):
            assert getattr(fit.camera, name) == pytest.approx(getattr(SMALL, name), abs=1e-3)


def test_rays_and_depth_meet_on_the_surface():
    """P = t + D d lands where the truth puts it."""
    w = window()
    prediction = predictor().predict(w)
    for T, depth, f in zip(poses(prediction), prediction.depth, w.frames, strict=True):
        points = se3.transform(T, (SMALL.directions() * depth[..., None]).reshape(-1, 3))
        T_world_first = w.frames[0].truth.T_world_cam
        world = se3.transform(f.truth.T_world_cam, (SMALL.directions() * f.truth.depth[..., None]).reshape(-1, 3))
        np.testing.assert_allclose(se3.transform(T_world_first, points), world, atol=1e-5)


def test_only_the_depth_that_is_asked_for_is_given():
    w = dataclasses.replace(window(), depth_views=(1, 3))
    noisy = predictor(depth_patch=0.05, depth_pixel=0.02)
    some, whole = noisy.predict(w), noisy.predict(window())
    assert np.isnan(some.depth[[0, 2]]).all()
    assert (some.confidence[[0, 2]] == 0).all()
    np.testing.assert_array_equal(some.depth[[1, 3]], whole.depth[[1, 3]])
    assert some.rays is not None
    assert whole.rays is not None
    np.testing.assert_array_equal(some.rays.rays, whole.rays.rays)


def test_depth_is_shrunk_to_the_width_asked_for_and_never_enlarged():
    half = predictor(width=32).predict(window())
    assert half.depth.shape == (VIEWS, 24, 32)
    assert set(np.unique(half.depth[0][np.isfinite(half.depth[0])])) <= set(np.unique(frame(0).truth.depth))
    np.testing.assert_allclose(poses(half), true_poses(half.window), atol=2e-6)
    assert predictor(width=1000).predict(window()).depth.shape == (VIEWS, 48, 64)


# ---------------------------------------------------------------- one term at a time

SAMPLES = 300


def test_scale_has_its_sigma_and_is_one_for_depth_and_path():
    on = predictor(window_log_scale=0.1)
    logs = []
    for start in range(SAMPLES):
        prediction = on.predict(window(start, views=2))
        error = log_error(prediction)
        assert np.nanmax(error) - np.nanmin(error) < 1e-5
        logs.append(float(np.nanmean(error)))
        if start < 5:
            moved = poses(prediction)[1, :3, 3]
            np.testing.assert_allclose(moved, np.exp(logs[-1]) * true_poses(prediction.window)[1, :3, 3], atol=2e-6)
    assert np.std(logs) == pytest.approx(0.1, rel=0.15)
    assert abs(np.mean(logs)) < 4 * 0.1 / np.sqrt(SAMPLES)
    biased = predictor(log_scale_bias=0.4).predict(window())
    np.testing.assert_allclose(np.nanmean(log_error(biased)), 0.4, atol=1e-5)


def test_patches_have_their_sigma_and_are_correlated():
    on = predictor(depth_patch=0.05)
    errors = np.concatenate([log_error(on.predict(window(start))) for start in range(0, SAMPLES, 4)])
    assert np.sqrt(np.nanmean(errors**2)) == pytest.approx(0.05, rel=0.1)
    beside = np.corrcoef(errors[:, 20, 20], errors[:, 20, 22])[0, 1]
    across = np.corrcoef(errors[:, 20, 5], errors[:, 20, 60])[0, 1]
    assert beside > 0.9
    assert abs(across) < 0.25
    per_window = np.sqrt(np.nanmean(errors.reshape(-1, VIEWS * 48 * 64) ** 2, axis=1))
    assert per_window.max() > 1.5 * per_window.min()  # some windows are worse than others


def test_pixels_have_their_sigma_and_are_independent():
    on = predictor(depth_pixel=0.02)
    errors = np.concatenate([log_error(on.predict(window(start))) for start in range(0, 60, 4)])
    assert np.nanstd(errors) == pytest.approx(0.02, rel=0.02)
    a, b = errors[:, 10:, :-1].ravel(), errors[:, 10:, 1:].ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_edges_bleed_and_nothing_else():
    prediction = predictor(edge_bleed=1.0).predict(window())
    error, truth = log_error(prediction)[0], frame(0).truth.depth
    step = cv2.dilate(np.nan_to_num(np.log(truth)), np.ones((3, 3))) - cv2.erode(
        np.nan_to_num(np.log(truth)), np.ones((3, 3))
    )
    near_edge, valid = step > 0.1, np.isfinite(truth)
    near_hole = cv2.dilate((~valid).astype(np.uint8), np.ones((3, 3))) > 0
    np.testing.assert_allclose(error[valid & ~near_edge & ~near_hole], 0, atol=1e-6)
    box = np.zeros_like(valid)
    box[16:32, 20:40] = True
    inner, outer = near_edge & box, near_edge & ~box & ~near_hole & valid
    assert inner.sum() > 50
    assert error[inner].min() > 0.05  # the box fades into the wall,
    assert error[outer].max() < -0.05  # and the wall into the box
    half = predictor(edge_bleed=0.5).predict(window())
    np.testing.assert_allclose(log_error(half)[0][inner], 0.5 * error[inner], atol=1e-5)


def test_the_focal_length_has_its_sigma():
    on = predictor(focal=0.02)
    factors = []
    for start in range(SAMPLES):
        fits = cameras(on.predict(window(start, views=2)), known=False)
        factors.append(fits[0].camera.fx / SMALL.fx - 1)
        assert fits[0].camera.fx == pytest.approx(fits[1].camera.fx, abs=1e-3)  # one lens
        assert fits[0].camera.fy / SMALL.fy - 1 == pytest.approx(factors[-1], abs=1e-4)
    assert np.std(factors) == pytest.approx(0.02, rel=0.15)


def test_rotations_and_places_have_their_sigmas():
    on = predictor(rotation_deg=0.2, translation=0.01)
    angles, shifts = [], []
    for start in range(SAMPLES // 2):
        prediction = on.predict(window(start))
        T, true = poses(prediction), true_poses(prediction.window)
        angles.append(np.rad2deg(se3.rotation_angle(np.swapaxes(true[:, :3, :3], 1, 2) @ T[:, :3, :3])))
        baseline = np.linalg.norm(true[1:, :3, 3], axis=1)
        shifts.append(np.linalg.norm(T[1:, :3, 3] - true[1:, :3, 3], axis=1) / baseline)
        np.testing.assert_allclose(T[0, :3, 3], 0, atol=1e-6)
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(0.2, rel=0.1)
    assert np.sqrt(np.mean(np.square(shifts))) == pytest.approx(0.01, rel=0.1)


def test_the_gauge_is_random_and_rigid():
    on = predictor(random_gauge=True)
    gauges = []
    for start in range(40):
        prediction = on.predict(window(start))
        T = poses(prediction)
        np.testing.assert_allclose(se3.inverse(T[0]) @ T, true_poses(prediction.window), atol=1e-5)
        np.testing.assert_array_equal(prediction.depth[0], frame(start).truth.depth)
        gauges.append(T[0])
    turns = se3.rotation_angle(np.stack(gauges)[:, :3, :3])
    assert np.ptp(turns) > 1
    assert np.stack(gauges)[:, :3, 3].std(axis=0).min() > 0.5


def test_switching_one_term_off_leaves_the_others_as_they_are():
    """So that a comparison of two settings compares the term and not the luck."""
    every = {
        "window_log_scale": 0.1,
        "depth_patch": 0.05,
        "depth_pixel": 0.02,
        "edge_bleed": 0.5,
        "focal": 0.02,
        "rotation_deg": 0.2,
        "translation": 0.01,
        "random_gauge": True,
    }
    full = predictor(**every).predict(window())
    for key in every:
        other = predictor(**{**every, key: OFF[key]}).predict(window())
        assert not same(full, other), key
        if key != "window_log_scale":
            shared = {"depth_patch", "depth_pixel", "edge_bleed"}
            if key not in shared:
                np.testing.assert_array_equal(other.depth, full.depth)
            else:
                assert full.rays is not None
                assert other.rays is not None
                np.testing.assert_array_equal(other.rays.rays, full.rays.rays)


def test_confidence_falls_where_the_error_grows():
    prediction = predictor(depth_patch=0.08, depth_pixel=0.01, edge_bleed=0.5).predict(window())
    valid = np.isfinite(prediction.depth)
    error, confidence = np.abs(log_error(prediction))[valid], prediction.confidence[valid]
    order = np.argsort(confidence)
    third = len(order) // 3
    assert error[order[:third]].mean() > 2 * error[order[-third:]].mean()
    assert np.corrcoef(error, confidence)[0, 1] < -0.6
    assert (prediction.confidence[~valid] == 0).all()
    assert prediction.confidence.min() >= 0
    assert prediction.confidence.max() < 1


# ---------------------------------------------------------------- what is injected


def scale_of(prediction: Prediction) -> float:
    return float(np.exp(np.nanmedian(log_error(prediction))))


def test_breaks_happen_in_the_windows_named_and_last_where_asked():
    once, lasting = predictor(break_windows=[3]), predictor(break_windows=[3, 5], break_lasting=True, break_factor=3.0)
    assert [round(scale_of(once.predict(window(n, n))), 5) for n in range(1, 6)] == [1, 1, 2, 1, 1]
    assert [round(scale_of(lasting.predict(window(n, n))), 4) for n in range(1, 7)] == [1, 1, 3, 3, 9, 9]
    moved = poses(once.predict(window(3, 3)))[:, :3, 3]
    np.testing.assert_allclose(moved, 2 * true_poses(window(3, 3))[:, :3, 3], atol=1e-5)


def test_random_breaks_come_as_often_as_asked():
    on = predictor(break_probability=0.2)
    scales = [scale_of(on.predict(window(n, n, views=1))) for n in range(400)]
    assert {round(s, 4) for s in scales} == {1, 2}
    assert np.mean(np.array(scales) > 1.5) == pytest.approx(0.2, abs=0.06)


def test_a_bad_window_is_useless_and_only_that_one():
    on = predictor(bad_windows=[4])
    good, bad = on.predict(window(3, 3)), on.predict(window(4, 4))
    assert np.nanmax(np.abs(log_error(good))) == 0
    assert np.nanstd(log_error(bad)) > 0.2
    turn = true_poses(bad.window)[:, :3, :3].swapaxes(1, 2) @ poses(bad)[:, :3, :3]
    assert np.rad2deg(se3.rotation_angle(turn)).mean() > 10


def test_what_is_said_of_metres():
    assert predictor(window_log_scale=0.07).predict(window()).scale_sigma == 0.07
    assert predictor(window_log_scale=0.07, metric=False).predict(window()).scale_sigma is None
    assert predictor().predict(window()).scale_sigma == pytest.approx(0, abs=1e-5)


# ---------------------------------------------------------------- the same again


def noisy(seed: int = 0) -> SimulatedPredictor:
    return SimulatedPredictor(configuration.updated(Config(), {"simulated.break_probability": 0.3}).simulated, seed)


def test_a_prediction_depends_on_the_seed_and_the_frames_alone():
    one, other = noisy(), noisy()
    forward = {n: one.predict(window(n, n)) for n in range(5)}
    backward = {n: other.predict(window(n, n)) for n in reversed(range(5))}
    assert all(same(forward[n], backward[n]) for n in range(5))
    assert same(one.predict(window(2, number=77)), forward[2])  # the number matters to named windows only
    assert not same(forward[1], forward[2])
    assert not same(noisy(seed=1).predict(window(2, 2)), forward[2])


def test_views_of_one_window_err_differently():
    on = predictor(depth_patch=0.05, depth_pixel=0.02)
    errors = np.concatenate([log_error(on.predict(window(start)))[:2, 10:] for start in range(0, 40, 4)])
    first, second = errors[0::2].ravel(), errors[1::2].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25


def test_what_it_needs_it_asks_for():
    whole = frame(0)
    lacking = {
        "ground-truth depth and pose": [
            dataclasses.replace(whole, truth=None),
            dataclasses.replace(whole, truth=Truth(None, pose(0))),
            dataclasses.replace(whole, truth=Truth(whole.truth.depth, None)),
        ],
        "intrinsics": [dataclasses.replace(whole, camera=None)],
    }
    for message, cases in lacking.items():
        for case in cases:
            with pytest.raises(PredictorError, match=message):
                predictor().predict(Window(1, (whole, case), (0,)))
    with pytest.raises(PredictorError, match="unknown predictor 'network'; use simulated, recorded:FILE, a network"):
        open_predictor(configuration.updated(Config(), {"predictor": "network"}))


def some_calibrated(known: set[int], confidence: np.ndarray | None = None) -> tuple[Prediction, list[Pinhole | None]]:
    """Four views of one camera, whose rays are exact, some of them calibrated (wrongly: 5 % off)."""
    poses = [se3.exp(np.array([0.1 * i, 0.05, 0, 0.2 * i, 0, 0])) for i in range(4)]
    maps = np.stack([make_rays(T, SMALL, 24, 32) for T in poses]).astype(np.float32)
    given = [dataclasses.replace(SMALL, fx=1.05 * SMALL.fx) if i in known else None for i in range(4)]
    image = np.zeros((SMALL.height, SMALL.width, 3), np.uint8)
    frames = tuple(Frame(i, i, image, camera) for i, camera in enumerate(given))
    depth = np.ones((4, 24, 32), np.float32)
    said = Rays(maps, np.ones((4, 24, 32), np.float32) if confidence is None else confidence)
    return Prediction(Window(1, frames, (0, 1, 2, 3)), depth, depth, said), given


def test_calibrated_views_keep_their_camera_among_others():
    prediction, given = some_calibrated({1, 2})
    views = unpack(prediction, given, given)
    assert all(view.posed for view in views)
    focal = [view.camera.fx / view.camera.width * SMALL.width / SMALL.fx for view in views]
    assert focal == pytest.approx([1, 1.05, 1.05, 1], abs=5e-4)


def test_a_calibrated_view_without_a_pose_leaves_the_others_theirs():
    prediction, given = some_calibrated({1, 2})
    prediction.rays.rays[1, ..., 0] *= -1
    assert [view.posed for view in unpack(prediction, given, given)] == [True, False, True, True]
    prediction.rays.rays[0, ..., 0] *= -1
    with pytest.raises(PredictorError, match="form no camera"):
        unpack(prediction, given, given)


@pytest.mark.parametrize("shape", [(3, 24, 32), (4, 12, 32)])
def test_confidence_of_another_shape_is_refused(shape):
    prediction, given = some_calibrated(set(), np.ones(shape, np.float32))
    with pytest.raises(PredictorError, match="shapes do not fit"):
        unpack(prediction, given, given)

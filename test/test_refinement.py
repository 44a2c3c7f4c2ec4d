"""Bundle adjustment, repeated predictions and landmarks, on geometry that is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from da3_ros.config import RefineConfig
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.slam import corners
from da3_ros.slam.alignment import Drawings
from da3_ros.slam.bundle import Between, Bundle, Observations, adjust, adjusting
from da3_ros.slam.keyframe import Depth
from da3_ros.slam.landmarks import Landmarks, Seen
from da3_ros.slam.repeats import Repeats

KEYFRAMES, POINTS = 8, 300
DIRECTION_SIGMA = 1e-3


def scene(rng, depth_noise=0.0, direction_noise=0.0):
    """Cameras on an arc that look at a cloud of points: true poses, points, and what is observed."""
    centres = np.stack([np.linspace(0, 0.5, KEYFRAMES), 0.02 * rng.standard_normal(KEYFRAMES), np.zeros(KEYFRAMES)], 1)
    turns = se3.exp_so3(0.05 * rng.standard_normal((KEYFRAMES, 3)))
    T_cam_chain = se3.inverse(se3.make(turns, centres))
    points = rng.uniform((-2, -1.5, 2), (2, 1.5, 5), (POINTS, 3))
    keyframe, point = (index.ravel() for index in np.meshgrid(np.arange(KEYFRAMES), np.arange(POINTS), indexing="ij"))
    T = T_cam_chain[keyframe]
    seen = np.einsum("mij,mj->mi", T[:, :3, :3], points[point]) + T[:, :3, 3]
    direction = seen[:, :2] / seen[:, 2:] + direction_noise * rng.standard_normal((len(seen), 2))
    log_depth = np.log(seen[:, 2]) + depth_noise * rng.standard_normal(len(seen))
    count = len(seen)
    observed = Observations(
        keyframe, point, direction, np.full(count, DIRECTION_SIGMA), log_depth, np.full(count, max(depth_noise, 0.01))
    )
    return T_cam_chain, points, observed


def even(points):
    """Patches whose flow is as good in all directions."""
    return np.tile(np.eye(2), (points, 1, 1))


def disturbed(rng, T_cam_chain, points, observed, fixed=2):
    """The same, away from the truth."""
    wrong = 0.02 * rng.standard_normal((KEYFRAMES, 6))
    wrong[:fixed] = 0
    free = np.arange(KEYFRAMES) >= fixed
    moved = se3.exp(wrong) @ T_cam_chain
    away = points * np.exp(0.05 * rng.standard_normal((POINTS, 1)))
    sigma, log_scale = np.full(KEYFRAMES, 0.02), np.zeros(KEYFRAMES)
    return Bundle(moved, free, sigma, away, even(POINTS), observed, Between.none(), log_scale)


def pose_errors(found, true):
    error = found @ se3.inverse(true)
    return np.rad2deg(se3.rotation_angle(error[:, :3, :3])), np.linalg.norm(error[:, :3, 3], axis=1)


def test_exact_observations_lead_back_to_the_truth():
    rng = np.random.default_rng(1)
    true, points, observed = scene(rng)
    bundle = disturbed(rng, true, points, observed)
    found = adjust(bundle, rounds=30)
    angle, shift = pose_errors(found.T_cam_chain, true)
    assert angle.max() < 1e-3
    assert shift.max() < 1e-4
    assert np.abs(found.points - points).max() < 1e-2
    np.testing.assert_allclose(found.T_cam_chain[:2], bundle.T_cam_chain[:2], atol=1e-12)


def test_the_scale_of_a_keyframes_depth_is_found():
    rng = np.random.default_rng(2)
    true, points, observed = scene(rng, depth_noise=0.05, direction_noise=DIRECTION_SIGMA)
    wrong = np.where(observed.keyframe == 5, observed.log_depth - 0.1, observed.log_depth)
    bundle = disturbed(rng, true, points, replace(observed, log_depth=wrong))
    found = adjust(replace(bundle, scale_sigma=np.full(KEYFRAMES, 0.1)), rounds=20)
    assert found.log_scale[5] == pytest.approx(0.1, abs=0.02)
    assert np.abs(np.delete(found.log_scale, 5)).max() < 0.02


def test_outliers_do_not_move_it():
    rng = np.random.default_rng(3)
    true, points, observed = scene(rng, depth_noise=0.05, direction_noise=DIRECTION_SIGMA)
    bad = rng.random(len(observed.point)) < 0.1
    direction = observed.direction + np.where(bad[:, None], rng.uniform(0.02, 0.1, (len(bad), 2)), 0)
    found = adjust(disturbed(rng, true, points, replace(observed, direction=direction)), rounds=20)
    angle, shift = pose_errors(found.T_cam_chain, true)
    assert angle.max() < 0.1
    assert shift.max() < 0.01
    assert found.direction_error[bad].min() > found.direction_error[~bad].mean()


def test_the_covariance_of_points_tells_their_error():
    rng = np.random.default_rng(4)
    true, points, observed = scene(rng, depth_noise=0.05, direction_noise=DIRECTION_SIGMA)
    bundle = Bundle(
        true,
        np.zeros(KEYFRAMES, bool),
        np.full(KEYFRAMES, 1e-6),
        points + 0.01,
        even(POINTS),
        observed,
        Between.none(),
        np.zeros(KEYFRAMES),
    )
    found = adjust(bundle, rounds=20)
    error = found.points - points
    squared = np.einsum("li,lij,lj->l", error, np.linalg.inv(found.point_covariance), error)
    assert 0.5 < squared.mean() / 3 < 2


def test_measured_poses_hold_what_no_point_does():
    rng = np.random.default_rng(5)
    true, points, observed = scene(rng)
    few = observed.keyframe < 2
    sparse = Observations(*(getattr(observed, name)[few] for name in observed.__dataclass_fields__))
    pairs = [(i, j) for i in range(KEYFRAMES) for j in range(i + 1, KEYFRAMES)]
    first, second = np.array(pairs).T
    between = Between(first, second, true[first] @ se3.inverse(true[second]), np.full((len(pairs), 6), 0.01))
    found = adjust(replace(disturbed(rng, true, points, sparse), between=between), rounds=30)
    angle, shift = pose_errors(found.T_cam_chain, true)
    assert angle.max() < 1e-3
    assert shift.max() < 1e-4


def test_repeats_are_averaged():
    rng = np.random.default_rng(6)
    true = se3.make(se3.exp_so3(0.1 * rng.standard_normal((4, 3))), rng.standard_normal((4, 3)))
    repeats, sigmas = Repeats(RefineConfig()), []
    for number in range(16):
        turn = se3.exp_so3(np.deg2rad(0.2) * rng.standard_normal((4, 3)))
        seen = true @ se3.make(turn, 0.01 * rng.standard_normal((4, 3)))
        repeats.add([3, 5, 6, 9], seen, 2.0, se3.make(true[:, :3, :3], 2 * true[:, :3, 3]), 3.0)
        if number in (0, 15):
            sigmas.append(repeats.between([3, 5, 6, 9]).sigma[0] / np.repeat(repeats.doubt, 3))
    found = repeats.between([3, 5, 6, 9])
    relative = se3.inverse(true[found.first]) @ true[found.second]
    relative[:, :3, 3] *= 2
    assert np.abs(found.T_first_second - relative).max() < 0.04
    assert sigmas[0] / sigmas[1] == pytest.approx(np.full(6, 4.0), rel=0.02)
    repeats.keep([5, 9])
    assert len(repeats.between([3, 5, 6, 9]).first) == 1
    assert len(repeats.between([3, 6]).first) == 0


def poses_of_a_walk(rng, count=12):
    steps = np.stack([np.arange(count) * 0.1, np.zeros(count), np.zeros(count)], axis=1)
    return se3.make(se3.exp_so3(0.2 * rng.standard_normal((count, 3))), steps)


@pytest.mark.parametrize("factor", [1, 8])
def test_windows_are_believed_no_better_than_they_agree(factor):
    rng = np.random.default_rng(11)
    true, config = poses_of_a_walk(rng), RefineConfig()
    repeats = Repeats(config)
    for first in range(7):
        now = true[first : first + 6]
        baseline = np.sqrt(((now[:, :3, 3] - now[0, :3, 3]) ** 2).sum(axis=1).mean())
        turn = factor * np.deg2rad(config.rotation_deg) * rng.standard_normal((6, 3))
        shift = factor * config.translation * baseline * rng.standard_normal((6, 3))
        seen = se3.make(now[:, :3, :3] @ se3.exp_so3(turn), now[:, :3, 3] + shift)
        repeats.add(range(first, first + 6), seen, 1.0, now, 1.0)
    assert repeats.doubt == pytest.approx((factor, factor), rel=0.35)


def test_windows_that_always_miss_the_motion_are_not_believed_however_much_they_agree():
    rng = np.random.default_rng(12)
    true = poses_of_a_walk(rng)
    repeats = Repeats(RefineConfig())
    still = np.tile(np.eye(4), (6, 1, 1))
    for first in range(7):
        now = true[first : first + 6]
        repeats.add(range(first, first + 6), still, 1.0, now, 1.0)
        motion = se3.inverse(now[-2]) @ now[-1]
        turned, moved = float(se3.rotation_angle(motion[:3, :3])), float(np.linalg.norm(motion[:3, 3]))
        repeats.surprise(turned, turned, moved, moved, now, 1.0)
    rotation, translation = repeats.sigmas(true[:6], 1.0)
    assert rotation > np.deg2rad(3)
    assert translation > 0.03  # of steps of 0.1


def test_a_slanted_patch_is_found_to_a_fraction_of_a_pixel_where_flow_alone_is_off():
    """A wall that runs away to the right, seen from two places."""
    rng = np.random.default_rng(13)
    camera = Pinhole(320, 240, 300.0, 300.0, 159.5, 119.5)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (600, 600)).astype(np.float32), (0, 0), 2.0)
    texture = np.clip((texture - texture.mean()) * 6 + 128, 0, 255).astype(np.uint8)
    normal, distance = np.array([-0.7, 0.1, 1.0]), 2.0  # of the wall, n X = d
    T_world_cam = [np.eye(4), se3.make(se3.exp_so3(np.array([0.02, 0.25, 0.05])), np.array([-0.5, 0.05, 0.2]))]

    def view(T):
        pixels = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), axis=-1).reshape(-1, 2)
        rays = camera.unproject(pixels, np.ones(len(pixels)))
        z = (distance - normal @ T[:3, 3]) / (rays @ T[:3, :3].T @ normal)
        points = se3.transform(T, rays * z[:, None])
        at = (points[:, :2] * 120 + 300).astype(np.float32).reshape(240, 320, 2)
        return cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR), z.reshape(240, 320)

    (old, z_old), (new, z_new) = (view(T) for T in T_world_cam)
    pixels = cv2.goodFeaturesToTrack(old, 150, 0.01, 8)[:, 0].astype(float)
    depths = cv2.remap(z_old.astype(np.float32), pixels.astype(np.float32), None, cv2.INTER_LINEAR)[:, 0]
    T_old_new = se3.inverse(T_world_cam[0]) @ T_world_cam[1]
    true = camera.project(se3.transform(se3.inverse(T_old_new), camera.unproject(pixels, depths.astype(float))))
    inside = ((true > 12) & (true < [307, 227])).all(axis=1)
    pixels, true = pixels[inside], true[inside]
    about = true + rng.uniform(-1, 1, true.shape)
    noise = cv2.resize(rng.normal(0, 0.05, (6, 8)).astype(np.float32), (320, 240), interpolation=cv2.INTER_CUBIC)
    depth = Depth.first((z_new * np.exp(noise)).astype(np.float32), np.ones((240, 320), np.float32), camera)
    drawings = Drawings([old], T_old_new[None], depth, camera)
    found, good = drawings.find(new, np.zeros(len(pixels), np.intp), pixels, about)
    error = np.linalg.norm(found - true, axis=1)
    assert good.mean() > 0.7
    assert np.median(error[good]) < 0.2  # although depth is 5 % off, patch by patch
    assert np.array_equal(found[~good], about[~good])
    start, guess = (p.astype(np.float32).reshape(-1, 1, 2) for p in (pixels, about))
    flags = {"winSize": (15, 15), "maxLevel": 0, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    flow, _, _ = cv2.calcOpticalFlowPyrLK(old, new, start, guess.copy(), **flags)
    assert np.median(np.linalg.norm(flow[good, 0] - true[good], axis=1)) > 2 * np.median(error[good])


@pytest.mark.parametrize("z", [-0.05, -3.0])
def test_a_point_behind_a_camera_spoils_nothing(z):
    rng = np.random.default_rng(7)
    true, points, observed = scene(rng)
    points[0] = se3.transform(se3.inverse(true[7]), np.array([[0.0, 0.0, z]]))[0]
    bundle = disturbed(rng, true, points, observed)
    found = adjust(bundle, rounds=30)
    _, shift = pose_errors(found.T_cam_chain, true)
    assert shift.max() < 1e-3
    assert found.direction_error[(observed.point == 0) & (observed.keyframe == 7)] > 6


def test_one_wrong_pair_does_not_bend_the_others():
    rng = np.random.default_rng(8)
    true, points, observed = scene(rng, depth_noise=0.05, direction_noise=DIRECTION_SIGMA)
    wrong = se3.make(se3.exp_so3(np.array([0, np.deg2rad(30), 0])), np.array([0.3, 0, 0]))
    T = (true[3] @ se3.inverse(true[6]) @ wrong)[None]
    between = Between(np.array([3]), np.array([6]), T, np.full((1, 6), 0.002))
    found = adjust(replace(disturbed(rng, true, points, observed), between=between), rounds=20)
    angle, _ = pose_errors(found.T_cam_chain, true)
    assert angle.max() < 0.2


def test_what_is_not_finite_leaves_everything_in_place():
    rng = np.random.default_rng(9)
    true, points, observed = scene(rng)
    bundle = disturbed(rng, true, points, observed)
    between = Between(np.array([3]), np.array([6]), np.eye(4)[None], np.full((1, 6), np.nan))
    found = adjust(replace(bundle, between=between), rounds=20)
    np.testing.assert_array_equal(found.T_cam_chain, bundle.T_cam_chain)


def test_landmarks_are_kept_while_somebody_needs_them():
    landmarks = Landmarks()
    ids = landmarks.add(np.arange(15.0).reshape(5, 3), np.zeros((5, 3, 3)), np.zeros((5, 2, 2)))
    landmarks.views[0] = Seen(ids[:3], np.zeros((3, 2)))
    landmarks.views[1] = Seen(ids[1:4], np.ones((3, 2)))
    landmarks.keep([1], followed=ids[4:])
    assert landmarks.ids.tolist() == [1, 2, 3, 4]
    assert landmarks.points[landmarks.rows(np.array([3]))].tolist() == [[9.0, 10.0, 11.0]]
    assert landmarks.known(np.array([0, 4, 7])).tolist() == [False, True, False]
    landmarks.remove(np.array([2]))
    assert landmarks.views[1].ids.tolist() == [1, 3]
    assert landmarks.add(np.zeros((1, 3)), np.zeros((1, 3, 3)), np.zeros((1, 2, 2))).tolist() == [5]


def test_what_was_seen_stays_in_order_when_older_landmarks_are_added():
    one, other = (
        Seen(np.array([3, 9]), np.array([[3.0, 0], [9, 0]])),
        Seen(np.array([1, 7]), np.array([[1.0, 0], [7, 0]])),
    )
    both = one.joined(other)
    assert both.ids.tolist() == both.pixels[:, 0].tolist() == [1, 3, 7, 9]


@pytest.mark.parametrize("size", [(96, 64), (20, 12)])
def test_textures_are_those_of_the_structure_tensor(size):
    rng = np.random.default_rng(11)
    gray = cv2.GaussianBlur(rng.integers(0, 255, (size[1], size[0]), np.uint8), (0, 0), 2)
    gray[:, size[0] // 2 :] = cv2.GaussianBlur(gray[:, size[0] // 2 :], (1, 31), 0, sigmaY=9)  # stripes
    pixels = rng.random((50, 2)) * (size[0] - 1, size[1] - 1)
    tensor = cv2.cornerEigenValsAndVecs(gray, 15, 3)[tuple(np.rint(pixels).astype(int).T[::-1])].astype(float)
    ratio, along = np.sqrt(tensor[:, 0] / tensor[:, 1]), tensor[:, 4:6]
    worse = 2 / np.maximum(ratio, 2) / np.maximum(ratio / 8, 1) ** 2
    np.testing.assert_allclose(
        corners.textures(gray, pixels),
        np.eye(2) - (1 - worse)[:, None, None] * along[:, :, None] * along[:, None],
        atol=1e-4,
    )
    assert corners.textures(gray, np.zeros((0, 2))).shape == (0, 2, 2)


def test_a_coarse_start_gets_more_rounds():
    rng = np.random.default_rng(12)
    true, points, observed = scene(rng, direction_noise=DIRECTION_SIGMA)
    bundle = disturbed(rng, true, points, observed)
    near = replace(bundle, T_cam_chain=true, points=points * np.exp(0.005 * rng.standard_normal((POINTS, 1))))
    away = 0.1 * rng.standard_normal((KEYFRAMES, 6)) * bundle.free[:, None]
    coarse = replace(bundle, T_cam_chain=se3.exp(away) @ true)

    def rounds(start: Bundle) -> int:
        return sum(1 for _ in adjusting(start, 5, 3)) - 1

    assert rounds(near) <= 3 < rounds(coarse)

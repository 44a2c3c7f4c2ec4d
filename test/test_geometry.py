"""Properties of SE3, Sim3, cameras, cameras from rays and robust statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.geometry import rays, robust, se3, sim3, splitting
from da3_ros.geometry.camera import Pinhole

FLOATS = st.floats(-3, 3, allow_nan=False)
TWISTS = st.lists(FLOATS, min_size=6, max_size=6).map(np.array).filter(lambda x: np.linalg.norm(x[:3]) < 3.1)


def camera(offset: float = 0.0) -> Pinhole:
    return Pinhole(640, 480, 525.0, 520.0, 319.5 + offset * 640, 239.5 - offset * 480)


@given(TWISTS)
def test_exp_and_log_are_inverse(xi):
    assert np.allclose(se3.log(se3.exp(xi)), xi, atol=1e-7)


@given(TWISTS, TWISTS)
def test_inverse_composes_to_identity(a, b):
    T = se3.exp(a) @ se3.exp(b)
    assert np.allclose(T @ se3.inverse(T), np.eye(4), atol=1e-12)
    assert se3.is_rigid(T)


@given(TWISTS)
def test_quaternions_round_trip(xi):
    rotation = se3.exp_so3(xi[:3])
    q = se3.quaternion_from_rotation(rotation)
    assert q[3] >= 0
    assert np.isclose(np.linalg.norm(q), 1)
    assert np.allclose(se3.rotation_from_quaternion(q), rotation, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_angle_pi(axis):
    rotation = np.diag(np.where(np.arange(3) == axis, 1.0, -1.0))
    assert np.isclose(se3.rotation_angle(rotation), np.pi)
    assert np.allclose(se3.exp_so3(se3.log_so3(rotation)), rotation, atol=1e-9)


def test_zero_quaternion_is_refused():
    with pytest.raises(ValueError, match="quaternion"):
        se3.rotation_from_quaternion(np.zeros(4))


@given(TWISTS, st.floats(0, 1))
def test_interpolation_ends_at_its_ends(xi, fraction):
    T = se3.exp(xi)
    assert np.allclose(se3.interpolate(np.eye(4), T, 0), np.eye(4), atol=1e-9)
    assert np.allclose(se3.interpolate(np.eye(4), T, 1), T, atol=1e-7)
    half = se3.interpolate(np.eye(4), T, fraction)
    assert np.isclose(se3.rotation_angle(half[:3, :3]), fraction * np.linalg.norm(xi[:3]), atol=1e-6)


@given(TWISTS, st.floats(0.1, 10), TWISTS, st.floats(0.1, 10))
def test_similarities_form_a_group(a, scale_a, b, scale_b):
    S_a, S_b = sim3.Sim3.from_rigid(se3.exp(a), scale_a), sim3.Sim3.from_rigid(se3.exp(b), scale_b)
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.allclose((S_a @ S_b).act(points), S_a.act(S_b.act(points)), atol=1e-9)
    assert np.allclose(S_a.inverse().act(S_a.act(points)), points, atol=1e-9)
    pose = se3.exp(b)
    assert np.allclose(S_a.act_pose(pose)[:3, 3], S_a.act(pose[:3, 3]))
    assert se3.is_rigid(S_a.act_pose(pose))


@given(TWISTS, st.floats(0.1, 10))
def test_umeyama_recovers_a_similarity(xi, scale):
    S = sim3.Sim3.from_rigid(se3.exp(xi), scale)
    points = np.random.default_rng(1).normal(size=(20, 3))
    found = sim3.umeyama(points, S.act(points))
    assert np.isclose(found.scale, scale, rtol=1e-9)
    assert np.allclose(found.rotation, S.rotation, atol=1e-8)
    assert sim3.umeyama(points, S.act(points), with_scale=False).scale == 1.0


def test_umeyama_never_mirrors():
    points = np.random.default_rng(2).normal(size=(20, 3))
    assert np.linalg.det(sim3.umeyama(points, points * [1, 1, -1]).rotation) > 0


def test_umeyama_of_a_single_point_is_a_shift():
    found = sim3.umeyama(np.ones((4, 3)), np.full((4, 3), 3.0))
    assert found.scale == 1.0
    assert np.allclose(found.act(np.ones(3)), 3.0)


@given(st.integers(20, 2000), st.integers(20, 2000), st.floats(-0.2, 0.2))
def test_resizing_keeps_rays_through_image_fractions(width, height, offset):
    original, resized = camera(offset), camera(offset).resized(width, height)
    point = np.array([[0.3, -0.2, 2.0]])
    a = (original.project(point) + 0.5) / [640, 480]
    b = (resized.project(point) + 0.5) / [width, height]
    assert np.allclose(a, b, atol=1e-9)


def test_cropping_shifts_pixels():
    point = np.array([[0.1, 0.1, 1.0]])
    assert np.allclose(camera().cropped(10, 20, 100, 100).project(point), camera().project(point) - [10, 20])


def test_projection_inverts_unprojection_and_hides_what_is_behind():
    pixels = np.array([[0.0, 0], [639, 479], [100.5, 20.25]])
    assert np.allclose(camera().project(camera().unproject(pixels, np.array([0.5, 3, 9.0]))), pixels)
    assert np.isnan(camera().project(np.array([[0, 0, -1.0]]))).all()


@pytest.mark.parametrize("bad", [{"fx": 0.0}, {"width": 0}, {"cy": float("nan")}])
def test_impossible_cameras_are_refused(bad):
    values = {"width": 4, "height": 3, "fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0} | bad
    with pytest.raises(ValueError, match="not a pinhole"):
        Pinhole(**values)


@settings(max_examples=25)
@given(TWISTS, st.floats(-0.1, 0.1))
def test_exact_rays_give_the_exact_camera(xi, offset):
    T, cam = se3.exp(xi), camera(offset)
    maps = rays.make_rays(T, cam, 27, 36)
    found = rays.camera_from_rays(maps, np.ones((27, 36)), (640, 480))
    assert np.allclose(found.T_frame_cam, T, atol=1e-9)
    assert np.allclose(found.camera.matrix, cam.matrix, rtol=1e-6)
    known = rays.camera_from_rays(maps, np.ones((27, 36)), (640, 480), known=cam)
    assert np.allclose(known.T_frame_cam, T, atol=1e-9)
    assert known.camera == cam


def error_deg(T: np.ndarray, found: rays.RayCamera) -> float:
    return float(np.rad2deg(se3.rotation_angle(T[:3, :3].T @ found.T_frame_cam[:3, :3])))


def disturbed(maps: np.ndarray, rng: np.random.Generator, noise: float = 0.02, share: float = 0.1) -> np.ndarray:
    """As networks give it: in single precision, with noise and outliers."""
    maps = maps + noise * rng.normal(size=maps.shape)
    wrong = rng.random(maps.shape[:2]) < share
    maps[wrong] += rng.normal(size=(wrong.sum(), 6))
    return maps.astype(np.float32)


RESOLUTIONS = [(280, 210, 160, 120), (504, 378, 288, 216)]  # image, and rays at 8/14 of it
CAMERAS = st.builds(
    lambda fov, aspect, x, y: Pinhole(
        640, 480, 320 / np.tan(fov / 2), 320 / np.tan(fov / 2) * aspect, 319.5 + 640 * x, 239.5 + 480 * y
    ),
    st.floats(np.deg2rad(20), np.deg2rad(130)),
    st.floats(0.7, 1.4),
    st.floats(-0.2, 0.2),
    st.floats(-0.2, 0.2),
)


@settings(max_examples=60, deadline=None)
@given(TWISTS, CAMERAS, st.sampled_from([(36, 27), (21, 36), (96, 72), (160, 120)]), st.booleans(), st.integers(0, 99))
def test_any_camera_is_found_whatever_part_of_the_map_is_lost(xi, cam, grid, know, seed):
    """Regions without confidence and without numbers, in single precision; more rays than are sampled, and fewer."""
    T, (width, height), rng = se3.exp(xi), grid, np.random.default_rng(seed)
    maps = rays.make_rays(T, cam, height, width).astype(np.float32)
    weights = rng.uniform(0.5, 3, (height, width)).astype(np.float32)
    row, column = rng.integers(0, height // 2), rng.integers(0, width // 2)
    weights[row : row + height // 2] = 0
    maps[row : row + height // 2] = 7
    maps[:, column : column + width // 3] = np.nan
    found = rays.camera_from_rays(maps, weights, cam.size, cam if know else None)
    assert error_deg(T, found) < 0.001
    assert np.abs(found.T_frame_cam[:3, 3] - T[:3, 3]).max() < 1e-5
    assert np.abs(found.camera.matrix - cam.matrix).max() < (1e-9 if know else 1e-4 * cam.fx)


@pytest.mark.parametrize("know", [True, False])
@pytest.mark.parametrize(("width", "height", "w", "h"), RESOLUTIONS)
def test_clean_rays_at_the_resolution_of_the_network(width, height, w, h, know):
    T, cam = se3.exp(np.array([0.4, -0.2, 0.9, 1, 2, 3])), camera(0.1).resized(width, height)
    maps = rays.make_rays(T, cam, h, w).astype(np.float32)
    found = rays.camera_from_rays(maps, np.ones((h, w)), cam.size, cam if know else None)
    assert error_deg(T, found) < 1e-4
    assert np.abs(found.camera.matrix - cam.matrix).max() < 1e-3
    assert np.abs(found.T_frame_cam[:3, 3] - T[:3, 3]).max() < 1e-6


@pytest.mark.parametrize("know", [True, False])
@pytest.mark.parametrize(("width", "height", "w", "h"), RESOLUTIONS)
def test_noisy_rays_with_outliers_and_an_off_centre_camera(width, height, w, h, know):
    rng = np.random.default_rng(3)
    for _ in range(10):
        T, cam = se3.exp(rng.normal(size=6)), camera(0.1).resized(width, height)
        maps = disturbed(rays.make_rays(T, cam, h, w), rng)
        found = rays.camera_from_rays(maps, np.ones((h, w), np.float32), cam.size, cam if know else None)
        assert error_deg(T, found) < 0.1
        assert np.abs(found.T_frame_cam[:3, 3] - T[:3, 3]).max() < 0.002
        assert np.abs(found.camera.matrix - cam.matrix).max() < 1.5


@pytest.mark.parametrize("know", [True, False])
@pytest.mark.parametrize("bias", [0.3, 1.0])
def test_a_fifth_of_the_image_wrong_as_one_is_withstood(bias, know):
    rng = np.random.default_rng(5)
    for _ in range(3):
        T, cam = se3.exp(rng.normal(size=6)), camera(0.1)
        maps = disturbed(rays.make_rays(T, cam, 120, 160), rng, share=0.05)
        maps[:24] += bias * rng.choice(np.array([-1, 1], np.float32), 6)
        found = rays.camera_from_rays(maps, np.ones((120, 160)), (640, 480), cam if know else None)
        assert error_deg(T, found) < 0.15
        assert np.abs(found.T_frame_cam[:3, 3] - T[:3, 3]).max() < 0.002


def test_the_same_rays_give_the_same_camera():
    maps = disturbed(rays.make_rays(np.eye(4), camera(0.1), 120, 160), np.random.default_rng(0))
    first, second = (rays.camera_from_rays(maps, np.ones((120, 160)), (640, 480)) for _ in range(2))
    assert np.array_equal(first.T_frame_cam, second.T_frame_cam)
    assert first.camera == second.camera


def test_confidence_that_the_sample_misses():
    T, weights = se3.exp(np.array([0.1, 0.2, 0.3, 1, 2, 3])), np.ones((216, 288))
    step = int(np.sqrt(216 * 288 / rays._SAMPLE))
    weights[(step - 1) // 2 :: step] = 0
    maps = disturbed(rays.make_rays(T, camera(), 216, 288), np.random.default_rng(0))
    assert error_deg(T, rays.camera_from_rays(maps, weights, (640, 480))) < 0.1


def views_of_one_camera(cam: Pinhole, noise: float, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Poses and ray maps of six views, each with errors that are alike over quarters of the image, as networks have."""
    poses = [se3.exp(np.array([*(0.3 * rng.normal(size=3)), *rng.normal(size=3)])) for _ in range(6)]
    maps = np.stack([rays.make_rays(T, cam, 48, 64) for T in poses])
    wrong = noise * rng.normal(size=(6, 4, 4, 6))
    return poses, (maps + wrong.repeat(12, axis=1).repeat(16, axis=2)).astype(np.float32)


def test_views_of_one_camera_are_exact_without_noise():
    cam = camera(0.05)
    poses, maps = views_of_one_camera(cam, 0.0, np.random.default_rng(1))
    found = rays.cameras_from_rays(maps, np.ones((6, 48, 64)), cam.size)
    assert max(error_deg(T, one) for T, one in zip(poses, found, strict=True)) < 1e-3
    np.testing.assert_allclose(found[0].camera.matrix, cam.matrix, rtol=1e-4)
    assert all(one.camera == found[0].camera for one in found)


def test_what_views_have_in_common_is_their_camera():
    rng, cam = np.random.default_rng(2), camera(0.01)
    errors: dict[str, list[float]] = {"one": [], "each": [], "focal of one": [], "focal of each": []}
    for _ in range(20):
        poses, maps = views_of_one_camera(cam, 0.02, rng)
        weights = np.ones((6, 48, 64))
        one = rays.cameras_from_rays(maps, weights, cam.size)
        each = [rays.camera_from_rays(m, w, cam.size) for m, w in zip(maps, weights, strict=True)]
        for name, found in (("one", one), ("each", each)):
            errors[name] += [error_deg(T, view) for T, view in zip(poses, found, strict=True)]
            errors[f"focal of {name}"] += [abs(view.camera.fx / cam.fx - 1) for view in found]
    middle = {name: float(np.median(values)) for name, values in errors.items()}
    assert middle["one"] < 0.95 * middle["each"]
    assert middle["focal of one"] < 0.6 * middle["focal of each"]


@pytest.mark.parametrize("wrong", [{"fx": 780.0, "fy": 780.0}, {"cx": 520.0}])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_view_that_says_another_camera_turns_no_other(wrong, noise):
    rng, cam = np.random.default_rng(4), camera()
    clean, spoilt, focal = [], [], []
    for _ in range(10):
        poses, maps = views_of_one_camera(cam, 0.02, rng)
        worse = maps.copy()
        worse[5] = rays.make_rays(poses[5], replace(cam, **wrong), 48, 64)
        worse[5] += noise * rng.normal(size=worse[5].shape)
        for seen, into in ((maps, clean), (worse, spoilt)):
            found = rays.cameras_from_rays(seen, np.ones((6, 48, 64)), cam.size)
            into += [error_deg(T, view) for T, view in zip(poses[:5], found, strict=False)]
        focal.append(found[0].camera.fx / cam.fx)
    assert np.median(spoilt) < 1.2 * np.median(clean)
    assert max(spoilt) < 1.5 * max(clean)
    assert abs(np.median(focal) - 1) < 0.02


def test_the_camera_of_several_views_is_where_the_misfit_is_least():
    rng = np.random.default_rng(5)
    R, camera_ = se3.exp_so3(rng.normal(size=(3, 3))), np.array([0.3, 0.25, 0.02, -0.01])
    A = np.exp(0.05 * rng.normal(size=(3, 1, 1))) * R @ splitting._inverse(camera_) + 0.02 * rng.normal(size=(3, 3, 3))
    root = np.linalg.cholesky(np.stack([x @ x.T + np.eye(3) for x in 30 * rng.normal(size=(3, 3, 3))]))
    start = R @ se3.exp_so3(0.1 * rng.normal(size=(3, 3)))
    found = splitting._adjusted(start, np.zeros(3), camera_ + 0.1, A, root)
    again = splitting._adjusted(R, np.full(3, 0.1), camera_, A, root)
    np.testing.assert_allclose(found[0], again[0], atol=1e-4)
    np.testing.assert_allclose(found[1], again[1], atol=1e-4)


def test_one_view_without_a_camera_is_refused():
    _, maps = views_of_one_camera(camera(), 0.0, np.random.default_rng(3))
    maps[2, ..., 0] *= -1
    with pytest.raises(ValueError, match="mirrored or flat"):
        rays.cameras_from_rays(maps, np.ones((6, 48, 64)), (640, 480))


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weights_that_are_none_leave_rays_out(weight):
    T, weights = se3.exp(np.array([0.1, 0.2, 0.3, 1, 2, 3])), np.ones((27, 36))
    maps = rays.make_rays(T, camera(), 27, 36)
    maps[:20] = rays.make_rays(np.eye(4), camera(), 27, 36)[:20]  # the majority is another camera
    weights[:20] = weight
    found = rays.camera_from_rays(maps, weights, (640, 480))
    assert np.allclose(found.T_frame_cam, T, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("absurd", [1e20, 1e30, 3e38, np.inf, -np.inf, np.nan])
def test_absurd_rays_are_outliers(absurd):
    T, maps = se3.exp(np.ones(6)), rays.make_rays(se3.exp(np.ones(6)), camera(), 72, 96).astype(np.float32)
    maps[10:12, 20:40] = absurd
    assert error_deg(T, rays.camera_from_rays(maps, np.ones((72, 96)), (640, 480))) < 0.01


@pytest.mark.parametrize(
    "weights", [np.zeros((9, 12)), np.eye(9, 12), np.eye(9)[:, :1] * np.ones(12), -np.ones((9, 12))]
)
def test_degenerate_rays_are_refused(weights):
    maps = rays.make_rays(np.eye(4), camera(), 9, 12)
    with pytest.raises(ValueError, match="rays"):
        rays.camera_from_rays(maps, weights, (640, 480))


@pytest.mark.parametrize("know", [True, False])
@pytest.mark.parametrize("flip", [(-1, 1, 1), (1, -1, 1), (1, 1, 0), (0, 1, 1)])
def test_mirrored_and_flat_rays_are_refused(flip, know):
    maps = rays.make_rays(se3.exp(np.ones(6) / 2), camera(), 9, 12) * [*flip, 1, 1, 1]
    with pytest.raises(ValueError, match="mirrored or flat"):
        rays.camera_from_rays(maps, np.ones((9, 12)), (640, 480), camera() if know else None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, 3e38, np.nan]), min_size=6, max_size=6),
    st.sampled_from([(2, 3), (1, 50), (9, 12), (60, 80)]),
    st.booleans(),
)
def test_rays_that_are_all_alike_are_refused(ray, shape, know):
    maps = np.broadcast_to(np.array(ray, np.float32), (*shape, 6))
    with pytest.raises(ValueError, match="rays"):
        rays.camera_from_rays(maps, np.ones(shape), (640, 480), camera() if know else None)


@pytest.mark.parametrize(("share", "limit"), [(0.0, 0.005), (0.1, 0.006), (0.25, 0.02)])
def test_tukey_location_withstands_one_sided_outliers(share, limit):
    rng = np.random.default_rng(4)
    values = np.log(1.3) + 0.05 * rng.normal(size=2000)
    wrong = rng.random(2000) < share
    values[wrong] += rng.uniform(0.2, 1.5, wrong.sum())
    location, sigma = robust.tukey_location(values, np.ones(2000))
    assert abs(location - np.log(1.3)) < limit
    assert 0.03 < sigma < 0.12


def test_robust_statistics_of_nothing_and_of_constants():
    assert np.isnan(robust.tukey_location(np.zeros(0), np.zeros(0))[0])
    assert np.isnan(robust.weighted_median(np.ones(3), np.zeros(3)))
    assert robust.tukey_location(np.full(5, 2.0), np.ones(5)) == (2.0, 0.0)
    assert robust.weighted_median(np.array([1.0, 2, 9]), np.array([1.0, 1, 5])) == 9

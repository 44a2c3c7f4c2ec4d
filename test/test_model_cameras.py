"""Cameras out of the network, and in: the nine numbers of the camera head, and rays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.geometry import rays, se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.model import camera_code

HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # from OpenCV's pixel centres to the official ones


def random_codes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 2, (count, 7)), rng.uniform(0.3, 2.2, (count, 2))], axis=1)


@pytest.fixture(scope="module")
def official():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("depth_anything_3", reason="the official modules are not installed")
    from depth_anything_3.model.utils import transform

    return torch, transform


def test_decoding_is_the_official_one(official):
    torch, transform = official
    codes = random_codes(50)
    T, K = transform.pose_encoding_to_extri_intri(torch.from_numpy(codes)[None], (378, 504))
    found = camera_code.decode(codes, 504, 378)
    assert found.valid.all()
    assert np.abs(found.T_window_cam[:, :3] - T[0].numpy()).max() < 1e-9
    assert np.abs(found.K + HALF - K[0].numpy()).max() < 1e-3  # the official K is in single precision


def test_encoding_is_the_official_one(official):
    torch, transform = official
    rng = np.random.default_rng(1)
    T = se3.exp(rng.normal(0, 1, (7, 6)))
    K = np.tile(np.eye(3), (7, 1, 1)) * rng.uniform(200, 600, (7, 1, 1))
    codes, unit = camera_code.encode(T, K, 504, 378)
    # As the official interface prepares poses: relative to the first, by the median distance.
    w2c = torch.linalg.inv(torch.from_numpy(T))
    relative = w2c @ torch.linalg.inv(w2c[:1])
    c2w = torch.linalg.inv(relative)
    median = c2w[:, :3, 3].norm(dim=-1).median().clamp(min=0.1)
    c2w[:, :3, 3] /= median
    wanted = transform.extri_intri_to_pose_encoding(c2w[None], torch.from_numpy(K)[None], (378, 504))[0].numpy()
    assert unit == pytest.approx(float(median))
    assert np.abs(codes - wanted).max() < 1e-5


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_there_and_back(count, seed):
    rng = np.random.default_rng(seed)
    T = se3.exp(rng.normal(0, 1, (count, 6)))
    K = np.zeros((count, 3, 3))
    K[:, 0, 0], K[:, 1, 1] = rng.uniform(100, 900, (2, count))
    K[:, :, 2] = (251.5, 188.5, 1)
    codes, unit = camera_code.encode(T, K, 504, 378)
    found = camera_code.decode(codes, 504, 378)
    relative = se3.inverse(T[:1]) @ T
    relative[:, :3, 3] /= unit
    assert found.valid.all()
    assert np.abs(found.T_window_cam - relative).max() < 1e-9
    assert np.abs(found.K - K).max() < 1e-6
    pinholes = found.pinholes()
    assert [p.size for p in pinholes] == [(504, 378)] * count
    assert np.abs(pinholes[0].matrix - K[0]).max() < 1e-6


@pytest.mark.parametrize(
    ("column", "value"),
    [(7, 0.0), (8, 0.0), (8, -1.0), (7, np.pi), (8, 3.5), (7, np.nan), (0, np.inf), (3, np.nan), (slice(3, 7), 0.0)],
)
def test_a_camera_that_says_nothing_is_told(column, value):
    """Dead fields of view, quaternions of no length, what is not finite: only that view is lost."""
    codes = random_codes(3)
    good = camera_code.decode(codes, 504, 378)
    codes[1, column] = value
    found = camera_code.decode(codes, 504, 378)
    assert found.valid.tolist() == [True, False, True]
    assert np.isnan(found.K[1]).all()
    assert np.isnan(found.T_window_cam[1]).all()
    assert np.array_equal(found.K[[0, 2]], good.K[[0, 2]])
    assert [p is None for p in found.pinholes()] == [False, True, False]


def test_no_camera_at_all():
    assert camera_code.decode(np.zeros((0, 9)), 504, 378).valid.shape == (0,)
    assert not camera_code.decode(np.full((4, 9), np.nan), 504, 378).valid.any()


def test_single_precision_in_double_precision_out():
    found = camera_code.decode(random_codes(4).astype(np.float32), 504, 378)
    assert found.T_window_cam.dtype == found.K.dtype == np.float64
    assert all(se3.is_rigid(T, 1e-9) for T in found.T_window_cam)


def poses(*centres: tuple[float, float, float]) -> np.ndarray:
    return se3.make(np.eye(3), np.array(centres, float))


@pytest.mark.parametrize(
    ("T", "unit"),
    [
        (poses((5, 5, 5)), 0.1),  # one view: nothing to measure
        (poses((0, 0, 0), (0, 0, 3)), 3.0),  # two views: their distance
        (poses((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4)), 2.0),  # along a line
        (poses((1, 1, 1), (1, 1, 1), (1, 1, 1)), 0.1),  # standing still
        (poses((0, 0, 0), (0, 0, 0.01), (0, 0.02, 0)), 0.1),  # almost
    ],
)
def test_unit_of_known_poses(T, unit):
    codes, found = camera_code.encode(T, np.tile(np.diag([400.0, 400.0, 1.0]), (len(T), 1, 1)), 504, 378)
    assert found == pytest.approx(unit)
    assert np.isfinite(codes).all()
    assert np.abs(codes[0, :7] - [0, 0, 0, 0, 0, 0, 1]).max() < 1e-12, "the first view is the origin"


def test_scale_between_given_and_predicted_poses():
    rng = np.random.default_rng(0)
    for count in (2, 3, 8):
        T = se3.exp(rng.normal(0, 1, (count, 6)))
        predicted = se3.inverse(T[:1]) @ T  # another frame
        predicted[:, :3, 3] *= 0.25
        assert camera_code.scale_between(T, predicted) == pytest.approx(4)
        predicted[1:2] = np.nan
        assert (camera_code.scale_between(T, predicted) is None) == (count == 2)
    line = poses((0, 0, 0), (0, 0, 1), (0, 0, 2))
    assert camera_code.scale_between(3 * line - 2 * poses((0, 0, 0)), line) == pytest.approx(3)
    still = poses((0, 0, 0), (0, 0, 0))
    assert camera_code.scale_between(line[:2], still) is None
    assert camera_code.scale_between(still, line[:2]) is None
    assert camera_code.scale_between(line[:1], line[:1]) is None


@pytest.fixture(scope="module")
def official_from_rays():
    """The official estimator as ``f(rays (h, w, 6), size) -> pose, camera``."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ray_utils = pytest.importorskip(
        "depth_anything_3.utils.ray_utils", reason="the official modules are not installed", exc_type=ImportError
    )

    def estimate(maps: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Pinhole]:
        torch.manual_seed(0)  # it draws
        ray = torch.from_numpy(maps.astype(np.float32))[None, None]
        found = ray_utils.camray_to_caminfo(ray, torch.ones(ray.shape[:-1]))
        rotation, centre, focal, principal = (x[0, 0].double().numpy() for x in found)
        # Its image is 2 x 2 with the origin in the corner.
        K = np.array([[focal[0], 0, principal[0]], [0, focal[1], principal[1]], [0, 0, 1]])
        K = np.diag([size[0] / 2, size[1] / 2, 1]) @ K - HALF
        return se3.make(rotation, centre), Pinhole.from_matrix(K, *size)

    return estimate


SIZE = (504, 392)


def ray_maps(seed: int, offset: float, noise: float = 0.0, outliers: float = 0.0) -> tuple:
    """A pose that looks ahead (the official estimator divides by z), its camera and rays (28, 36, 6)."""
    rng = np.random.default_rng(seed)
    T = se3.exp(rng.normal(0, 0.3, 6))
    camera = Pinhole(*SIZE, 460.0, 450.0, 251.5 + offset * SIZE[0], 195.5 - offset * SIZE[1])
    maps = rays.make_rays(T, camera, 28, 36)
    maps += noise * rng.normal(size=maps.shape)
    wrong = rng.random(maps.shape[:2]) < outliers
    maps[wrong] += rng.normal(size=(wrong.sum(), 6))
    return T, camera, maps


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.rad2deg(se3.rotation_angle(a[:3, :3].T @ b[:3, :3])))


def test_centred_clean_rays_give_the_official_camera(official_from_rays):
    for seed in range(3):
        T, camera, maps = ray_maps(seed, 0.0)
        theirs, their_camera = official_from_rays(maps, SIZE)
        ours = rays.camera_from_rays(maps, np.ones((28, 36)), SIZE)
        assert angle_deg(T, ours.T_frame_cam) < 1e-6
        assert angle_deg(theirs, ours.T_frame_cam) < 0.001
        assert np.abs(theirs - ours.T_frame_cam)[:3, 3].max() < 1e-5
        assert np.abs(their_camera.matrix - ours.camera.matrix).max() < 0.05
        assert np.abs(camera.matrix - ours.camera.matrix).max() < 1e-6


@pytest.mark.parametrize("offset", [0.025, 0.05, 0.1])
@pytest.mark.parametrize(("noise", "outliers"), [(0.0, 0.0), (0.02, 0.1)])
def test_an_off_centre_camera_misleads_the_official_estimator_and_not_ours(official_from_rays, offset, noise, outliers):
    for seed in range(3):
        T, _, maps = ray_maps(seed, offset, noise, outliers)
        theirs, _ = official_from_rays(maps, SIZE)
        ours = rays.camera_from_rays(maps, np.ones((28, 36)), SIZE)
        assert angle_deg(T, theirs) > 60 * offset
        assert angle_deg(T, ours.T_frame_cam) < (0.6 if noise else 1e-6)


def test_with_noise_ours_is_no_worse_than_the_official_estimator(official_from_rays):
    """On centred cameras, the best case of the official one, which takes every camera for centred.

    Where our camera is unknown, its principal point is too, and 1,008 rays tell it from a turn no better than they
    do: what is known of principal points keeps the rotation's error below 1.2 times theirs, and the focal length and
    the centre gain.
    """
    errors = {"official": [], "known": [], "unknown": []}
    for seed in range(12):
        T, camera, maps = ray_maps(seed, 0.0, 0.02, 0.1)
        results = {"official": official_from_rays(maps, SIZE)}
        for name, known in (("known", camera), ("unknown", None)):
            found = rays.camera_from_rays(maps, np.ones((28, 36)), SIZE, known)
            results[name] = found.T_frame_cam, found.camera
        for name, (pose, pinhole) in results.items():
            shift = np.abs(pose - T)[:3, 3].max()
            errors[name].append((angle_deg(T, pose), shift, abs(pinhole.fx - camera.fx)))
    rms = {name: np.sqrt(np.mean(np.square(values), axis=0)) for name, values in errors.items()}
    assert (rms["known"] < rms["official"]).all(), rms
    assert (rms["unknown"][1:] < rms["official"][1:]).all(), rms
    assert rms["unknown"][0] < 1.2 * rms["official"][0], rms


def test_what_is_wrong_alike_over_regions_is_not_taken_for_many_observations():
    """Errors of networks are smooth: a twentieth of the noise of single rays then misleads as much.

    The principal point is known beforehand to some per cent, and columns of A to different degrees; a plain QR
    decomposition, and a rotation nearest to A K, use neither.
    """
    errors: dict[str, list[float]] = {"fitted": [], "plain": [], "fitted, known": [], "plain, known": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        T, camera, maps = ray_maps(seed, 0.01 * rng.normal())
        smooth = cv2.resize(rng.normal(0, 0.03, (4, 5, 3)), (36, 28), interpolation=cv2.INTER_CUBIC)
        maps[..., :3] += smooth
        p = np.stack([*np.meshgrid(np.arange(36), np.arange(28)), np.ones((28, 36))], axis=-1).reshape(-1, 3)
        A = np.linalg.lstsq(p, maps[..., :3].reshape(-1, 3), rcond=None)[0].T
        q, r = np.linalg.qr(A)
        nearest = se3.nearest_rotation(A @ camera.resized(36, 28).matrix)
        found = {
            "plain": q * np.sign(np.diag(r)),
            "plain, known": nearest,
            "fitted": rays.camera_from_rays(maps, np.ones((28, 36)), SIZE).T_frame_cam,
            "fitted, known": rays.camera_from_rays(maps, np.ones((28, 36)), SIZE, camera).T_frame_cam,
        }
        for name, rotation in found.items():
            errors[name].append(angle_deg(rotation, T))
    rms = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert rms["fitted"] < 0.8 * rms["plain"], rms
    assert rms["fitted, known"] < 0.9 * rms["plain, known"], rms


def test_a_fit_to_a_part_of_the_image_is_known_as_badly_as_it_is():
    """Residuals sum up to nothing where the weight is: block by block over the image they would look like none."""
    weights = np.full((28, 36), 1e-6)
    weights[7:14, 9:18] = 1
    errors: dict[str, list[float]] = {"fitted": [], "plain": []}
    p = np.stack([*np.meshgrid(np.arange(9, 18), np.arange(7, 14)), np.ones((7, 9))], axis=-1).reshape(-1, 3)
    for seed in range(40):
        T, _, maps = ray_maps(seed, 0.01 * np.random.default_rng(seed).normal(), 0.01)
        q, r = np.linalg.qr(np.linalg.lstsq(p, maps[7:14, 9:18, :3].reshape(-1, 3), rcond=None)[0].T)
        errors["plain"].append(angle_deg(q * np.sign(np.diag(r)), T))
        errors["fitted"].append(angle_deg(rays.camera_from_rays(maps, weights, SIZE).T_frame_cam, T))
    rms = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert rms["fitted"] < 0.8 * rms["plain"], rms


@pytest.mark.parametrize("factor", [1e-12, 1e6])
def test_a_common_factor_of_the_confidences_has_no_say(factor):
    _, _, maps = ray_maps(3, 0.05, 0.01)
    plain, scaled = (rays.camera_from_rays(maps, np.full((28, 36), f), SIZE) for f in (1.0, factor))
    assert angle_deg(plain.T_frame_cam, scaled.T_frame_cam) < 1e-6
    assert abs(plain.camera.cx - scaled.camera.cx) < 1e-6


@pytest.mark.parametrize("length", [0.8, 0.95, 1.2])
def test_rays_of_another_length_are_of_the_same_camera(length):
    T, camera, maps = ray_maps(1, 0.02)
    maps[..., :3] *= length
    found = rays.camera_from_rays(maps, np.ones((28, 36)), SIZE)
    assert angle_deg(T, found.T_frame_cam) < 1e-6
    assert np.abs(camera.matrix - found.camera.matrix).max() < 1e-5


@pytest.mark.parametrize("length", [1e-30, 1e-12, 1e12, 1e30])
def test_rays_of_an_absurd_length_form_a_camera_or_none(length):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        maps = ray_maps(seed, 0.0, 0.02)[2]
        maps[..., :3] *= length * rng.uniform(0.1, 10, (28, 36, 1))
        try:
            found = rays.camera_from_rays(maps, np.ones((28, 36)), SIZE)
        except ValueError:
            continue
        assert se3.is_rigid(found.T_frame_cam)
        assert np.isfinite(found.camera.matrix).all()

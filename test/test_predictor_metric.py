"""Metres for a window from a network that sees them one view at a time."""

from __future__ import annotations

import numpy as np
import pytest

from da3_ros.geometry.camera import Pinhole
from da3_ros.predictors.metric import scaled_to_metres
from da3_ros.types import Frame, Prediction, Rays, Window

WIDTH, HEIGHT, FOCAL = 80, 60, 70.0
CAMERA = Pinhole(160, 120, 2 * FOCAL, 2 * FOCAL, 79.5, 59.5)  # twice the size of the depth


def window(views: int = 3) -> Window:
    image = np.zeros((120, 160, 3), np.uint8)
    frames = tuple(Frame(i, i * 10**8, image, CAMERA) for i in range(views))
    return Window(1, frames, (views - 1,))


def prediction(rng: np.random.Generator, unit: float) -> tuple[Prediction, np.ndarray]:
    """A window whose unit is so many metres, with the true depth (h, w) of its newest view."""
    truth = rng.uniform(1, 6, (HEIGHT, WIDTH)).astype(np.float32)
    depth = np.full((3, HEIGHT, WIDTH), np.nan, np.float32)
    depth[-1] = truth / unit
    confidence = np.where(np.isfinite(depth), 0.9, 0).astype(np.float32)
    rays = rng.standard_normal((3, 8, 10, 6)).astype(np.float32)
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, :3, 3] = rng.standard_normal((3, 3))
    return Prediction(window(), depth, confidence, Rays(rays, np.ones((3, 8, 10), np.float32)), T), truth


@pytest.mark.parametrize("unit", [0.2, 1.0, 7.5])
def test_a_window_comes_out_in_metres(rng, unit):
    before, truth = prediction(rng, unit)
    raw = (truth * 300 / FOCAL * np.exp(0.05 * rng.standard_normal(truth.shape))).astype(np.float32)
    after = scaled_to_metres(before, raw, np.zeros_like(raw), CAMERA, 0.1)
    assert after.scale_sigma == pytest.approx(0.1, rel=0.01)  # what one view can know outweighs the noise of its pixels
    assert np.abs(after.depth[-1] / truth - 1).max() < 0.01
    assert np.allclose(after.T_window_cam[:, :3, 3], unit * before.T_window_cam[:, :3, 3], rtol=0.01)
    assert np.allclose(after.rays.rays[..., 3:], unit * before.rays.rays[..., 3:], rtol=0.01)
    assert np.array_equal(after.rays.rays[..., :3], before.rays.rays[..., :3]), "directions have no unit"
    assert np.isnan(after.depth[:-1]).all(), "depth that nobody asked for stays absent"


def test_a_quarter_of_wrong_pixels_has_no_say(rng):
    before, truth = prediction(rng, 2.0)
    raw = truth * np.float32(300 / FOCAL)
    raw[: HEIGHT // 4] *= 5
    after = scaled_to_metres(before, raw, np.zeros_like(raw), CAMERA, 0.1)
    assert np.abs(after.depth[-1] / truth - 1).max() < 1e-3


def test_sky_has_no_depth_and_no_say(rng):
    before, truth = prediction(rng, 2.0)
    raw, sky = truth * np.float32(300 / FOCAL), np.zeros_like(truth)
    raw[:20], sky[:20] = 1e4, 1.0
    after = scaled_to_metres(before, raw, sky, CAMERA, 0.1)
    assert np.isnan(after.depth[-1][:20]).all()
    assert (after.confidence[-1][:20] == 0).all()
    assert np.abs(after.depth[-1][20:] / truth[20:] - 1).max() < 1e-3


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, -1.0])
def test_a_view_that_says_nothing_leaves_the_window_in_its_units(rng, fill):
    before, truth = prediction(rng, 2.0)
    after = scaled_to_metres(before, np.full_like(truth, fill), np.zeros_like(truth), CAMERA, 0.1)
    assert after.scale_sigma is None
    assert np.array_equal(after.depth, before.depth, equal_nan=True)


def test_nothing_but_sky_leaves_the_window_in_its_units(rng):
    before, truth = prediction(rng, 2.0)
    after = scaled_to_metres(before, truth, np.ones_like(truth), CAMERA, 0.1)
    assert after.scale_sigma is None
    assert np.isnan(after.depth[-1]).all()


def test_the_prediction_before_is_left_alone(rng):
    before, truth = prediction(rng, 2.0)
    kept = before.depth.copy(), before.rays.rays.copy(), before.T_window_cam.copy()
    scaled_to_metres(before, truth, np.zeros_like(truth), CAMERA, 0.1)
    for now, then in zip((before.depth, before.rays.rays, before.T_window_cam), kept, strict=True):
        assert np.array_equal(now, then, equal_nan=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)

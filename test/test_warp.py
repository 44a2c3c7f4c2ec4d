"""Depth carried to another pose: every value is of one surface, and what nobody saw is a hole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.warp import Surface

CAMERA = Pinhole(96, 72, 90.0, 88.0, 46.2, 36.9)
SURE = np.full((CAMERA.height, CAMERA.width), 0.8, np.float32)
SMALL = st.floats(-0.15, 0.15)
TWISTS = st.lists(SMALL, min_size=6, max_size=6).map(np.array)


def plane(normal: np.ndarray, camera: Pinhole = CAMERA) -> np.ndarray:
    """Depth (H, W) of the plane ``normal . X = 1``; NaN where it is behind the camera."""
    inverse = camera.directions() @ normal
    with np.errstate(divide="ignore"):
        return np.where(inverse > 0, 1 / inverse, np.nan).astype(np.float32)


def plane_there(normal: np.ndarray, T_here_there: np.ndarray) -> np.ndarray:
    """The same plane in another view."""
    return T_here_there[:3, :3].T @ normal / (1 - normal @ T_here_there[:3, 3])


def moved(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    return se3.make(np.eye(3), np.array([x, y, z], float))


def wall_and_box(near: float, far: float) -> np.ndarray:
    depth = np.full((CAMERA.height, CAMERA.width), far, np.float32)
    depth[20:50, 30:60] = near
    return depth


def seen(depth: np.ndarray, T_here_there: np.ndarray, confidence: np.ndarray = SURE) -> tuple[np.ndarray, np.ndarray]:
    return Surface.of(depth, confidence, CAMERA).seen_from(T_here_there)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_from_its_own_place_a_view_stays_as_it_is(seed):
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.normal(size=SURE.shape)).astype(np.float32)
    depth[rng.random(SURE.shape) < 0.2] = np.nan
    confidence = np.where(np.isfinite(depth), rng.random(SURE.shape), 0).astype(np.float32)
    found, sure = seen(depth, np.eye(4), confidence)
    np.testing.assert_allclose(found, depth, rtol=2e-6)
    np.testing.assert_array_equal(sure, confidence)


@given(TWISTS, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.5, 1))
@settings(max_examples=50)
def test_a_plane_stays_that_plane(twist, a, b, c):
    """Slanted as it may be, short of its horizon: pixels are met where their own rays cross it."""
    normal, T = np.array([a, b, c]), se3.exp(twist)
    depth, expected = plane(normal), plane(plane_there(normal, T))
    found, _ = seen(depth, T)
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-4)
    # No cracks in what the first view saw.
    points = (CAMERA.directions() * expected[..., None]).reshape(-1, 3)
    u, v = CAMERA.project(se3.transform(T, points)).T
    inside = (u > 2) & (u < CAMERA.width - 3) & (v > 2) & (v < CAMERA.height - 3) & (expected.ravel() > 0)
    inside = inside.reshape(SURE.shape)[1:-1, 1:-1]  # a crack along the border has one side only
    assert known[1:-1, 1:-1][inside].mean() > 0.999


@pytest.mark.parametrize("near_comes", ["first", "last"])
def test_the_nearer_surface_hides_the_other(near_comes):
    """Whether its pixels come before or after those that it hides."""
    depth = wall_and_box(1.0, 4.0)
    step = 0.2 if near_comes == "last" else -0.2
    found, _ = seen(depth, moved(x=step))
    shift = round(CAMERA.fx * step / 1.0), round(CAMERA.fx * step / 4.0)
    box = np.zeros(SURE.shape, bool)
    box[20:50, 30 - shift[0] : 60 - shift[0]] = True
    np.testing.assert_allclose(found[box], 1.0, rtol=1e-5)
    np.testing.assert_allclose(found[~box & np.isfinite(found)], 4.0, rtol=1e-5)
    assert np.isnan(found[~box]).sum() > 0.8 * 30 * abs(shift[0] - shift[1])  # the wall that the box has uncovered


@given(TWISTS)
@settings(max_examples=50)
def test_no_value_lies_between_two_surfaces(twist):
    """Each is the wall's or the box's, at its own place, and never a mixture or a stretch."""
    T = se3.exp(twist)
    found, _ = seen(wall_and_box(1.0, 3.0), T)
    box, wall = (plane(plane_there(np.array([0, 0, 1 / z]), T)) for z in (1.0, 3.0))
    known = np.isfinite(found)
    error = np.minimum(np.abs(found / box - 1), np.abs(found / wall - 1))[known]
    assert error.max() < 1e-4
    assert known.mean() > 0.3


def test_coming_closer_tears_nothing_but_the_edge():
    """The cracks of a box that grows show neither holes nor the wall behind."""
    found, _ = seen(wall_and_box(1.0, 3.0), moved(z=0.3))
    rows, columns = np.nonzero(np.abs(found / 0.7 - 1) < 1e-4)
    inside = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_allclose(inside, 0.7, rtol=1e-4)
    assert inside.size > 1.9 * 30 * 30
    np.testing.assert_allclose(found[np.isfinite(found) & (found > 1)], 2.7, rtol=1e-4)
    beside = np.zeros(SURE.shape, bool)
    beside[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = True
    assert np.isfinite(found[~beside]).all()


def test_a_gap_between_two_things_stays_open():
    """A line of one pixel between two that are no neighbours is no crack."""
    depth = np.full(SURE.shape, 1.0, np.float32)
    depth[:, 40] = 3.0
    depth[:, 60] = np.nan
    found, _ = seen(depth, moved(y=0.0113))
    np.testing.assert_allclose(found[2:-2, 40], 3.0, rtol=1e-5)
    assert np.isnan(found[:, 60]).all()


def test_what_is_behind_the_camera_is_dropped():
    depth = wall_and_box(1.0, 3.0)
    found, confidence = seen(depth, moved(z=2.0))
    assert np.nanmin(found) > 0.99
    found, confidence = seen(depth, moved(z=3.5))
    assert np.isnan(found).all()
    assert not confidence.any()


def test_what_is_not_known_is_not_carried():
    depth = wall_and_box(1.0, 3.0)
    depth[:10], depth[10:20] = 0, -1
    depth[60:] = np.inf
    found, confidence = seen(depth, moved(x=0.1))
    assert np.isnan(found[:19]).all()
    assert np.isnan(found[61:]).all()
    np.testing.assert_array_equal(np.isfinite(found), confidence > 0)


def test_confidence_comes_along_and_falls_with_the_way():
    depth = wall_and_box(1.0, 4.0)
    confidence = np.where(depth == 1.0, 0.9, 0.5).astype(np.float32)
    before = confidence
    for way in (0.05, 0.1, 0.3):
        found, sure = seen(depth, moved(x=way), confidence)
        known = np.isfinite(found)
        assert ((sure >= 0) & (sure < 1)).all()
        np.testing.assert_array_equal(sure > 0, known)
        near, far = sure[known & (found < 2)].mean(), sure[known & (found > 2)].mean()
        assert near < 0.9
        assert far < 0.5
        assert 0.9 - near > 0.5 - far  # what is close changes most
        assert sure.max() < before.max()
        before = sure
    turned = se3.exp(np.array([0, 0.1, 0, 0, 0, 0]))
    found, sure = seen(depth, turned, confidence)
    assert set(np.unique(sure[np.isfinite(found)])) == {np.float32(0.5), np.float32(0.9)}  # a turn costs nothing

"""A scene with known pixels, to write small recordings in the layouts of real data sets.

A textured wall four metres ahead; every pixel and every depth follows from the pose and the lens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.types import Frame, Truth

WALL_M = 4.0
SMALL = Pinhole(64, 48, 60.0, 60.0, 31.5, 23.5)


def pose(index: int) -> np.ndarray:
    """T_world_cam of frame ``index``: a slow sideways walk with a little turning."""
    return se3.exp(np.array([0.002 * index, -0.01 * index, 0.003 * index, 0.05 * index, -0.02 * index, 0.01 * index]))


def render(K: np.ndarray, size: tuple[int, int], T_world_cam: np.ndarray, distortion=(), fisheye=False):
    """Image (H, W, 3) and z-depth (H, W) of the wall through a lens."""
    width, height = size
    u, v = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
    if fisheye:
        rays = cv2.fisheye.undistortPoints(pixels, K, np.array(distortion, float))
    else:
        accurate = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        undistort = getattr(cv2, "undistortPointsIter", None)
        D = np.array(distortion, float) if len(distortion) else None
        rays = undistort(pixels, K, D, None, None, accurate) if undistort else cv2.undistortPoints(pixels, K, D)
    rays = np.concatenate([rays.reshape(-1, 2), np.ones((width * height, 1))], axis=1)
    world = rays @ T_world_cam[:3, :3].T
    depth = (WALL_M - T_world_cam[2, 3]) / world[:, 2]  # rays have z = 1, so the factor is the z-depth
    points = T_world_cam[:3, 3] + world * depth[:, None]
    x, y = points[:, 0], points[:, 1]
    waves = np.stack([np.sin(2.1 * x + 0.3), np.cos(1.7 * y), np.sin(1.3 * x + 1.9 * y)], 1)
    image = np.clip(127.5 + 110 * waves, 0, 255).astype(np.uint8).reshape(height, width, 3)
    return image, depth.reshape(height, width).astype(np.float32)


class WallSource:
    """A few frames of the wall, in memory."""

    name = "wall"

    def __init__(self, count: int = 5, camera: Pinhole | None = SMALL, size: tuple[int, int] = (64, 48)) -> None:
        self.count, self.camera, self.size = count, camera, size

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Frame]:
        K = (self.camera or SMALL).matrix
        for i in range(self.count):
            image, depth = render(K, self.size, pose(i))
            depth[0, :5] = np.nan
            yield Frame(i, 1_700_000_000_123_456_789 + i * 33_333_333, image, self.camera, Truth(depth, pose(i)))


def write_png(path: Path, rgb: np.ndarray) -> None:
    """Write an RGB, grey or 16-bit image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb)


def real_data(name: str) -> Path:
    """A folder of real recordings, or a skip that says where it was looked for."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DA3_TEST_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no recording at {folder}; set DA3_TEST_DATA to the folder that holds {name}/")
    return folder


def assert_frames_equal(a, b, *, pose_tolerance: float = 1e-12) -> None:
    """Two sources yield the same frames, pixel by pixel."""
    a, b = list(a), list(b)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x.id, x.stamp_ns, x.camera) == (y.id, y.stamp_ns, y.camera)
        np.testing.assert_array_equal(x.image, y.image)
        np.testing.assert_array_equal(x.truth.depth, y.truth.depth)
        np.testing.assert_allclose(x.truth.T_world_cam, y.truth.T_world_cam, atol=pose_tolerance)

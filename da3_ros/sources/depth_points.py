"""Measured depth as points in an image: from depth images and from point clouds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import DepthPoints, FloatArray

MOST = 2000  # points kept of a frame
_NEAR_M, _FAR_M = 0.1, 200.0  # no depth camera or LiDAR measures beyond; millimetres taken for metres do
_MOST_PROJECTED = 20_000  # points of a cloud that are projected


def points_of_image(depth: FloatArray, size: tuple[int, int]) -> DepthPoints:
    """Sample a depth image on a grid.

    Args:
        depth: (h, w) z-depth in metres, NaN invalid, that covers the whole image.
        size: width and height of the image, px.
    """
    height, width = depth.shape
    stride = max(1, int(np.ceil(np.sqrt(height * width / MOST))))
    rows, columns = (axis.ravel() for axis in np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride])
    there = depth[rows, columns]
    valid = _in_range(there)
    scale = np.array([size[0] / width, size[1] / height])
    pixels = (np.stack([columns, rows], axis=1)[valid] + 0.5) * scale - 0.5
    return DepthPoints(pixels.astype(np.float32), there[valid].astype(np.float32))


def points_of_cloud(points: NDArray[np.floating], T_cam_cloud: Array, camera: Pinhole) -> DepthPoints:
    """Project a cloud (N, 3), metres, into the image of a camera."""
    points = points[:: max(1, len(points) // _MOST_PROJECTED)]
    seen = se3.transform(T_cam_cloud, points[np.isfinite(points).all(axis=1)].astype(float))
    seen = seen[_in_range(seen[:, 2])]
    pixels = camera.project(seen)
    inside = ((pixels > -0.5) & (pixels < np.array(camera.size) - 0.5)).all(axis=1)
    pixels, depth = pixels[inside], seen[inside, 2]
    step = max(1, -(-len(depth) // MOST))
    return DepthPoints(pixels[::step].astype(np.float32), depth[::step].astype(np.float32))


def _in_range(depth: NDArray[np.floating]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((depth > _NEAR_M) & (depth < _FAR_M))

"""Pinhole cameras and what happens to them when an image is resized or cropped.

Pixel centres lie at integer coordinates, as in ROS and OpenCV: the centre of a W pixel wide image is W/2 - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.geometry.se3 import Array


@dataclass(frozen=True, slots=True)
class Pinhole:
    """An undistorted pinhole camera; focal lengths and principal point in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Refuse what cannot project."""
        values = (self.fx, self.fy, self.cx, self.cy)
        if self.width < 1 or self.height < 1 or not np.isfinite(values).all() or self.fx <= 0 or self.fy <= 0:
            raise ValueError(f"not a pinhole camera: size {self.width}x{self.height}, fx fy cx cy {values}")

    @classmethod
    def from_matrix(cls, K: Array, width: int, height: int) -> Pinhole:
        """Read a (3, 3) intrinsic matrix in pixels; skew is ignored."""
        return cls(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))

    @property
    def matrix(self) -> Array:
        """The (3, 3) intrinsic matrix K in pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def resized(self, width: int, height: int) -> Pinhole:
        """The camera of this image resized to width x height, each axis by its own factor."""
        if (width, height) == self.size:
            return self  # to the last bit
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return Pinhole(width, height, self.fx * sx, self.fy * sy, cx, cy)

    def cropped(self, left: int, top: int, width: int, height: int) -> Pinhole:
        """The camera of the window of this image that starts at (left, top); negative values pad."""
        return Pinhole(width, height, self.fx, self.fy, self.cx - left, self.cy - top)

    def directions(self) -> Array:
        """Ray directions (height, width, 3) in the camera frame with z = 1, so depth times direction is the point."""
        u, v = np.meshgrid(np.arange(self.width), np.arange(self.height))
        x, y = (u - self.cx) / self.fx, (v - self.cy) / self.fy
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def project(self, points_cam: Array) -> Array:
        """Pixels (N, 2) of points (N, 3) in the camera frame; NaN for points not in front of the camera."""
        z = np.where(points_cam[:, 2] > 1e-9, points_cam[:, 2], np.nan)
        u = self.fx * points_cam[:, 0] / z + self.cx
        v = self.fy * points_cam[:, 1] / z + self.cy
        return np.stack([u, v], axis=1)

    def unproject(self, pixels: Array, depth: Array) -> Array:
        """Points (N, 3) in the camera frame of pixels (N, 2) at z-depths (N,)."""
        x = (pixels[:, 0] - self.cx) / self.fx * depth
        y = (pixels[:, 1] - self.cy) / self.fy * depth
        return np.stack([x, y, np.asarray(depth, float)], axis=1)

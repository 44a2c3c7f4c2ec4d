"""Which way is up: the plane in which a top view is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_UPRIGHT = np.cos(np.deg2rad(35))


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Axes of a top view."""

    axes: Array  # (3, 3) rows: right, forward (up in the picture), up (towards the viewer); right-handed
    names: tuple[str, str, str]

    def coordinates(self, points: Array) -> Array:
        """Right, forward and height (N, 3) of points (N, 3)."""
        return points @ self.axes.T


def ground_plane(T_world_cam: Array) -> Ground:
    """Choose the plane for poses (N, 4, 4).

    Cameras are level on average, so the mean of their image-up axes tells up.  The world's z (gravity-aligned
    worlds) or -y (worlds that start as a camera) is taken where it agrees to 35 deg; else the normal of the plane
    of largest extent, turned to the side of the mean image-up.
    """
    if len(T_world_cam) == 0:
        return Ground(np.eye(3), ("x", "y", "z"))
    camera_up = -T_world_cam[:, :3, 1].mean(axis=0)
    if camera_up[2] > _UPRIGHT:
        return Ground(np.eye(3), ("x", "y", "z"))
    if -camera_up[1] > _UPRIGHT:
        return Ground(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), ("x", "z", "−y"))
    p = T_world_cam[:, :3, 3]
    _, extents, axes = np.linalg.svd(p - p.mean(axis=0), full_matrices=True)
    if len(p) < 3 or extents[1] < 1e-6:  # a point or a line spans no plane
        axes = _complete(camera_up)
    rows = axes * np.array([1.0, 1.0, np.sign(axes[2] @ camera_up) or 1.0])[:, None]
    rows[0] = np.cross(rows[1], rows[2])
    return Ground(rows, ("longest extent", "second extent", ""))


def _complete(up: Array) -> Array:
    """Rows of a frame whose third is ``up``."""
    norm = np.linalg.norm(up)
    z = up / norm if norm > 1e-9 else np.array([0.0, 0, 1])
    x = np.cross(z, se3.hat(z)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])

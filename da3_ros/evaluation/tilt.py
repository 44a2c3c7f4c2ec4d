"""How roll and pitch of a trajectory drift: what gravity could have told."""

from __future__ import annotations

import numpy as np

from da3_ros.geometry.se3 import Array
from da3_ros.types import Trajectory

_UP: Array = np.array([0.0, 0.0, 1.0])


def tilt_deg(estimate: Trajectory, truth: Trajectory) -> Array:
    """Angle (N,), deg, between the estimate's idea of up and that of its first pose, by poses at the same stamps.

    Up is z of the truth.  A constant tilt of the estimate's map, which may have any axes, does not count.
    """
    _, rows, there = np.intersect1d(estimate.stamps_ns, truth.stamps_ns, return_indices=True)
    R_map_world = estimate.T_map_cam[rows, :3, :3] @ np.swapaxes(truth.T_map_cam[there, :3, :3], 1, 2)
    up = R_map_world @ _UP
    return np.asarray(np.degrees(np.arccos(np.clip(up @ up[0], -1.0, 1.0))), float)

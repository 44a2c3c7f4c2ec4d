"""The map's roll and pitch: what the chain of keyframes has drifted by, as gravity shows it.

A step from keyframe to keyframe errs by a little in rotation, and the sum of many tilts the map; gravity does not
drift.  About either level axis, a Kalman filter knows two errors and their covariance:

    theta    tilt of the newest keyframe; each step adds its variance
    c        error of the map's own vertical, which the first keyframes have shown; constant

    e = theta + c + noise      the turn from where the map has its vertical to where the newest keyframe has it

What is found goes into the newest keyframe's place in the map and into the vertical, so that both are expected to be
zero afterwards.  The chain keeps its steps: windows and landmarks do not feel it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.graph import Vertical
from da3_ros.slam.gravity import Gravity
from da3_ros.slam.keyframe import Keyframe


class Levelling:
    """Keeps the newest keyframe level."""

    def __init__(self) -> None:
        """Start without a vertical."""
        self.up: Array | None = None  # (3,) in the map; None before anything has shown it
        self._covariance = np.zeros((2, 2))  # of theta and c, rad^2, the same about both level axes
        self._last_ns = 0  # of the keyframe that was heard of last

    def held(self, R_map_cam: Array, gravity: Gravity | None) -> Array:
        """Orientation (3, 3) of a frame before the first keyframe, of which the IMU alone tells.

        The first of them shows the map's vertical; the others keep it, however long the first prediction takes.
        """
        if gravity is None:
            return R_map_cam
        there = R_map_cam @ gravity.up
        if self.up is None:
            self.up = there
            self._covariance[1, 1] = gravity.sigma**2
        return se3.exp_so3(se3.turning(there, self.up)) @ R_map_cam

    def hear(self, keyframe: Keyframe) -> tuple[Array, float]:
        """A keyframe was placed; it notes what of its gravity is independent.

        Returns:
            (3, 3) turn of the keyframe in the map's axes that makes it level, as far as gravity is to be believed, and
            the share of the variance of its tilt that is left.
        """
        self._covariance[0, 0] += keyframe.step.rotation**2
        gravity = keyframe.gravity
        if gravity is None:
            return np.eye(3), 1.0
        since_s = (keyframe.stamp_ns - self._last_ns) * 1e-9
        self._last_ns = keyframe.stamp_ns
        # Estimates that share their past count as one: with a memory this long, so much of each is new.
        keyframe.up_sigma = gravity.sigma * float(np.sqrt(1 + 2 * gravity.memory_s / max(since_s, 1e-3)))
        there = keyframe.T_map_cam[:3, :3] @ gravity.up
        if self.up is None:  # it is level by definition, and the vertical as well known as here
            self.up, self._covariance = there, np.diag([0.0, gravity.sigma**2])
            return np.eye(3), 1.0
        tilted = self._covariance[0, 0]
        both = self._covariance.sum(axis=1)  # with e
        gain = both / (both.sum() + keyframe.up_sigma**2)
        self._covariance = self._covariance - np.outer(gain, both)
        error = se3.turning(self.up, there)
        self.up = se3.exp_so3(gain[1] * error) @ self.up
        return se3.exp_so3(-gain[0] * error), float(self._covariance[0, 0] / tilted) if tilted > 0 else 1.0

    def vertical(self, keyframes: Sequence[Keyframe]) -> Vertical | None:
        """What gravity says of all keyframes, for the graph; None where it has said nothing."""
        if self.up is None or not self._last_ns:
            return None
        up = np.stack([np.zeros(3) if k.gravity is None else k.gravity.up for k in keyframes])
        return Vertical(self.up, up, np.array([k.up_sigma for k in keyframes]))

"""Wheel odometry for recordings whose poses are known: what it would have said, with its errors.

Each step's length and turn are off by a share of themselves (the odometry motion model of Thrun, Burgard and Fox,
Probabilistic Robotics, 5.4), and all lengths by the wheels' radius.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_LENGTH = 0.05  # sigma of a step's length, share of it
_TURN = 0.05  # sigma of a step's turn, share of it
_RADIUS = 0.005  # sigma of the log of a factor on all lengths


class SimulatedOdometry:
    """Adds up steps; it drifts as wheels do."""

    def __init__(self, seed: int) -> None:
        """Measure the wheels, not quite right."""
        self._rng = np.random.default_rng([seed, 2])
        self._factor = float(np.exp(_RADIUS * self._rng.standard_normal()))
        self._last: Array | None = None  # exact pose before
        self._T_odom_cam = np.eye(4)

    def measure(self, T_world_cam: Array) -> Array:
        """Where it says the camera is (4, 4), given where it is; poses come in time order."""
        if self._last is not None:
            step = se3.inverse(self._last) @ T_world_cam
            turn = se3.log_so3(step[:3, :3])
            length, share = self._rng.normal(1, _LENGTH), self._rng.normal(1, _TURN)
            step = se3.make(se3.exp_so3(turn * share), step[:3, 3] * length * self._factor)
            self._T_odom_cam = se3.normalized(self._T_odom_cam @ step)
        self._last = T_world_cam
        return self._T_odom_cam

"""The bias of a gyro, learned from how the camera turned by keyframes that were adjusted.

A Kalman filter on three equal, independent axes.  What it measures is the difference between the turn that was seen and
the one that was integrated, over the time between two keyframes.  Steps of the tracker would not do: they err alike for
seconds, as the depth of the landmarks does.  The bias of a small sensor wanders, so it is never known for good.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_FIRST = 0.03  # rad/s, sigma before anything was seen: 1.7 deg/s
_WALK = 1e-4  # rad/s per root of s
_SEEN = np.deg2rad(0.1)  # rad per axis, what a seen turn over a second or two is off at best
_UNKNOWN = np.deg2rad(1.0)  # the same before it was compared: coarse predictors are off by this much
_SHARE = 0.2  # of the latest turn in what is known of how far they are off
_FURTHEST = 4.0  # sigma; what is off by more is no bias


class GyroBias:
    """What has to be taken off what the gyro says."""

    def __init__(self) -> None:
        """Start with none known."""
        self.value = np.zeros(3)  # rad/s
        self._variance = _FIRST**2
        self._seen = _UNKNOWN**2  # rad^2 per axis, what seen turns have been off by beyond what the bias explains

    @property
    def sigma(self) -> float:
        """1-sigma per axis, rad/s."""
        return float(np.sqrt(self._variance))

    def learn(self, integrated: Array, seen: Array, seconds: float) -> None:
        """A turn (3, 3) was integrated with the bias taken off, and seen."""
        self._variance += _WALK**2 * seconds
        excess = se3.log_so3(seen.T @ integrated) / seconds
        surplus = float(excess @ excess) / 3 - self._variance
        self._seen += _SHARE * (max(surplus, 0.0) * seconds**2 - self._seen)
        noise = max(self._seen, _SEEN**2) / seconds**2
        if float(excess @ excess) < 3 * _FURTHEST**2 * (self._variance + noise):
            gain = self._variance / (self._variance + noise)
            self.value = self.value + gain * excess
            self._variance *= 1 - gain

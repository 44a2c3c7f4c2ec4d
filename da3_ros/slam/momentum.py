"""A camera's motion does not change much from one frame to the next: what that says where landmarks say little.

A step is the last one again, give or take what motion has changed by of late (a random walk of the velocity in the
camera's frame).  Where few landmarks are left, all on one side or at one depth, turning and moving aside look alike: a
step may be off by several times itself.  Where landmarks fix the step, this changes nothing.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_MEMORY = 30  # steps
_FEWEST = 5  # steps before a change can be told to be unusual
_LONGEST = 3.0  # times the interval before, over which motion is taken to go on
_MOST = 1.0  # variance, rad^2 and chain units^2; a step that is known worse than that is not known
_LEAST = 1e-6  # 1-sigma, rad and chain units
_LIKELY = 0.2  # of the covariance of a step, which is cautious: prudence must not hand the step to the motion so far
_FITTING = 25.0  # squared Mahalanobis distance of a step; beyond it this is a jerk, and motion changes by more


class Momentum:
    """The motion so far, and how much it changes from step to step."""

    def __init__(self) -> None:
        """Start at rest, knowing nothing."""
        self._velocity = np.eye(4)  # (4, 4) motion over the last interval, chain units
        self._covariance = np.zeros((6, 6))  # of its left twist
        self._interval_s = 0.0
        self._variance = np.zeros(2)  # of the change of a step, per axis: rotation, rad^2; translation, chain units^2
        self._count = 0

    def expected(self, interval_s: float, turn: Array | None = None) -> Array:
        """The step (4, 4) over an interval if motion does not change; turned as a gyro says (3, 3), if given."""
        step = se3.interpolate(np.eye(4), self._velocity, self._ratio(interval_s))
        return step if turn is None else se3.make(turn, step[:3, 3])

    def fused(
        self, step: Array, covariance: Array, interval_s: float, turn: Array | None = None
    ) -> tuple[Array, Array]:
        """A step that was measured, weighed against the motion so far.

        Args:
            step: (4, 4) ``T_before_now``, chain units.
            covariance: (6, 6) of its left twist, rotation first.
            interval_s: time since the frame before.
            turn: (3, 3) rotation of a gyro that is known to be right.

        Returns:
            The step and its covariance.
        """
        if not np.abs(covariance).max() < _MOST:
            return step, covariance
        if self._interval_s > 0:
            ratio = max(self._ratio(interval_s), 1.0)
            off = se3.log(self.expected(interval_s, turn) @ se3.inverse(step))
            before = self._covariance * ratio**2
            change = np.diag(np.repeat(self._variance, 3)) * ratio**2
            if self._count >= _FEWEST:
                unusual = float(off @ np.linalg.solve(covariance + before + change, off))
                change = change * max(unusual / _FITTING, 1.0)
                likely = _LIKELY * covariance
                back = np.linalg.inv(likely + before + change)
                step = se3.normalized(se3.exp(likely @ back @ off) @ step)
                self._learn(change @ back @ off, change - change @ back @ change, ratio)
                covariance = covariance - covariance @ np.linalg.inv(covariance + before + change) @ covariance
            else:
                self._learn(off, covariance, ratio)
        self._velocity, self._covariance, self._interval_s = step, covariance, interval_s
        return step, covariance

    def slow(self) -> None:
        """Nothing was seen: do not run away."""
        self._covariance = self._covariance + np.diag((0.5 * se3.log(self._velocity)) ** 2)
        self._velocity = se3.interpolate(np.eye(4), self._velocity, 0.5)

    def stop(self) -> None:
        """Forget the motion, as the next step is none of one interval; how much motion changes is still known."""
        self._velocity, self._interval_s = np.eye(4), 0.0

    def _learn(self, change: Array, covariance: Array, ratio: float) -> None:
        """By how much motion changed (6,), as far as that is known (expectation maximisation)."""
        squares = change**2 + np.maximum(np.diag(covariance), 0)
        found = squares.reshape(2, 3).mean(axis=1) / ratio**2
        self._count = min(self._count + 1, _MEMORY)
        self._variance = self._variance + (np.maximum(found, _LEAST**2) - self._variance) / self._count

    def _ratio(self, interval_s: float) -> float:
        # Stamps of arrival come in pairs: a step over next to no time says nothing of the one after it.
        return min(interval_s / self._interval_s, _LONGEST) if self._interval_s > 0 else 1.0

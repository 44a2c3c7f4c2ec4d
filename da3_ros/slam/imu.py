"""What an IMU measured between two frames: how the camera turned, and the force that it felt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Inertial

_HELD_NS = 50_000_000  # beyond the last sample, or before the first, so long a rate is taken to go on
_GAP_NS = 100_000_000  # samples further apart do not say how the camera turned
_KEPT_NS = 30_000_000_000
_JUMP_NS = 1_000_000_000  # samples that end so long before those that are there are of another time


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Between two instants."""

    seconds: float
    rotation: Array  # (3, 3) R_first_last of the camera
    force: Array  # (3,) mean specific force in the camera's axes at the last instant, m/s^2


class Imu:
    """The samples of the last seconds; no more than is asked for is ever computed."""

    def __init__(self) -> None:
        """Start without any."""
        self._stamps: NDArray[np.int64] = np.zeros(0, np.int64)
        self._gyro, self._force = np.zeros((0, 3)), np.zeros((0, 3))

    def add(self, said: Inertial) -> None:
        """Take samples; those not later than what is there are known already, unless time has jumped back."""
        if len(self._stamps) and len(said.stamps_ns) and said.stamps_ns[-1] < self._stamps[-1] - _JUMP_NS:
            self._stamps, self._gyro, self._force = self._stamps[:0], self._gyro[:0], self._force[:0]
        new = said.stamps_ns > (self._stamps[-1] if len(self._stamps) else -1)
        if not new.any():
            return
        self._stamps = np.concatenate([self._stamps, said.stamps_ns[new]])
        old = int(np.searchsorted(self._stamps, self._stamps[-1] - _KEPT_NS))
        self._stamps = self._stamps[old:]
        self._gyro = np.concatenate([self._gyro, said.gyro[new]])[old:]
        self._force = np.concatenate([self._force, said.force[new]])[old:]

    @property
    def begin_ns(self) -> int | None:
        """Stamp of the oldest sample."""
        return int(self._stamps[0]) if len(self._stamps) else None

    def reaches(self, stamp_ns: int) -> bool:
        """Tell whether a sample at or after this stamp is known."""
        return bool(len(self._stamps) and self._stamps[-1] >= stamp_ns)

    def between(self, first_ns: int, last_ns: int, bias: Array) -> Motion | None:
        """What happened between two instants, with the gyro's bias (3,) taken off; None where samples are missing.

        Rates are linear between samples; each interval turns by its mean rate (midpoint rule).
        """
        inside = slice(*np.searchsorted(self._stamps, [first_ns, last_ns]))
        stamps = np.concatenate([[first_ns], self._stamps[inside], [last_ns]])
        if last_ns <= first_ns or not self._covers(first_ns, last_ns) or np.diff(stamps).max() > _GAP_NS:
            return None
        seconds = (stamps - first_ns) * 1e-9
        known = (self._stamps - first_ns) * 1e-9
        gyro, force = (
            np.stack([np.interp(seconds, known, values[:, axis]) for axis in range(3)], axis=1)
            for values in (self._gyro, self._force)
        )
        steps = np.diff(seconds)
        turns = se3.exp_so3(((gyro[1:] + gyro[:-1]) / 2 - bias) * steps[:, None])
        rotations = [np.eye(3)]  # R_first_i
        for turn in turns:
            rotations.append(rotations[-1] @ turn)
        R_last_i = rotations[-1].T @ np.stack(rotations)
        weights = np.convolve(steps, [0.5, 0.5])  # trapezoids
        mean = np.einsum("n,nij,nj->i", weights, R_last_i, force) / weights.sum()
        return Motion(float(seconds[-1]), rotations[-1], mean)

    def _covers(self, first_ns: int, last_ns: int) -> bool:
        if not len(self._stamps):
            return False
        return bool(self._stamps[0] <= first_ns + _HELD_NS and self._stamps[-1] >= last_ns - _HELD_NS)

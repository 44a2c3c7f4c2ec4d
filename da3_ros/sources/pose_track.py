"""Poses over time, asked at the stamps of images."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

NEAREST_NS = 20_000_000  # two stamps this close are one instant (the TUM RGB-D tools use 0.02 s)
BRACKET_NS = 100_000_000  # poses this close together are interpolated


class PoseTrack:
    """Poses (4, 4) sorted by stamp; grows at the end, forgets at the beginning."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[Array] = []

    def __len__(self) -> int:
        """Poses held."""
        return len(self._stamps)

    def add(self, stamp_ns: int, T: Array) -> None:
        """Add a pose; a pose at a stamp that is already there is ignored."""
        index = bisect_left(self._stamps, stamp_ns)
        if index == len(self._stamps) or self._stamps[index] != stamp_ns:
            self._stamps.insert(index, stamp_ns)
            self._poses.insert(index, T)

    def forget_before(self, stamp_ns: int) -> None:
        """Drop poses that no later question can need, but keep one before ``stamp_ns``."""
        index = bisect_left(self._stamps, stamp_ns) - 1
        if index > 0:
            del self._stamps[:index], self._poses[:index]

    def has(self, stamp_ns: int) -> bool:
        """Tell whether a pose has exactly this stamp."""
        index = bisect_left(self._stamps, stamp_ns)
        return index < len(self._stamps) and self._stamps[index] == stamp_ns

    def reaches(self, stamp_ns: int) -> bool:
        """Tell whether a pose at or after this stamp is known."""
        return bool(self._stamps) and self._stamps[-1] >= stamp_ns

    def at(self, stamp_ns: int) -> Array | None:
        """Pose at a stamp: the exact one, else interpolated between neighbours at most 0.1 s apart, else the
        nearest within 0.02 s, else None.
        """
        index = bisect_left(self._stamps, stamp_ns)
        if self.has(stamp_ns):
            return self._poses[index]
        before, after = index - 1, index
        if before >= 0 and after < len(self._stamps):
            gap = self._stamps[after] - self._stamps[before]
            if gap <= BRACKET_NS:
                fraction = (stamp_ns - self._stamps[before]) / gap
                return se3.interpolate(self._poses[before], self._poses[after], fraction)
        near = [i for i in (before, after) if 0 <= i < len(self._stamps)]
        near = [i for i in near if abs(self._stamps[i] - stamp_ns) <= NEAREST_NS]
        return self._poses[min(near, key=lambda i: abs(self._stamps[i] - stamp_ns))] if near else None


def rigid(matrix: Array) -> Array | None:
    """A recorded pose with its rotation made exactly orthonormal; None where it is no pose (NaN, zeros).

    Recordings carry few digits, so a deviation of 1 % is repaired; a pose that is orthonormal to 1e-9 is kept
    bit for bit.
    """
    T = np.array(matrix, float)
    if not se3.is_rigid(T, 0.01):
        return None
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-9:
        T[:3, :3] = se3.nearest_rotation(R)
    T[3] = (0, 0, 0, 1)
    return T

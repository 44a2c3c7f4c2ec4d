"""Ways of frames from keyframes, and the poses that they lead to once it is known where keyframes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Trajectory

NONE = -1  # no keyframe yet


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """The ways of N frames with K keyframes at one time."""

    stamps_ns: NDArray[np.int64]  # (N,)
    anchor: NDArray[np.int64]  # (N,) index of the keyframe before; of the first one, for frames before it; or NONE
    way: NDArray[np.float32]  # (N, 3, 4) T_anchor_cam as tracked, chain units
    keyframes: NDArray[np.int64]  # (K,) row of each

    def final(self, T_map_kf: Array, scale: Array, T_newest_latest: Array | None = None) -> Trajectory:
        """Poses of all frames.

        Args:
            T_map_kf: (K, 4, 4) the keyframes' poses.
            scale: (K,) map units per chain unit.
            T_newest_latest: (4, 4) where the latest frame is from the newest keyframe, chain units; None: as tracked.

        Frames before the first keyframe of a segment that nothing was tracked in take its pose.
        """
        n, anchor = len(self.stamps_ns), self.anchor
        T = np.broadcast_to(np.eye(4), (n, 4, 4)).copy()
        known = np.flatnonzero(anchor != NONE)
        if not len(known):
            return in_time_order(self.stamps_ns, self.keyframes, T)
        way = whole(self.way)
        way[:, :3, 3] *= scale[np.maximum(anchor, 0), None]
        T[known] = T_map_kf[anchor[known]] @ way[known]
        # Nothing leads to the first keyframe of a segment, which is its own anchor.
        ends = {row: T_map_kf[k] for k, row in enumerate(self.keyframes.tolist()) if anchor[row] != k}
        if T_newest_latest is not None and anchor[-1] == len(self.keyframes) - 1:
            ends[n - 1] = T_map_kf[-1] @ scaled(T_newest_latest, float(scale[-1]))
        if ends:
            self._spread(T, ends)
        # A segment without a keyframe goes on where the last one ended; before the first, there is only what follows.
        unknown = np.flatnonzero(anchor == NONE)
        T[unknown] = T[known[np.maximum(np.searchsorted(known, unknown) - 1, 0)]]
        return in_time_order(self.stamps_ns, self.keyframes, T)

    def _spread(self, T: Array, ends: dict[int, Array]) -> None:
        """Lead the ways (N, 4, 4) to where they end, by row: what they are off by goes to their frames by time."""
        rows = np.array(sorted(ends))
        off = se3.log(se3.inverse(T[rows]) @ np.stack([ends[row] for row in rows]))
        starts = self.keyframes[self.anchor[rows]]
        length = rows - starts
        own = np.repeat(np.arange(len(rows)), length)
        frames = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + starts[own] + 1
        span = np.maximum(self.stamps_ns[rows] - self.stamps_ns[starts], 1)
        share = np.clip((self.stamps_ns[frames] - self.stamps_ns[starts[own]]) / span[own], 0.0, 1.0)
        T[frames] = T[frames] @ se3.exp(share[:, None] * off[own])


def in_time_order(stamps_ns: NDArray[np.int64], keyframes: NDArray[np.int64], T: Array) -> Trajectory:
    """Poses (N, 4, 4) with their stamps; where stamps jumped back, the newer of two passes over the same time."""
    keyframe = np.zeros(len(stamps_ns), bool)
    keyframe[keyframes] = True
    later = np.minimum.accumulate(stamps_ns[::-1])[::-1]  # the least stamp from here on
    kept = np.ones(len(stamps_ns), bool)
    kept[:-1] = stamps_ns[:-1] < later[1:]
    return Trajectory(stamps_ns[kept], T[kept], keyframe[kept])


def whole(T: NDArray[np.floating]) -> Array:
    """Transforms (..., 4, 4) of their first three rows (..., 3, 4)."""
    rotation, place = T[..., :3].astype(float), T[..., 3].astype(float)
    return se3.make(rotation, place)


def scaled(T: Array, scale: float) -> Array:
    """The rigid transform (4, 4) with its translation scaled."""
    return se3.make(T[:3, :3], scale * T[:3, 3])

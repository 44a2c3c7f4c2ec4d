"""A pose for every frame, kept relative to keyframes so that they can move later.

A frame is kept as the way that was tracked to it from the keyframe before it.  Where the next keyframe is placed, this
way leads past it by what tracking was wrong by, and every frame in between takes its share by time: landmarks show how
a camera moves from frame to frame better than where it is, and windows and the adjustment say where keyframes are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Trajectory

_NONE = -1  # no keyframe yet


class PoseLog:
    """One row per tracked frame, in arrays that double when full."""

    def __init__(self) -> None:
        """Start empty."""
        self._count = 0
        self._stamps = np.zeros(256, np.int64)
        self._anchor = np.zeros(256, np.int64)  # index of the keyframe before; of the first one, for frames before it
        # T_anchor_cam as tracked, chain units, without its last row: some metres, for which single precision will do.
        self._way = np.zeros((256, 3, 4), np.float32)
        self._known = np.zeros((256, 7))  # T_map_cam right after the frame: place, quaternion
        self._keyframes: list[int] = []  # row of each
        self._rows: dict[int, int] = {}  # recent frame ids only
        self._corrected: list[int] = []  # rows since the newest keyframe that are where their predictions say
        self._open = 0  # rows from here on have no keyframe yet

    def __len__(self) -> int:
        """Number of frames."""
        return self._count

    def append(self, frame_id: int, stamp_ns: int, step: Array, T_map_cam: Array) -> None:
        """Add a frame: its motion (4, 4) since the frame before, chain units, and its pose as known right now."""
        if self._count == len(self._stamps):
            for name in ("_stamps", "_anchor", "_way", "_known"):
                old = getattr(self, name)
                new = np.zeros((2 * len(old), *old.shape[1:]), old.dtype)  # takes memory where it is written to
                new[: len(old)] = old
                setattr(self, name, new)
        row = self._count
        self._stamps[row], self._known[row] = stamp_ns, _packed(T_map_cam)
        self._rows[frame_id] = row
        if row == self._open:
            self._anchor[row], self._way[row] = _NONE, np.eye(4)[:3]
        elif self._keyframes and row == self._keyframes[-1] + 1:
            self._anchor[row], self._way[row] = len(self._keyframes) - 1, step[:3]
        else:
            self._anchor[row] = self._anchor[row - 1]
            self._way[row] = se3.normalized(_whole(self._way[row - 1]) @ step)[:3]
        self._count += 1

    def place(self, frame_id: int) -> None:
        """A frame became the next keyframe.

        Frames after it, and those before the first keyframe of a segment, are kept relative to it.
        """
        row, index = self._rows[frame_id], len(self._keyframes)
        first = self._anchor[row] == _NONE
        moved = slice(self._open if first else row + 1, self._count)
        back = se3.inverse(_whole(self._way[row]))
        self._way[moved] = se3.normalized(back @ _whole(self._way[moved]))[:, :3]
        self._anchor[moved] = index
        self._keyframes.append(row)
        self._corrected = [r for r in self._corrected if r > row]
        for old in [i for i, at in self._rows.items() if at < row]:
            del self._rows[old]

    def correct(self, frame_id: int, T_anchor_cam: Array) -> None:
        """A frame since the newest keyframe is (4, 4) from it: the way leads there.

        What it was off by goes to the frames since the last one that was corrected; those after it move along, up to
        the next one that was.
        """
        row = self._rows[frame_id]
        if self._anchor[row] != len(self._keyframes) - 1 or row == self._keyframes[-1]:
            return  # it lies before the newest keyframe, or nothing leads there
        before = max([self._keyframes[-1], *(r for r in self._corrected if r < row)])
        after = min([r for r in self._corrected if r > row], default=None)
        T_old = _whole(self._way[row])
        T_anchor_cam = se3.normalized(T_anchor_cam)
        off = se3.log(se3.inverse(T_old) @ T_anchor_cam)
        self._bend(slice(before + 1, row + 1), self._share(before, row)[1:], off)
        if after is None:
            rest = slice(row + 1, self._count)
            self._way[rest] = se3.normalized(T_anchor_cam @ se3.inverse(T_old) @ _whole(self._way[rest]))[:, :3]
        else:
            self._bend(slice(row + 1, after), 1 - self._share(row, after)[1:-1], off)
        self._corrected.append(row)

    def _bend(self, rows: slice, share: Array, off: Array) -> None:
        """Move ways by shares (N,) of a twist (6,)."""
        self._way[rows] = se3.normalized(_whole(self._way[rows]) @ se3.exp(share[:, None] * off))[:, :3]

    def cut(self) -> None:
        """The next frame starts a segment."""
        self._open = self._count

    def revise_causal(self, frame_id: int, T_map_cam: Array) -> None:
        """Replace the pose known right after a frame, where its own prediction came before the next frame."""
        self._known[self._rows[frame_id]] = _packed(T_map_cam)

    def snapshot(self) -> PoseLog:
        """A copy for ``final`` on another thread, where thousands of poses take their time; made in little."""
        other = PoseLog()
        other._count, other._keyframes = self._count, list(self._keyframes)
        for name in ("_stamps", "_anchor", "_way"):
            setattr(other, name, getattr(self, name)[: self._count].copy())
        return other

    def causal(self) -> Trajectory:
        """Poses as known right after each frame."""
        known = self._known[: self._count]
        return self._in_time_order(se3.from_quaternion(known[:, :3], known[:, 3:]))

    def final(self, T_map_kf: Array, scale: Array, T_newest_latest: Array | None = None) -> Trajectory:
        """Poses of all frames.

        Args:
            T_map_kf: (K, 4, 4) the keyframes' poses.
            scale: (K,) map units per chain unit.
            T_newest_latest: (4, 4) where the latest frame is from the newest keyframe, chain units; None: as tracked.

        Frames before the first keyframe of a segment that nothing was tracked in take its pose.
        """
        n, anchor = self._count, self._anchor[: self._count]
        T = np.broadcast_to(np.eye(4), (n, 4, 4)).copy()
        known = np.flatnonzero(anchor != _NONE)
        if not len(known):
            return self._in_time_order(T)
        way = _whole(self._way[:n])
        way[:, :3, 3] *= scale[np.maximum(anchor, 0), None]
        T[known] = T_map_kf[anchor[known]] @ way[known]
        # Nothing leads to the first keyframe of a segment, which is its own anchor.
        ends = {row: T_map_kf[k] for k, row in enumerate(self._keyframes) if anchor[row] != k}
        if T_newest_latest is not None and anchor[-1] == len(self._keyframes) - 1:
            ends[n - 1] = T_map_kf[-1] @ scaled(T_newest_latest, float(scale[-1]))
        if ends:
            self._spread(T, ends)
        # A segment without a keyframe goes on where the last one ended; before the first, there is only what follows.
        unknown = np.flatnonzero(anchor == _NONE)
        T[unknown] = T[known[np.maximum(np.searchsorted(known, unknown) - 1, 0)]]
        return self._in_time_order(T)

    def _spread(self, T: Array, ends: dict[int, Array]) -> None:
        """Lead the ways (N, 4, 4) to where they end, by row: what they are off by goes to their frames by time."""
        rows = np.array(sorted(ends))
        off = se3.log(se3.inverse(T[rows]) @ np.stack([ends[row] for row in rows]))
        starts = np.array([self._keyframes[self._anchor[row]] for row in rows])
        length = rows - starts
        own = np.repeat(np.arange(len(rows)), length)
        frames = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + starts[own] + 1
        span = np.maximum(self._stamps[rows] - self._stamps[starts], 1)
        share = np.clip((self._stamps[frames] - self._stamps[starts[own]]) / span[own], 0.0, 1.0)
        T[frames] = T[frames] @ se3.exp(share[:, None] * off[own])

    def _share(self, first: int, last: int) -> Array:
        """How much of the time between two rows has gone by at each of the rows from the one to the other."""
        stamps = self._stamps[first : last + 1]
        return np.clip((stamps - stamps[0]) / max(int(stamps[-1] - stamps[0]), 1), 0.0, 1.0)

    def _in_time_order(self, T: Array) -> Trajectory:
        """Poses (N, 4, 4) with their stamps; where stamps jumped back, the newer of two passes over the same time."""
        stamps, keyframe = self._stamps[: self._count], np.zeros(self._count, bool)
        keyframe[self._keyframes] = True
        later = np.minimum.accumulate(stamps[::-1])[::-1]  # the least stamp from here on
        kept = np.ones(len(stamps), bool)
        kept[:-1] = stamps[:-1] < later[1:]
        return Trajectory(stamps[kept], T[kept], keyframe[kept])


def _whole(T: NDArray[np.floating]) -> Array:
    """Transforms (..., 4, 4) of their first three rows (..., 3, 4)."""
    rotation, place = T[..., :3].astype(float), T[..., 3].astype(float)
    return se3.make(rotation, place)


def _packed(T: Array) -> Array:
    """Place and quaternion (7,) of a transform (4, 4)."""
    return np.concatenate([T[:3, 3], se3.quaternion_from_rotation(T[:3, :3])])


def scaled(T: Array, scale: float) -> Array:
    """The rigid transform (4, 4) with its translation scaled."""
    return se3.make(T[:3, :3], scale * T[:3, 3])

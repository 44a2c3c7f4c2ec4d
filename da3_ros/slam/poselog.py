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
from da3_ros.slam.ways import NONE, Ways, in_time_order, whole
from da3_ros.types import Trajectory


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
            self._anchor[row], self._way[row] = NONE, np.eye(4)[:3]
        elif self._keyframes and row == self._keyframes[-1] + 1:
            self._anchor[row], self._way[row] = len(self._keyframes) - 1, step[:3]
        else:
            self._anchor[row] = self._anchor[row - 1]
            self._way[row] = se3.normalized(whole(self._way[row - 1]) @ step)[:3]
        self._count += 1

    def place(self, frame_id: int) -> None:
        """A frame became the next keyframe.

        Frames after it, and those before the first keyframe of a segment, are kept relative to it.
        """
        row, index = self._rows[frame_id], len(self._keyframes)
        first = self._anchor[row] == NONE
        moved = slice(self._open if first else row + 1, self._count)
        back = se3.inverse(whole(self._way[row]))
        self._way[moved] = se3.normalized(back @ whole(self._way[moved]))[:, :3]
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
        T_old = whole(self._way[row])
        T_anchor_cam = se3.normalized(T_anchor_cam)
        off = se3.log(se3.inverse(T_old) @ T_anchor_cam)
        self._bend(slice(before + 1, row + 1), self._share(before, row)[1:], off)
        if after is None:
            rest = slice(row + 1, self._count)
            self._way[rest] = se3.normalized(T_anchor_cam @ se3.inverse(T_old) @ whole(self._way[rest]))[:, :3]
        else:
            self._bend(slice(row + 1, after), 1 - self._share(row, after)[1:-1], off)
        self._corrected.append(row)

    def _bend(self, rows: slice, share: Array, off: Array) -> None:
        """Move ways by shares (N,) of a twist (6,)."""
        self._way[rows] = se3.normalized(whole(self._way[rows]) @ se3.exp(share[:, None] * off))[:, :3]

    def cut(self) -> None:
        """The next frame starts a segment."""
        self._open = self._count

    def revise_causal(self, frame_id: int, T_map_cam: Array) -> None:
        """Replace the pose known right after a frame, where its own prediction came before the next frame."""
        self._known[self._rows[frame_id]] = _packed(T_map_cam)

    def ways(self) -> Ways:
        """All frames as they are now: a copy, which another thread may take its time with."""
        n = self._count
        stamps, anchor, way = self._stamps[:n].copy(), self._anchor[:n].copy(), self._way[:n].copy()
        return Ways(stamps, anchor, way, self._placed())

    def _placed(self) -> NDArray[np.int64]:
        return np.array(self._keyframes, np.int64)

    def causal(self) -> Trajectory:
        """Poses as known right after each frame."""
        known = self._known[: self._count]
        T = se3.from_quaternion(known[:, :3], known[:, 3:])
        return in_time_order(self._stamps[: self._count].copy(), self._placed(), T)

    def _share(self, first: int, last: int) -> Array:
        """How much of the time between two rows has gone by at each of the rows from the one to the other."""
        stamps = self._stamps[first : last + 1]
        return np.clip((stamps - stamps[0]) / max(int(stamps[-1] - stamps[0]), 1), 0.0, 1.0)


def _packed(T: Array) -> Array:
    """Place and quaternion (7,) of a transform (4, 4)."""
    return np.concatenate([T[:3, 3], se3.quaternion_from_rotation(T[:3, :3])])

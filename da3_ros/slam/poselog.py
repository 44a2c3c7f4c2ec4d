"""A pose for every frame, kept relative to keyframes so that they can move later."""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Trajectory


class PoseLog:
    """One row per tracked frame, in arrays that double when full."""

    def __init__(self) -> None:
        """Start empty."""
        self._count = 0
        self._stamps = np.zeros(256, np.int64)
        self._ids = np.zeros(256, np.int64)
        self._reference = np.zeros(256, np.int64)
        self._T_ref_cam = np.zeros((256, 3, 4))  # without the row that is always the same
        self._T_map_cam = np.zeros((256, 3, 4))
        self._keyframe = np.zeros(256, bool)
        self._rows: dict[int, int] = {}  # recent frame ids only

    def __len__(self) -> int:
        """Number of frames."""
        return self._count

    def append(self, frame_id: int, stamp_ns: int, reference: int, T_ref_cam: Array, T_map_cam: Array) -> None:
        """Add a frame: its pose relative to a keyframe (chain units; -1 = none yet) and as known right now."""
        if self._count == len(self._stamps):
            for name in ("_stamps", "_ids", "_reference", "_T_ref_cam", "_T_map_cam", "_keyframe"):
                old = getattr(self, name)
                new = np.zeros((2 * len(old), *old.shape[1:]), old.dtype)  # takes memory where it is written to
                new[: len(old)] = old
                setattr(self, name, new)
        row = self._count
        self._stamps[row], self._ids[row], self._reference[row] = stamp_ns, frame_id, reference
        self._T_ref_cam[row], self._T_map_cam[row] = T_ref_cam[:3], T_map_cam[:3]
        self._rows[frame_id] = row
        self._count += 1

    def revise(self, frame_id: int, reference: int, T_ref_cam: Array, *, keyframe: bool = False) -> None:
        """Replace the relative pose of a frame; what was published stays as it was."""
        row = self._rows[frame_id]
        self._reference[row], self._T_ref_cam[row] = reference, T_ref_cam[:3]
        self._keyframe[row] |= keyframe

    def revise_causal(self, frame_id: int, T_map_cam: Array) -> None:
        """Replace the pose known right after a frame, where its own prediction came before the next frame."""
        self._T_map_cam[self._rows[frame_id]] = T_map_cam[:3]

    def settle_before(self, frame_id: int) -> None:
        """Frames older than this are no longer revised; keeps the index small."""
        for old in [i for i in self._rows if i < frame_id]:
            del self._rows[old]

    def causal(self) -> Trajectory:
        """Poses as known right after each frame."""
        return self._in_time_order(_whole(self._T_map_cam[: self._count]))

    def final(self, T_map_kf: Array, scale: Array) -> Trajectory:
        """Poses given the keyframes' poses (K, 4, 4) and map units per chain unit (K,).

        Frames without a keyframe (before the first prediction) take the pose of the first frame that has one.
        """
        n = self._count
        reference = self._reference[:n]
        known = np.flatnonzero(reference >= 0)
        T = np.broadcast_to(np.eye(4), (n, 4, 4)).copy()
        if len(known):
            relative = _whole(self._T_ref_cam[known])
            relative[:, :3, 3] *= scale[reference[known], None]
            T[known] = T_map_kf[reference[known]] @ relative
            following = known[np.minimum(np.searchsorted(known, np.arange(n)), len(known) - 1)]
            unknown = reference < 0
            T[unknown] = T[following[unknown]]
        return self._in_time_order(T)

    def _in_time_order(self, T: Array) -> Trajectory:
        """Poses (N, 4, 4) with their stamps; where stamps jumped back, the newer of two passes over the same time."""
        stamps, keyframe = self._stamps[: self._count], self._keyframe[: self._count]
        later = np.minimum.accumulate(stamps[::-1])[::-1]  # the least stamp from here on
        kept = np.ones(len(stamps), bool)
        kept[:-1] = stamps[:-1] < later[1:]
        return Trajectory(stamps[kept], T[kept], keyframe[kept])


def _whole(T: Array) -> Array:
    """Transforms (N, 4, 4) of their first three rows (N, 3, 4)."""
    return se3.make(T[:, :, :3], T[:, :, 3])


def scaled(T: Array, scale: float) -> Array:
    """The rigid transform (4, 4) with its translation scaled."""
    return se3.make(T[:3, :3], scale * T[:3, 3])

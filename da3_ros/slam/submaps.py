"""Submaps: runs of keyframes that keep their shape, anchored at their first keyframe."""

from __future__ import annotations

import numpy as np

from da3_ros.config import MapConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array


class Submaps:
    """Decides where submaps begin and remembers their anchors."""

    def __init__(self, config: MapConfig) -> None:
        """Start without a submap."""
        self._config = config
        self._anchors: list[Array] = []  # T_map_submap
        self._sizes: list[float] = []  # factor on what is in it
        self._firsts: list[int] = []  # index of the first keyframe
        self._keyframes = 0
        self._length = 0.0
        self._last = np.zeros(3)

    def __len__(self) -> int:
        """Number of submaps."""
        return len(self._anchors)

    def add(self, index: int, T_map_cam: Array, *, force_new: bool) -> int:
        """Assign a keyframe to a submap, which it may open; returns the submap's id."""
        cfg = self._config
        centre = T_map_cam[:3, 3]
        self._length += float(np.linalg.norm(centre - self._last))
        self._last = centre
        full = self._keyframes >= cfg.submap_keyframes or (cfg.submap_length and self._length > cfg.submap_length)
        if not self._anchors or full or force_new:
            self._anchors.append(T_map_cam)
            self._firsts.append(index)
            self._sizes.append(1.0)
            self._keyframes, self._length = 0, 0.0
        self._keyframes += 1
        return len(self._anchors) - 1

    def move(self, submap: int, index: int, T_map_cam: Array) -> None:
        """A keyframe that is not in the map yet has moved: a submap anchored at it moves along."""
        if self._firsts[submap] == index:
            self._anchors[submap] = T_map_cam

    def correct(self, T_map_cam: Array, factors: dict[int, float]) -> None:
        """All keyframes have moved, to (K, 4, 4): anchors move along, and submaps grow by factors."""
        self._anchors = [T_map_cam[first] for first in self._firsts]
        self._sizes = [size * factors.get(submap, 1.0) for submap, size in enumerate(self._sizes)]
        self._last = T_map_cam[-1, :3, 3]

    def sizes(self) -> dict[int, float]:
        """Submap id -> factor on the size of what is in it."""
        return dict(enumerate(self._sizes))

    def anchors(self) -> dict[int, Array]:
        """Submap id -> ``T_map_submap`` (4, 4)."""
        return dict(enumerate(self._anchors))

    def first_keyframes(self) -> dict[int, int]:
        """Submap id -> index of the keyframe it is anchored at."""
        return dict(enumerate(self._firsts))

    def local(self, submap: int, T_map_cam: Array) -> Array:
        """``T_submap_cam`` of a pose in the map, in units of the submap."""
        T_submap_cam = se3.inverse(self._anchors[submap]) @ T_map_cam
        return se3.make(T_submap_cam[:3, :3], T_submap_cam[:3, 3] / self._sizes[submap])

"""The incremental map: one voxel grid per submap, anchored at the submap's first keyframe.

A keyframe is fused once, when it leaves the window.  A correction of the trajectory moves anchors and leaves the
grids alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from da3_ros.config import MapConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.mapping import ply
from da3_ros.mapping.voxels import VoxelGrid
from da3_ros.types import FloatArray, FusedKeyframe, ImageArray

_AUTO_VOXEL = 0.01  # of the median depth
_EDGE = 0.05  # relative depth step across 3x3 pixels that marks an occlusion edge


@dataclass(frozen=True, slots=True, eq=False)
class SubmapChange:
    """The whole content of a submap that changed."""

    submap: int
    T_map_submap: Array  # (4, 4)
    points: FloatArray  # (N, 3) in the submap's frame
    colors: ImageArray  # (N, 3) RGB


class Map:
    """All submaps."""

    def __init__(self, config: MapConfig) -> None:
        """Start empty."""
        self._config = config
        self._voxel = config.voxel
        self._grids: dict[int, VoxelGrid] = {}
        self._anchors: dict[int, Array] = {}
        self._scales: dict[int, float] = {}
        self._changed: set[int] = set()

    def __len__(self) -> int:
        """Number of points over all submaps."""
        return sum(len(grid) for grid in self._grids.values())

    def insert(self, keyframe: FusedKeyframe) -> None:
        """Fuse one keyframe into its submap."""
        cfg = self._config
        depth = keyframe.depth
        keep = (keyframe.confidence >= cfg.min_confidence) & (depth > 0) & (depth <= cfg.max_depth) & ~_edges(depth)
        if not keep.any():
            return
        if self._voxel == 0:
            self._voxel = _AUTO_VOXEL * float(np.median(depth[keep]))
        v, u = np.nonzero(keep)
        z = depth[keep].astype(float)
        points = se3.transform(
            keyframe.T_submap_cam, keyframe.camera.unproject(np.stack([u, v], axis=1).astype(float), z)
        )
        # Near points are better known and cover less surface: confidence over squared depth, in voxels.
        weights = (keyframe.confidence[keep] * np.minimum(self._voxel / z, 1.0) ** 2).astype(np.float32)
        if keyframe.submap not in self._grids:
            self._grids[keyframe.submap] = VoxelGrid(self._voxel)
        self._grids[keyframe.submap].insert(points, keyframe.image[keep], weights)
        self._changed.add(keyframe.submap)
        self._bound()

    def move(self, anchors: Mapping[int, Array], scales: Mapping[int, float] | None = None) -> None:
        """Place submaps: ``T_map_submap`` (4, 4) and, after smoothing, a factor on the submap's size."""
        scales = scales or {}
        for submap, anchor in anchors.items():
            old = self._anchors.get(submap)
            factor = scales.get(submap, 1.0)
            if anchor is old and factor == self._scales[submap]:
                continue  # the usual case, with every anchor of a long run in each call
            if old is None or not np.array_equal(old, anchor) or factor != self._scales[submap]:
                self._anchors[submap], self._scales[submap] = anchor, factor
                if submap in self._grids:
                    self._changed.add(submap)

    def points(self) -> tuple[FloatArray, ImageArray]:
        """All points (N, 3) float32 in the map frame and their colours (N, 3) RGB."""
        parts = [self._content(submap) for submap in sorted(self._grids)]
        if not parts:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
        points = [se3.transform(c.T_map_submap, c.points).astype(np.float32) for c in parts]
        return np.concatenate(points), np.concatenate([c.colors for c in parts])

    def take_changes(self) -> list[SubmapChange]:
        """Submaps that changed since the last call."""
        changed = sorted(self._changed & self._grids.keys())
        self._changed.clear()
        return [self._content(submap) for submap in changed]

    def contents(self) -> list[SubmapChange]:
        """Every submap, whole: for somebody who knows nothing yet."""
        return [self._content(submap) for submap in sorted(self._grids)]

    def save(self, path: Path) -> int:
        """Write a binary PLY with colours, in the map frame; returns the number of points.

        Raises:
            OutputError: the file cannot be written; an older one stays as it was.
        """
        points, colors = self.points()
        ply.write(path, points, colors)
        return len(points)

    def _content(self, submap: int) -> SubmapChange:
        points, colors, _ = self._grids[submap].points()
        scale = np.float32(self._scales.get(submap, 1.0))
        return SubmapChange(submap, self._anchors.get(submap, np.eye(4)), points * scale, colors)

    def _bound(self) -> None:
        """Where there are too many voxels drop the least seen, a tenth more than must go, so that this is rare.

        Among equals the one of the older submap goes, so the bound holds whatever the weights are.
        """
        if len(self) <= self._config.max_points:
            return
        submaps = sorted(self._grids)
        weights = np.concatenate([self._grids[submap].weights for submap in submaps])
        surplus = len(weights) - round(0.9 * self._config.max_points)
        limit = np.partition(weights, surplus - 1)[surplus - 1]
        kept = weights > limit
        equal = np.flatnonzero(weights == limit)
        kept[equal[surplus - int((weights < limit).sum()) :]] = True
        ends = np.cumsum([len(self._grids[submap]) for submap in submaps])
        for submap, chosen in zip(submaps, np.split(kept, ends[:-1]), strict=True):
            if not chosen.all():
                self._grids[submap].keep(chosen)
                self._changed.add(submap)


def _edges(depth: FloatArray) -> np.ndarray:
    """Mark pixels (h, w) next to an occlusion edge, where depth mixes two surfaces."""
    filled = np.where(np.isfinite(depth), depth, np.float32(0))
    kernel = np.ones((3, 3), np.uint8)
    high, low = cv2.dilate(filled, kernel), cv2.erode(filled, kernel)
    return np.asarray(high - low > _EDGE * np.maximum(filled, 1e-9))

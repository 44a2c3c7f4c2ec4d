"""A sparse voxel grid that averages points and colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, ImageArray

_BITS = 21  # per axis in the packed key
_OFFSET = 1 << (_BITS - 1)


class VoxelGrid:
    """Weighted means per voxel, kept as sorted arrays."""

    def __init__(self, voxel: float) -> None:
        """Start empty with cubes of edge ``voxel``, in the unit of the points."""
        self.voxel = voxel
        self._keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums: FloatArray = np.zeros((0, 7), np.float32)  # weight, then weight * (x y z r g b)

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self._keys)

    def insert(self, points: Array, colors: ImageArray, weights: FloatArray) -> None:
        """Add points (N, 3), colours (N, 3) 0..255 and positive weights (N,); points out of range are left out."""
        cells = np.floor(points / self.voxel)
        inside = (np.abs(cells) < _OFFSET).all(axis=1)
        cells = cells[inside].astype(np.int64) + _OFFSET
        keys = (cells[:, 0] << (2 * _BITS)) | (cells[:, 1] << _BITS) | cells[:, 2]
        values = np.concatenate([points[inside], colors[inside]], axis=1) * weights[inside, None]
        new = np.concatenate([weights[inside, None], values], axis=1).astype(np.float32)
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, int)
        sums = np.concatenate([self._sums, new])[order]
        self._keys = keys[first]
        self._sums = np.add.reduceat(sums, first, axis=0) if len(first) else sums

    def points(self) -> tuple[FloatArray, ImageArray, FloatArray]:
        """Mean points (N, 3), mean colours (N, 3) and weights (N,)."""
        weights = self._sums[:, 0]
        means = self._sums[:, 1:] / weights[:, None]
        return means[:, :3], np.clip(np.rint(means[:, 3:]), 0, 255).astype(np.uint8), weights

    def keep_heavier(self, weight: float) -> None:
        """Drop voxels lighter than ``weight``."""
        keep = self._sums[:, 0] >= weight
        self._keys, self._sums = self._keys[keep], self._sums[keep]

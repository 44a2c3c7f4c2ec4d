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
        x, y, z = np.abs(cells).T
        inside = (x < _OFFSET) & (y < _OFFSET) & (z < _OFFSET)
        if not inside.any():
            return
        keys, owner = np.unique(_pack(cells[inside]), return_inverse=True)
        weights = weights[inside]
        # Added up in the order of the points and in double precision, so the sums do not depend on how sorting is done.
        columns = [weights, *(values * weights for values in (*points[inside].T, *colors[inside].T))]
        sums = np.stack([np.bincount(owner, column) for column in columns], axis=1).astype(np.float32)
        place = np.searchsorted(self._keys, keys)
        known = place < len(self._keys)
        known[known] = self._keys[place[known]] == keys[known]
        self._sums[place[known]] += sums[known]
        new = ~known
        self._keys = np.insert(self._keys, place[new], keys[new])
        self._sums = np.insert(self._sums, place[new], sums[new], axis=0)

    def points(self) -> tuple[FloatArray, ImageArray, FloatArray]:
        """Mean points (N, 3), mean colours (N, 3) and weights (N,)."""
        means = self._sums[:, 1:] / self._sums[:, :1]
        return means[:, :3], np.clip(np.rint(means[:, 3:]), 0, 255).astype(np.uint8), self.weights

    @property
    def weights(self) -> FloatArray:
        """Weights (N,) of the voxels."""
        return self._sums[:, 0]

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Drop the voxels (N,) that are not chosen."""
        self._keys, self._sums = self._keys[chosen], self._sums[chosen]


def _pack(cells: Array) -> NDArray[np.int64]:
    """One number per cell (N, 3) of whole numbers; their order is that of x, then y, then z."""
    x, y, z = (cells.astype(np.int64) + _OFFSET).T
    return (x << (2 * _BITS)) | (y << _BITS) | z

"""All textures at many sizes in one image, so that one lookup per pixel is already smoothed for its distance."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.sources.world.noise import SIZE

_PAD = 2  # repeated texels around a tile, for interpolation across its border
_LEVELS = 17  # half octaves: from SIZE down to 2 texels
_CHUNK = 16384  # lookups per call of cv2.remap; its output must stay below 32768 rows

FloatArray = NDArray[np.float32]


class Atlas:
    """A mip pyramid in half-octave steps; level k has SIZE / 2**(k / 2) texels per tile.

    Steps of half an octave make the nearest level good enough: one bilinear lookup instead of the two of
    trilinear filtering (Williams, Pyramidal Parametrics, SIGGRAPH 1983).
    """

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        self._columns = max(1, int(np.ceil(np.sqrt(len(images)))))
        rows = int(np.ceil(len(images) / self._columns))
        sizes = [max(2, round(SIZE * 2 ** (-k / 2))) for k in range(_LEVELS)]
        starts = np.concatenate([[0], np.cumsum([self._columns * (size + 2 * _PAD) for size in sizes])])
        self._image = np.zeros((rows * (SIZE + 2 * _PAD), int(starts[-1]), 3), np.uint8)
        for number, image in enumerate(images):
            column, row = number % self._columns, number // self._columns
            chains = [image, cv2.resize(image, (sizes[1], sizes[1]), interpolation=cv2.INTER_AREA)]
            for k, size in enumerate(sizes):
                level = chains[k % 2]
                if level.shape[0] != size:  # halve: two levels down from the one of the same parity
                    level = cv2.resize(level, (size, size), interpolation=cv2.INTER_AREA)
                chains[k % 2] = level
                cell = size + 2 * _PAD
                x, y = starts[k] + column * cell, row * cell
                self._image[y : y + cell, x : x + cell] = cv2.copyMakeBorder(
                    level, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_WRAP
                )
        self._size = np.array(sizes, np.float32)
        self._cell = self._size + 2 * _PAD
        self._start = starts[:-1].astype(np.float32) + (_PAD - 0.5)

    def places(self, texture: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """Column and row of textures in every level."""
        return (texture % self._columns).astype(np.float32), (texture // self._columns).astype(np.float32)

    def sample(
        self, u: FloatArray, v: FloatArray, column: FloatArray, row: FloatArray, log_texels: FloatArray
    ) -> NDArray[np.uint8]:
        """Look up (N, 3) colours at tile coordinates ``u`` and ``v`` (any real number; tiles repeat).

        ``log_texels`` is log2 of the full-size texels that one pixel covers.
        """
        level = np.clip(2 * log_texels + 0.5, 0, _LEVELS - 1).astype(np.intp)
        size, cell = self._size.take(level), self._cell.take(level)
        x = self._start.take(level) + cell * column + size * (u - np.floor(u))
        y = np.float32(_PAD - 0.5) + cell * row + size * (v - np.floor(v))
        out = np.empty((len(x), 3), np.uint8)
        for i in range(0, len(x), _CHUNK):
            part = slice(i, i + _CHUNK)
            out[part] = cv2.remap(self._image, x[part, None], y[part, None], cv2.INTER_LINEAR)[:, 0]
        return out

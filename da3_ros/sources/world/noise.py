"""Periodic random fields that textures are painted with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 512  # pixels of a texture tile, both ways

Field = NDArray[np.float32]


class NoiseBank:
    """A few periodic fields of SIZE x SIZE, mean 0 and deviation 1, handed out shifted and flipped at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]) * SIZE
        frequency[0, 0] = 1.0
        band = {
            "cloud": frequency**-2.0 * (frequency > 1),  # large soft blotches
            "fractal": frequency**-1.2,  # stains and relief at every scale
            "mid": np.exp(-0.5 * (np.log(frequency / 40.0) / 0.5) ** 2),  # mottling, some 13 px wide
            "fine": np.exp(-0.5 * (np.log(frequency / 130.0) / 0.4) ** 2),  # grain, some 4 px wide
        }
        self._fields: dict[str, Field] = {}
        for name, weight in band.items():
            white = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
            field = np.fft.irfft2(np.fft.rfft2(white) * weight, s=(SIZE, SIZE))
            self._fields[name] = ((field - field.mean()) / field.std()).astype(np.float32)

    def __call__(self, name: str) -> Field:
        """Return a shifted, flipped copy of the field "cloud", "fractal", "mid" or "fine"."""
        field = self._fields[name]
        if self._rng.random() < 0.5:
            field = field[::-1]
        if self._rng.random() < 0.5:
            field = field.T
        down, right = self._rng.integers(0, SIZE, 2)
        return np.ascontiguousarray(np.roll(field, (int(down), int(right)), (0, 1)))

    def grain(self) -> Field:
        """Return wood fibres that run along the columns; periodic."""
        white = self._rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        along = np.abs(np.fft.fftfreq(SIZE) * SIZE)[:, None]
        across = np.fft.rfftfreq(SIZE)[None, :] * SIZE
        weight = np.exp(-0.5 * (along / (2.0 + 0.02 * across)) ** 2) * (across + 2) ** -0.6 * (across + along > 0)
        out = np.fft.irfft2(np.fft.rfft2(white) * weight, s=(SIZE, SIZE))
        return ((out - out.mean()) / out.std()).astype(np.float32)

"""The size of an image in patches, and the embedding of places in it that the dense heads add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from da3_ros.model.presets import PATCH

_STRENGTH = 0.1
_BASE = 100.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of an image."""

    rows: int
    columns: int

    @classmethod
    def of(cls, height: int, width: int) -> Grid:
        """Grid of an image whose sides are multiples of 14."""
        assert height % PATCH == 0
        assert width % PATCH == 0
        return cls(height // PATCH, width // PATCH)

    @property
    def image(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rows * PATCH, self.columns * PATCH

    def embedding(self, x: Tensor) -> Tensor:
        """Sines and cosines (1, C, h, w) of the places of feature map ``x`` (N, C, h, w).

        Places are pixel centres in a frame whose diagonal has length 2 and whose aspect is the image's.
        """
        channels, height, width = x.shape[1:]
        aspect = self.columns / self.rows
        diagonal = (aspect**2 + 1.0) ** 0.5
        half = 0.5 * channels
        frequency = 1.0 / _BASE ** (torch.arange(channels // 4, dtype=torch.float32) / (half / 2.0))
        parts = []
        for span, count, horizontal in ((aspect / diagonal, width, True), (1 / diagonal, height, False)):
            end = span * (count - 1) / count
            angle = torch.linspace(-end, end, count)[:, None] * frequency
            wave = torch.cat([angle.sin(), angle.cos()], dim=1).T  # (C / 2, count)
            parts.append((wave[:, None, :] if horizontal else wave[:, :, None]).expand(-1, height, width))
        return (_STRENGTH * torch.cat(parts))[None].to(x.device, x.dtype)

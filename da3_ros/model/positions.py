"""Rotary position tables of one image size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BASE = 100.0


@dataclass(frozen=True, slots=True)
class Positions:
    """Cosines and sines for the two kinds of attention; token 0 of each view is its camera token.

    Within a view the camera token sits at (0, 0) and patches at (row + 1, column + 1).  Across views every camera
    token sits at (0, 0) and every patch of every view at (1, 1): places in the image play no part there.
    """

    within: tuple[Tensor, Tensor]  # (T, D) each
    _across: tuple[Tensor, Tensor]  # (T, D) each, of one view

    def across(self, views: int) -> tuple[Tensor, Tensor]:
        """Tables (views * T, D) for the tokens of all views in a row."""
        cos, sin = self._across
        return cos.repeat(views, 1), sin.repeat(views, 1)

    def arrays(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cosine and sine within views, cosine and sine of one view across views."""
        return (*self.within, *self._across)


def positions(rows: int, columns: int, head_dim: int, device: torch.device | None = None) -> Positions:
    """Tables for a grid of patches and heads of ``head_dim`` channels."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    patches = torch.stack([row.flatten(), column.flatten()], dim=1) + 1
    within = torch.cat([torch.zeros(1, 2, dtype=patches.dtype), patches])
    across = within.clamp(max=1)
    first, second = (tuple(t.to(device) for t in _table(p, head_dim)) for p in (within, across))
    return Positions((first[0], first[1]), (second[0], second[1]))


def _table(position: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cos and sin (T, head_dim) at positions (T, 2): a quarter of the channels for each angle, twice per axis."""
    frequency = 1.0 / _BASE ** (torch.arange(0, head_dim // 2, 2).float() / (head_dim // 2))
    angle = position.float()[:, :, None] * frequency  # (T, 2, head_dim / 4)
    angle = torch.cat([angle, angle], dim=-1).flatten(1)
    return angle.cos(), angle.sin()

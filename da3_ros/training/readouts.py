"""What is read out of the backbone's tokens in training only; thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from da3_ros.model.presets import Preset
from da3_ros.training.passes import SUPERVISED_BLOCKS, Passed


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Read-outs of B windows of S views with P patches each."""

    places: list[Tensor]  # (B, S - 1, P, 2) of the match, shares of the image, from what the supervised heads bring
    displacements: list[Tensor]  # (B, S - 1, P, 2) shares of the image, one per supervised block
    log_depth: Tensor  # (B, S, P) of the middle of each patch
    rays: Tensor  # (B, S, P, 6) of the middle of each patch


class Readouts(nn.Module):
    """One linear layer each, so that what they ask for must be plain in the tokens."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        dim = preset.dim
        self.early_depth = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))
        self.places = nn.ModuleList(nn.Linear(dim // preset.heads, 2) for _ in range(SUPERVISED_BLOCKS))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(SUPERVISED_BLOCKS))
        self.displacements = nn.ModuleList(nn.Linear(dim, 2) for _ in range(SUPERVISED_BLOCKS))
        self.last_norm = nn.LayerNorm(2 * dim)
        self.patches = nn.Linear(2 * dim, 7)

    def early(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S, P, C) before the first cross-view block -> log depth (B, S, P) of the middle of each patch."""
        depth: Tensor = self.early_depth(tokens)
        return depth[..., 0]

    def forward(self, passed: Passed) -> Read:
        """Read everything."""
        patches = self.patches(self.last_norm(passed.last))
        return Read(
            [layer(brought) for layer, brought in zip(self.places, passed.fetched, strict=True)],
            _each(self.norms, self.displacements, passed.mixed),
            patches[..., 0],
            patches[..., 1:],
        )


def _each(norms: nn.ModuleList, layers: nn.ModuleList, mixed: Sequence[Tensor]) -> list[Tensor]:
    return [layer(norm(x[:, 1:])) for norm, layer, x in zip(norms, layers, mixed, strict=True)]

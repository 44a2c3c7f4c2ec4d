"""The network in stages of one image size, each a module that can be exported on its own.

    encode   images (N, 3, H, W)                  -> tokens (N, T, C), chooser (N, C)       once per frame
    enter    tokens (N, T, C), cameras (N, C)     -> entered (N, T, C)                      once per frame and part
    mix      entered (S, T, C), reference first   -> four features, camera feature          per window
    neck     four features of some views          -> four levels                            per view wanted
    depth    four levels of some views            -> depth, confidence
    rays     four levels of some views            -> rays, confidence
    camera   camera feature (S, 2 C)              -> cameras (S, 9)

A network that looks at one view at a time (da3metric-large, da3mono-large) is a single stage:

    look     images (N, 3, H, W)                  -> depth (N, H, W), sky (N, H, W)         once per frame

What depends on the size alone (position embedding, rotary tables) is computed here once and becomes a constant.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from da3_ros.engine.signature import INPUTS, LEVELS, ONE_VIEW, OUTPUTS, names
from da3_ros.model.grid import Grid
from da3_ros.model.network import MonoNetwork, Network
from da3_ros.model.positions import Positions, positions

__all__ = ["INPUTS", "LEVELS", "ONE_VIEW", "OUTPUTS", "names", "stages"]


class _Stage(nn.Module):
    """A part of the network at one size."""

    network: Network

    def __init__(self, network: Network, grid: Grid) -> None:
        super().__init__()
        self.network, self.grid = network, grid


class _Placed(_Stage):
    """A stage with rotary tables."""

    cos: Tensor
    sin: Tensor
    cos_across: Tensor
    sin_across: Tensor

    def __init__(self, network: Network, grid: Grid) -> None:
        super().__init__(network, grid)
        table = positions(grid.rows, grid.columns, network.preset.dim // network.preset.heads)
        dtype = network.backbone.pos_embed.dtype  # single precision here would carry queries and keys along
        for name, value in zip(("cos", "sin", "cos_across", "sin_across"), table.arrays(), strict=True):
            self.register_buffer(name, value.to(dtype), persistent=False)

    @property
    def table(self) -> Positions:
        """The tables on this module's device and in its precision."""
        return Positions((self.cos, self.sin), (self.cos_across, self.sin_across))


class Encode(_Stage):
    """What depends on one image only."""

    position: Tensor

    def __init__(self, network: Network, grid: Grid) -> None:
        super().__init__(network, grid)
        with torch.no_grad():
            position = network.backbone.positions_at(grid.rows, grid.columns)
        self.register_buffer("position", position.detach().clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's table."""
        return self.network.backbone.encode(images, self.position)


class Enter(_Placed):
    """A view takes its part in a window: reference or not."""

    def forward(self, tokens: Tensor, cameras: Tensor) -> Tensor:
        """See the module's table."""
        return self.network.backbone.enter(tokens, cameras, self.table)


class Mix(_Placed):
    """Views look at each other."""

    def forward(self, entered: Tensor) -> tuple[Tensor, ...]:
        """See the module's table."""
        features, camera = self.network.backbone.mix(entered, self.table)
        return (*features, camera)


class NeckStage(_Stage):
    """Features to levels."""

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """See the module's table."""
        return tuple(self.network.neck(features, self.grid))


class DepthStage(_Stage):
    """Levels to depth."""

    def forward(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's table."""
        return self.network.depth(levels, self.grid)


class RayStage(_Stage):
    """Levels to rays."""

    def forward(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's table."""
        return self.network.rays(levels, self.grid)


class CameraStage(_Stage):
    """Camera feature to cameras."""

    def forward(self, camera_feature: Tensor) -> Tensor:
        """See the module's table."""
        return self.network.camera(camera_feature)


class Look(nn.Module):
    """Depth and sky of single views."""

    position: Tensor

    def __init__(self, network: MonoNetwork, grid: Grid) -> None:
        super().__init__()
        self.network, self.grid = network, grid
        with torch.no_grad():
            position = network.backbone.positions_at(grid.rows, grid.columns)
        self.register_buffer("position", position.detach().clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's table."""
        features = self.network.backbone.look(images, self.position)
        return self.network.head(self.network.neck(features, self.grid), self.grid)


def stages(network: Network | MonoNetwork, grid: Grid) -> Mapping[str, nn.Module]:
    """All stages of a network at one size, in evaluation mode; they share its weights."""
    if isinstance(network, MonoNetwork):
        return {"look": Look(network, grid).eval()}
    kinds = (Encode, Enter, Mix, NeckStage, DepthStage, RayStage, CameraStage)
    return {name: kind(network, grid).eval() for name, kind in zip(names(network.preset), kinds, strict=True)}

"""The network over several windows at once, with a view into its attention.

The same operations as ``Network.forward``, which takes one window; a test holds the two together.  What training
needs beside the outputs is kept on the way: tokens before and after the first cross-view blocks, and the attention of
their first head.  The model itself carries none of that.

``first_look`` stops at the first cross-view block: a third of the work, enough to learn what matches what.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from da3_ros.model.backbone import Attention, Block, rotate
from da3_ros.model.grid import Grid
from da3_ros.model.network import Network
from da3_ros.model.positions import Positions, positions
from da3_ros.model.presets import Preset

SUPERVISED_BLOCKS = 3  # cross-view blocks whose attention is supervised


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """What a network says of B windows of S views, and what it thought on the way; P patches per view."""

    depth: Tensor  # (V, H, W) of the V dense views
    depth_confidence: Tensor  # (V, H, W)
    rays: Tensor  # (V, h, w, 6)
    ray_confidence: Tensor  # (V, h, w)
    cameras: Tensor  # (B, S, 9)
    last: Tensor  # (B, S, P, 2 C) features of the last depth
    mixed: list[Tensor] = field(default_factory=list)  # (B, S, P, C) tokens after each supervised block
    attention: list[Tensor] = field(default_factory=list)  # (B, S - 1, P, S (1 + P)) log attention of its first head
    fetched: list[Tensor] = field(default_factory=list)  # (B, S - 1, P, D) what that head brings to each patch


def run(network: Network, images: Tensor, dense: Tensor | None = None, cameras: Tensor | None = None) -> Passed:
    """Predict B windows (B, S, 3, H, W), the reference view first.

    Args:
        network: any-view network.
        images: normalised, sides multiples of 14.
        dense: indices (V,) into the B * S views, window by window, of those that pass the dense heads; None: all.
        cameras: (B, S, 9) known cameras.
    """
    backbone, preset = network.backbone, network.preset
    windows, views = images.shape[:2]
    grid = Grid.of(*images.shape[-2:])
    table = _table(preset, grid, images)
    x = within = _entered(network, images, cameras)
    across, per_view = table.across(views), x.shape[1]
    features: list[Tensor] = []
    mixed: list[Tensor] = []
    attention: list[Tensor] = []
    fetched: list[Tensor] = []
    for i in range(first_across(preset), preset.depth):
        block = backbone.blocks[i]
        assert isinstance(block, Block)
        if i % 2:
            joined = x.reshape(windows, views * per_view, -1)
            if len(mixed) < SUPERVISED_BLOCKS:
                log, brought = _first_head(block, joined, across, per_view)
                attention.append(log)
                fetched.append(brought)
            x = block(joined, across).view_as(x)
            if len(mixed) < SUPERVISED_BLOCKS:
                mixed.append(x[:, 1:].unflatten(0, (windows, views)))
        else:
            x = within = block(x, table.within)
        if i in preset.out_layers:
            features.append(torch.cat([within[:, 1:], backbone.norm(x[:, 1:])], dim=-1))
    camera = network.camera(torch.cat([within[:, 0], x[:, 0]], dim=-1))
    shown = features if dense is None else [feature[dense] for feature in features]
    levels = network.neck(shown, grid)
    depth, depth_confidence = network.depth(levels, grid)
    rays, ray_confidence = network.rays(levels, grid)
    split = (windows, views)
    return Passed(
        depth,
        depth_confidence,
        rays,
        ray_confidence,
        camera.unflatten(0, split),
        features[-1].unflatten(0, split),
        mixed,
        attention,
        fetched,
    )


def first_look(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """The blocks within views, and whom the first cross-view block would attend to.

    Args:
        network: any-view network.
        images: (B, S, 3, H, W) normalised, the reference view first.

    Returns:
        (tokens (B, S, P, C) before that block, log attention (B, S - 1, P, S (1 + P)) of its first head)
    """
    windows, views = images.shape[:2]
    preset = network.preset
    table = _table(preset, Grid.of(*images.shape[-2:]), images)
    x = _entered(network, images, None)
    block = network.backbone.blocks[first_across(preset)]
    assert isinstance(block, Block)
    log, _ = _first_head(block, x.reshape(windows, views * x.shape[1], -1), table.across(views), x.shape[1])
    return x[:, 1:].unflatten(0, (windows, views)), log


def first_across(preset: Preset) -> int:
    """The first block in which views look at each other."""
    first = preset.alternate_from
    assert first is not None, "this network does not mix views"
    return first + 1 - first % 2


def _table(preset: Preset, grid: Grid, images: Tensor) -> Positions:
    return positions(grid.rows, grid.columns, preset.dim // preset.heads, images.device)


def _entered(network: Network, images: Tensor, cameras: Tensor | None) -> Tensor:
    """Tokens (B S, 1 + P, C) before the first cross-view block."""
    backbone = network.backbone
    windows, views = images.shape[:2]
    grid = Grid.of(*images.shape[-2:])
    tokens, _ = backbone.encode(images.flatten(0, 1), backbone.positions_at(grid.rows, grid.columns))
    if cameras is None:
        tokens_of_cameras = backbone.camera_tokens(views).repeat(windows, 1)
    else:
        tokens_of_cameras = torch.cat([network.camera_encoder(window) for window in cameras])
    return backbone.enter(tokens, tokens_of_cameras, _table(network.preset, grid, images))


def _first_head(block: Block, x: Tensor, rotation: tuple[Tensor, Tensor], per_view: int) -> tuple[Tensor, Tensor]:
    """What the first head does for the patches of all views but the first, before its projection.

    Returns:
        (log attention (B, S - 1, P, S T) to all tokens, weighted values (B, S - 1, P, D))
    """
    attn: Attention = block.attn
    dim = x.shape[-1]
    width = dim // attn.heads
    entered = block.norm1(x)
    parts = [slice(k * dim, k * dim + width) for k in range(3)]
    others = entered[:, per_view:]
    q, k, v = (
        nn.functional.linear(of, attn.qkv.weight[part], attn.qkv.bias[part])
        for of, part in zip((others, entered, entered), parts, strict=True)
    )
    cos, sin = rotation
    q = rotate(attn.q_norm(q)[:, None], cos[per_view:], sin[per_view:])[:, 0]
    k = rotate(attn.k_norm(k)[:, None], cos, sin)[:, 0]
    log = ((q @ k.transpose(1, 2)).float() / width**0.5).log_softmax(dim=-1)
    brought = log.exp() @ v.float()
    split = (-1, per_view)
    return log.unflatten(1, split)[:, :, 1:], brought.unflatten(1, split)[:, :, 1:]

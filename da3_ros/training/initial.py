"""A network's parameters before training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from da3_ros.model.backbone import Block
from da3_ros.model.heads import Residual
from da3_ros.model.network import Network
from da3_ros.model.presets import PATCH, Preset
from da3_ros.training.passes import SUPERVISED_BLOCKS, first_across

_SPREAD = 0.02  # deviation of learned tokens


def initial_network(preset: Preset, seed: int) -> Network:
    """Draw a network.

    Residual branches start small, positions as sines and cosines (so that a displacement is a linear matter from the
    start), patch embeddings as a plain linear layer's, rays as looking ahead from the origin, the quaternion as 1.  The
    supervised heads start as what they are to become (see ``_start_matching``).
    """
    torch.manual_seed(seed)
    network = Network(preset)
    backbone = network.backbone
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # The default is meant for a ReLU after each layer; the ray head has five convolutions without, through
                # which it would leave nothing of the features beside the embedding of places that is added after them.
                kernel = 1 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, std=(kernel * module.in_channels) ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Residual):
                module.conv2.weight.mul_(0.3)
        for token in (backbone.cls_token, backbone.camera_token):
            nn.init.normal_(token, std=_SPREAD)
        nn.init.trunc_normal_(backbone.patch_embed.proj.weight, std=(3 * PATCH**2) ** -0.5)
        backbone.pos_embed[0, 1:] = sine_positions(round(math.sqrt(backbone.pos_embed.shape[1] - 1)), preset.dim)
        shrink = (2 * preset.depth) ** -0.5
        for name, parameter in network.named_parameters():
            if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                parameter.mul_(shrink)
        _start_matching(network)
        _start_heads(network)
    return network


def _start_matching(network: Network) -> None:
    """Let the first head of the supervised blocks bring each patch the place of what looks like it.

    Its queries equal its keys, so that attention goes to what is alike; its values are some waves of the position,
    which no pixel disturbs; what it brings goes to channels where nothing else is.  The displacement of a patch is then
    linear in its token, as soon as attention finds the match.
    """
    backbone, preset = network.backbone, network.preset
    width = preset.dim // preset.heads
    places = _place_channels(preset.dim, width)
    kept = [c + 1 for c in places]
    backbone.patch_embed.proj.weight[places + kept] = 0
    backbone.pos_embed[..., kept] = 0
    for i in range(first_across(preset), preset.depth, 2)[:SUPERVISED_BLOCKS]:
        block = backbone.blocks[i]
        assert isinstance(block, Block)
        weight, out = block.attn.qkv.weight, block.attn.proj.weight
        weight[preset.dim : preset.dim + width] = weight[:width]
        values, brought = range(2 * preset.dim, 2 * preset.dim + len(places)), range(len(places))
        weight[list(values)] = 0
        out[kept] = 0
        out[:, list(brought)] = 0
        weight[list(values), places] = 1
        out[kept, list(brought)] = 1


def _place_channels(dim: int, most: int) -> list[int]:
    """Channels of ``sine_positions`` with four waves of rows and columns, from the longest on, at most ``most``."""
    quarter = dim // 4
    waves = [round(share * (quarter - 2)) for share in (1.0, 0.7, 0.35, 0.05)][: most // 4]
    return [start * quarter + wave for wave in waves for start in range(4)]


def _start_heads(network: Network) -> None:
    """Let the heads say little that differs from a view ahead from the origin."""
    camera, rays, depth = network.camera, network.rays.out, network.depth.output_conv2[2]
    fov = camera.fc_fov[0]
    assert isinstance(fov, nn.Linear)
    assert isinstance(depth, nn.Conv2d)
    for layer in (camera.fc_t, camera.fc_qvec, fov, rays, depth):
        layer.weight.mul_(0.1)
        assert layer.bias is not None
        layer.bias.zero_()
    camera.fc_qvec.bias[3] = 1.0
    fov.bias.fill_(1.0)
    assert rays.bias is not None
    rays.bias[2] = 1.0


def sine_positions(side: int, dim: int) -> Tensor:
    """Sines and cosines (side * side, dim) of row and column, half the channels each.

    Wavelengths go from 12 places, the least that a grid of a third of the places can carry, to 4 sides.
    """
    quarter = dim // 4
    wavelength = 12 * (side / 3) ** torch.linspace(0, 1, quarter)
    angle = torch.arange(side)[:, None] * (2 * math.pi / wavelength)
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    waves = torch.cat([waves, waves.new_zeros(side, dim // 2 - 2 * quarter)], dim=1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    both = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return torch.cat([both, both.new_zeros(side * side, dim - both.shape[1])], dim=1)

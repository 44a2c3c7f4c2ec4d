"""A way for the origins through a trained ray head that has none.

The origin of a view's rays is one point, alike all over it.  While features know nothing of it sideways, the chain of
convolutions before the rays learns to leave it out; when they come to know, a linear layer reads it from them at
once, and the chain is slow to let it through.  So three channels of every layer, those that say least, are given over
to it: they carry what a linear map of the last features says of the origin, unchanged, up to the rays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from da3_ros.model.heads import Fusion, Pyramid, RayHead, Residual
from da3_ros.model.network import Network
from da3_ros.training.batch import Batch
from da3_ros.training.bounds import make_room
from da3_ros.training.passes import run

_RIDGE = 0.01  # of the features' mean square
_LOUDNESS = 0.7  # spread of the origins beside that of the channels with which the layer norm mixes them

Channels = list[int]


def lay_way(network: Network, batches: Callable[[], Iterable[Batch]]) -> None:
    """Let the mean origin of rays be what a linear map of the last features says, in place.

    Depth and the directions of rays lose the channels that said least; some hundred steps of training mend them.

    Args:
        network: any-view network, trained.
        batches: gives some thousand views, the same ones each time, to fit the map on.
    """
    make_room(network.rays)
    with torch.no_grad():
        seen = _look(network, batches())
        weight, bias = _ridge(seen.features, seen.true_origins)
        start = _carry(network, seen)
        # Wide enough to pass the layer norm beside the others; the last layer takes the gain away again.
        fitted = (seen.features @ weight + bias).std().clamp(min=1e-6)
        gain = _LOUDNESS * seen.spread[network.rays.conv].mean() / fitted
        first, last = _conv(network.neck.projects[3]), network.rays.out
        assert first.bias is not None
        assert last.bias is not None
        first.weight[start], first.bias[start] = gain * weight.T[..., None, None], gain * bias
        said = _look(network, batches()).origins
        middle = said.mean(dim=0)
        back = ((said - middle) * seen.true_origins).sum() / (said - middle).square().sum().clamp(min=1e-12)
        last.weight[3:6] *= back
        last.bias[3:6] = seen.true_origins.mean(dim=0) - back * middle


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a network makes of V views."""

    spread: dict[nn.Module, Tensor]  # standard deviations of each layer's output channels
    features: Tensor  # (V, 2 C) means over the patches of the last features
    origins: Tensor  # (V, 3) mean origins of rays
    true_origins: Tensor  # (V, 3)

    def quietest(self, layer: nn.Module, heard_by: Tensor, count: int = 3) -> Channels:
        """Output channels of a layer of which the kernels (out, channels, h, w) of the next make least."""
        return _least(self.spread[layer] * heard_by.transpose(0, 1).flatten(1).norm(dim=1), count)


def _look(network: Network, batches: Iterable[Batch]) -> _Seen:
    spreads: dict[nn.Module, list[Tensor]] = {}
    features, origins, truth = [], [], []

    def note(layer: nn.Module, _: object, said: Tensor) -> None:
        spreads.setdefault(layer, []).append(said.transpose(0, 1).flatten(1).std(dim=1))

    with ExitStack() as hooks:
        for module in (network.neck, network.rays, network.depth):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | Fusion):
                    hooks.callback(layer.register_forward_hook(note).remove)
        for batch in batches:
            passed = run(network, batch.images)
            norm: nn.Module = network.neck.norm
            features.append(norm(passed.last).mean(dim=2).flatten(0, 1))
            origins.append(passed.rays[..., 3:].mean(dim=(1, 2)))
            truth.append(batch.rays[..., 3:].mean(dim=(2, 3)).flatten(0, 1))
    spread = {layer: torch.stack(of).mean(dim=0) for layer, of in spreads.items()}
    return _Seen(spread, torch.cat(features), torch.cat(origins), torch.cat(truth))


def _ridge(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C, 3) and bias (3,) of the linear map from features (V, C) to targets (V, 3)."""
    middle, mean = features.mean(dim=0), targets.mean(dim=0)
    x = features - middle
    moments = x.T @ x / len(x)
    eye = torch.eye(x.shape[1]) * _RIDGE * moments.diagonal().mean()
    weight = torch.linalg.solve(moments + eye, x.T @ (targets - mean) / len(x))
    return weight, mean - middle @ weight


def _carry(network: Network, seen: _Seen) -> Channels:
    """Give three channels of each layer over to what three of the last level's projection say; returns those."""
    neck, head = network.neck, network.rays
    resize, layer = _conv(neck.resize_layers[3]), _conv(neck.layers[3])
    pyramids = head.pyramid, network.depth.pyramid
    fusions = [fusion for pyramid in pyramids for fusion in pyramid.children()]
    start = seen.quietest(neck.projects[3], resize.weight)
    resized = seen.quietest(resize, layer.weight)
    # One set for all levels, since each is added to the next.
    spreads = [seen.spread[module] / seen.spread[module].mean() for module in (*neck.layers, *fusions)]
    channels = _least(torch.stack(spreads).norm(dim=0), 3)
    _pass_on(resize, start, resized)
    _pass_on(layer, resized, channels)
    for other in neck.layers[:3]:
        _conv(other).weight[channels] = 0
    for pyramid in pyramids:  # that of depth reads the same levels, and must not hear what is not for it
        _unheard(pyramid, channels)
    _handed_on(head.pyramid, channels)
    chain = [_conv(conv) for conv in (*head.output_conv1, head.conv)]
    for conv, following in pairwise(chain):
        target = seen.quietest(conv, following.weight)
        _pass_on(conv, channels, target)
        channels = target
    _say(head, channels, seen.quietest(head.conv, head.out.weight, 6))
    return start


def _pass_on(conv: nn.Conv2d, source: Channels, target: Channels) -> None:
    """Let a convolution copy three channels, which nothing else hears or disturbs."""
    middle = conv.weight.shape[-1] // 2
    conv.weight[target] = 0
    conv.weight[:, source] = 0
    conv.weight[target, source, middle, middle] = 1
    if conv.bias is not None:
        conv.bias[target] = 0


def _unheard(pyramid: Pyramid, channels: Channels) -> None:
    """Let nothing in a pyramid hear some channels."""
    for module in pyramid.modules():
        if isinstance(module, Residual):
            module.conv1.weight[:, channels] = 0
        elif isinstance(module, Fusion):
            module.out_conv.weight[:, channels] = 0


def _handed_on(pyramid: Pyramid, channels: Channels) -> None:
    """Let a pyramid hand some channels on as they are."""
    for module in pyramid.modules():
        if isinstance(module, Residual):
            assert module.conv2.bias is not None
            module.conv2.weight[channels], module.conv2.bias[channels] = 0, 0
        elif isinstance(module, Fusion):
            _pass_on(module.out_conv, channels, channels)


def _say(head: RayHead, source: Channels, pairs: Channels) -> None:
    """Let the origins be three channels, each passing the rectifier as a pair of either sign."""
    conv, norm, out = head.conv, head.norm, head.out
    assert conv.bias is not None
    positive, negative = pairs[:3], pairs[3:]
    conv.weight[:, source] = 0
    conv.weight[pairs], conv.bias[pairs] = 0, 0
    others = [i for i in range(len(conv.weight)) if i not in pairs]
    # The layer norm takes the mean away; without one, the pairs stay symmetric about zero.
    conv.weight[others] -= conv.weight[others].mean(dim=0)
    conv.bias[others] -= conv.bias[others].mean()
    conv.weight[positive, source, 1, 1], conv.weight[negative, source, 1, 1] = 1, -1
    norm.weight[pairs], norm.bias[pairs] = 1, 0
    out.weight[:, pairs] = 0
    out.weight[3:6] = 0
    for i, (plus, minus) in enumerate(zip(positive, negative, strict=True)):
        out.weight[3 + i, plus], out.weight[3 + i, minus] = 1, -1


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _least(loudness: Tensor, count: int) -> Channels:
    return sorted(int(c) for c in loudness.argsort()[:count])

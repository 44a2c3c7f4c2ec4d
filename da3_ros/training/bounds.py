"""Layers whose scale means nothing must not grow.

Nothing but convolutions lies between the ray head's input and a layer norm, which takes any scale away again.  Adam
moves every weight by about the rate, whichever way; so the scale of such layers only ever grows, by many powers of
ten, until half precision overflows and what is added to their output counts for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da3_ros.model.heads import RayHead

_MOST_GAIN = 100.0  # of the last kernels of a ray head together; as drawn they have half of that


class Bounds:
    """Keeps the kernels before the layer norm of a ray head at the size that they had in the beginning, at most."""

    def __init__(self, head: RayHead) -> None:
        """Take a head as drawn, which is to be trained."""
        self._kernels: list[tuple[nn.Parameter, Tensor]] = [
            (kernel, kernel.detach().norm())
            for name, kernel in head.named_parameters()
            if kernel.ndim == 4 and not name.startswith("out.")
        ]

    def keep(self) -> None:
        """Shrink those that have grown."""
        with torch.no_grad():
            for kernel, most in self._kernels:
                kernel.mul_((most / kernel.norm().clamp(min=1e-12)).clamp(max=1.0))


def make_room(head: RayHead) -> None:
    """Take the gain of the last kernels out of a trained head, in place, so that half precision holds what they say.

    Kernels of one size still come to agree on what is alike all over a view, three times as much after each.  They are
    linear up to the layer norm, which does not feel the scale; what is added before it, the embedding of places, is a
    thousandth of the features either way.
    """
    layers = [layer for layer in (*head.output_conv1, head.conv) if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        gain = float(torch.stack([torch.linalg.matrix_norm(layer.weight.sum((2, 3)), 2) for layer in layers]).prod())
        if gain < _MOST_GAIN:
            return
        each = gain ** (1 / len(layers))
        for i, layer in enumerate(layers, 1):
            layer.weight.div_(each)
            if layer.bias is not None:
                layer.bias.div_(each**i)

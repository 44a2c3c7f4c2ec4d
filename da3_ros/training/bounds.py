"""Layers whose scale means nothing must not grow.

Nothing but convolutions lies between the ray head's input and a layer norm, which takes any scale away again.  Adam
moves every weight by about the rate, whichever way; so the scale of such layers only ever grows, by many powers of
ten, until half precision overflows and what is added to their output counts for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da3_ros.model.heads import RayHead

_GAIN = 3.0  # of each of the last kernels in a trained head: what they say alike adds up


class Bounds:
    """Keeps the kernels before the layer norm of a ray head at the size that they had in the beginning, at most."""

    def __init__(self, head: RayHead, initial: RayHead) -> None:
        """Take the head in training, and one as drawn."""
        begun = dict(initial.named_parameters())
        self._kernels: list[tuple[nn.Parameter, Tensor]] = [
            (kernel, begun[name].detach().norm())
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

    They are linear up to the layer norm, which does not feel the scale; what is added before it, the embedding of
    places, is a thousandth of the features either way.
    """
    with torch.no_grad():
        for i, layer in enumerate([*head.output_conv1, head.conv], 1):
            assert isinstance(layer, nn.Conv2d)
            layer.weight.div_(_GAIN)
            if layer.bias is not None:
                layer.bias.div_(_GAIN**i)

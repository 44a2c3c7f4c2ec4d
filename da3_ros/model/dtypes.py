"""Mixed precision: a value follows the layer it goes into."""

from __future__ import annotations

from torch import Tensor, nn


def as_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Bring a value into a layer's precision: in a half-precision network the last layers stay in single."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return x.to(weight.dtype)

"""The network's confidence in the units of the rest of the package."""

from __future__ import annotations

import numpy as np

from da3_ros.types import FloatArray

_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def as_probability(raw: FloatArray) -> FloatArray:
    """Confidence 1 + exp(x), of any shape, as the logistic of the same x: in [0, 1), 0.5 where the network says 2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(1 - 1 / np.maximum(raw, 1), 0, _BELOW_ONE).astype(np.float32)

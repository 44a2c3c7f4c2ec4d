"""The network's confidence in the units of the rest of the package."""

from __future__ import annotations

import numpy as np

from da3_ros.types import FloatArray

_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
_FAINT = 0.25  # a window whose median lies less than this above 1 has less than 0.5 there


def of_depth(raw: FloatArray) -> FloatArray:
    """Confidence (N, H, W) of depth, 1 and above, in [0, 1), relative to the window: its median pixel has 0.5.

    What the network's numbers mean from scene to scene is not calibrated, and the released code only ever compares them
    with each other (percentiles, medians).  So these do not compare across windows, but for a floor below which a whole
    window is faint.  Values that are not finite give 0 and have no say.
    """
    finite = np.isfinite(raw)
    excess = np.where(finite, np.maximum(raw, 1) - 1, 0).astype(np.float32)
    unit = max(float(np.median(excess[finite])), _FAINT) if finite.any() else _FAINT
    return np.clip(excess / (excess + np.float32(unit)), 0, _BELOW_ONE).astype(np.float32)


def of_rays(raw: FloatArray) -> FloatArray:
    """Confidence 1 + exp(x) of rays, of any shape, as the logistic of the same x, in [0, 1); not finite gives 0.

    Cameras are fitted with these as weights, where a common factor has no say.
    """
    finite = np.isfinite(raw)
    with np.errstate(invalid="ignore"):
        return np.where(finite, np.clip(1 - 1 / np.maximum(raw, 1), 0, _BELOW_ONE), 0).astype(np.float32)

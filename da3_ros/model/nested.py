"""Metres for a network that knows none: one scale per window from a network that sees metres one view at a time.

As da3nested-giant-large does it, with two differences: it is repeatable (large windows are thinned with a stride, not
at random), and a window that gives no scale, such as one of nothing but sky, is a result and not a failure.  Works on
NumPy arrays, which every runtime returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray

_SKY = 0.3  # output of the sky head from which on a pixel is sky
_FOCAL = 300.0  # pixels: the metric network was trained for this focal length
_ENOUGH = 10  # pixels
_SAMPLES = 100_000
_FARTHEST = 200.0  # m, for sky
_NEAREST, _NEAREST_METRIC = 1e-3, 1e-2
_FAR_QUANTILE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Coupled:
    """A window in metres, where there was a scale."""

    depth: FloatArray  # (S, H, W) metres, or window units where scale is None; sky is filled with a far depth
    confidence: FloatArray  # (S, H, W), 1 and above; 1 in the sky
    sky: NDArray[np.bool_]  # (S, H, W)
    scale: float | None  # metres per window unit, for depth (already applied) and translations (not)
    pixels: int  # that gave the scale
    reason: str  # one sentence where scale is None, else empty


def metres(depth: FloatArray, K: Array) -> FloatArray:
    """Depth (S, H, W) of the metric network in metres, for cameras (S, 3, 3) in pixels of the processed image."""
    focal = (K[:, 0, 0] + K[:, 1, 1]) / 2
    return (depth * (focal / _FOCAL).astype(np.float32)[:, None, None]).astype(np.float32)


def is_sky(sky: FloatArray) -> NDArray[np.bool_]:
    """Where the sky head says sky; not finite counts as sky."""
    with np.errstate(invalid="ignore"):
        return ~(sky < _SKY)


def fill_sky(depth: FloatArray, sky: NDArray[np.bool_], farthest: float = np.inf) -> FloatArray:
    """Depth (S, H, W) with the sky (same shape) as far as the far end of the rest; unchanged where there is no rest."""
    rest = _thinned(depth[~sky & np.isfinite(depth)])
    if len(rest) == 0 or not sky.any():
        return depth
    return np.where(sky, np.float32(min(np.quantile(rest, _FAR_QUANTILE), farthest)), depth)


def mono_depth(depth: FloatArray, sky: FloatArray) -> FloatArray:
    """Depth of a network that looks at one view at a time, as it is released: the sky filled where both are present."""
    mask = is_sky(sky)
    return fill_sky(depth, mask) if min(mask.sum(), (~mask).sum()) > _ENOUGH else depth


def couple(depth: FloatArray, confidence: FloatArray, metric_depth: FloatArray, sky: FloatArray) -> Coupled:
    """Scale a window to metres.

    Args:
        depth: (S, H, W) in window units.
        confidence: (S, H, W) of that depth, 1 and above.
        metric_depth: (S, H, W) in metres, see ``metres``; NaN for views whose camera is unknown.
        sky: (S, H, W) output of the sky head.
    """
    mask = is_sky(sky)
    scale, pixels = _scale(depth, confidence, metric_depth, ~mask)
    why = ""
    if scale is None:
        why = f"no metric scale: only {pixels} confident pixels are not sky, {_ENOUGH + 1} are needed"
    else:
        depth = (depth * np.float32(scale)).astype(np.float32)
    depth = fill_sky(depth, mask, np.inf if scale is None else _FARTHEST)
    return Coupled(depth, np.where(mask, np.float32(1), confidence), mask, scale, pixels, why)


def _scale(
    depth: FloatArray, confidence: FloatArray, metric: FloatArray, ground: NDArray[np.bool_]
) -> tuple[float | None, int]:
    """Least squares over the more confident half of what is not sky; and the number of pixels that had a say."""
    known = ground & np.isfinite(depth) & np.isfinite(confidence) & np.isfinite(metric)
    if known.sum() <= _ENOUGH:
        return None, int(known.sum())
    median = np.quantile(_thinned(confidence[known]), 0.5)
    used = known & (confidence >= median) & (depth > _NEAREST) & (metric > _NEAREST_METRIC)
    a, b = depth[used].astype(float), metric[used].astype(float)
    count = int(used.sum())
    if count <= _ENOUGH:
        return None, count
    return float(a @ b / (a @ a)), count


def _thinned(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """At most 100,000 of them, evenly; the stride is odd, so that it does not run down the columns of an image."""
    return values[:: -(-len(values) // _SAMPLES) | 1]

"""Scale and shift that bring relative depth to measured depth, robustly.

Depth Anything 3 (arXiv 2511.10647, section 3.3) aligns the dense depth of its teacher to sparse or noisy measured depth
by RANSAC least squares (Fischler and Bolles 1981): ``measured = scale * relative + shift``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import robust
from da3_ros.geometry.se3 import Array

_SAMPLE = 2  # points that fix a scale and a shift
_MAD_SHARE = 0.25  # of the spread of the measured depth: the default inlier threshold
_ENOUGH = 10  # inliers without which an alignment says nothing
_REFITS = 3  # of the inliers, by least squares


@dataclass(frozen=True, slots=True, eq=False)
class ScaleShift:
    """``measured = scale * relative + shift``."""

    scale: float
    shift: float  # in the unit of the measured values
    inliers: NDArray[np.bool_]  # (N,) of the pairs given
    sigma: float  # robust spread of the inliers' residuals

    def __call__(self, relative: NDArray[np.floating]) -> Array:
        """Bring relative values, of any shape, to measured ones."""
        return np.asarray(self.scale * np.asarray(relative, float) + self.shift)


def fit_scale_shift(
    relative: NDArray[np.floating],
    measured: NDArray[np.floating],
    *,
    threshold: float | None = None,
    iterations: int = 200,
    seed: int = 0,
) -> ScaleShift:
    """Fit scale and shift to pairs of values, many of which may be wrong.

    Args:
        relative: (N,) dense prediction at the measured pixels; pairs with anything not finite are outliers.
        measured: (N,) measured depth.
        threshold: largest residual of an inlier, in the unit of ``measured``; by default a quarter of the mean absolute
            deviation of the measured values from their median, the residual threshold of MiDaS-style alignments.
        iterations: samples drawn; 200 find two inliers among 60 % outliers with a chance of failure of 1e-15.
        seed: of the draws.

    Raises:
        ValueError: fewer than ten pairs agree on a positive scale.
    """
    relative, measured = np.asarray(relative, float), np.asarray(measured, float)
    usable = np.flatnonzero(np.isfinite(relative) & np.isfinite(measured))
    if len(usable) < _ENOUGH:
        raise ValueError(f"{len(usable)} pairs of depth are too few to align by; at least {_ENOUGH} are needed")
    x, y = relative[usable], measured[usable]
    if threshold is None:
        threshold = _MAD_SHARE * float(np.abs(y - np.median(y)).mean())
    threshold = max(threshold, 1e-9 * float(np.abs(y).max()))
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(x), size=(iterations, _SAMPLE))
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (y[picks[:, 1]] - y[picks[:, 0]]) / (x[picks[:, 1]] - x[picks[:, 0]])
        shifts = y[picks[:, 0]] - scales * x[picks[:, 0]]
    best = np.zeros(len(x), bool)
    for scale, shift in zip(scales, shifts, strict=True):
        if np.isfinite(scale) and scale > 0:
            agreeing = np.abs(scale * x + shift - y) <= threshold
            if agreeing.sum() > best.sum():
                best = agreeing
    for _ in range(_REFITS):
        if best.sum() < _ENOUGH or np.ptp(x[best]) == 0:
            raise ValueError("the measured depth agrees on no scale and shift of the prediction")
        scale, shift = np.polyfit(x[best], y[best], 1)
        residual = scale * x + shift - y
        best = np.abs(residual) <= threshold
    if not scale > 0:
        raise ValueError("the measured depth falls where the prediction rises")
    inliers = np.zeros(len(relative), bool)
    inliers[usable[best]] = True
    return ScaleShift(float(scale), float(shift), inliers, robust.mad_sigma(residual[best], 0.0))

"""Robust location and spread: medians, MAD, Tukey's biweight."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.se3 import Array

Real = TypeVar("Real", bound=np.floating)

MAD_TO_SIGMA = 1.4826  # makes the MAD of a normal sample an estimate of its standard deviation
MEDIAN_LENGTH = 1.538  # of vectors of three standard normals (Maxwell's distribution)
_SETTLED = 1e-3  # sigma; a robust mean that moves by less has converged, as samples have less than a million values
TUKEY_95 = 4.685  # Tukey's constant for 95 % efficiency on normal data (Huber, Robust Statistics)


def mad_sigma(values: Array, centre: float | None = None) -> float:
    """Standard deviation estimated from the median absolute deviation; 0 for an empty sample."""
    if len(values) == 0:
        return 0.0
    centre = float(np.median(values)) if centre is None else centre
    return MAD_TO_SIGMA * float(np.median(np.abs(values - centre)))


def weighted_median(values: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    """Value at which half of the weight lies on either side; NaN without weight."""
    order = np.argsort(values)  # equal values may come in any order
    cumulative = np.cumsum(weights[order])
    if len(values) == 0 or not cumulative[-1] > 0:
        return float("nan")
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def tukey_weights(residuals: Array, sigma: float) -> Array:
    """Tukey biweight factors in [0, 1] for residuals (N,); residuals beyond 4.685 sigma get 0."""
    if sigma <= 0:
        return (residuals == 0).astype(float)
    scaled = residuals / (TUKEY_95 * sigma)
    return np.where(np.abs(scaled) < 1, (1 - scaled**2) ** 2, 0.0)


def tukey_of_squares(squares: NDArray[Real], limit: float) -> NDArray[Real]:
    """Tukey biweight factors in [0, 1] for squared residuals of any shape; those beyond ``limit`` get 0.

    In the precision of the squares: planes of single precision stay that, and no root is taken.
    """
    out = squares * squares.dtype.type(-1 / limit)
    out += 1
    np.maximum(out, 0, out=out)
    out *= out
    return out


def tukey_location(values: Array, weights: Array, iterations: int = 10) -> tuple[float, float]:
    """Robust mean of values (N,) under weights (N,) and the spread of its inliers.

    Starts at the weighted median; sigma is the MAD about the current estimate, so the estimate follows one-sided
    outliers far less than a mean does.  An exact sample (MAD 0) returns its weighted median.

    Returns:
        (location, sigma): NaN, NaN without any weight.
    """
    centre = weighted_median(values, weights)
    if not np.isfinite(centre):
        return float("nan"), float("nan")
    sigma = 0.0
    for _ in range(iterations):
        sigma = mad_sigma(values, centre)
        factors = weights * tukey_weights(values - centre, sigma)
        total = float(factors.sum())
        if sigma == 0 or total <= 0:
            break
        moved = float(factors @ values) / total
        done = abs(moved - centre) < _SETTLED * sigma
        centre = moved
        if done:
            break
    return centre, sigma

"""The unit of predicted depth, by depth that was measured at some of its pixels.

RANSAC (Fischler and Bolles 1981) finds the pairs that agree on one scale, or on a scale and a shift
(``scale_shift.py``).  Errors of predicted depth are alike over a patch, so the pairs are then averaged by cells of the
image, and what the cells say of each other, not what the pixels say, is the uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import robust
from da3_ros.geometry.scale_shift import fit_scale_shift
from da3_ros.geometry.se3 import Array

GRID = (6, 8)  # rows, columns of cells: errors of depth in two of them are taken as independent
_FEWEST_POINTS = 30
_FEWEST_CELLS = 12  # a quarter of the image: points in one corner say little of the rest
_AGREEING = 0.2  # log: pairs whose ratio is within this of the scale agree with it
_MAJORITY = 0.5  # share of the pairs that must agree
_DRAWS = 64  # of one ratio each: with half of the pairs wrong all are wrong once in 1e19
_SHIFT_THRESHOLD = 0.1  # share of the median measured depth


@dataclass(frozen=True, slots=True)
class DepthScale:
    """What a unit of predicted depth is in metres."""

    log_scale: float  # log(metres per unit)
    sigma: float  # its 1-sigma
    points: int  # that agree
    cells: int  # that they lie in


def at_pixels(pixels: NDArray[np.floating], size: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Rows and columns (2, N) in an array (h, w, ...) of pixels (N, 2) in an image of a size (width, height).

    The array covers the whole image; those outside get the nearest at its border.
    """
    across = np.floor((pixels[:, 0] + 0.5) * shape[1] / size[0]).astype(np.intp)
    down = np.floor((pixels[:, 1] + 0.5) * shape[0] / size[1]).astype(np.intp)
    return np.stack([down.clip(0, shape[0] - 1), across.clip(0, shape[1] - 1)])


def cells_of(pixels: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.intp]:
    """Number of the cell (N,) that each pixel (N, 2) of an image of a size (width, height) lies in."""
    down, across = at_pixels(pixels, size, GRID)
    return np.asarray(down * GRID[1] + across, np.intp)


def align(
    predicted: NDArray[np.floating], measured: NDArray[np.floating], cells: NDArray[np.integer], *, shift: bool = False
) -> DepthScale:
    """Find the unit of predicted depth.

    Args:
        predicted: (N,) in its own unit, positive and finite.
        measured: (N,) metres, positive and finite.
        cells: (N,) which cell of the image each pair lies in.
        shift: predicted depth is off by a constant too.

    Raises:
        ValueError: too few pairs, in too few places, or they do not agree.
    """
    if len(predicted) < _FEWEST_POINTS:
        raise ValueError(f"{len(predicted)} points can be compared; {_FEWEST_POINTS} are needed")
    fitted = _scale_and_shift if shift else _scale
    return fitted(np.asarray(predicted, float), np.asarray(measured, float), cells)


def _scale(predicted: Array, measured: Array, cells: NDArray[np.integer]) -> DepthScale:
    ratios = np.log(measured) - np.log(predicted)
    drawn = np.random.default_rng(len(ratios)).choice(ratios, _DRAWS)
    supporters = (np.abs(ratios[:, None] - drawn) < _AGREEING).sum(axis=0)
    centre = float(drawn[supporters.argmax()])
    for _ in range(3):  # the draw is a pixel's ratio; their median is the middle of those that agree
        agreeing = np.abs(ratios - centre) < _AGREEING
        centre = float(np.median(ratios[agreeing]))
    _require_enough(agreeing, cells)
    means = _by_cell(ratios[agreeing], cells[agreeing])
    location, spread = robust.tukey_location(means, np.ones(len(means)))
    return DepthScale(location, spread / np.sqrt(len(means)), int(agreeing.sum()), len(means))


def _scale_and_shift(predicted: Array, measured: Array, cells: NDArray[np.integer]) -> DepthScale:
    fit = fit_scale_shift(predicted, measured, threshold=_SHIFT_THRESHOLD * float(np.median(measured)))
    agreeing = fit.inliers
    _require_enough(agreeing, cells)
    x = _by_cell(predicted[agreeing], cells[agreeing])
    residual = _by_cell(measured[agreeing] - fit(predicted[agreeing]), cells[agreeing])
    # The variance of a slope in least squares over the cells.
    sigma = robust.mad_sigma(residual, 0.0) / max(float(np.sqrt(len(x)) * x.std()), 1e-12) / fit.scale
    return DepthScale(float(np.log(fit.scale)), sigma, int(agreeing.sum()), len(x))


def _require_enough(agreeing: NDArray[np.bool_], cells: NDArray[np.integer]) -> None:
    if agreeing.mean() < _MAJORITY or agreeing.sum() < _FEWEST_POINTS:
        raise ValueError(f"only {100 * agreeing.mean():.0f} % of the points agree on one scale")
    if len(np.unique(cells[agreeing])) < _FEWEST_CELLS:
        raise ValueError("the points that agree lie in one part of the image")


def _by_cell(values: Array, cells: NDArray[np.integer]) -> Array:
    """Mean of the values in each cell that has any."""
    _, number = np.unique(cells, return_inverse=True)
    return np.bincount(number, values) / np.bincount(number)

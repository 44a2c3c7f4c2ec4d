"""Cameras from rays, in closed form.

DA3 predicts per pixel a ray (d, t) with ``P = t + D d`` in the frame of the window: ``d = R K^-1 [u v 1]`` and
``t`` the camera centre (Depth Anything 3, arXiv 2511.10647, section 3.1).  The paper recovers R and K from a
homography between the identity camera's directions and d; as the rays' third camera coordinate is 1 by definition,
no homogeneous scale is free and ``d = A p`` is a plain weighted 3x3 least squares, ``A = R K^-1``, which ``splitting``
takes apart.  Exact for any principal point.

Outliers are found on a sample of the rays, a regular grid; the fit is then refined over all of them.  Pixels p come
in rows and columns, so that every sum over them is a product of one small matrix per axis with a plane of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import robust, se3, splitting
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array

Plane = NDArray[np.floating]  # numbers in the precision of the rays

# Rays among which outliers are looked for, at least.  At 80x64 to 288x216, with 2 % of noise and 10 % of outliers,
# samples of 1024 and 4096 lead to the same rotation within 1 % of its error, as all rays have the last word.
_SAMPLE = 1024
# Re-weightings of all rays: the error is 5 % above that of iterating over them to the end after one, 0.5 % after two.
_REFINEMENTS = 2
# Least squares gives in to a region that is wrong as one (sky, a mirror): 20 % of the rays, off by 0.3, turned the
# camera by 17 degrees.  Least absolute deviations, which are convex, hold (0.02 degrees); on rays without such a region
# one re-weighting towards them is enough, on those eight.
_STARTS = 10
_NEAR = 0.1  # spreads of the residuals: what moves by less needs no better start
_SETTLED = 0.03  # standard errors of the sample: what moves by less has converged
_REACH = 8.0  # standard deviations beyond which a ray counts nothing; at 7 the error on normal noise is 1 % larger
_CHI2_3_MEDIAN = 2.366  # median of the squared norm of three standard normal numbers
_EXACT = 1e-6  # no ray is an outlier for less (directions have z = 1): single precision ends there
# What a network says wrong it says wrong alike over whole regions: how well the fit is known follows from the sums of
# the residuals over this many blocks along either side (standard errors clustered by block), not from single rays.
_BLOCKS = 4


@dataclass(frozen=True, slots=True, eq=False)
class RayCamera:
    """What a ray map says of its camera."""

    T_frame_cam: Array  # (4, 4), OpenCV axes, in the frame of the rays
    camera: Pinhole  # at the image size asked for


def make_rays(T_frame_cam: Array, camera: Pinhole, height: int, width: int) -> Array:
    """Exact ray map (height, width, 6): direction then origin, at the centres of a coarser grid over the image."""
    directions = camera.resized(width, height).directions() @ T_frame_cam[:3, :3].T
    origins = np.broadcast_to(T_frame_cam[:3, 3], directions.shape)
    return np.concatenate([directions, origins], axis=-1)


def camera_from_rays(
    rays: NDArray[np.floating],
    weights: NDArray[np.floating],
    size: tuple[int, int],
    known: Pinhole | None = None,
    iterations: int = 5,
) -> RayCamera:
    """Fit one camera to a ray map.

    Args:
        rays: (h, w, 6) direction then origin, in the window's frame; the grid covers the whole image.
        weights: (h, w) confidence; rays without positive weight or with anything that is not finite are ignored.
        size: (width, height) of the image that the camera is wanted for, pixels.
        known: the calibrated camera at any size; then only the rotation and centre are estimated.
        iterations: re-weightings (Tukey) against outliers.

    Raises:
        ValueError: fewer than six rays carry weight, or they are degenerate: in a line of pixels, all alike, mirrored.
    """
    if known is None:
        return cameras_from_rays(rays[None], weights[None], size, iterations)[0]
    height, width = rays.shape[:2]
    everything, A, factor, centre = _fit(rays, weights, iterations)
    # Only what is known of some columns of A beside the others counts.
    K = _pixel_scaling(width, height) @ known.resized(width, height).matrix
    rotation = splitting.rotation_of(A, everything.normal(factor), K)
    return RayCamera(se3.make(rotation, centre), known.resized(*size))


def cameras_from_rays(
    rays: NDArray[np.floating], weights: NDArray[np.floating], size: tuple[int, int], iterations: int = 5
) -> list[RayCamera]:
    """Fit N views of one uncalibrated camera to their ray maps (N, h, w, 6) with weights (N, h, w).

    Raises:
        ValueError: as ``camera_from_rays``, for any of the views.
    """
    height, width = rays.shape[1:3]
    fits, information, centres = [], [], []
    for each, weight in zip(rays, weights, strict=True):
        everything, A, factor, centre = _fit(each, weight, iterations)
        fits.append(A)
        with np.errstate(over="ignore", invalid="ignore"):
            information.append(everything.information(everything.residual(A), factor))
        centres.append(centre)
    rotations, K = splitting.rotations_and_camera_of(np.stack(fits), np.stack(information))
    K = np.linalg.inv(_pixel_scaling(width, height)) @ K  # A is over centred and scaled pixels
    camera = Pinhole.from_matrix(K, width, height).resized(*size)
    return [RayCamera(se3.make(R, centre), camera) for R, centre in zip(rotations, centres, strict=True)]


def _fit(
    rays: NDArray[np.floating], weights: NDArray[np.floating], iterations: int
) -> tuple[_RayGrid, Array, Plane, Array]:
    """All rays, A (3, 3) of their directions, the weights (h, w) it was found by, and their centre (3,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # an absurd ray overflows, and is an outlier or not finite
        everything = _RayGrid.read(rays, weights)
        sample = everything.sampled()
        A, factor, limit = _fit_directions(sample, iterations)
        centre, spread = _fit_origin(sample.origins.reshape(3, -1), factor.ravel(), iterations)
        if sample is not everything:
            for _ in range(_REFINEMENTS):
                residual = everything.residual(A)
                factor = robust.tukey_of_squares(_squared(residual), limit) * everything.weights
                A = A + everything.solve(residual, factor)
            centre = _move_origin(everything.origins.reshape(3, -1), factor.ravel(), centre, spread)
    return everything, A, factor, centre


@dataclass(frozen=True, slots=True, eq=False)
class _RayGrid:
    """Rays at the crossings of some columns and rows of pixels; pixels are centred and scaled to [-1, 1]."""

    directions: Plane  # (3, h, w), finite everywhere
    origins: Plane  # (3, h, w), finite everywhere
    weights: Plane  # (h, w), 0 = ignore
    columns: Plane  # (w, 3): u^2, u, 1
    rows: Plane  # (h, 3): v^2, v, 1

    @classmethod
    def read(cls, rays: NDArray[np.floating], weights: NDArray[np.floating]) -> _RayGrid:
        """All rays of a map (h, w, 6), in single precision or better.

        Raises:
            ValueError: fewer than six are finite and carry weight.
        """
        height, width = rays.shape[:2]
        # A copy by components: sums and products over whole planes are several times as fast as over triples.
        planes: Plane = np.array(np.moveaxis(rays, -1, 0), np.result_type(rays, np.float32), order="C")
        finite = np.isfinite(planes.sum(axis=0))
        keep = finite & (weights > 0) & np.isfinite(weights)
        if np.count_nonzero(keep) < 6:
            raise ValueError("fewer than six rays carry confidence")
        if not finite.all():
            planes[:, ~finite] = 0
        kept: Plane = weights.astype(planes.dtype)
        if not keep.all():
            kept[~keep] = 0
        scaling = _pixel_scaling(width, height)
        u, v = np.arange(width) * scaling[0, 0] + scaling[0, 2], np.arange(height) * scaling[1, 1] + scaling[1, 2]
        columns, rows = (np.stack([x**2, x, np.ones_like(x)], axis=1).astype(planes.dtype) for x in (u, v))
        return cls(planes[:3], planes[3:], kept, columns, rows)

    def sampled(self) -> _RayGrid:
        """Some of the rays, in double precision; all of them, where there are few."""
        count = np.count_nonzero(self.weights)
        step = max(int(np.sqrt(count / _SAMPLE)), 1)
        every = slice((step - 1) // 2, None, step)
        # Weights in the pattern of the sample can hide from it.
        if 2 * step**2 * np.count_nonzero(self.weights[every, every]) < count:
            step, every = 1, slice(None)
        if step == 1 and self.weights.dtype == np.float64:
            return self
        return _RayGrid(
            self.directions[:, every, every].astype(float),
            self.origins[:, every, every].astype(float),
            self.weights[every, every].astype(float),
            self.columns[every].astype(float),
            self.rows[every].astype(float),
        )

    def residual(self, A: Array) -> Plane:
        """Residuals (3, h, w): d - A p."""
        A = A.astype(self.directions.dtype)
        out = self.directions - (A[:, 1:] @ self.rows[:, 1:].T)[:, :, None]
        out -= np.multiply.outer(A[:, 0], self.columns[:, 1])[:, None, :]
        return out

    def solve(self, residual: Plane, factor: Plane) -> Array:
        """The change (3, 3) of A that minimises the sum of factor (h, w) times the squared residual (3, h, w).

        Solving for the change, not for A, keeps single precision harmless: errors shrink with the residual.

        Raises:
            ValueError: the normal equations do not determine it.
        """
        normal = self.normal(factor)
        mixed = (self.rows[:, 1:].T @ (residual * factor) @ self.columns[:, 1:]).astype(float)
        right = mixed[:, (1, 0, 1), (0, 1, 1)].T  # sums of p d^T
        # The determinant over that of a multiple of the identity: 1e-17 on a line, 1e-9 for two neighbouring lines.
        (a, b, c), (_, d, e), (_, _, f) = normal.tolist()
        determinant = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
        if not determinant > 1e-12 * ((a + d + f) / 3) ** 3:
            raise ValueError("the confident rays lie on a line")
        change: Array = np.linalg.solve(normal, right).T
        return change

    def information(self, residual: Plane, factor: Plane) -> Array:
        """Information (3, 3) about each row of A, fitted under weights (h, w): the normal matrix over the noise."""
        starts = [_blocks(factor.sum(axis=axis)) for axis in (1, 0)]

        def summed(planes: Plane) -> Array:
            of_rows = np.add.reduceat(planes, starts[0], axis=-2)
            return np.add.reduceat(of_rows, starts[1], axis=-1).astype(float)

        weighted, weight = residual * factor, summed(factor)
        total = float(weight.sum())
        # As many as weigh alike; each component of A has three parameters, which take that many sums to zero.
        blocks = total**2 / float((weight**2).sum())
        together = blocks / max(blocks - 3, 1) * float((summed(weighted) ** 2).sum()) / 3
        alone = float(_squared(weighted).sum()) / 3  # as if every ray were wrong for itself
        exact = _EXACT**2 * float((factor**2).sum())
        return self.normal(factor) * (total / max(together, alone, exact))

    def normal(self, factor: Plane) -> Array:
        """Sums (3, 3) of factor (h, w) times p p^T."""
        moments = (self.rows.T @ factor @ self.columns).astype(float)  # sums of v^(2-i) u^(2-j)
        normal: Array = moments[_NORMAL_ROWS, _NORMAL_COLUMNS]
        return normal


# Where the sums of u u, u v, u, v v, v and 1 lie in the table of moments.
_NORMAL_ROWS = np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]])
_NORMAL_COLUMNS = np.array([[0, 1, 1], [1, 2, 2], [1, 2, 2]])


def _pixel_scaling(width: int, height: int) -> Array:
    """Matrix (3, 3) from pixels to [-1, 1] along the longer side; keeps the normal equations well conditioned."""
    span = max(width, height) / 2
    return np.array([[1 / span, 0, -(width - 1) / 2 / span], [0, 1 / span, -(height - 1) / 2 / span], [0, 0, 1.0]])


def _blocks(weight: Plane) -> NDArray[np.intp]:
    """Where the parts begin that divide weights (N,) in ``_BLOCKS`` of about the same sum."""
    before = np.cumsum(weight) - weight / 2
    part = np.floor(before * (_BLOCKS / max(float(weight.sum()), 1e-30)))
    return np.flatnonzero(np.diff(part, prepend=-1))


def _squared(residual: Plane) -> Plane:
    """Squared norms (h, w) of residuals (3, h, w)."""
    return np.einsum("chw,chw->hw", residual, residual)


def _middle(values: Plane) -> Plane:
    """Median along the last axis, the upper one of an even number: a partial sort, no mean."""
    half = values.shape[-1] // 2
    middle: Plane = np.partition(values, half, axis=-1)[..., half]
    return middle


def _fit_directions(rays: _RayGrid, iterations: int) -> tuple[Array, Plane, float]:
    """Robust A (3, 3) of ``d = A p``, the final weights (h, w) and the squared residual beyond which they are 0."""
    kept = rays.weights > 0
    settled = _SETTLED / np.sqrt(np.count_nonzero(kept))
    factor, limit = rays.weights, np.inf
    A = rays.solve(rays.directions, factor)
    for _ in range(_STARTS if iterations else 0):
        residual = rays.residual(A)
        squared = _squared(residual)
        median = float(_middle(squared[kept]))
        change = rays.solve(residual, rays.weights / np.sqrt(squared + (1e-6 * median + _EXACT**2)))
        A = A + change
        if np.abs(change).max() < _NEAR * max(np.sqrt(median), _EXACT):
            break
    for _ in range(iterations):
        residual = rays.residual(A)
        squared = _squared(residual)
        variance = max(float(_middle(squared[kept])) / _CHI2_3_MEDIAN, _EXACT**2)
        limit = _REACH**2 * variance
        factor = robust.tukey_of_squares(squared, limit) * rays.weights
        change = rays.solve(residual, factor)
        A = A + change
        if np.abs(change).max() < settled * np.sqrt(variance):
            break
    return A, factor, limit


def _fit_origin(origins: Plane, weights: Plane, iterations: int) -> tuple[Array, Plane]:
    """Robust mean (3,) of origins (3, N) under weights (N,), and the standard deviations (3,) of the coordinates."""
    some = weights > 0
    origins, weights = origins[:, some], weights[some]
    settled = _SETTLED / np.sqrt(len(weights))
    # A start need not be exact, and sorting is slow: some hundreds of rays do.
    every = max(len(weights) // 512, 1)
    centre = np.array([robust.weighted_median(coordinate, weights[::every]) for coordinate in origins[:, ::every]])
    spread: Plane = np.full(3, np.inf)
    for _ in range(iterations):
        spread = np.maximum(robust.MAD_TO_SIGMA * _middle(np.abs(origins - centre[:, None])), _EXACT)
        before, centre = centre, _move_origin(origins, weights, centre, spread)
        if (np.abs(centre - before) < settled * spread).all():
            break
    return centre, spread


def _move_origin(origins: Plane, weights: Plane, centre: Array, spread: Plane) -> Array:
    """One re-weighted mean (3,) of origins (3, N): a ray that is wrong in one coordinate counts in none."""
    residual = origins - centre.astype(origins.dtype)[:, None]
    squared = (spread**-2).astype(origins.dtype) @ residual**2
    factor = robust.tukey_of_squares(squared, _REACH**2) * weights
    total = float(factor.sum())
    return centre + (residual @ factor) / total if total > 0 else centre

"""``A = s R K^-1`` apart into a rotation and a camera, A known only as well as a noisy fit knows it.

Pixels are centred and scaled to [-1, 1] along the longer side.  A principal point off the middle and a turned camera
look almost alike in a narrow view, so that noise makes one of the other: what is known of principal points before is
part of the fit (maximum a posteriori).  It vanishes beside rays without noise, whatever their principal point.
Views of one camera share K, so that what all of them say of it tells their turns from it.  Directions have z = 1 in
their camera, so that s is 1; networks are off by some per cent, which must not become focal length, and s is free.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

# Standard deviation of principal points about the middle of the image, in halves of its longer side.  The cameras of
# KITTI, EuRoC and TUM are off by 0.2 to 2.4 % of that side; this is 1.5 %.
_CENTRED = 0.03
_FLATTEST = 1e-3  # least change of a direction over half the image: a view of a tenth of a degree
_MOST_STEPS = 20  # of Gauss-Newton from the QR decomposition; usual views take three
_HALVINGS = 6  # of a step that leads uphill
# Of three views and more, one that says another camera than the others counts less (Cauchy's kernel, squared).
_REWEIGHTINGS = 3
_MOST_KNOWN = 4.0  # times what the middle view knows: more is believed of no view
_FREE = 5  # numbers of a view (9 of A, less its rotation and s) that are left to misfit
_USUAL = 9.0  # squared misfit at which a view counts for a quarter, where the middle one misfits by no more than noise
_SETTLED = 1e-5  # change of a parameter: angles in rad, logarithms, halves of the image
_TURNS = np.stack([se3.hat(axis) for axis in np.eye(3)])


def rotation_of(A: Array, information: Array, K: Array) -> Array:
    """Rotation (3, 3) of a known camera: the weighted least squares of ``A - R K^-1`` (orthogonal Procrustes).

    Args:
        A: (3, 3) fitted.
        information: (3, 3) about each row of A.
        K: (3, 3) camera in the pixels of the fit.

    Raises:
        ValueError: A is of no camera.
    """
    _decomposed(A)
    return _turned(A, information, np.asarray(np.linalg.inv(K), float))


def rotations_and_camera_of(A: Array, information: Array) -> tuple[Array, Array]:
    """Rotations (N, 3, 3) of N views of one camera, and the camera (3, 3), without skew, in the pixels of the fit.

    What turns one view and what moves the principal point look alike; what is common to all views is the camera.

    Args:
        A: (N, 3, 3) fitted.
        information: (N, 3, 3) about each row of each A.

    Raises:
        ValueError: an A is of no camera.
    """
    parts = [_decomposed(each) for each in A]
    length = np.array([upper[2, 2] for _, upper in parts])[:, None, None]
    with np.errstate(over="ignore", under="ignore"):
        A, information = A / length, information * length**2
    known = information[:, 2, 2]
    if not (np.isfinite(A).all() and np.isfinite(information).all() and known.min() > 0):
        raise ValueError("the rays do not form a camera: nothing determines it")
    R, scale = np.stack([rotation for rotation, _ in parts]), np.zeros(len(A))
    camera: Array = np.median([_parameters(upper / upper[2, 2]) for _, upper in parts], axis=0)
    # A view may be wrong as a whole, and sure of itself.
    trust = np.minimum(1.0, _MOST_KNOWN * np.median(known) / known)
    try:
        root = np.asarray(np.linalg.cholesky(information), float)
        for _ in range(_REWEIGHTINGS if len(A) > 2 else 1):
            if len(A) > 1:
                R, scale = _placed(camera, A, information)
            misfit = (_misfit(R, scale, camera, A, root) ** 2).sum(axis=(1, 2))
            doubt = misfit / (_USUAL * max(1.0, float(np.median(misfit)) / _FREE)) if len(A) > 2 else np.zeros(len(A))
            R, camera = _adjusted(R, scale, camera, A, (np.sqrt(trust) / (1 + doubt))[:, None, None] * root)
    except np.linalg.LinAlgError:  # a ValueError in some releases of numpy only
        raise ValueError("the rays do not form a camera: nothing determines it") from None
    (fx, fy), (cx, cy) = np.exp(camera[:2]), camera[2:]
    return R, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _turned(A: Array, information: Array, inverse: Array) -> Array:
    """Rotations (..., 3, 3) that bring ``K^-1`` next to A (..., 3, 3)."""
    return se3.nearest_rotation(A @ information @ inverse.T)


def _placed(camera: Array, A: Array, information: Array) -> tuple[Array, Array]:
    """Rotations (N, 3, 3) and logarithms of s (N,) of views whose camera is known."""
    inverse = _inverse(camera)
    R = _turned(A, information, inverse)
    P = R @ inverse
    s = (A @ information * P).sum(axis=(1, 2)) / (P @ information * P).sum(axis=(1, 2))
    return R, np.log(np.maximum(s, _FLATTEST))


def _adjusted(R: Array, scale: Array, camera: Array, A: Array, root: Array) -> tuple[Array, Array]:
    """Rotations and camera where the misfit is least, from close by; each view has a logarithm of s of its own."""
    cost = _cost(R, scale, camera, A, root)
    for _ in range(_MOST_STEPS):
        moved, views = _step(R, scale, camera, A, root)
        for _ in range(_HALVINGS):
            there = R @ se3.exp_so3(views[:, :3]), scale + views[:, 3], camera + moved
            new = _cost(*there, A, root)
            if new <= cost:
                (R, scale, camera), cost = there, new
                break
            moved, views = moved / 2, views / 2
        else:
            return R, camera  # nothing better: this is the least, to rounding
        if max(np.abs(moved).max(), np.abs(views).max()) < _SETTLED:
            break
    return R, camera


def _parameters(upper: Array) -> Array:
    """Of ``K^-1``: what ``_inverse`` takes."""
    a, b = np.diag(upper)[:2]
    return np.array([-np.log(a), -np.log(b), -upper[0, 2] / a, -upper[1, 2] / b])


def _inverse(camera: Array) -> Array:
    """``K^-1``."""
    (u, v), (a, b) = camera[2:], np.exp(-camera[:2])
    return np.array([[a, 0, -a * u], [0, b, -b * v], [0, 0, 1.0]])


def _misfit(R: Array, scale: Array, camera: Array, A: Array, root: Array) -> Array:
    return np.asarray((A - np.exp(scale)[:, None, None] * R @ _inverse(camera)) @ root, float)


def _cost(R: Array, scale: Array, camera: Array, A: Array, root: Array) -> float:
    misfit = _misfit(R, scale, camera, A, root)
    return float((misfit**2).sum() + (camera[2:] ** 2).sum() / _CENTRED**2)


def _step(R: Array, scale: Array, camera: Array, A: Array, root: Array) -> tuple[Array, Array]:
    """Gauss-Newton step: of the camera (4,), and of each view a turn from the right of R and of its scale (N, 4)."""
    inverse, (a, b), count = _inverse(camera), np.exp(-camera[:2]), len(A)
    moves = np.zeros((8, 3, 3))  # of R K^-1 from behind R
    moves[0, 0], moves[1, 1] = -inverse[0], -inverse[1]
    moves[2, 0, 2], moves[3, 1, 2] = -a, -b
    moves[4:7] = _TURNS @ inverse
    moves[7] = inverse
    J = (np.exp(scale)[:, None, None, None] * R[:, None] @ moves @ root[:, None]).reshape(count, 8, 9).swapaxes(1, 2)
    own, each = np.zeros((count, 9, count, 4)), np.arange(count)
    own[each, :, each] = J[:, :, 4:]
    prior = np.zeros((2, 4 + 4 * count))
    prior[0, 2] = prior[1, 3] = 1 / _CENTRED
    whole = np.vstack([np.hstack([J[:, :, :4].reshape(-1, 4), own.reshape(9 * count, -1)]), prior])
    misfit = np.concatenate([_misfit(R, scale, camera, A, root).ravel(), -camera[2:] / _CENTRED])
    step: Array = np.linalg.lstsq(whole, misfit, rcond=None)[0]
    return step[:4], step[4:].reshape(count, 4)


def _decomposed(A: Array) -> tuple[Array, Array]:
    """Rotation and upper triangle with a positive diagonal (QR)."""
    q, r = np.linalg.qr(A)
    signs = np.sign(np.diag(r))
    q, r = q * signs, r * signs[:, None]
    if not (np.linalg.det(q) > 0 and np.diag(r).min() > _FLATTEST * np.abs(r).max()):
        raise ValueError("the rays do not form a camera: their directions are mirrored or flat")
    return q, r

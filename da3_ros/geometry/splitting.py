"""``A = s R K^-1`` apart into a rotation and a camera, A known only as well as a noisy fit knows it.

Pixels are centred and scaled to [-1, 1] along the longer side.  A principal point off the middle and a turned camera
look almost alike in a narrow view, so that noise makes one of the other: what is known of principal points before is
part of the fit (maximum a posteriori).  It vanishes beside rays without noise, whatever their principal point.
Directions have z = 1 in their camera, so that s is 1; networks are off by some per cent, which must not become focal
length, and s is free.
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
    return se3.nearest_rotation(A @ information @ np.linalg.inv(K).T)


def rotation_and_camera_of(A: Array, information: Array) -> tuple[Array, Array]:
    """Rotation (3, 3) and camera (3, 3), without skew, in the pixels of the fit; arguments as ``rotation_of``.

    Raises:
        ValueError: A is of no camera.
    """
    R, upper = _decomposed(A)
    length = upper[2, 2]
    # Logarithms of the focal lengths, the principal point, the logarithm of s.
    a, b = np.diag(upper)[:2]
    camera = np.array([*-np.log([a / length, b / length]), -upper[0, 2] / a, -upper[1, 2] / b, 0.0])
    try:
        R, camera = _adjusted(R, camera, A / length, np.linalg.cholesky(information) * length)
    except np.linalg.LinAlgError:  # a ValueError in some releases of numpy only
        raise ValueError("the rays do not form a camera: nothing determines it") from None
    (fx, fy), (cx, cy) = np.exp(camera[:2]), camera[2:4]
    return R, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _adjusted(R: Array, camera: Array, A: Array, root: Array) -> tuple[Array, Array]:
    """Where the misfit is least, from close by."""
    cost = _cost(R, camera, A, root)
    for _ in range(_MOST_STEPS):
        step = _step(R, camera, A, root)
        for _ in range(_HALVINGS):
            turned, moved = R @ se3.exp_so3(step[:3]), camera + step[3:]
            new = _cost(turned, moved, A, root)
            if new <= cost:
                R, camera, cost = turned, moved, new
                break
            step = step / 2
        else:
            return R, camera  # nothing better: this is the least, to rounding
        if np.abs(step).max() < _SETTLED:
            break
    return R, camera


def _inverse(camera: Array) -> Array:
    """``K^-1``."""
    (u, v), (a, b) = camera[2:4], np.exp(-camera[:2])
    return np.array([[a, 0, -a * u], [0, b, -b * v], [0, 0, 1.0]])


def _cost(R: Array, camera: Array, A: Array, root: Array) -> float:
    misfit = (A - np.exp(camera[4]) * R @ _inverse(camera)) @ root
    return float((misfit**2).sum() + (camera[2:4] ** 2).sum() / _CENTRED**2)


def _step(R: Array, camera: Array, A: Array, root: Array) -> Array:
    """Gauss-Newton step (8,): a turn from the right of R, then of the camera."""
    inverse, scale, (a, b) = _inverse(camera), np.exp(camera[4]), np.exp(-camera[:2])
    moves = np.zeros((8, 3, 3))  # of K^-1
    moves[:3] = _TURNS @ inverse
    moves[3, 0], moves[4, 1] = -inverse[0], -inverse[1]
    moves[5, 0, 2], moves[6, 1, 2] = -a, -b
    moves[7] = inverse
    prior = np.zeros((2, 8))
    prior[0, 5] = prior[1, 6] = 1 / _CENTRED
    J = np.concatenate([(scale * R @ moves @ root).reshape(8, 9).T, prior])
    misfit = ((A - scale * R @ inverse) @ root).ravel()
    step: Array = np.linalg.lstsq(J, np.concatenate([misfit, -camera[2:4] / _CENTRED]), rcond=None)[0]
    return step


def _decomposed(A: Array) -> tuple[Array, Array]:
    """Rotation and upper triangle with a positive diagonal (QR)."""
    q, r = np.linalg.qr(A)
    signs = np.sign(np.diag(r))
    q, r = q * signs, r * signs[:, None]
    if not (np.linalg.det(q) > 0 and np.diag(r).min() > _FLATTEST * np.abs(r).max()):
        raise ValueError("the rays do not form a camera: their directions are mirrored or flat")
    return q, r

"""``A = R K^-1`` apart into a rotation and a camera, A known only as well as a noisy fit knows it.

Pixels are centred and scaled to [-1, 1] along the longer side.  A principal point off the middle and a turned camera
look almost alike in a narrow view, so that noise makes one of the other: what is known of principal points before is
part of the fit (maximum a posteriori).  It vanishes beside rays without noise, whatever their principal point.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

# Standard deviation of principal points about the middle of the image, in halves of its longer side.  The cameras of
# KITTI, EuRoC and TUM are off by 0.2 to 2.4 % of that side; this is 1.5 %.
_CENTRED = 0.03
_FLATTEST = 1e-3  # least change of a direction over half the image: a view of a tenth of a degree
_ITERATIONS = 3  # of Gauss-Newton from the QR decomposition; the second moves the rotation by less than 0.01 degrees
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
    # K^-1 is [[a, 0, x], [0, b, y], [0, 0, 1]], and -x / a, -y / b is the principal point.
    a, b = np.diag(upper)[:2] / upper[2, 2]
    x, y = upper[:2, 2] / upper[2, 2]
    root = np.linalg.cholesky(information)
    for _ in range(_ITERATIONS):
        inverse = np.array([[a, 0, x], [0, b, y], [0, 0, 1.0]])
        moves = np.zeros((7, 3, 3))  # of R K^-1, before R: by turns, then by a, b, x, y
        moves[:3] = _TURNS @ inverse
        moves[3:, (0, 1, 0, 1), (0, 1, 2, 2)] = np.eye(4)
        prior = np.zeros((2, 7))
        prior[0, (3, 5)], prior[1, (4, 6)] = (x / a**2, -1 / a), (y / b**2, -1 / b)
        centre = np.array([-x / a, -y / b])
        J = np.concatenate([(R @ moves @ root).reshape(7, 9).T, prior / _CENTRED])
        left = np.concatenate([((A - R @ inverse) @ root).ravel(), -centre / _CENTRED])
        step = np.linalg.lstsq(J, left, rcond=None)[0]
        R = R @ se3.exp_so3(step[:3])
        a, b, x, y = np.array([a, b, x, y]) + step[3:]
    if not min(a, b) > 0:
        raise ValueError("the rays do not form a camera: they hardly differ for their noise")
    return R, np.array([[1 / a, 0, -x / a], [0, 1 / b, -y / b], [0, 0, 1.0]])


def _decomposed(A: Array) -> tuple[Array, Array]:
    """Rotation and upper triangle with a positive diagonal (QR)."""
    q, r = np.linalg.qr(A)
    signs = np.sign(np.diag(r))
    q, r = q * signs, r * signs[:, None]
    if not (np.linalg.det(q) > 0 and np.diag(r).min() > _FLATTEST * np.abs(r).max()):
        raise ValueError("the rays do not form a camera: their directions are mirrored or flat")
    return q, r

"""Rigid transforms as 4x4 float64 matrices.

``T_a_b`` takes coordinates in frame ``b`` to coordinates in frame ``a``; a camera pose is ``T_x_cam`` with
OpenCV axes (x right, y down, z forward).  Every function broadcasts over leading axes unless it says otherwise.
Tangent vectors are ordered (rotation, translation), radians and the unit of the translation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SMALL = 1e-6


def make(rotation: Array, translation: Array) -> Array:
    """Build (..., 4, 4) transforms from rotations (..., 3, 3) and translations (..., 3)."""
    rotation, translation = np.asarray(rotation, float), np.asarray(translation, float)
    shape = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    out = np.zeros((*shape, 4, 4))
    out[..., :3, :3] = rotation
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def inverse(T_a_b: Array) -> Array:
    """Return ``T_b_a`` for rigid ``T_a_b`` of shape (..., 4, 4)."""
    rotation_t = np.swapaxes(T_a_b[..., :3, :3], -1, -2)
    out = np.zeros(T_a_b.shape)
    out[..., :3, :3] = rotation_t
    out[..., :3, 3:] = -(rotation_t @ T_a_b[..., :3, 3:])
    out[..., 3, 3] = 1.0
    return out


def transform(T_a_b: Array, points_b: NDArray[np.floating]) -> Array:
    """Move points (N, 3) of frame ``b`` into frame ``a``; ``T_a_b`` is one (4, 4) transform."""
    return points_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def is_rigid(T: Array, tolerance: float = 1e-4) -> bool:
    """Tell whether one (4, 4) matrix is finite and rigid: orthonormal, determinant +1, last row 0 0 0 1."""
    T = np.asarray(T, float)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        return False
    rotation = T[:3, :3]
    return bool(
        np.abs(rotation @ rotation.T - np.eye(3)).max() < tolerance
        and np.linalg.det(rotation) > 0
        and np.abs(T[3] - (0, 0, 0, 1)).max() < tolerance
    )


def hat(w: Array) -> Array:
    """Return the (..., 3, 3) cross-product matrices of (..., 3) vectors."""
    w = np.asarray(w, float)
    out = np.zeros((*w.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    return out - np.swapaxes(out, -1, -2)


def adjoint(T: Array) -> Array:
    """Adjoints (..., 6, 6) of transforms (..., 4, 4) on (rotation, translation): ``T exp(x) = exp(Ad x) T``."""
    out = np.zeros((*T.shape[:-2], 6, 6))
    out[..., :3, :3] = out[..., 3:, 3:] = T[..., :3, :3]
    out[..., 3:, :3] = hat(T[..., :3, 3]) @ T[..., :3, :3]
    return out


def exp_so3(w: Array) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) in radians (Rodrigues' formula)."""
    w = np.asarray(w, float)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    safe = np.where(angle < _SMALL, 1.0, angle)
    a = np.where(angle < _SMALL, 1.0 - angle**2 / 6, np.sin(safe) / safe)
    b = np.where(angle < _SMALL, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    k = hat(w)
    return np.eye(3) + a * k + b * (k @ k)


def log_so3(rotation: Array) -> Array:
    """Rotation vectors (..., 3) in radians, norm in [0, pi], of rotation matrices (..., 3, 3)."""
    m = np.asarray(rotation, float)
    cosine = 0.5 * (m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2] - 1)
    if np.all(cosine > 0):  # less than a quarter turn, as nearly always: no need to choose a component
        vector = 0.5 * np.stack(
            [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
        )
        sine = np.sqrt((vector**2).sum(axis=-1))
        small = sine < _SMALL
        return vector * np.where(small, 1.0, np.arctan2(sine, cosine) / np.where(small, 1.0, sine))[..., None]
    q = quaternion_from_rotation(rotation)
    vector, w = q[..., :3], q[..., 3]
    norm = np.linalg.norm(vector, axis=-1)
    angle = 2 * np.arctan2(norm, w)
    factor = np.where(norm < _SMALL, 2.0, angle / np.where(norm < _SMALL, 1.0, norm))
    return vector * factor[..., None]


def exp(xi: Array) -> Array:
    """Transforms (..., 4, 4) of twists (..., 6) ordered (rotation, translation)."""
    xi = np.asarray(xi, float)
    w, v = xi[..., :3], xi[..., 3:]
    return make(exp_so3(w), np.einsum("...ij,...j->...i", _left_jacobian(w), v))


def log(T: Array) -> Array:
    """Twists (..., 6) ordered (rotation, translation) of transforms (..., 4, 4)."""
    w = log_so3(T[..., :3, :3])
    v = np.linalg.solve(_left_jacobian(w), T[..., :3, 3][..., None])[..., 0]
    return np.concatenate([w, v], axis=-1)


def _left_jacobian(w: Array) -> Array:
    """Left Jacobian of SO3 (Barfoot, State Estimation for Robotics, eq. 7.37)."""
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    safe = np.where(angle < _SMALL, 1.0, angle)
    a = np.where(angle < _SMALL, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    b = np.where(angle < _SMALL, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    k = hat(w)
    return np.eye(3) + a * k + b * (k @ k)


def rotation_angle(rotation: Array) -> Array:
    """Angle in radians, in [0, pi], of rotation matrices (..., 3, 3)."""
    return np.linalg.norm(log_so3(rotation), axis=-1)


def turning(a: Array, b: Array) -> Array:
    """The smallest turn (3,), rad, that takes one unit vector to another; about any axis where they are opposite."""
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        if cosine > 0:
            return np.zeros(3)
        axis = np.cross(a, np.eye(3)[int(np.argmin(np.abs(a)))])
        return np.pi * axis / np.linalg.norm(axis)
    return np.arctan2(sine, cosine) * axis / sine


def rotation_from_quaternion(q: Array) -> Array:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) ordered x y z w, normalised here.

    Raises:
        ValueError: a quaternion is zero or not finite.
    """
    q = np.asarray(q, float)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if not (np.isfinite(norm).all() and (norm > 1e-12).all()):
        raise ValueError("a rotation quaternion is zero or not finite")
    x, y, z, w = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_rotation(rotation: Array) -> Array:
    """Unit quaternions (..., 4) ordered x y z w, w >= 0, of rotation matrices (..., 3, 3).

    The largest of the four squared components is solved for first, which is stable at every angle
    (Shepperd, J. Guidance and Control, 1978).
    """
    m = np.asarray(rotation, float)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    candidates = np.stack(
        [
            np.stack([1 + xx - yy - zz, xy, xz, wx], axis=-1),
            np.stack([xy, 1 - xx + yy - zz, yz, wy], axis=-1),
            np.stack([xz, yz, 1 - xx - yy + zz, wz], axis=-1),
            np.stack([wx, wy, wz, 1 + xx + yy + zz], axis=-1),
        ],
        axis=-2,
    )
    best = np.argmax(np.stack([candidates[..., i, i] for i in range(4)], axis=-1), axis=-1)
    q = np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0, -q, q)


def from_quaternion(translation: Array, quaternion_xyzw: Array) -> Array:
    """Transforms (..., 4, 4) from translations (..., 3) and quaternions (..., 4) ordered x y z w."""
    return make(rotation_from_quaternion(quaternion_xyzw), translation)


def nearest_rotation(matrix: Array) -> Array:
    """Rotation matrices closest in the Frobenius norm to (..., 3, 3) matrices (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(matrix)
    u = u.copy()
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def normalized(T: Array) -> Array:
    """The transform with its rotation made orthonormal again: products of many drift away and then explode."""
    return make(nearest_rotation(T[..., :3, :3]), T[..., :3, 3])


def chordal_mean(rotations: Array, weights: Array | None = None) -> Array:
    """Chordal L2 mean (3, 3) of rotations (N, 3, 3) (Hartley et al., Rotation Averaging, IJCV 2013, 5.3)."""
    weights = np.ones(len(rotations)) if weights is None else np.asarray(weights, float)
    return nearest_rotation(np.einsum("n,nij->ij", weights, rotations))


def interpolate(T_a: Array, T_b: Array, fraction: float) -> Array:
    """Pose between two (4, 4) poses: rotation on the geodesic, translation on the straight line."""
    relative = T_a[:3, :3].T @ T_b[:3, :3]
    rotation = T_a[:3, :3] @ exp_so3(fraction * log_so3(relative))
    return make(rotation, (1 - fraction) * T_a[:3, 3] + fraction * T_b[:3, 3])

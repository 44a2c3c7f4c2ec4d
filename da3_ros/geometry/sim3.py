"""Similarities: scale, rotation and translation as one value.

``S_a_b`` takes coordinates in frame ``b`` to coordinates in frame ``a``: ``p_a = scale * R p_b + t``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array


@dataclass(frozen=True, slots=True, eq=False)
class Sim3:
    """One similarity; compose with ``@``."""

    scale: float
    rotation: Array  # (3, 3)
    translation: Array  # (3,), in units of the target frame

    @classmethod
    def identity(cls) -> Sim3:
        """The similarity that changes nothing."""
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def from_rigid(cls, T_a_b: Array, scale: float = 1.0) -> Sim3:
        """Take a (4, 4) rigid transform, with a scale applied before it."""
        return cls(scale, T_a_b[:3, :3], T_a_b[:3, 3])

    def __matmul__(self, other: Sim3) -> Sim3:
        """``S_a_b @ S_b_c = S_a_c``."""
        return Sim3(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self.scale * (self.rotation @ other.translation) + self.translation,
        )

    def inverse(self) -> Sim3:
        """``S_b_a`` of ``S_a_b``."""
        rotation = self.rotation.T
        return Sim3(1.0 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def act(self, points: Array) -> Array:
        """Move points (..., 3)."""
        return self.scale * (points @ self.rotation.T) + self.translation

    def act_pose(self, T_b_cam: Array) -> Array:
        """Move camera poses (..., 4, 4); the result is rigid, its centres are scaled."""
        return se3.make(self.rotation @ T_b_cam[..., :3, :3], self.act(T_b_cam[..., :3, 3]))


def adjoint(T: Array) -> Array:
    """Adjoints (..., 7, 7) of rigid transforms (..., 4, 4) on (rotation, translation, log scale).

    From ``Ad(g) X = g X g^-1`` with ``g = [R t; 0 1]`` and ``X = [[w] u; 0 -l]``, GTSAM's matrix of a similarity.
    """
    out = np.zeros((*T.shape[:-2], 7, 7))
    out[..., :6, :6] = se3.adjoint(T)
    out[..., 3:6, 6] = -T[..., :3, 3]
    out[..., 6, 6] = 1.0
    return out


def umeyama(points_b: Array, points_a: Array, *, with_scale: bool = True, weights: Array | None = None) -> Sim3:
    """Weighted least-squares ``S_a_b`` between paired points (N, 3) (Umeyama, PAMI 1991, eq. 40-43).

    With fewer than three points, or points on a line, the rotation about the free axis is left at the smallest
    turn that fits; with a single distinct point the rotation is the identity and the scale 1.
    """
    w = np.ones(len(points_a)) if weights is None else np.asarray(weights, float)
    w = w / w.sum()
    mean_a, mean_b = w @ points_a, w @ points_b
    a, b = points_a - mean_a, points_b - mean_b
    variance_b = float(w @ (b**2).sum(axis=1))
    if variance_b <= 1e-30:
        return Sim3(1.0, np.eye(3), mean_a - mean_b)
    u, singular, vt = np.linalg.svd((a * w[:, None]).T @ b)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float(singular @ signs) / variance_b if with_scale else 1.0
    return Sim3(scale, rotation, mean_a - scale * (rotation @ mean_b))

"""Covariance of odometry: first-order compounding of the steps, in ROS order (x y z rx ry rz).

With ``T_k = T_(k-1) D_k`` and an error ``exp(xi)`` on the right of each factor, the covariance of xi follows
``P_k = Ad(D_k^-1) P_(k-1) Ad(D_k^-1)^T + Q_k`` (Barfoot and Furgale, T-RO 2014, first order).
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

# A step is never known better than this (rad, m): covariances of zero make filters diverge.
FLOOR = 1e-4
WEAK_FACTOR = 10.0
LOST_VARIANCE = 1e3
# Kept finite over days of odometry.
_CEILING = 1e6
# Rotation-translation order of se3 -> translation-rotation order of ROS.
_ROS = np.array([3, 4, 5, 0, 1, 2])


class StepCovariance:
    """Accumulates the uncertainty of a chain of camera steps."""

    def __init__(self) -> None:
        self._P = np.eye(6) * FLOOR**2
        self._Q = np.eye(6) * LOST_VARIANCE

    def step(self, T_previous_camera: Array, sigma_rotation: float, sigma_translation: float) -> None:
        """Add one step (4, 4) with its 1-sigma per axis (rad, map units); values that are not finite count as lost."""
        rotation = _variance(sigma_rotation)
        translation = _variance(sigma_translation)
        self._Q = np.diag([rotation] * 3 + [translation] * 3)
        forward = se3.adjoint(se3.inverse(T_previous_camera))
        self._P = np.clip(forward @ self._P @ forward.T + self._Q, -_CEILING, _CEILING)

    def pose(self, T_world_body: Array, T_body_cam: Array, factor: float = 1.0) -> Array:
        """(6, 6) for PoseWithCovariance of the body: axes of the header frame, ROS order."""
        return of_body(self._P, T_world_body, T_body_cam, factor)

    def twist(self, T_body_cam: Array, dt_s: float, factor: float = 1.0) -> Array:
        """(6, 6) for TwistWithCovariance of the body: axes of the child frame, ROS order."""
        move = se3.adjoint(T_body_cam)
        return _ordered(move @ self._Q @ move.T / max(dt_s, 1e-3) ** 2, factor)


def of_body(P: Array, T_world_body: Array, T_body_cam: Array, factor: float = 1.0) -> Array:
    """From P (6, 6) of ``T_world_cam exp(xi)``, rotation first, to PoseWithCovariance of the body.

    Returns:
        (6, 6) in axes of the header frame, ROS order.
    """
    move, turn = se3.adjoint(T_body_cam), np.kron(np.eye(2), T_world_body[:3, :3])
    return _ordered(turn @ (move @ P @ move.T) @ turn.T, factor)


def unknown() -> Array:
    """(6, 6) of something that is not known at all."""
    return np.eye(6) * LOST_VARIANCE


def _variance(sigma: float) -> float:
    return max(sigma, FLOOR) ** 2 if np.isfinite(sigma) else LOST_VARIANCE


def _ordered(P: Array, factor: float) -> Array:
    P = P[np.ix_(_ROS, _ROS)] * factor
    return 0.5 * (P + P.T)

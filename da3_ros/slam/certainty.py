"""How well the newest keyframe's place in the map is known, and how well each step between keyframes.

The error of a keyframe is ``S_map_kf exp(xi)`` with xi = (rotation, translation in chain units, log scale).  It
compounds from step to step, to first order (Barfoot and Furgale, T-RO 2014):

    P_k = Ad(T_k_(k-1)) P_(k-1) Ad(T_k_(k-1))^T + Q_k

Its scale is the filter's (``scale.py``): a claim of metres makes the error of the scale smaller by a factor, and with
it what the scale has in common with the rest; what lies behind keeps its size, so nothing else becomes better known.
Loops replace P by the pose graph's own marginal.
"""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import robust, se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import adjoint
from da3_ros.slam.keyframe import Keyframe, Step
from da3_ros.slam.seam import Seam

# Of a step from keyframe to keyframe, 1-sigma per axis, at least: few shared keyframes agree by chance.
_LEAST_TURN = np.deg2rad(0.1)
_LEAST_SHIFT = 0.004  # share of the median depth
_LEAST_STRETCH = 2e-3  # log scale
_WEAK = Step(np.deg2rad(45.0), 2.0, 0.5)  # across a weak link; translation as a share of the median depth


def step_of_seam(keyframe: Keyframe, seam: Seam, *, first: bool) -> Step:
    """Errors of the way to a keyframe: those of its window's seam, whose shared views tell how far views are off.

    A shared view is off its consensus by its own error and by that of the keyframe on the chain, and a step by those of
    its two ends: as much.  Only the ``first`` keyframe of a window has the seam's error of scale.
    """
    reach = _reach(keyframe)
    if keyframe.weak:
        return step_of_weak(keyframe)
    turn, shift = (
        off / robust.MEDIAN_LENGTH if np.isfinite(off) else 0.0 for off in (np.deg2rad(seam.rotation_deg), seam.centre)
    )
    stretch = seam.sigma if first and np.isfinite(seam.sigma) else 0.0
    return Step(
        float(np.hypot(turn, _LEAST_TURN)),
        float(np.hypot(shift, _LEAST_SHIFT)) * reach,
        float(max(stretch, _LEAST_STRETCH)),
    )


def step_of_weak(keyframe: Keyframe) -> Step:
    """Errors of the way to a keyframe behind a weak link: hardly anything is known of it."""
    return Step(_WEAK.rotation, _WEAK.translation * _reach(keyframe), _WEAK.log_scale)


def _reach(keyframe: Keyframe) -> float:
    return keyframe.depth.median() if keyframe.depth is not None else 1.0


class Certainty:
    """Covariance of the newest keyframe in the map."""

    def __init__(self) -> None:
        """The first keyframe defines the map: there is no error yet."""
        self._P = np.zeros((7, 7))

    def start(self, scale_sigma: float) -> None:
        """The first keyframe was placed; 1-sigma of log(metres per map unit), inf where nobody has claimed metres."""
        self._P = np.zeros((7, 7))
        self._settle(scale_sigma)

    def step(self, T_before_new: Array, step: Step, scale_sigma: float) -> None:
        """A keyframe was placed.

        Args:
            T_before_new: (4, 4) its pose in the keyframe before, chain units.
            step: how well that is known.
            scale_sigma: as in ``start``, now.
        """
        self._P[6, 6] += step.log_scale**2
        self._settle(scale_sigma)
        move = adjoint(se3.inverse(T_before_new))
        self._P = move @ self._P @ move.T
        self._P[np.diag_indices(6)] += np.repeat([step.rotation**2, step.translation**2], 3)

    def level(self, up: Array, left: float) -> None:
        """The newest keyframe was turned on the spot, to be level.

        Args:
            up: (3,) unit vector in its camera.
            left: share of the variance of its tilt, which is what it has not turned by about ``up``.
        """
        tilt = np.eye(3) - np.outer(up, up)
        move = np.eye(7)
        move[:3, :3] -= (1 - left) * tilt
        variance = float(np.trace(tilt @ self._P[:3, :3])) / 2
        self._P = move @ self._P @ move.T
        self._P[:3, :3] += left * (1 - left) * variance * tilt

    def replace(self, covariance: Array) -> None:
        """Loops have moved the keyframes: the newest one's covariance (7, 7) in the graph."""
        self._P = covariance

    def at(self, T_kf_cam: Array, scale: float, rotation: float, translation: float) -> Array:
        """Covariance of a frame in the map.

        Args:
            T_kf_cam: (4, 4) its pose in the newest keyframe, chain units.
            scale: map units per chain unit.
            rotation: rad, 1-sigma per axis of this pose.
            translation: chain units, likewise.

        Returns:
            (6, 6) of ``T_map_cam exp(xi)``, xi = (rotation, translation in map units).
        """
        move = adjoint(se3.inverse(T_kf_cam))
        P = (move @ self._P @ move.T)[:6, :6]
        P[np.diag_indices(6)] += np.repeat([rotation**2, translation**2], 3)
        units = np.repeat([1.0, scale], 3)
        return np.asarray(P * units[:, None] * units)

    def _settle(self, scale_sigma: float) -> None:
        """Take over the error of scale from the filter."""
        before = self._P[6, 6]
        if not np.isfinite(scale_sigma):
            return  # the map's unit is the first window's
        shrunk = min(scale_sigma**2 / before, 1.0) if before > 0 else 0.0
        self._P[6, :6] *= shrunk
        self._P[:6, 6] *= shrunk
        self._P[6, 6] = scale_sigma**2

"""What odometry says of the chain's unit: how far it went between keyframes, against how far the chain did.

The length of a step is the same in all frames, so the axes of the odometry need not be known.  Steps are long enough
for the chain's noise not to add to them, and turn little: what a wheel slips, and what is wrong with the mount of the
camera, shows in turns.  A few steps together make a claim, by their robust mean; the next claim is made of other steps.
A constant offset of the clocks changes a step by that of the speed during the offset, and the steps before and after it
by the opposite, so that it hardly shows in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from da3_ros.geometry import robust, se3
from da3_ros.geometry.se3 import Array

_STEP_M = 0.1  # least length of a step
_STEP_DEG = 30.0  # largest turn of one
_STEPS = 4  # make a claim


@dataclass(frozen=True, slots=True, eq=False)
class _Stand:
    """Where a keyframe is, said by both."""

    T_chain_cam: Array  # (4, 4) chain units
    T_odom_cam: Array  # (4, 4) metres
    frame_id: int = -1


class OdometryPrior:
    """Steps since the last claim."""

    def __init__(self, step_sigma: float) -> None:
        """``step_sigma`` is the least 1-sigma of the log length of a step."""
        self._sigma = step_sigma
        self._last: _Stand | None = None
        self._ratios: list[float] = []  # log(metres per chain unit) of each step

    def forget(self) -> None:
        """The chain or the odometry was interrupted: no step leads across."""
        self._last = None

    def moved(self, frame_id: int, T_chain_cam: Array) -> None:
        """Refinement has moved a keyframe."""
        if self._last is not None and self._last.frame_id == frame_id:
            self._last = replace(self._last, T_chain_cam=T_chain_cam)

    def add(self, T_chain_cam: Array, T_odom_cam: Array, frame_id: int = -1) -> tuple[float, float] | None:
        """Go on to a keyframe; returns log(metres per chain unit) and its 1-sigma where steps enough are there."""
        stand = _Stand(T_chain_cam, T_odom_cam, frame_id)
        if self._last is None:
            self._last = stand
            return None
        chain = se3.inverse(self._last.T_chain_cam) @ T_chain_cam
        odometry = se3.inverse(self._last.T_odom_cam) @ T_odom_cam
        turned = max(np.rad2deg(se3.rotation_angle(T[:3, :3])) for T in (chain, odometry))
        gone, length = (float(np.linalg.norm(T[:3, 3])) for T in (chain, odometry))
        if turned > _STEP_DEG:
            self._last = stand
            return None
        if length < _STEP_M or gone <= 0:
            return None
        self._last = stand
        self._ratios.append(np.log(length / gone))
        if len(self._ratios) < _STEPS:
            return None
        ratios, self._ratios = self._ratios, []
        return _mean(ratios, self._sigma)


def _mean(ratios: Sequence[float], least: float) -> tuple[float, float]:
    values = np.array(ratios)
    location, spread = robust.tukey_location(values, np.ones(len(values)))
    return location, float(np.hypot(spread, least) / np.sqrt(len(values)))

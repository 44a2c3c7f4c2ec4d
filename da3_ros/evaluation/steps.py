"""Does odometry know how wrong it is?  Its steps from frame to frame, against the truth and their own sigmas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Estimate, State


@dataclass(frozen=True, slots=True, eq=False)
class StepCheck:
    """One step of odometry whose true motion is known."""

    step: Array  # (4, 4) map units
    true: Array  # (4, 4) metres
    sigma_rotation: float  # rad, 1-sigma per axis
    sigma_translation: float  # map units, 1-sigma per axis


class StepChecks:
    """Collects the steps of a run."""

    def __init__(self) -> None:
        """Start without any."""
        self.found: list[StepCheck] = []
        self._before: tuple[Estimate, Array] | None = None

    def add(self, estimate: Estimate, T_world_cam: Array | None) -> None:
        """Add a frame; steps count where the camera was tracked and the truth (4, 4) is known at both ends."""
        if T_world_cam is None or estimate.state is not State.TRACKING:
            self._before = None
            return
        if self._before is not None and self._before[0].segment == estimate.segment:
            before, T_world_before = self._before
            self.found.append(
                StepCheck(
                    se3.inverse(before.T_odom_cam) @ estimate.T_odom_cam,
                    se3.inverse(T_world_before) @ T_world_cam,
                    estimate.sigma_rotation,
                    estimate.sigma_translation,
                )
            )
        self._before = (estimate, T_world_cam)


def figures(steps: Sequence[StepCheck], metres: float | None) -> dict[str, float]:
    """Average normalised estimation error squared per degree of freedom, 1 where sigmas are right.

    Args:
        steps: of a run.
        metres: per map unit; None where it is not known.

    Returns:
        ``anees_rotation`` and ``anees_translation`` (Bar-Shalom et al., Estimation, 2001, section 5.4); empty without
        steps.
    """
    if not steps or metres is None:
        return {}
    turn = se3.log_so3(np.stack([s.true[:3, :3].T @ s.step[:3, :3] for s in steps]))
    move = np.stack([s.true[:3, 3] - metres * s.step[:3, 3] for s in steps])
    sigma_rotation = np.array([s.sigma_rotation for s in steps])
    sigma_translation = metres * np.array([s.sigma_translation for s in steps])
    return {
        "anees_rotation": float(np.mean((turn**2).sum(axis=1) / (3 * sigma_rotation**2))),
        "anees_translation": float(np.mean((move**2).sum(axis=1) / (3 * sigma_translation**2))),
    }

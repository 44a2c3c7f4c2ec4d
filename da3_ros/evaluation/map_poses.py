"""Does the map know how wrong it is?  Poses in the map, against the truth and their own covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Estimate, State

_TRACKED = (State.TRACKING, State.RELOCALISED)


@dataclass(frozen=True, slots=True, eq=False)
class PoseCheck:
    """One pose in the map, as published."""

    T_map_cam: Array  # (4, 4) map units
    true: Array  # (4, 4) metres, of the camera where the first keyframe was, which is where the map begins
    covariance: Array  # (6, 6) of ``T_map_cam exp(xi)``, rotation (rad) and translation (map units)


class PoseChecks:
    """Collects the poses of a run."""

    def __init__(self) -> None:
        """Start without any."""
        self.found: list[PoseCheck] = []
        self._T_first_world: Array | None = None

    def add(self, estimate: Estimate, T_world_cam: Array | None) -> None:
        """Add a frame; poses count where the camera was tracked and the truth (4, 4) is known."""
        if T_world_cam is None:
            return
        if estimate.state is State.INIT and estimate.segment == 0:
            if estimate.keyframe or self._T_first_world is None:
                self._T_first_world = se3.inverse(T_world_cam)
        elif self._T_first_world is not None and estimate.covariance is not None and estimate.state in _TRACKED:
            self.found.append(PoseCheck(estimate.T_map_cam, self._T_first_world @ T_world_cam, estimate.covariance))


def figures(poses: Sequence[PoseCheck], metres: float | None) -> dict[str, float]:
    """Average normalised estimation error squared per degree of freedom, 1 where covariances are right.

    Errors of neighbouring poses are nearly the same, so one run is one draw: only many runs together come near 1.

    Args:
        poses: of a run.
        metres: per map unit; None where it is not known.

    Returns:
        ``anees_rotation`` and ``anees_translation`` (Bar-Shalom et al., Estimation, 2001, section 5.4), and ``anees``,
        all six together; empty without poses.
    """
    if not poses or metres is None:
        return {}
    turn = se3.log_so3(np.stack([p.T_map_cam[:3, :3].T @ p.true[:3, :3] for p in poses]))
    apart = np.stack([p.true[:3, 3] - metres * p.T_map_cam[:3, 3] for p in poses])
    move = np.einsum("nji,nj->ni", np.stack([p.T_map_cam[:3, :3] for p in poses]), apart)
    units = np.repeat([1.0, metres], 3)
    P = np.stack([p.covariance for p in poses]) * units[:, None] * units
    error = np.concatenate([turn, move], axis=1)
    parts = {"anees_rotation": slice(0, 3), "anees_translation": slice(3, 6), "anees": slice(0, 6)}
    return {name: _anees(error[:, part], P[:, part, part]) for name, part in parts.items()}


def _anees(error: Array, P: Array) -> float:
    """Of errors (N, d) with covariances (N, d, d)."""
    squared = np.einsum("ni,ni->n", error, np.linalg.solve(P, error[..., None])[..., 0])
    return float(np.mean(squared) / error.shape[1])

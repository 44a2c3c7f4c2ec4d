"""Drawing windows of views that see each other, within limits of parallax, rotation and overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import SourceError
from da3_ros.geometry import se3
from da3_ros.training.curriculum import Difficulty
from da3_ros.training.worlds import CachedWorld

_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class DrawnWindow:
    """Views of one world, the reference view first."""

    world: int  # index in the list of worlds
    views: tuple[int, ...]


class WindowSampler:
    """Draws windows; which views go together is worked out once per world and difficulty."""

    def __init__(self, worlds: Sequence[CachedWorld]) -> None:
        """Take the worlds to draw from."""
        self._worlds = worlds
        self._rotation: dict[int, NDArray[np.float64]] = {}

    def draw(self, rng: np.random.Generator, views: int, limits: Difficulty) -> DrawnWindow:
        """Draw a window of ``views`` views: a random reference, each further view linked with one before it.

        Raises:
            SourceError: the worlds hold no such window.
        """
        for _ in range(_ATTEMPTS):
            world = int(rng.integers(len(self._worlds)))
            linked = self._linked(world, limits)
            chosen = [int(rng.integers(len(linked)))]
            while len(chosen) < views:
                near: NDArray[np.bool_] = np.logical_or.reduce(linked[chosen])
                near[chosen] = False
                candidates = np.flatnonzero(near)
                if not len(candidates):
                    break
                chosen.append(int(candidates[rng.integers(len(candidates))]))
            if len(chosen) == views:
                return DrawnWindow(world, tuple(chosen))
        raise SourceError(
            f"no window of {views} views with parallax {limits.parallax[0]:g}..{limits.parallax[1]:g} and overlap of "
            f"{limits.overlap:g} was found in {len(self._worlds)} worlds; widen the limits or render more views"
        )

    def _linked(self, index: int, limits: Difficulty) -> NDArray[np.bool_]:
        """Pairs (N, N) of views of a world that lie within the limits."""
        world = self._worlds[index]
        if index not in self._rotation:
            R = world.T_world_cam[:, :3, :3]
            self._rotation[index] = np.degrees(se3.rotation_angle(np.swapaxes(R, -1, -2)[:, None] @ R[None]))
        low, high = limits.parallax
        near = np.logical_and(world.parallax >= low, world.parallax <= high)
        least, most = limits.rotation_deg
        turned = np.logical_and(self._rotation[index] >= least, self._rotation[index] <= most)
        linked = np.logical_and.reduce((near, turned, world.overlap >= limits.overlap))
        both: NDArray[np.bool_] = linked & linked.T & ~np.eye(len(linked), dtype=bool)
        return both

"""Repeated predictions: what several windows say of how the same keyframes lie to each other.

A keyframe is predicted in several windows, with other errors each time.  Within a window of m views whose poses err
independently, eliminating the window's own frame leaves one factor per pair of views, each with 1/m of the information
of a view: sum_i |x_i - g|^2, minimal over g, is (1/m) sum_{i<j} |x_i - x_j|^2.

Only windows that place a keyframe vote: those of live frames see nearly the same images again, and a network would err
in the same way again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from da3_ros.config import RefineConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.bundle import Between

_FLOOR = 0.001  # sigma of a place that is never undercut, share of the depth


@dataclass(slots=True, eq=False)
class _Pair:
    rotation: Array = field(default_factory=lambda: np.zeros((3, 3)))  # weighted sums
    translation: Array = field(default_factory=lambda: np.zeros(3))
    information_rotation: float = 0.0
    information_translation: float = 0.0


class Repeats:
    """Running means of relative poses, by pair of keyframes."""

    def __init__(self, config: RefineConfig) -> None:
        """Start without any."""
        self._config = config
        self._pairs: dict[tuple[int, int], _Pair] = {}

    def clear(self) -> None:
        """Forget all."""
        self._pairs = {}

    def keep(self, keyframes: Sequence[int]) -> None:
        """Forget the pairs that are not of these keyframes."""
        self._pairs = {pair: p for pair, p in self._pairs.items() if pair[0] in keyframes and pair[1] in keyframes}

    def add(self, keyframes: Sequence[int], T_win_cam: Array, scale: float, depth: float) -> None:
        """Add the poses (N, 4, 4) of keyframes in a window; ``scale`` makes them chain units, ``depth`` has those."""
        cfg, count = self._config, len(keyframes)
        centres = scale * T_win_cam[:, :3, 3]
        baseline = float(np.sqrt(((centres - centres[0]) ** 2).sum(axis=1).mean()))
        rotation = 1 / (count * np.deg2rad(cfg.rotation_deg) ** 2)
        translation = 1 / (count * ((cfg.translation * baseline) ** 2 + (_FLOOR * depth) ** 2))
        for i, j in combinations(range(count), 2):
            T = se3.inverse(T_win_cam[i]) @ T_win_cam[j]
            pair = self._pairs.setdefault((keyframes[i], keyframes[j]), _Pair())
            pair.rotation += rotation * T[:3, :3]
            pair.translation += translation * scale * T[:3, 3]
            pair.information_rotation += rotation
            pair.information_translation += translation

    def between(self, keyframes: Sequence[int]) -> Between:
        """The means, with keyframes numbered as given."""
        place = {index: i for i, index in enumerate(keyframes)}
        found = [(place[a], place[b], p) for (a, b), p in self._pairs.items() if a in place and b in place]
        if not found:
            return Between.none()
        first, second, pairs = zip(*found, strict=True)
        rotation = np.array([p.information_rotation for p in pairs])
        translation = np.array([p.information_translation for p in pairs])
        sigma = 1 / np.sqrt(np.stack([rotation, translation], axis=1))
        T = se3.make(
            se3.nearest_rotation(np.stack([p.rotation for p in pairs])),
            np.stack([p.translation for p in pairs]) / translation[:, None],
        )
        return Between(np.array(first), np.array(second), T, np.repeat(sigma, 3, axis=1))

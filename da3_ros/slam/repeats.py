"""Repeated predictions: what several windows say of how the same keyframes lie to each other.

A keyframe is predicted in several windows, with other errors each time.  Within a window of m views whose poses err
independently, eliminating the window's own frame leaves one factor per pair of views, each with 1/m of the information
of a view: sum_i |x_i - g|^2, minimal over g, is (1/m) sum_{i<j} |x_i - x_j|^2.

How much windows differ on the same pair says how precise they are (``doubt``); the configured sigmas are what they are
at best.  A network that errs in the same way each time shows no difference: where windows miss most of the motion that
the tracker saw, they are believed no better than that.

Only windows that place a keyframe vote: those of live frames see nearly the same images again, and a network would err
in the same way again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from da3_ros.config import RefineConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.bundle import Between

_MEDIAN_CHI2 = 2.366  # median of the square of a normal vector in three dimensions
_REMEMBERED = 300  # differences; a window brings up to (its views over 2)
_FEWEST = 10
_MOST = 100.0
_RECENT = 30  # surprises that are remembered
_FEWEST_SURPRISES = 4
_GROSS = 0.6  # share of the motion; a wrong calibration of the tracker's camera explains less
_LEAST_TURN = np.deg2rad(2.0)
_LEAST_MOVE = 0.02  # share of the depth
_UNKNOWN = 4.0  # factor on the sigmas, before windows could be compared
_FLOOR = 0.001  # sigma of a place that is never undercut, share of the depth


@dataclass(slots=True, eq=False)
class _Pair:
    rotation: Array = field(default_factory=lambda: np.zeros((3, 3)))  # weighted sums
    translation: Array = field(default_factory=lambda: np.zeros(3))
    information_rotation: float = 0.0
    information_translation: float = 0.0
    count: int = 0


class Repeats:
    """Running means of relative poses, by pair of keyframes."""

    def __init__(self, config: RefineConfig) -> None:
        """Start without any."""
        self._config = config
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._differences: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)  # squares, in sigma
        # Of rotations and of places: share of the motion, and square in sigma.
        self._surprises: tuple[deque[tuple[float, float]], ...] = (deque(maxlen=_RECENT), deque(maxlen=_RECENT))

    @property
    def doubt(self) -> tuple[float, float]:
        """Factors on the configured sigmas of rotation and translation, at least 1, as windows differ."""
        doubt = np.full(2, _UNKNOWN)
        if len(self._differences) >= _FEWEST:
            doubt = np.sqrt(np.median(np.array(self._differences), axis=0) / _MEDIAN_CHI2)
        for i, surprises in enumerate(self._surprises):
            if len(surprises) >= _FEWEST_SURPRISES:
                share, square = np.median(np.array(surprises), axis=0)
                if share > _GROSS:
                    doubt[i] = max(doubt[i], np.sqrt(square / _MEDIAN_CHI2))
        doubt = np.clip(doubt, 1, _MOST)
        return float(doubt[0]), float(doubt[1])

    def clear(self) -> None:
        """Forget the keyframes; what was learned of windows stays."""
        self._pairs = {}

    def keep(self, keyframes: Sequence[int]) -> None:
        """Forget the pairs that are not of these keyframes."""
        self._pairs = {pair: p for pair, p in self._pairs.items() if pair[0] in keyframes and pair[1] in keyframes}

    def add(self, keyframes: Sequence[int], T_win_cam: Array, scale: float, T_chain_cam: Array, depth: float) -> None:
        """Add the poses (N, 4, 4) of keyframes in a window.

        Args:
            keyframes: their indices.
            T_win_cam: (N, 4, 4) in the window.
            scale: chain units per window unit.
            T_chain_cam: (N, 4, 4) where they are on the chain: what they moved sets how precise windows are.
            depth: typical depth, chain units.
        """
        count = len(keyframes)
        sigma_rotation, sigma_translation = self._best(T_chain_cam, depth)
        rotation, translation = 1 / (count * sigma_rotation**2), 1 / (count * sigma_translation**2)
        first, second = np.array(list(combinations(range(count), 2)), int).reshape(-1, 2).T
        T = se3.inverse(T_win_cam[first]) @ T_win_cam[second]
        T[:, :3, 3] *= scale
        names = [(keyframes[i], keyframes[j]) for i, j in zip(first, second, strict=True)]
        pairs = [self._pairs.setdefault(name, _Pair()) for name in names]
        self._compare(pairs, T, sigma_rotation, sigma_translation)
        for pair, T_pair in zip(pairs, T, strict=True):
            pair.rotation += rotation * T_pair[:3, :3]
            pair.translation += translation * T_pair[:3, 3]
            pair.information_rotation += rotation
            pair.information_translation += translation
            pair.count += 1

    def _compare(self, pairs: Sequence[_Pair], T: Array, sigma_rotation: float, sigma_translation: float) -> None:
        """Remember how much new relative poses (P, 4, 4) differ from the means so far."""
        known = np.array([i for i, pair in enumerate(pairs) if pair.count], int)
        if not len(known):
            return
        T, means = T[known], [pairs[i] for i in known]
        # The difference to a mean of n has 2 (1 + 1 / n) of a view's variance, on each of three axes.
        variance = np.array([2 * (1 + 1 / pair.count) for pair in means])
        rotation = se3.nearest_rotation(np.stack([pair.rotation for pair in means]))
        translation = np.stack([pair.translation / pair.information_translation for pair in means])
        turned = se3.rotation_angle(np.swapaxes(rotation, 1, 2) @ T[:, :3, :3])
        moved = np.linalg.norm(translation - T[:, :3, 3], axis=1)
        squares = np.stack([turned / sigma_rotation, moved / sigma_translation], axis=1) ** 2 / variance[:, None]
        self._differences.extend((float(rotated), float(shifted)) for rotated, shifted in squares)

    def surprise(self, turn: float, turned: float, move: float, moved: float, T_chain_cam: Array, depth: float) -> None:
        """A window has a new keyframe elsewhere than the tracker.

        Args:
            turn: by this angle, rad.
            turned: what the tracker saw it turn since the reference.
            move: by this distance, chain units.
            moved: what the tracker saw it move.
            T_chain_cam: (N, 4, 4) of the window's views.
            depth: typical depth, chain units.
        """
        rotation, translation = self._best(T_chain_cam, depth)
        if turned > _LEAST_TURN:
            self._surprises[0].append((turn / turned, (turn / rotation) ** 2))
        if moved > _LEAST_MOVE * depth:
            self._surprises[1].append((move / moved, (move / translation) ** 2))

    def sigmas(self, T_chain_cam: Array, depth: float) -> tuple[float, float]:
        """1-sigma per axis of the rotation, rad, and of the place, chain units, of a view in a window (N, 4, 4)."""
        best, doubt = self._best(T_chain_cam, depth), self.doubt
        return best[0] * doubt[0], best[1] * doubt[1]

    def _best(self, T_chain_cam: Array, depth: float) -> tuple[float, float]:
        centres = T_chain_cam[:, :3, 3]
        baseline = float(np.sqrt(((centres - centres[0]) ** 2).sum(axis=1).mean()))
        translation = float(np.hypot(self._config.translation * baseline, _FLOOR * depth))
        return float(np.deg2rad(self._config.rotation_deg)), translation

    def between(self, keyframes: Sequence[int]) -> Between:
        """The means, with keyframes numbered as given."""
        place = {index: i for i, index in enumerate(keyframes)}
        found = [(place[a], place[b], p) for (a, b), p in self._pairs.items() if a in place and b in place]
        if not found:
            return Between.none()
        first, second, pairs = zip(*found, strict=True)
        rotation = np.array([p.information_rotation for p in pairs])
        translation = np.array([p.information_translation for p in pairs])
        sigma = np.array(self.doubt) / np.sqrt(np.stack([rotation, translation], axis=1))
        T = se3.make(
            se3.nearest_rotation(np.stack([p.rotation for p in pairs])),
            np.stack([p.translation for p in pairs]) / translation[:, None],
        )
        return Between(np.array(first), np.array(second), T, np.repeat(sigma, 3, axis=1))

"""A camera that is carried round and round: every lap comes back to where the ones before began."""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources.world.walk import Waves

_EYE_HEIGHT = 1.45  # m above the floor
_OUTWARD = np.radians(25.0)  # the gaze, from straight ahead


class Laps:
    """Laps on an ellipse about the origin; no two are quite the same."""

    def __init__(self, seconds: float, laps: float, rng: np.random.Generator, shake: float) -> None:
        """Plan ``laps`` rounds in ``seconds``."""
        self._radii = rng.uniform(0.9, 1.4, 2)
        self._start, self._sense = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
        self._rate = 2 * np.pi * laps / max(seconds, 1e-9)
        self._reach = 2 * np.pi * laps
        self._aside = [Waves(rng, 0.04, 5.0, 17.0) for _ in range(3)]
        self._glance = [Waves(rng, np.radians(6.0), 6.0, 19.0) for _ in range(2)]
        self._sway = [Waves(rng, 0.0025 * shake, 0.35, 1.6, 6) for _ in range(3)]
        self._tremble = [Waves(rng, np.radians(0.16) * shake, 0.3, 1.5, 6) for _ in range(3)]

    def pose(self, seconds: Array) -> Array:
        """Camera-to-world poses (N, 4, 4) at times (N,)."""
        seconds = np.asarray(seconds, float)
        angle = self._start + self._sense * self._rate * seconds
        a, b = self._radii
        centre = np.stack([a * np.cos(angle), b * np.sin(angle), np.full_like(angle, _EYE_HEIGHT)], axis=-1)
        course = np.arctan2(b * np.cos(angle) * self._sense, -a * np.sin(angle) * self._sense)
        yaw = course - self._sense * _OUTWARD + self._glance[0](seconds)
        pitch = np.radians(-9.0) + self._glance[1](seconds)
        forward = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=-1)
        right = np.stack([np.sin(yaw), -np.cos(yaw), np.zeros_like(yaw)], axis=-1)
        level = np.stack([right, np.cross(forward, right), forward], axis=-1)
        turn = np.stack([wave(seconds) for wave in self._tremble], axis=-1)
        offset = np.stack([wave(seconds) for wave in self._aside], axis=-1)
        offset += np.stack([wave(seconds) for wave in self._sway], axis=-1)
        return se3.make(level @ se3.exp_so3(turn), centre + offset)

    def path(self) -> Array:
        """Camera centres (N, 3) all along, m."""
        return self.pose(np.linspace(0, self._reach / self._rate, 400))[:, :3, 3]

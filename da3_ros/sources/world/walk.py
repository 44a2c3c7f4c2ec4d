"""A hand-held camera that walks about a room and looks around.

The path is a chain of straight legs between points that see each other, with its corners rounded by smoothing;
the gaze turns, with limited speed, to where there is something to see.  All of it is a function of time that has
two continuous derivatives, so the frame rate only decides where it is sampled.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources.world.room import Extent, Placed

_STEP = 0.05  # s between samples of the path
_PLAN = 0.2  # s between decisions where to look
_GRID = 0.04  # m, cell of the plan of free floor
_CORNER = 0.45  # s, smoothing of the path
_SPEED = 0.5  # m/s, mean along the legs
_HEADINGS = 36
_TURN_RATE = np.radians(38.0)  # largest planned turn rate, rad/s

FreePath = Callable[[Array, Array], Array]


class Waves:
    """A sum of sines with random periods and phases: a smooth signal of mean 0, deviation about ``size``."""

    def __init__(self, rng: np.random.Generator, size: float, shortest: float, longest: float, count: int = 4) -> None:
        """Draw ``count`` periods between ``shortest`` and ``longest`` seconds."""
        self._rate = 2 * np.pi / np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
        self._phase = rng.uniform(0, 2 * np.pi, count)
        self._size = size * np.sqrt(2 / count)

    def __call__(self, seconds: Array) -> Array:
        """Values at times (N,)."""
        return self._size * np.sin(np.multiply.outer(np.asarray(seconds, float), self._rate) + self._phase).sum(axis=-1)


class NoWayError(ValueError):
    """The furniture leaves no room to walk."""


class Walk:
    """A smooth walk; ``pose`` gives the camera at any time of it."""

    def __init__(
        self,
        extent: Extent,
        placed: tuple[Placed, ...],
        free_path: FreePath,
        seconds: float,
        rng: np.random.Generator,
        shake: float,
    ) -> None:
        """Plan ``seconds`` of walking.

        Raises:
            NoWayError: too little free floor.
        """
        floor = _FreeFloor(extent, placed)
        times = np.arange(-2.0, seconds + 4.0, _STEP)
        speed = _SPEED + Waves(rng, 0.07, 4.0, 11.0)(times)
        travelled = np.concatenate([[0.0], np.cumsum(np.clip(speed, 0.3, 0.75)[:-1] * _STEP)])
        (steps,) = rng.spawn(1)  # a longer walk draws more often, and must not change what is drawn below
        legs = floor.legs(float(travelled[-1]), steps)
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(legs, axis=0), axis=1))])
        xy = np.stack([np.interp(travelled, along, legs[:, k]) for k in (0, 1)], axis=1)
        xy = gaussian_filter1d(xy, _CORNER / _STEP, axis=0, mode="nearest")
        z = 1.45 + np.clip(Waves(rng, 0.09, 6.0, 20.0)(times), -0.25, 0.25)
        z = np.minimum(gaussian_filter1d(z, _CORNER / _STEP), extent.height - 0.6)
        path = np.column_stack([xy, z])
        yaw = _look_around(times, path, free_path, rng)
        self._path = CubicSpline(times, path)
        self._yaw = CubicSpline(times, yaw)
        self._pitch = Waves(rng, np.radians(5.0), 6.0, 15.0)
        self._roll = Waves(rng, np.radians(1.2), 4.0, 12.0)
        self._sway = [Waves(rng, 0.0025 * shake, 0.35, 1.6, 6) for _ in range(3)]
        self._tremble = [Waves(rng, np.radians(0.16) * shake, 0.3, 1.5, 6) for _ in range(3)]

    def pose(self, seconds: Array) -> Array:
        """Camera-to-world poses (N, 4, 4) at times (N,)."""
        seconds = np.asarray(seconds, float)
        yaw, pitch = self._yaw(seconds), np.radians(-11.0) + self._pitch(seconds)
        forward = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=-1)
        right = np.stack([np.sin(yaw), -np.cos(yaw), np.zeros_like(yaw)], axis=-1)
        level = np.stack([right, np.cross(forward, right), forward], axis=-1)
        turn = np.stack([wave(seconds) for wave in self._tremble], axis=-1)
        turn[..., 2] += self._roll(seconds)
        sway = np.stack([wave(seconds) for wave in self._sway], axis=-1)
        return se3.make(level @ se3.exp_so3(turn), self._path(seconds) + sway)


class _FreeFloor:
    """Where a person with a camera can stand, as a grid."""

    def __init__(self, extent: Extent, placed: tuple[Placed, ...]) -> None:
        self._origin = np.array([extent.x0, extent.y0])
        shape = (int((extent.y1 - extent.y0) / _GRID), int((extent.x1 - extent.x0) / _GRID))
        plan = np.full(shape, 255, np.uint8)
        plan[[0, -1]] = 0
        plan[:, [0, -1]] = 0
        for item in placed:
            corners = ((item.corners() - self._origin) / _GRID).astype(np.int32)
            cv2.fillConvexPoly(plan, corners, 0)
        room = cv2.distanceTransform(plan, cv2.DIST_L2, 5) * _GRID
        for margin in (0.62, 0.54, 0.48):
            count, label, stats, _ = cv2.connectedComponentsWithStats((room > margin).astype(np.uint8), connectivity=4)
            best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else 0
            spread = max(stats[best, cv2.CC_STAT_WIDTH], stats[best, cv2.CC_STAT_HEIGHT]) * _GRID
            if best and spread > 1.2 and stats[best, cv2.CC_STAT_AREA] * _GRID**2 > 1.0:
                self._free = label == best
                break
        else:
            raise NoWayError("the furniture leaves no room to walk")
        rows, columns = np.nonzero(self._free)
        self._cells = np.column_stack([columns, rows])

    def legs(self, length: float, rng: np.random.Generator) -> Array:
        """Corners (M, 2) of a random polyline at least ``length`` metres long, all of it on free floor."""
        here = self._cells[int(rng.integers(len(self._cells)))]
        corners, total, heading = [here], 0.0, np.zeros(2)
        while total < length:
            there = self._next(here, heading, rng)
            step = (there - here) * _GRID
            total += float(np.linalg.norm(step))
            heading = step / np.linalg.norm(step)
            corners.append(there)
            here = there
        return self._origin + (np.array(corners) + 0.5) * _GRID

    def _next(self, here: Array, heading: Array, rng: np.random.Generator) -> Array:
        """The best of the visible ones of a few random cells: far, and not back where we came from."""
        best, best_score = None, -np.inf
        for there in self._cells[rng.integers(0, len(self._cells), 24)]:
            step = (there - here) * _GRID
            distance = float(np.linalg.norm(step))
            if distance < 0.25 or not self._visible(here, there):
                continue
            score = min(distance, 2.0) + 1.1 * float(heading @ step) / distance + rng.uniform(0, 1.2)
            if score > best_score:
                best, best_score = there, score
        return best if best is not None else self._nearby(here)

    def _nearby(self, here: Array) -> Array:
        """A farthest visible cell; in a connected region there always is one."""
        order = np.argsort(-np.abs(self._cells - here).sum(axis=1), kind="stable")
        for there in self._cells[order]:
            if (there != here).any() and self._visible(here, there):
                return there
        raise NoWayError("the furniture leaves no room to walk")

    def _visible(self, a: Array, b: Array) -> bool:
        count = int(np.abs(b - a).max()) * 2 + 1
        line = np.rint(a + np.linspace(0, 1, count)[:, None] * (b - a)).astype(int)
        return bool(self._free[line[:, 1], line[:, 0]].all())


def _look_around(times: Array, path: Array, free_path: FreePath, rng: np.random.Generator) -> Array:
    """Yaw (N,): towards open views, roughly ahead, with a slowly wandering curiosity; turn rate limited."""
    every = round(_PLAN / _STEP)
    stops = path[::every]
    headings = np.arange(_HEADINGS) * (2 * np.pi / _HEADINGS)
    fan = np.stack([np.cos(headings), np.sin(headings), np.full(_HEADINGS, -0.2)], axis=1)
    fan /= np.linalg.norm(fan, axis=1, keepdims=True)
    starts = np.repeat(stops, _HEADINGS, axis=0)
    view = np.minimum(free_path(starts, np.tile(fan, (len(stops), 1))), 4.0).reshape(-1, _HEADINGS)
    view = np.mean([np.roll(view, k, axis=1) for k in range(-3, 4)], axis=0)  # over a field of view of 70 degrees
    appeal = 1.1 * np.tanh(view / 1.6)
    drift = rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.3) + Waves(rng, 0.2, 7.0, 23.0)(times[::every])
    curiosity = rng.uniform(0, 2 * np.pi) + np.cumsum(drift * _PLAN)
    course = np.gradient(stops[:, :2], _PLAN, axis=0)
    ahead = course @ np.stack([np.cos(headings), np.sin(headings)])
    appeal += 0.9 * np.cos(headings[None] - curiosity[:, None]) + 0.5 * ahead
    yaw, rate = float(headings[int(np.argmax(appeal[0]))]), 0.0
    planned = np.empty(len(stops))
    for i, wish in enumerate(appeal):
        best = headings[int(np.argmax(wish + 0.55 * np.cos(headings - yaw)))]
        error = (best - yaw + np.pi) % (2 * np.pi) - np.pi
        rate += (float(np.clip(0.9 * error, -_TURN_RATE, _TURN_RATE)) - rate) * 0.35
        yaw += rate * _PLAN
        planned[i] = yaw
    return gaussian_filter1d(np.interp(times, times[::every], planned), 0.35 / _STEP, mode="nearest")

"""Cameras from rays at the network's resolution: milliseconds per view and error of the rotation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.rays import camera_from_rays, make_rays
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray

SIZES = ((280, 210), (504, 378))  # images; rays come at 8/14 of them
OFF_CENTRE = 0.1  # of the image: the principal point
NOISE = 0.02  # per component, of directions with z = 1 and of origins in units of the window
OUTLIERS = 0.1  # share of the rays, off by as much as they are long
VIEWS = 20  # different cameras and draws per row


@dataclass(frozen=True, slots=True)
class Row:
    """Of one size of ray map, with the camera known or not, with noise or without."""

    width: int
    height: int
    known: bool
    noisy: bool
    ms: float  # per view, median
    error_deg: float  # rotation, median
    worst_deg: float

    def __str__(self) -> str:
        """The row of the table."""
        size = f"{self.width}x{self.height}"
        return (
            f"{size:>8}  {'known' if self.known else 'unknown':<9}{'noisy' if self.noisy else 'clean':<7}"
            f"{self.ms:>9.2f}{self.error_deg:>12.5f}{self.worst_deg:>10.5f}"
        )


HEAD = (
    f"principal point {OFF_CENTRE:.0%} off centre; noisy: {NOISE:.0%} per component and {OUTLIERS:.0%} outliers\n"
    f"{'rays':>8}  {'camera':<9}{'':7}{'ms/view':>9}{'median deg':>12}{'worst':>10}"
)


def run(say: Callable[[str], None]) -> list[Row]:
    """Measure; ``say`` gets one line at a time."""
    say(HEAD)
    rows = []
    for size in SIZES:
        for known in (True, False):
            for noisy in (False, True):
                rows.append(_measure(size, known, noisy))
                say(str(rows[-1]))
    return rows


def _measure(size: tuple[int, int], known: bool, noisy: bool) -> Row:
    width, height = (side * 8 // 14 for side in size)
    weights = np.ones((height, width), np.float32)
    seconds, errors = [], []
    for seed in range(VIEWS + 1):
        T, camera, rays = _view(seed, size, (width, height), noisy)
        start = time.perf_counter()
        found = camera_from_rays(rays, weights, size, camera if known else None)
        seconds.append(time.perf_counter() - start)
        errors.append(float(np.rad2deg(se3.rotation_angle(T[:3, :3].T @ found.T_frame_cam[:3, :3]))))
    # The first call loads what NumPy loads late.
    return Row(width, height, known, noisy, 1e3 * float(np.median(seconds[1:])), float(np.median(errors)), max(errors))


def _view(seed: int, size: tuple[int, int], grid: tuple[int, int], noisy: bool) -> tuple[Array, Pinhole, FloatArray]:
    """A pose in any direction, its camera and its ray map, in single precision as networks give it."""
    rng = np.random.default_rng(seed)
    width, height = size
    T = se3.exp(rng.normal(size=6))
    centre = width / 2 - 0.5 + OFF_CENTRE * width, height / 2 - 0.5 - OFF_CENTRE * height
    camera = Pinhole(width, height, 0.9 * width, 0.95 * width, *centre)
    rays = make_rays(T, camera, grid[1], grid[0])
    if noisy:
        rays += NOISE * rng.normal(size=rays.shape)
        wrong = rng.random(rays.shape[:2]) < OUTLIERS
        rays[wrong] += rng.normal(size=(int(wrong.sum()), 6))
    return T, camera, rays.astype(np.float32)

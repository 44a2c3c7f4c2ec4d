"""An inertial measurement unit that sits in the camera of a synthetic world, with its errors.

Rates and accelerations are central differences of the motion, which is smooth.  Each axis has white noise and a
constant bias (IEEE Std 952-1997, annex C, of which these are the terms that matter over minutes), as large as those of
the parts in phones and small drones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.types import Inertial

GRAVITY: Array = np.array([0.0, 0.0, -9.81])  # m/s^2 in the world's axes
_GYRO_NOISE = 2e-4  # rad/s per root of Hz
_GYRO_BIAS = 0.01  # sigma, rad/s
_FORCE_NOISE = 2e-3  # m/s^2 per root of Hz
_FORCE_BIAS = 0.05  # sigma, m/s^2
_BEFORE_NS = 1_000_000_000  # so much goes along with a frame; it began as long before the first one
_STEP = 5e-3  # s, of the differences


class SimulatedImu:
    """Measures a whole motion at once."""

    def __init__(self, pose: Callable[[Array], Array], seconds: float, rate: float, rng: np.random.Generator) -> None:
        """Measure a motion: camera-to-world poses (N, 4, 4) at times (N,), from 1 s before 0 until ``seconds``.

        A motion without a past, as a recording is, stands still before it began.
        """
        step_ns = round(1e9 / rate)
        self._stamps = np.arange(-_BEFORE_NS, round(seconds * 1e9) + 2 * step_ns, step_ns)
        times = self._stamps * 1e-9
        before, now, after = (pose(np.asarray(times + shift, float)) for shift in (-_STEP, 0.0, _STEP))
        rotation = now[:, :3, :3]
        rate_now = se3.log_so3(np.swapaxes(before[:, :3, :3], 1, 2) @ after[:, :3, :3]) / (2 * _STEP)
        acceleration = (before - 2 * now + after)[:, :3, 3] / _STEP**2
        force = np.einsum("nji,nj->ni", rotation, acceleration - GRAVITY)
        shape, white = force.shape, np.sqrt(rate)
        self._gyro = rate_now + _GYRO_BIAS * rng.standard_normal(3) + _GYRO_NOISE * white * rng.standard_normal(shape)
        self._force = force + _FORCE_BIAS * rng.standard_normal(3) + _FORCE_NOISE * white * rng.standard_normal(shape)

    def until(self, passed_ns: int, first_ns: int) -> Inertial:
        """The last second before a time since the beginning; ``first_ns`` is the stamp of the beginning."""
        begin, end = np.searchsorted(self._stamps, [passed_ns - _BEFORE_NS, passed_ns + 1])
        return Inertial(self._stamps[begin:end] + first_ns, self._gyro[begin:end], self._force[begin:end])

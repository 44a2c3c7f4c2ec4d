"""Which way is up, in the camera's axes: the gyro carries it on, the accelerometer corrects it.

A Kalman filter on a direction, with one variance for both axes in which it can tilt (Mahony, Hamel and Pflimlin,
Nonlinear complementary filters on the special orthogonal group, TAC 2008, section V, with the gain that the variances
ask for):

    up  <- R_new_old up                        variance += gyro noise
    up  <- turned by K towards f / |f|         K = variance / (variance + noise of the accelerometer)

The accelerometer feels gravity and the camera's own acceleration, of which only the sum is known.  How large the latter
is follows from how the force varies about its recent mean and from how fast the camera turns (a turning camera that
moves feels a centripetal force, which does not vary).  Accelerations last for a part of a second, so that many samples
of one are one measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.imu import Motion

GRAVITY = 9.81  # m/s^2
_FARTHEST = 3.0  # m/s^2 from gravity: a fall or a blow says nothing about where is up
_LASTS_S = 0.5  # an acceleration; samples closer than twice that are not independent
_RECENT_S = 1.0  # of which the mean force is remembered
_FIRST = 0.25  # (m/s^2)^2, variance of the force before it is known
_SPEED = 1.0  # m/s, what a camera in a turn may be moving at
GYRO = 5e-4  # rad per root of s, random walk of an integrated gyro
GYRO_SCALE = 0.005  # share of a turn


@dataclass(frozen=True, slots=True, eq=False)
class Gravity:
    """The direction opposite to gravity."""

    up: Array  # (3,) unit vector in the camera's axes
    sigma: float  # rad, 1-sigma per axis
    memory_s: float  # estimates closer in time than twice that have errors in common


class GravityFilter:
    """The direction as of the latest frame."""

    def __init__(self, tilt: float) -> None:
        """``tilt`` is what the accelerometer is off at best (bias, mount), rad per axis."""
        self._least = (tilt * GRAVITY) ** 2
        self._up, self._variance, self._memory_s = np.zeros(3), np.inf, 0.0
        self._mean, self._spread = np.zeros(3), _FIRST

    @property
    def gravity(self) -> Gravity | None:
        """What is known; None before the first sample."""
        return Gravity(self._up, float(np.sqrt(self._variance)), self._memory_s) if self._up.any() else None

    def forget(self) -> None:
        """Samples were missing: nobody knows how the camera has turned."""
        self._up, self._variance = np.zeros(3), np.inf
        self._mean, self._spread = np.zeros(3), _FIRST

    def advance(self, motion: Motion, bias_sigma: float) -> None:
        """Go on to the end of a motion; ``bias_sigma`` is that of the gyro, rad/s per axis."""
        turn = float(se3.rotation_angle(motion.rotation))
        self._up, self._mean = motion.rotation.T @ self._up, motion.rotation.T @ self._mean
        walk = GYRO**2 + 2 * bias_sigma**2 * self._memory_s
        self._variance += walk * motion.seconds + (GYRO_SCALE * turn) ** 2
        force, size = motion.force, float(np.linalg.norm(motion.force))
        self._vary(force, motion.seconds)
        if abs(size - GRAVITY) > _FARTHEST:
            return
        acceleration = self._least + self._spread + (_SPEED * turn / motion.seconds) ** 2
        alike = max(2 * _LASTS_S / motion.seconds, 1.0)
        noise = acceleration * alike / GRAVITY**2
        if not self._up.any():
            self._up, self._variance = force / size, acceleration / GRAVITY**2
            self._memory_s = _LASTS_S
            return
        gain = self._variance / (self._variance + noise)
        self._up = se3.exp_so3(gain * se3.turning(self._up, force / size)) @ self._up
        self._variance *= 1 - gain
        self._memory_s = motion.seconds / gain

    def _vary(self, force: Array, seconds: float) -> None:
        """Remember the mean of the force and how far it is from it, per axis."""
        if not self._mean.any():
            self._mean = force
        share = min(seconds / _RECENT_S, 1.0)
        off = force - self._mean
        self._mean = self._mean + share * off
        self._spread += share * (float(off @ off) / 3 - self._spread)

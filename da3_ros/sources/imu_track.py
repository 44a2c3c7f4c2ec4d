"""Samples of an IMU over the last second, as messages bring them, for the frames that want them."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry.se3 import Array
from da3_ros.types import Inertial

_SPAN_NS = 1_000_000_000  # goes along with a frame, and what the frame before has not had: frames may be dropped
_AHEAD_NS = 50_000_000  # after the frame, where it is there already: rates are interpolated
_KEPT_NS = 10_000_000_000
_JUMP_NS = 1_000_000_000  # stamps this far back are of another drive, not late
_WEIGHTLESS = 4.0  # m/s^2; mean forces below this are no specific forces
_ENOUGH = 20  # samples that a mean is made of, and that a second has at least


class ImuTrack:
    """The samples of one IMU, in its own axes."""

    def __init__(self) -> None:
        """Start without any."""
        self._samples: deque[tuple[int, Array, Array]] = deque()
        self._given_ns = 0  # stamp of the last frame that got some

    def __len__(self) -> int:
        """Samples held."""
        return len(self._samples)

    def reaches(self, stamp_ns: int) -> bool:
        """Tell whether a sample at or after this stamp is known."""
        return bool(self._samples) and self._samples[-1][0] >= stamp_ns

    def add(self, stamp_ns: int, gyro: Array, force: Array) -> None:
        """Add a sample: angular velocity (3,), rad/s, and specific force (3,), m/s^2.

        Raises:
            SourceError: it is not later than the one before, or the samples cannot be those of an IMU; one sentence.
        """
        if self.reaches(stamp_ns + _JUMP_NS):
            self._samples.clear()
            self._given_ns = stamp_ns
        if self.reaches(stamp_ns):
            raise SourceError(f"its stamps do not increase (at {stamp_ns / 1e9:.3f} s); check its driver and its clock")
        self._samples.append((stamp_ns, gyro, force))
        while self._samples[0][0] < stamp_ns - _KEPT_NS:
            self._samples.popleft()

    def until(self, stamp_ns: int, R_cam_imu: Array) -> Inertial | None:
        """The last second before a frame, or all since the frame before; None where there is nothing.

        ``R_cam_imu`` (3, 3) turns it into the camera's axes.

        Raises:
            SourceError: too few samples, or forces without gravity; one sentence.
        """
        begin, end = min(stamp_ns - _SPAN_NS, self._given_ns - _AHEAD_NS), stamp_ns + _AHEAD_NS
        self._given_ns = stamp_ns
        found = [sample for sample in self._samples if begin <= sample[0] <= end]
        if not found:
            return None
        stamps, gyro, force = zip(*found, strict=True)
        said = Inertial(np.array(stamps, np.int64), np.array(gyro) @ R_cam_imu.T, np.array(force) @ R_cam_imu.T)
        seconds = (stamps[-1] - stamps[0]) * 1e-9
        if seconds > 0.5 and len(found) < _ENOUGH * seconds:
            raise SourceError(f"it has {len(found) / seconds:.0f} samples per second; {_ENOUGH} are needed at least")
        size = float(np.linalg.norm(said.force, axis=1).mean())
        if len(found) >= _ENOUGH and size < _WEIGHTLESS:
            raise SourceError(
                f"its accelerations are {size:.2g} m/s^2 on the mean, and gravity alone is 9.8; publish m/s^2, with "
                "gravity in it"
            )
        return said


def decode_imu(message: Any) -> tuple[Array, Array]:
    """Angular velocity (3,), rad/s, and specific force (3,), m/s^2, of a ``sensor_msgs/Imu`` in its own axes.

    Raises:
        SourceError: it lacks one of them, or they are no numbers; one sentence.
    """
    for name in ("angular_velocity", "linear_acceleration"):
        if getattr(message, f"{name}_covariance")[0] == -1:
            raise SourceError(f"it says that it measures no {name} ({name}_covariance[0] is -1); remap another topic")
    gyro, force = (
        np.array([vector.x, vector.y, vector.z]) for vector in (message.angular_velocity, message.linear_acceleration)
    )
    if not (np.isfinite(gyro).all() and np.isfinite(force).all()):
        raise SourceError("its values are not finite; check its driver")
    if not force.any():
        raise SourceError("its acceleration is zero, which not even a falling sensor measures; check its driver")
    return gyro, force

"""What an IMU tells of each frame: how the camera has turned since the frame before, and which way is up.

It is believed as long as it agrees with what is seen.  A gyro in degrees, or one mounted otherwise than /tf_static
says, contradicts most turns; then it is not used, and ``doubt`` says so, until it agrees again.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.gravity import GYRO, GYRO_SCALE, Gravity, GravityFilter
from da3_ros.slam.gyro_bias import GyroBias
from da3_ros.slam.imu import Imu, Motion
from da3_ros.slam.keyframe import Keyframe
from da3_ros.types import Frame

_SPAN_NS = 1_000_000_000  # between keyframes whose turns teach the bias
_PATIENCE_NS = 10_000_000_000  # samples that are this late will not come
_TURN = np.deg2rad(5.0)  # turns this large, and larger than bias makes in their time, are compared
_BIASES = 2.0  # sigma
_SPELL = 2.0  # s; a turn that takes longer is told from bias no better
_COMPARED = 15  # that are remembered: what cameras see errs for a moment too
_FEWEST = 3  # that make a doubt
_RIGHT, _WRONG = 0.3, 0.5  # share of a turn by which seen and integrated differ


class Inertia:
    """Follows the IMU from frame to frame."""

    def __init__(self, tilt: float, *, enabled: bool) -> None:
        """``tilt`` is what the accelerometer is off at best, rad per axis; where not ``enabled``, nobody is heard."""
        self._enabled = enabled
        self._imu, self._bias, self._filter = Imu(), GyroBias(), GravityFilter(tilt)
        self._motion: Motion | None = None  # since the frame before
        self._last_ns: int | None = None  # of the latest frame
        self._felt_ns: int | None = None  # of the latest frame that gravity is known at
        self._settled: Keyframe | None = None  # the last one that taught the bias
        self._seen, self._integrated = np.eye(3), np.eye(3)  # since turns were compared last
        self._spell = 0.0  # s, since then
        self._differences: deque[float] = deque(maxlen=_COMPARED)

    @property
    def sure(self) -> bool:
        """It has agreed with what is seen; before that it may be mounted otherwise than /tf_static says."""
        return bool(self._differences) and float(np.median(self._differences)) < _RIGHT

    @property
    def doubt(self) -> str:
        """Why it is not used, one sentence; empty when all is well."""
        if len(self._differences) < _FEWEST or float(np.median(self._differences)) < _WRONG:
            return ""
        return (
            f"imu is not used: its turns differ from those seen by {100 * np.median(self._differences):.0f} % of them; "
            "check its unit (rad/s), its frame_id and its mount in /tf_static"
        )

    @property
    def turn(self) -> Array | None:
        """``R_before_now`` (3, 3) of the camera since the frame before; None where it is not known."""
        return None if self._motion is None or self.doubt else self._motion.rotation

    @property
    def gravity(self) -> Gravity | None:
        """Which way is up at the latest frame; None where it is not known."""
        return None if self.doubt or self._felt_ns != self._last_ns else self._filter.gravity

    def turned(self, first_ns: int, last_ns: int) -> tuple[Array, float] | None:
        """``R_first_last`` (3, 3) between two instants of the last seconds, with what is known of the bias by now.

        With its 1-sigma per axis, rad; None where it is not known for sure.
        """
        motion = self._imu.between(first_ns, last_ns, self._bias.value) if self.sure else None
        if motion is None:
            return None
        scale = GYRO_SCALE * float(se3.rotation_angle(motion.rotation))
        walk, bias = GYRO**2 * motion.seconds, (self._bias.sigma * motion.seconds) ** 2
        return motion.rotation, float(np.sqrt(walk + bias + scale**2))

    def advance(self, frame: Frame) -> None:
        """Go on to a frame, with what is known at its time: it waits for nothing."""
        said = None if frame.priors is None else frame.priors.imu
        if said is not None and self._enabled:
            self._imu.add(said)
        last, now = self._last_ns, frame.stamp_ns
        self._motion = None if last is None else self._imu.between(last, now, self._bias.value)
        self._last_ns = now
        self._feel(now)

    def _feel(self, now_ns: int) -> None:
        """Carry the direction of gravity on to a frame; samples that are late are made up for at a later one."""
        begin = self._imu.begin_ns if self._felt_ns is None else self._felt_ns
        if begin is None:
            return
        felt = self._imu.between(begin, now_ns, self._bias.value)
        if felt is not None:
            self._filter.advance(felt, self._bias.sigma)
            self._felt_ns = now_ns
        elif self._imu.reaches(now_ns) or now_ns - begin > _PATIENCE_NS:
            self._filter.forget()
            self._felt_ns = now_ns

    def tracked(self, step: Array | None) -> None:
        """The frame was seen to have moved by a step (4, 4); None where it was not seen well enough to be compared."""
        if step is None or self._motion is None:
            self._compare_anew()
            return
        self._spell += self._motion.seconds
        self._seen, self._integrated = self._seen @ step[:3, :3], self._integrated @ self._motion.rotation
        turn = max(float(se3.rotation_angle(R)) for R in (self._seen, self._integrated))
        if turn > _TURN + _BIASES * self._bias.sigma * self._spell:
            self._differences.append(float(se3.rotation_angle(self._seen.T @ self._integrated)) / turn)
            self._compare_anew()
        elif self._spell > _SPELL:
            self._compare_anew()

    def _compare_anew(self) -> None:
        self._seen, self._integrated = np.eye(3), np.eye(3)
        self._spell = 0.0

    def settled(self, keyframe: Keyframe, *, weak: bool) -> None:
        """A keyframe will not be adjusted any more: the way to it from one a while before tells how the gyro errs.

        ``weak`` says that a weak link lies on the way from the one that was heard of last.
        """
        last = self._settled
        if last is not None and not weak and keyframe.stamp_ns - last.stamp_ns < _SPAN_NS:
            return
        self._settled = keyframe
        if last is None or weak or not self.sure:
            return
        motion = self._imu.between(last.stamp_ns, keyframe.stamp_ns, self._bias.value)
        if motion is not None:
            self._bias.learn(motion.rotation, last.T_chain_cam[:3, :3].T @ keyframe.T_chain_cam[:3, :3], motion.seconds)

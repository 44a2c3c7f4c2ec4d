"""Other sensors: the topics ``depth_prior``, ``odom_prior`` and ``imu``.  Runs on the executor's thread."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import Image, Imu, PointCloud2

from da3_ros.config import Config
from da3_ros.errors import SourceError
from da3_ros.geometry.se3 import Array
from da3_ros.ros.calibration import Calibration
from da3_ros.ros.following import DEPTH as FEW
from da3_ros.ros.following import Choice, FollowingSubscription
from da3_ros.ros.messages import matrix_of_pose, stamp_ns
from da3_ros.ros.prior_pairing import PriorPairing
from da3_ros.ros.transform_listener import TransformListener
from da3_ros.sources.clouds import decode_cloud
from da3_ros.sources.depth_points import points_of_cloud, points_of_image
from da3_ros.sources.encodings import decode_depth
from da3_ros.sources.imu_track import ImuTrack, decode_imu
from da3_ros.types import DepthPoints, Frame, Inertial, Priors

Inform = Callable[[int, int, Priors], None]  # session, frame, what came after it

DEPTH, ODOMETRY, IMU = "depth_prior", "odom_prior", "imu"
_OF = {DEPTH: "prior.depth", ODOMETRY: "prior.odometry", IMU: "prior.imu"}
_MANY = 500  # samples of an IMU that come while an image is decoded, at a rate that none exceeds


class _Line:
    """One topic and what is wrong with it."""

    def __init__(self, subscription: FollowingSubscription, *, demanded: bool) -> None:
        self.subscription, self.demanded = subscription, demanded
        self.begin = time.monotonic()
        self.heard: float | None = None  # the last message, monotonic s
        self.used: float | None = None  # the last time that a frame got something, monotonic s
        self.fault = ""  # why the last message could not be used
        self.refused = 0  # messages that could not be used


class PriorIntake:
    """Subscribes to what other sensors measure and gives it to the frames it belongs to."""

    def __init__(self, node: Node, config: Config, calibration: Calibration, inform: Inform) -> None:
        """Prepare; nothing is subscribed to before ``open``.

        Args:
            node: to subscribe with.
            config: of the node.
            calibration: of the images.
            inform: given what comes after its frame.
        """
        self._node, self._config, self._calibration, self._inform = node, config, calibration, inform
        self._pairing = PriorPairing(config.prior.tolerance_s)
        self._felt, self._imu_frame = ImuTrack(), ""
        self._lines: dict[str, _Line] = {}
        self._listener: TransformListener | None = None
        self._session = 0
        self._size: tuple[int, int] | None = None  # of the images
        self._camera_frame = ""
        self._frames_since: float | None = None  # frames come since, monotonic s
        self._last_frame = 0.0  # the last of them, monotonic s

    @property
    def topics(self) -> list[str]:
        """What is subscribed to."""
        return [line.subscription.topic for line in self._lines.values()]

    def open(self) -> None:
        """Subscribe to what the parameters ask for."""
        prior = self._config.prior
        kinds: list[tuple[str, type]] = [(DEPTH, Image), (DEPTH, PointCloud2)]
        self._subscribe(DEPTH, prior.depth, kinds, self._on_depth)
        self._subscribe(ODOMETRY, prior.odometry, [(ODOMETRY, Odometry)], self._on_odometry)
        self._subscribe(IMU, prior.imu, [(IMU, Imu)], self._on_imu, _MANY)

    def close(self) -> None:
        """Unsubscribe and forget."""
        for line in self._lines.values():
            line.subscription.close()
        self._lines = {}
        if self._listener is not None:
            self._listener.close()
        self._listener, self._frames_since = None, None
        self._pairing.forget()
        self._felt = ImuTrack()

    def follow(self, *, everything: bool) -> None:
        """Adapt the subscriptions to their publishers: those with news, or all of them."""
        for line in self._lines.values():
            if everything or line.subscription.changed:
                line.subscription.update()

    def new_session(self) -> None:
        """Frames are numbered anew."""
        self._pairing.forget_frames()
        self._frames_since = None

    def told(self, frame: Frame, camera_frame: str, session: int) -> Frame:
        """The frame with what is known of it so far; the rest is sent after it."""
        if not self._lines:
            return frame
        self._session, self._camera_frame = session, camera_frame
        self._size = frame.image.shape[1], frame.image.shape[0]
        self._last_frame = time.monotonic()
        self._frames_since = self._frames_since or self._last_frame
        priors, imu = self._pairing.add_frame(frame.id, frame.stamp_ns), self._inertial(frame.stamp_ns)
        if imu is not None:
            priors = replace(priors or Priors(), imu=imu)
        self._count([] if priors is None else [priors])
        return frame if priors is None else replace(frame, priors=priors)

    def trouble(self) -> str:
        """Why a prior that is expected gives nothing, one sentence; empty when all is well.

        Expected is one that the parameters demand or that somebody publishes, while frames come.
        """
        silence_s, now = self._config.node.silence_s, time.monotonic()
        if self._frames_since is None or self._last_frame - self._frames_since < silence_s:
            return ""
        if now - self._last_frame > silence_s:
            return ""  # the images themselves are missing
        for name, line in self._lines.items():
            used = max(line.begin, self._frames_since) if line.used is None else line.used
            expected = line.demanded or bool(line.subscription.offers)
            if expected and now - used > silence_s and (problem := self._problem(name, line)):
                return f"{name} {'is not used' if name == IMU else 'gives no metres'}: {problem}"
        return ""

    def _problem(self, name: str, line: _Line) -> str:
        topic, silence_s = line.subscription.topic, self._config.node.silence_s
        if not line.subscription.offers:
            return f"nobody publishes {topic}; start the sensor, remap the topic, or set {_OF[name]} to auto"
        if line.heard is None or time.monotonic() - line.heard > silence_s:
            return line.subscription.problem() or f"{topic} has a publisher but nothing arrives; check the sensor"
        if line.fault:
            return line.fault + (f" ({line.refused} messages so far)" if line.refused > 1 else "")
        tolerance = f" within {self._config.prior.tolerance_s:g} s (prior.tolerance_s)" if name == DEPTH else ""
        return f"no image has a stamp that fits those on {topic}{tolerance}; synchronise the clocks"

    def _subscribe(
        self,
        name: str,
        wish: str,
        kinds: list[tuple[str, type]],
        callback: Callable[[Any, Choice], None],
        depth: int = FEW,
    ) -> None:
        if wish != "never":
            subscription = FollowingSubscription(self._node, kinds, callback, self._config.node.image_qos, depth)
            self._lines[name] = _Line(subscription, demanded=wish == "always")

    # ------------------------------------------------------------ callbacks

    def _on_depth(self, message: Any, _: Choice) -> None:
        line = self._lines.get(DEPTH)
        if line is None:
            return  # closed while this message was on its way from the executor
        line.heard = time.monotonic()
        measure = self._cloud if isinstance(message, PointCloud2) else self._image
        once = functools.cache(functools.partial(measure, line, message))  # it may go to several frames
        self._send(self._pairing.add_depth(stamp_ns(message.header.stamp), once))

    def _on_odometry(self, message: Odometry, _: Choice) -> None:
        line = self._lines.get(ODOMETRY)
        if line is None:
            return
        line.heard = time.monotonic()
        if not self._camera_frame:
            return  # no image so far
        body = message.child_frame_id.lstrip("/")
        if not body:
            line.fault = "its messages have no child_frame_id; name the body whose pose they are"
            return
        T_body_cam = self._mount(line, body, self._camera_frame.lstrip("/"))
        if T_body_cam is None:
            return
        try:
            T_odom_cam = matrix_of_pose(message.pose.pose) @ T_body_cam
        except ValueError as error:
            line.fault = str(error)
            return
        line.fault = ""
        self._send(self._pairing.add_pose(stamp_ns(message.header.stamp), T_odom_cam))

    def _on_imu(self, message: Imu, _: Choice) -> None:
        line = self._lines.get(IMU)
        if line is None:
            return
        line.heard = time.monotonic()
        self._listen()  # so that the mount is known when the first frame comes
        self._imu_frame = message.header.frame_id.lstrip("/")
        try:
            self._felt.add(stamp_ns(message.header.stamp), *decode_imu(message))
        except SourceError as error:
            line.fault, line.refused = str(error), line.refused + 1

    # ------------------------------------------------------------ what messages say

    def _inertial(self, stamp_ns: int) -> Inertial | None:
        """What the IMU has measured until a frame, in the camera's axes, as far as it is there: no frame waits."""
        line = self._lines.get(IMU)
        if line is None or not len(self._felt):
            return None
        if not self._imu_frame:
            line.fault = "its messages have no frame_id; name the frame that it is mounted in"
            return None
        T_cam_imu = self._mount(line, self._camera_frame.lstrip("/"), self._imu_frame)
        if T_cam_imu is None:
            return None
        try:
            said = self._felt.until(stamp_ns, T_cam_imu[:3, :3])
        except SourceError as error:
            line.fault = str(error)
            return None
        if said is not None:
            line.fault = ""
        return said

    def _image(self, line: _Line, message: Image) -> DepthPoints | None:
        """Depth of an image that is registered to those of the camera."""
        assert self._size is not None, "frames are sent before they are matched"
        of = message.header.frame_id.lstrip("/")
        if of and not self._config.node.camera_frame and of != self._camera_frame.lstrip("/"):
            line.fault = (
                f"it is in frame '{of}' and the images are in '{self._camera_frame}'; remap depth that is registered "
                "to the images (depth_registered, aligned_depth_to_color)"
            )
            return None
        width, height = self._size
        try:
            depth = decode_depth(
                message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
            )
            if abs(message.width * height - message.height * width) > max(self._size):
                raise SourceError(
                    f"it is {message.width}x{message.height} and the images are {width}x{height}; remap depth that is "
                    "registered to the images"
                )
            if self._calibration.distorted:  # as the images it is registered to
                if depth.shape != (height, width):
                    depth = cv2.resize(depth, self._size, interpolation=cv2.INTER_NEAREST_EXACT)
                depth = self._calibration.rectified_depth(depth)
        except SourceError as error:
            line.fault = str(error)
            return None
        line.fault = ""
        return points_of_image(depth, self._size)

    def _cloud(self, line: _Line, message: PointCloud2) -> DepthPoints | None:
        """Points that fall into the image."""
        camera = self._calibration.camera
        if camera is None:
            line.fault = "points can be projected into a calibrated camera only; publish camera_info"
            return None
        T_cam_cloud = self._mount(line, self._camera_frame.lstrip("/"), message.header.frame_id.lstrip("/"))
        if T_cam_cloud is None:
            return None
        try:
            points = decode_cloud(message)
        except SourceError as error:
            line.fault = str(error)
            return None
        line.fault = ""
        return points_of_cloud(points, T_cam_cloud, camera)

    def _mount(self, line: _Line, target: str, source: str) -> Array | None:
        """``T_target_source`` of what is mounted rigidly: by /tf_static."""
        listener = self._listen()
        T = np.eye(4) if target == source else listener.lookup(target, source)
        if T is None:
            known = ", ".join(listener.frames()) or "none"
            line.fault = (
                f"/tf_static does not connect '{source}' to '{target}' (known frames: {known}); publish how the "
                "sensor is mounted with static_transform_publisher"
            )
        return T

    def _listen(self) -> TransformListener:
        if self._listener is None:
            self._listener = TransformListener(self._node, static_only=True)
        return self._listener

    def _send(self, late: list[tuple[int, Priors]]) -> None:
        for frame_id, priors in late:
            self._inform(self._session, frame_id, priors)
        self._count([priors for _, priors in late])

    def _count(self, given: list[Priors]) -> None:
        now = time.monotonic()
        for name, gave in (
            (DEPTH, any(p.depth is not None for p in given)),
            (ODOMETRY, any(p.T_odom_cam is not None for p in given)),
            (IMU, any(p.imu is not None for p in given)),
        ):
            if gave and name in self._lines:
                self._lines[name].used = now

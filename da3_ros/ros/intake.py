"""Messages in, frames out: subscriptions, decoding, calibration, time rules.  Runs on the executor's thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from da3_ros.config import Config
from da3_ros.errors import SourceError
from da3_ros.ros.body import Body
from da3_ros.ros.calibration import Calibration, announced_size
from da3_ros.ros.counters import Counters, Stopwatch
from da3_ros.ros.following import Choice, FollowingSubscription
from da3_ros.ros.messages import matrix_of_pose, now_ns, stamp_ns
from da3_ros.ros.prior_intake import Inform, PriorIntake
from da3_ros.ros.tracker_thread import Arrival
from da3_ros.ros.transform_listener import TransformListener
from da3_ros.ros.truth import TruthPairing
from da3_ros.slam.stamps import StampGate
from da3_ros.sources.encodings import decode_compressed, decode_depth, decode_image
from da3_ros.types import Frame, ImageArray

_CALIBRATION_WAIT_S = 0.3
_ADVICE = "; with a camera choose a network, such as -p predictor:=da3-small"


@dataclass(frozen=True, slots=True, eq=False)
class _Early:
    """An image whose camera may not be known yet."""

    stamp_ns: int
    image: ImageArray
    body: Body
    arrived: float  # monotonic, s
    decoding_s: float


class Intake:
    """Everything between the camera's topics and the tracker's inbox."""

    def __init__(
        self,
        node: Node,
        config: Config,
        session: int,
        counters: Counters,
        stopwatch: Stopwatch,
        deliver: Callable[[Arrival], None],
        inform: Inform,
        expect: Callable[[int, int], None],
    ) -> None:
        """Prepare; nothing is subscribed to before ``open``.

        Args:
            node: to subscribe with.
            config: of the node.
            session: number of the first session.
            counters: of frames.
            stopwatch: of stages.
            deliver: given every frame.
            inform: given what other sensors say of a frame after it was delivered.
            expect: told the width and height of the images once, where camera_info tells it before the first of them.
        """
        self._node, self._config = node, config
        self._counters, self._stopwatch, self._deliver = counters, stopwatch, deliver
        self._expect: Callable[[int, int], None] | None = expect
        self._log = node.get_logger()
        self.gate = StampGate(config.node)
        self.calibration = Calibration(rectified=config.node.image_rectified)
        self.priors = PriorIntake(node, config, self.calibration, inform)
        self.session = session
        self.body: Body | None = None
        self.paused = False
        self.last_image: float | None = None  # arrival of the last image since it was opened, monotonic s
        self.last_drop = ""  # why the last dropped frame was dropped, one sentence
        self.last_drop_time = 0.0  # monotonic, s
        self._segment, self._reason, self._ids = 0, "", 0
        self._size: tuple[int, int] | None = None
        self._said: set[str] = set()
        self._early: deque[_Early] = deque()  # images that wait for camera_info
        self._subscriptions: dict[str, FollowingSubscription] = {}
        self._listener: TransformListener | None = None
        self._unmounted_since: float | None = None  # first image without a transform, monotonic s
        self._truth: TruthPairing | None = None
        self._jump = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda _: self.gate.clock_fell(),
        )

    @property
    def images(self) -> FollowingSubscription | None:
        """Where images come from; None while closed."""
        return self._subscriptions.get("image")

    @property
    def topics(self) -> list[str]:
        """What is subscribed to."""
        return [*(subscription.topic for subscription in self._subscriptions.values()), *self.priors.topics]

    def open(self) -> None:
        """Subscribe to images and their calibration."""
        self.last_image = None
        if self._config.node.base_frame:
            self._listener = TransformListener(self._node)
        self._follow("camera_info", [("camera_info", CameraInfo)], self._on_info)
        self._follow("image", _image_topics(self._config.node.image_transport), self._on_image)
        self.priors.open()

    def need_truth(self) -> None:
        """Frames must carry depth and pose (simulated predictor)."""
        self._truth = TruthPairing()
        self._follow("truth/depth", [("truth/depth", Image)], self._on_truth_depth)
        self._follow("truth/pose", [("truth/pose", PoseStamped)], self._on_truth_pose)

    @property
    def has_truth(self) -> bool:
        """Whether frames wait for their ground truth."""
        return self._truth is not None

    def follow(self, *, everything: bool) -> None:
        """Adapt the subscriptions to their publishers: those with news, or all of them."""
        for subscription in self._subscriptions.values():
            if everything or subscription.changed:
                subscription.update()
        self.priors.follow(everything=everything)

    def poll(self) -> None:
        """Give up frames whose calibration or truth did not come in time."""
        self._admit()
        if self._truth is not None:
            self._release(self._truth)

    def new_session(self) -> int:
        """Start anew with the next frame; returns the number of the new session."""
        self.session += 1
        self._counters.begin(self.session)
        self._size, self.body, self._ids, self.last_drop = None, None, 0, ""
        self._unmounted_since = None
        if self._listener is not None:
            self._listener.listen()
        self._said.clear()
        self._early.clear()
        self.gate.forget()
        self.calibration.release()
        self.priors.new_session()
        if self._truth is not None:
            self._truth.forget_frames()  # truth that came before the image of a new session stays
        return self.session

    def pause(self, paused: bool) -> None:
        """Drop and count images from now on, or take them again."""
        self.paused = paused
        if paused:
            self._drop_waiting()

    def close(self) -> None:
        """Unsubscribe; frames that waited for their camera_info or truth are dropped and counted."""
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions = {}
        self.priors.close()
        if self._listener is not None:
            self._listener.close()
        self._drop_waiting()
        self._listener = self._truth = None

    def destroy(self) -> None:
        """Close for good."""
        self.close()
        self._jump.unregister()

    def _drop_waiting(self) -> None:
        self._counters.count("paused", len(self._early))
        self._early.clear()
        if self._truth is not None:
            self._counters.count("paused", self._truth.forget_frames())

    def _follow(self, name: str, wanted: list[tuple[str, type]], callback: Callable[[Any, Choice], None]) -> None:
        qos = self._config.node.image_qos
        self._subscriptions[name] = FollowingSubscription(self._node, wanted, callback, qos)

    # ------------------------------------------------------------ callbacks

    def _on_image(self, message: Any, _: Choice) -> None:
        if not self._subscriptions:
            return  # closed while this message was on its way from the executor
        arrived = time.monotonic()
        self.last_image = arrived
        self._counters.count("received")
        self._stopwatch.add("image")
        if self.paused:
            self._drop("paused", "the node is paused")
            return
        stamp = stamp_ns(message.header.stamp)
        if not self._may_enter(stamp):
            return
        body = self._find_body(message.header.frame_id)
        if body is None:
            return
        try:
            image = _decode(message)
        except SourceError as error:
            self._drop("undecodable", str(error))
            return
        if self._same_size(image):
            self._early.append(_Early(stamp, image, body, arrived, time.monotonic() - arrived))
            self._admit()

    def _on_info(self, message: CameraInfo, _: Choice) -> None:
        self.calibration.update(message)
        size = announced_size(message)
        if size is not None and self._expect is not None:
            self._expect(*size)
            self._expect = None  # from here on the images themselves tell
        self._admit()

    def _on_truth_depth(self, message: Image, _: Choice) -> None:
        if self._truth is None:
            return
        try:
            depth = decode_depth(
                message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
            )
        except SourceError as error:
            self._say(f"truth/depth cannot be used: {error}")
            return
        self._truth.add_depth(stamp_ns(message.header.stamp), depth)
        self._release(self._truth)

    def _on_truth_pose(self, message: PoseStamped, _: Choice) -> None:
        if self._truth is None:
            return
        try:
            T_world_cam = matrix_of_pose(message.pose)
        except ValueError as error:
            self._say(f"truth/pose cannot be used: {error}")
            return
        self._truth.add_pose(stamp_ns(message.header.stamp), T_world_cam)
        self._release(self._truth)

    # ------------------------------------------------------------ rules

    def _admit(self) -> None:
        """Make frames of the images whose camera is known; the first image often overtakes its camera_info."""
        infos = self._subscriptions.get("camera_info")
        while self._early and infos is not None:
            early = self._early[0]
            height, width = early.image.shape[:2]
            if self.calibration.ready(infos, width, height):
                self._early.popleft()
                self._make_frame(early)
            elif self.calibration.fault or time.monotonic() - early.arrived > _CALIBRATION_WAIT_S:
                self._early.popleft()
                self._drop("no_camera_info", self.calibration.explain(infos))
            else:
                return

    def _make_frame(self, early: _Early) -> None:
        begin = time.monotonic()
        image = self.calibration.rectified(early.image)
        self._say(self.calibration.remark)
        self._stopwatch.add("decode", early.decoding_s + time.monotonic() - begin)
        frame = Frame(self._ids, early.stamp_ns, image, self.calibration.camera)
        self._ids += 1
        if self._truth is None:
            self._hand_over(frame, early.body, early.arrived)
        else:
            self._truth.add_frame(frame, early.arrived)
            self._release(self._truth)

    def _may_enter(self, stamp: int) -> bool:
        ruling = self.gate.judge(stamp, now_ns(self._node))
        if ruling.drop == "too_old":
            self._drop(
                "too_old",
                f"images are {ruling.age_s:.1f} s older than the clock; synchronise the clocks, set use_sim_time for "
                "a recording, or raise node.max_image_age_s",
            )
        elif ruling.drop:
            self._drop(ruling.drop, f"the stamps of the images do not increase (at {stamp / 1e9:.3f} s)")
        if ruling.drop:
            return False
        if ruling.reset:
            self._log.warning(f"{ruling.cut}: a new map begins (node.on_time_jump is reset)")
            self.new_session()
            self._counters.count("received")
            self.gate.judge(stamp, 0)
        elif ruling.cut:
            self._log.warning(f"{ruling.cut}: a new segment begins")
            self._segment += 1
            self._reason = ruling.cut
        return True

    def _find_body(self, frame_id: str) -> Body | None:
        """The body frame of this session; None (and the frame is dropped) while TF does not know it."""
        if self.body is not None:
            return self.body
        config = self._config.node
        camera = config.camera_frame or frame_id or "camera_optical_frame"
        if not config.camera_frame and not frame_id:
            self._say(f"the images have no frame_id: '{camera}' is used; set node.camera_frame")
        if self._listener is None:
            self.body = Body.camera(camera)
            return self.body
        T_base_cam = self._listener.lookup(config.base_frame, camera)
        if T_base_cam is None:
            known = ", ".join(self._listener.frames()) or "none"
            now = time.monotonic()
            self._unmounted_since = self._unmounted_since or now
            self._drop(
                "no_transform",
                f"TF has no transform from '{camera}' to '{config.base_frame}' (known frames: {known}); publish it "
                "with static_transform_publisher or correct node.base_frame and node.camera_frame",
                say=now - self._unmounted_since >= config.tf_timeout_s,
            )
            return None
        self._listener.close()  # a busy /tf costs time, and the mount is known now
        self.body = Body.mounted(config.base_frame, camera, T_base_cam)
        return self.body

    def _same_size(self, image: ImageArray) -> bool:
        size = image.shape[1], image.shape[0]
        if self._size is None:
            self._size, self._expect = size, None
        if size == self._size:
            return True
        self._drop(
            "size_changed",
            f"the images changed from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]}; call ~/reset to go on "
            "with the new size",
        )
        return False

    def _release(self, truth: TruthPairing) -> None:
        """Hand over the frames whose truth is complete."""
        for ready in truth.ready():
            if ready is None:
                self._drop("no_truth", f"the simulated predictor lacks ground truth: {truth.explain()}{_ADVICE}")
            elif self.body is not None:
                frame, arrived = ready
                assert frame.truth is not None
                assert frame.truth.depth is not None
                depth = self.calibration.rectified_depth(frame.truth.depth)
                frame = replace(frame, truth=replace(frame.truth, depth=depth))
                self._hand_over(frame, self.body, arrived)

    def _hand_over(self, frame: Frame, body: Body, arrived: float) -> None:
        frame = self.priors.told(frame, body.camera_frame, self.session)
        self._deliver(Arrival(frame, body, self.session, self._segment, self._reason, arrived, queued=time.monotonic()))

    def _drop(self, cause: str, sentence: str, *, say: bool = True) -> None:
        self._counters.count(cause)
        self.last_drop, self.last_drop_time = sentence, time.monotonic()
        if say and cause != "paused":
            self._say(sentence, key=cause)

    def _say(self, sentence: str, key: str = "") -> None:
        """Log a sentence once per session (and per cause)."""
        if sentence and (key or sentence) not in self._said:
            self._said.add(key or sentence)
            self._log.warning(sentence)


def _image_topics(transport: str) -> list[tuple[str, type]]:
    """What to listen to, in order of preference; a compressed stream may also be remapped to ``image`` itself."""
    raw: list[tuple[str, type]] = [("image", Image)]
    compressed: list[tuple[str, type]] = [("image", CompressedImage), ("image/compressed", CompressedImage)]
    return {"raw": raw, "compressed": [*compressed[::-1]], "auto": raw + compressed}[transport]


def _decode(message: Any) -> ImageArray:
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, message.data)
    return decode_image(
        message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
    )

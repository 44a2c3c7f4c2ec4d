"""Watches a running node from outside: status, odometry and depth as any other program receives them."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from da3_ros.errors import Da3Error
from da3_ros.evaluation.latency import Latency
from da3_ros.msg import EngineInfo, SlamStatus
from da3_ros.ros.counters import DROP_CAUSES
from da3_ros.ros.messages import stamp_ns
from da3_ros.sources.encodings import decode_depth
from da3_ros.srv import SaveMap, SaveTrajectory
from da3_ros.types import FloatArray, WindowRecord

T = TypeVar("T")

_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_PATIENCE = 5  # times as long as otherwise for what may be lost


@dataclass(slots=True)
class DepthSample:
    """Depth of one frame as published."""

    stamp_ns: int
    depth: FloatArray  # (h, w) metres or map units, NaN invalid
    confidence: FloatArray | None = None  # (h, w) in [0, 1)


def dropped(status: SlamStatus) -> dict[str, int]:
    """Frames that the node dropped, by cause."""
    return {cause: int(getattr(status, f"dropped_{cause}")) for cause in DROP_CAUSES}


class Observer:
    """Subscribes in a thread of its own until closed.

    Args:
        context: initialised.
        node: full name of the node watched.
        sample_stamps: frames whose depth is kept: for each the first depth at or after it.
    """

    def __init__(self, context: Context, node: str, sample_stamps: list[int]) -> None:
        self.status: SlamStatus | None = None
        self.engine: EngineInfo | None = None
        self.windows: list[WindowRecord] = []
        self.latency = Latency()
        self.odometry = 0  # messages received
        self.last_event = time.monotonic()  # when anything last changed
        self.samples: list[DepthSample] = []
        self._wanted = sorted(sample_stamps)
        self._odometry_s: dict[int, float] = {}  # stamp -> seconds from the image to its odometry
        self._sent: dict[int, float] = {}  # stamp -> monotonic time at which the image was published
        self._stages: dict[str, list[tuple[float, float, float]]] = {}
        self._watched = node
        self._node = Node("da3_observer", context=context, start_parameter_services=False, enable_rosout=False)
        self._node.create_subscription(SlamStatus, f"{node}/status", self._on_status, _LATCHED)
        self._node.create_subscription(EngineInfo, f"{node}/engine", self._on_engine, _LATCHED)
        self._node.create_subscription(Odometry, "odom", self._on_odometry, 50)
        self._node.create_subscription(Image, "depth/image", self._on_depth, 2)
        self._node.create_subscription(Image, "confidence/image", self._on_confidence, 2)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="da3 observer", daemon=True)
        self._thread.start()

    @contextmanager
    def announcing(self, info: CameraInfo) -> Iterator[Callable[[], None]]:
        """Before any image: tell the node, by a camera_info, for what size to load a network.

        Yields what publishes it; a message is lost while the node has not yet discovered the publisher.
        """
        publisher = self._node.create_publisher(CameraInfo, "/camera_info", 1)
        try:
            yield lambda: publisher.publish(info)
        finally:
            self._node.destroy_publisher(publisher)

    def image_sent(self, raw: bytes) -> None:
        """Note the time at which an image message (CDR: its header comes first) goes out."""
        now = time.monotonic()
        seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
        self._sent[seconds * 1_000_000_000 + nanoseconds] = now

    def latency_ms(self) -> dict[str, dict[str, float]]:
        """Per stage p50, p95 and max, ms.

        Stages with "to" were measured here, from the publishing of the image to the arrival of the message.  The
        others are the node's own, over windows of ten seconds: the median p50, the worst p95 and max.
        """
        own = {
            f"node: {stage.replace('_', ' ')}": {
                "p50": 1e3 * float(np.median([s[0] for s in spreads])),
                "p95": 1e3 * max(s[1] for s in spreads),
                "max": 1e3 * max(s[2] for s in spreads),
            }
            for stage, spreads in self._stages.items()
        }
        return {**self.latency.summary(), **own}

    def ready(self) -> bool:
        """Whether the node is active and waits for images."""
        waiting = (SlamStatus.STATE_INIT, SlamStatus.STATE_TRACKING, SlamStatus.STATE_WEAK, SlamStatus.STATE_LOST)
        return self.status is not None and self.status.state in waiting

    def settled(self, quiet_s: float) -> bool:
        """Whether the node has dealt with every image that went out, and nothing has changed for ``quiet_s``.

        Images may be lost on their way: what does not come is waited for a few times as long, and no longer.
        """
        quiet = time.monotonic() - self.last_event
        status = self.status
        if status is None:
            return False
        dealt_with = int(status.frames_accepted) + sum(dropped(status).values())
        done = status.frames_received >= len(self._sent) and dealt_with >= status.frames_received
        return quiet > (quiet_s if done else _PATIENCE * quiet_s)

    def save_trajectory(self, path: Path, *, causal: bool, keyframes_only: bool = False, timeout_s: float = 30) -> Any:
        """Call ~/save_trajectory; returns the response.

        Raises:
            Da3Error: no answer.
        """
        kind = SaveTrajectory.Request.KIND_CAUSAL if causal else SaveTrajectory.Request.KIND_FINAL
        request = SaveTrajectory.Request(path=str(path), kind=kind, keyframes_only=keyframes_only)
        return self._call(SaveTrajectory, "save_trajectory", request, timeout_s)

    def save_map(self, path: Path, timeout_s: float = 60) -> Any:
        """Call ~/save_map; returns the response.

        Raises:
            Da3Error: no answer.
        """
        return self._call(SaveMap, "save_map", SaveMap.Request(path=str(path)), timeout_s)

    def close(self) -> None:
        """Stop watching."""
        self._executor.shutdown()
        self._thread.join(5)
        self._node.destroy_node()

    def _call(self, kind: Any, name: str, request: Any, timeout_s: float) -> Any:
        client: Any = self._node.create_client(kind, f"{self._watched}/{name}")
        try:
            if not client.wait_for_service(timeout_s):
                raise Da3Error(f"{self._watched} does not offer ~/{name}; look at its log")
            answered = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: answered.set())
            if not answered.wait(timeout_s):
                raise Da3Error(f"{self._watched} did not answer ~/{name} within {timeout_s:g} s; look at its log")
            return future.result()
        finally:
            self._node.destroy_client(client)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _on_status(self, message: SlamStatus) -> None:
        before, self.status = self.status, message
        if before is None or (before.frames_received, before.windows) != (message.frames_received, message.windows):
            self.last_event = time.monotonic()
        spreads = zip(message.stage_p50_s, message.stage_p95_s, message.stage_max_s, strict=True)
        for stage, spread in zip(message.stage_names, spreads, strict=True):
            self._stages.setdefault(stage, []).append(spread)
        if before is not None and before.session_id != message.session_id:
            self.windows.clear()
        self._note_window(before, message)

    def _note_window(self, before: SlamStatus | None, now: SlamStatus) -> None:
        """One line of the scale log for each report in which a window of keyframes was joined."""
        if before is None or (
            now.keyframes == before.keyframes and (now.scale_breaks_detected == before.scale_breaks_detected)
        ):
            return
        if not np.isfinite(now.scale_ratio) or now.scale_ratio <= 0:
            return
        outcome = "joined"
        if now.scale_breaks_repaired > before.scale_breaks_repaired:
            outcome = "repaired"
        elif now.scale_breaks_detected > before.scale_breaks_detected:
            outcome = "refused"
        self.windows.append(
            WindowRecord(
                number=now.windows,
                stamp_ns=stamp_ns(now.header.stamp),
                views=0,
                log_scale=float(np.log(now.scale_ratio)),
                sigma=0.0 if not np.isfinite(now.scale_sigma) else now.scale_sigma,
                residual=now.seam_residual,
                outcome=outcome,
            )
        )

    def _on_engine(self, message: EngineInfo) -> None:
        self.engine = message

    def _on_odometry(self, message: Odometry) -> None:
        now = time.monotonic()
        self.odometry += 1
        self.last_event = now
        self._note_latency("image to odometry", message.header, now)
        stamp = stamp_ns(message.header.stamp)
        if stamp in self._sent:
            self._odometry_s[stamp] = now - self._sent[stamp]

    def leave_out_inference(self, keyframes: set[int]) -> None:
        """Add the latency of odometry of the frames that found no inference due or under way.

        Args:
            keyframes: their stamps; a keyframe is predicted while the frame after it arrives.
        """
        stamps = sorted(self._odometry_s)
        busy = keyframes | {after for before, after in pairwise(stamps) if before in keyframes}
        for stamp in stamps:
            if stamp not in busy:
                self.latency.add("image to odometry, no inference", self._odometry_s[stamp])

    def _note_latency(self, name: str, head: Header, now: float) -> None:
        sent = self._sent.get(stamp_ns(head.stamp))
        if sent is not None:
            self.latency.add(name, now - sent)

    def _on_depth(self, message: Image) -> None:
        self._note_latency("image to depth", message.header, time.monotonic())
        stamp = stamp_ns(message.header.stamp)
        if not self._wanted or stamp < self._wanted[0]:
            return
        while self._wanted and self._wanted[0] <= stamp:
            self._wanted.pop(0)
        depth = decode_depth(
            message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
        )
        self.samples.append(DepthSample(stamp, depth))

    def _on_confidence(self, message: Image) -> None:
        stamp = stamp_ns(message.header.stamp)
        for sample in self.samples[-2:]:
            if sample.stamp_ns == stamp:
                values = np.frombuffer(message.data, "<f4").reshape(message.height, message.width)
                sample.confidence = values.copy()

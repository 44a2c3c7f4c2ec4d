"""The live node on a test bench: a camera in front of it, ears around it, on a domain of its own."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from conftest import EXACT
from da3_ros.msg import SlamStatus
from geometry_msgs.msg import PoseStamped, TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from da3_ros.errors import ConfigError
from da3_ros.ros import messages
from da3_ros.ros.slam_node import NAME, SlamNode
from da3_ros.types import Frame

PATIENCE_S = 30.0
DISCOVERY_S = 0.2  # how long anything may take on a machine that is busy with something else
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
FRAME = "camera_optical"

# Small, quick and exact, unless a test says otherwise.
DEFAULTS: dict[str, Any] = {
    "node.max_image_age_s": 0.0,  # the stamps of the frames lie in the past
    "node.silence_s": 0.5,
    "node.map_rate_hz": 10.0,
    "node.path_rate_hz": 50.0,
    "node.mailbox": 50,
    "tracker.width": 160,
    "keyframe.max_interval_s": 0.3,
    "window.size": 4,
    "window.overlap": 3,
    "simulated.width": 64,
    "simulated.window_log_scale": 0.0,
    **EXACT,
}


def shifted(frames: Sequence[Frame], seconds: float) -> list[Frame]:
    """The same frames at another time."""
    return [replace(frame, stamp_ns=frame.stamp_ns + round(seconds * 1e9)) for frame in frames]


class Heard(list):
    """Messages of one topic, in order of arrival."""

    def __init__(self, news: threading.Condition) -> None:
        super().__init__()
        self._news = news

    def hear(self, message: Any) -> None:
        with self._news:
            self.append(message)
            self._news.notify_all()

    @property
    def stamps(self) -> list[int]:
        return [messages.stamp_ns(message.header.stamp) for message in self]


_AGAIN_S = 5.0  # after which an answer was lost: discovery of the client took longer than usual


class Bench:
    """What surrounds a node: publishers, subscribers and clients, spinning in a thread."""

    def __init__(self, domain: int, namespace: str = "") -> None:
        self.domain, self.namespace = domain, namespace
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._news = threading.Condition()
        self.ears = Node("ears", context=self.context, namespace=namespace, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.ears)
        self._thread = threading.Thread(target=_spin, args=(self._executor,), daemon=True)
        self.nodes: list[RunningNode] = []
        self._topics: list[str] = []
        self.status = self.listen(SlamStatus, f"{NAME}/status", LATCHED)
        self.odometry = self.listen(Odometry, "odom")
        self.log = self.listen(Log, "/rosout", LATCHED)
        self._thread.start()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self._executor.shutdown()
        self._thread.join(PATIENCE_S)
        self.ears.destroy_node()
        self.context.try_shutdown()
        # A lifecycle node keeps its part of the middleware until it is collected, and with it the place that its
        # log goes to: the next test of this process would log there.
        self.nodes = []
        gc.collect()

    # ------------------------------------------------------------ the node

    def start(self, **parameters: Any) -> RunningNode:
        """Start a node in this process; ``window__size=4`` sets ``window.size``."""
        values = {**DEFAULTS, **{name.replace("__", "."): value for name, value in parameters.items()}}
        node = RunningNode(self.domain, self.namespace, values)
        self.nodes.append(node)
        return node

    # ------------------------------------------------------------ ears

    def listen(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> Heard:
        heard = Heard(self._news)
        if topic != "/rosout":  # only the first of several nodes of a name in a process has a publisher for it
            self._topics.append(self.ears.resolve_topic_name(topic))
        self.ears.create_subscription(kind, topic, heard.hear, qos)
        return heard

    def hears(self) -> bool:
        """Whether the nodes of this process and the ears know of each other's ends of every topic."""
        return all(
            self.ears.count_publishers(topic) and running.node.count_subscribers(topic)
            for running in self.nodes
            for topic in self._topics
        )

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Wait for something to become true; returns it."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while not (value := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"not within {patience_s:g} s: {what}; last status: {self._last()}"
                self._news.wait(min(left, 0.05))
        return value

    def until_status(self, condition: Callable[[SlamStatus], Any], what: str) -> SlamStatus:
        """Wait for a status that fulfils a condition, the latest one or one that is still to come; returns it."""
        begin = max(len(self.status) - 1, 0)
        return self.until(lambda: next((s for s in self.status[begin:] if condition(s)), None), what)

    def pause(self, seconds: float) -> None:
        """Let time pass, where the node's own clock is what matters."""
        time.sleep(seconds)

    def logged(self, text: str) -> list[str]:
        """Lines of the log that contain a text."""
        return [line.msg for line in self.log if text in line.msg]

    def _last(self) -> str:
        if not self.status:
            return "none"
        last = self.status[-1]
        names = [name for name in last.get_fields_and_field_types() if name.startswith(("frames_", "dropped_"))]
        counts = ", ".join(f"{name} {getattr(last, name)}" for name in names if getattr(last, name))
        return f"state {last.state}, '{last.reason}', {counts}"

    # ------------------------------------------------------------ requests

    def call(self, kind: type, name: str, request: Any = None, *, harmless: bool = False) -> Any:
        """Call a service of the node; again where no answer comes, if the call is ``harmless`` and changes nothing."""
        client = self.ears.create_client(kind, f"{NAME}/{name}")
        try:
            assert client.wait_for_service(PATIENCE_S), f"no service {name}"
            # The client has found the service; an answer is lost where the service has not found the client yet.
            self.pause(DISCOVERY_S)
            begin, futures = time.monotonic(), [client.call_async(request or kind.Request())]

            def answered() -> Any:
                if harmless and time.monotonic() > begin + _AGAIN_S * len(futures):
                    futures.append(client.call_async(request or kind.Request()))
                return next((future for future in futures if future.done()), None)

            return self.until(answered, f"answer of {name}").result()
        finally:
            self.ears.destroy_client(client)

    def transition(self, label: str) -> bool:
        """Change the lifecycle state, as a manager does."""
        known = {"configure": 1, "cleanup": 2, "activate": 3, "deactivate": 4}
        request = ChangeState.Request(transition=Transition(id=known[label]))
        return self.call(ChangeState, "change_state", request).success


class RunningNode:
    """A SlamNode that spins in a thread of this process."""

    def __init__(self, domain: int, namespace: str, values: dict[str, Any]) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        options = {
            "namespace": namespace,
            "parameter_overrides": [Parameter(name, value=value) for name, value in values.items()],
            "use_global_arguments": False,
        }
        try:
            self.node = SlamNode(context=self._context, **options)
        except ConfigError:
            self._context.try_shutdown()
            raise
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.started = self.node.start()
        self._thread = threading.Thread(target=_spin, args=(self._executor,), daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> int:
        """Frames that have a pose."""
        return self.node._counters.accepted

    @property
    def map_points(self) -> int:
        mapper = self.node._mapper
        return mapper.points if mapper is not None else 0

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(PATIENCE_S)
        self.node.stop()
        self.node.destroy_node()
        self._context.try_shutdown()
        del self.node, self._executor


class Camera:
    """Publishes frames with calibration and ground truth, as a driver and a simulator would."""

    def __init__(
        self,
        bench: Bench,
        qos: QoSProfile = RELIABLE,
        *,
        frame_id: str = FRAME,
        compressed: bool = False,
        topic: str = "",
        prefix: str = "",
        calibrated: bool = True,
        K: np.ndarray | None = None,
        info_size: tuple[int, int] | None = None,
        truth: bool = True,
    ) -> None:
        self._bench, self._frame_id, self._compressed = bench, frame_id, compressed
        self.K, self._info_size = K, info_size  # in camera_info, where they differ from the frames' own
        make = bench.ears.create_publisher
        kind, usual = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self.image = make(kind, topic or prefix + usual, qos)
        self.info = make(CameraInfo, f"{prefix}camera_info", qos) if calibrated else None
        self.depth = make(Image, f"{prefix}truth/depth", qos) if truth else None
        self.pose = make(PoseStamped, f"{prefix}truth/pose", qos) if truth else None

    @property
    def publishers(self) -> list[Any]:
        return [publisher for publisher in (self.image, self.info, self.depth, self.pose) if publisher is not None]

    def wait(self) -> None:
        """Until the node and this bench have found each other in both directions, so that nothing is lost."""

        def matched() -> bool:
            return all(publisher.get_subscription_count() for publisher in self.publishers) and all(
                running.node.get_publishers_info_by_topic(publisher.topic_name)
                for running in self._bench.nodes
                for publisher in self.publishers
            )

        self._bench.until(matched, "a node that listens")
        self._bench.until(self._bench.hears, "a node that is heard")

    def withdraw(self) -> None:
        """Stop publishing, as a driver that is shut down."""
        for publisher in self.publishers:
            self._bench.ears.destroy_publisher(publisher)

    def send(self, frame: Frame, **changes: Any) -> None:
        """Publish one frame; ``changes`` replace fields of the image message."""
        head = messages.header(frame.stamp_ns, self._frame_id)
        if self.info is not None:
            info = messages.camera_info(head, frame.camera)
            if self.K is not None:
                info.k = self.K.ravel().astype(float)
            info.width, info.height = self._info_size or (info.width, info.height)
            self.info.publish(info)
        if self.depth is not None:
            self.depth.publish(messages.image(head, frame.truth.depth, "32FC1"))
            self.pose.publish(PoseStamped(header=head, pose=messages.pose(frame.truth.T_world_cam)))
        self.image.publish(self.message(frame, **changes))

    def message(self, frame: Frame, **changes: Any) -> Any:
        head = messages.header(frame.stamp_ns, self._frame_id)
        if self._compressed:
            import cv2

            ok, data = cv2.imencode(".png", frame.image[..., ::-1])
            assert ok
            message: Any = CompressedImage(header=head, format="rgb8; png compressed bgr8", data=data.tobytes())
        else:
            message = messages.image(head, frame.image, "rgb8")
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def show(self, frames: Iterable[Frame]) -> None:
        """Publish frames, each once the node has answered to the one before: no load can make it drop any."""
        for frame in frames:
            self.send(frame)
            stamp = frame.stamp_ns
            self._bench.until(lambda stamp=stamp: stamp in self._bench.odometry.stamps[-3:], f"odometry at {stamp}")


def transform(parent: str, child: str, T: np.ndarray) -> TransformStamped:
    return messages.transform(1, parent, child, T)


def static_tf(bench: Bench, *transforms: TransformStamped) -> Any:
    """Publish /tf_static as static_transform_publisher does."""
    publisher = bench.ears.create_publisher(TFMessage, "/tf_static", LATCHED)
    publisher.publish(TFMessage(transforms=list(transforms)))
    return publisher


class NodeProcess:
    """The node as ``ros2 run`` starts it."""

    def __init__(self, domain: int, *arguments: str, code: str = "", log: Path) -> None:
        program = ["-c", code] if code else ["-m", "da3_ros.ros.slam_node"]
        root = str(Path(__file__).resolve().parents[1])
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--ros-args", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text()


def arguments(values: dict[str, Any]) -> list[str]:
    """Parameters as command line arguments."""
    out = []
    for name, value in values.items():
        out += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return out


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except (ExternalShutdownException, ShutdownException):
        return

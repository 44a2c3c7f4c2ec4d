"""Who is there: cameras and our own nodes, seen from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from da3_ros.ros.fastdds import use_profile

_IMAGES = {"sensor_msgs/msg/Image": "images", "sensor_msgs/msg/CompressedImage": "compressed images"}
_INFO = "sensor_msgs/msg/CameraInfo"
_STATUS = "da3_ros/msg/SlamStatus"
_SETTLED_S = 0.5  # nobody new for so long
_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Camera:
    """A topic with images."""

    topic: str
    kind: str
    publishers: tuple[str, ...]  # full names of nodes
    camera_info: str  # topic of its calibration, which somebody publishes; empty: none


@dataclass(frozen=True, slots=True)
class Seen:
    """Everybody but ourselves."""

    nodes: tuple[str, ...]
    cameras: tuple[Camera, ...]
    slam_nodes: tuple[str, ...]


def look(within_s: float) -> Seen:
    """Listen until nobody new is heard of, ``within_s`` at most.

    Raises:
        RuntimeError: ROS 2 cannot be initialised.
    """
    use_profile()
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node("da3_doctor", context=context, start_parameter_services=False, enable_rosout=False)
        try:
            _wait(node, within_s)
            return _seen(node)
        finally:
            node.destroy_node()
    finally:
        context.try_shutdown()


def _wait(node: Node, within_s: float) -> None:
    """Discovery runs in the middleware's own threads: nothing needs to be spun."""
    begin = changed = time.monotonic()
    before: tuple[int, int] = (0, 0)
    while (now := time.monotonic()) - begin < within_s:
        found = len(node.get_node_names_and_namespaces()), len(node.get_topic_names_and_types())
        if found != before:
            before, changed = found, now
        if len(_others(node)) and now - changed > _SETTLED_S:
            return
        time.sleep(_STEP_S)


def _others(node: Node) -> tuple[str, ...]:
    ours = node.get_fully_qualified_name()
    names = {f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()}
    return tuple(sorted(name for name in names if name != ours))


def _seen(node: Node) -> Seen:
    topics = dict(node.get_topic_names_and_types())
    publishers = {name: _publishers(node, name) for name in topics}
    slam = {who for name, kinds in topics.items() if _STATUS in kinds for who in publishers[name]}
    cameras = []
    for name, kinds in sorted(topics.items()):
        kind = next((_IMAGES[k] for k in kinds if k in _IMAGES), None)
        if kind is None or set(publishers[name]) <= slam:
            continue  # no images, nobody's, or our own depth
        info = name.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        calibrated = _INFO in topics.get(info, ()) and publishers[info]
        cameras.append(Camera(name, kind, publishers[name], info if calibrated else ""))
    return Seen(_others(node), tuple(cameras), tuple(sorted(slam)))


def _publishers(node: Node, topic: str) -> tuple[str, ...]:
    found = node.get_publishers_info_by_topic(topic)
    return tuple(sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found}))

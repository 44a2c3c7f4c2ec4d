"""Where the camera sits on the robot, from /tf_static and /tf."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from tf2_msgs.msg import TFMessage

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.ros.messages import matrix_of_transform
from da3_ros.sources.tf_tree import TfTree

STATIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DYNAMIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class TransformListener:
    """Keeps the latest transform of every frame to its parent until it is closed.

    The same with and without tf2, which no wheel provides: the camera is mounted rigidly, so that one look-up is
    enough and nothing has to be interpolated in time.
    """

    def __init__(self, node: Node, *, static_only: bool = False) -> None:
        """Listen; ``static_only`` leaves out /tf, which is busy, and where frames move."""
        self._static_only = static_only
        self._tree = TfTree()
        self._frames: set[str] = set()
        self._node = node
        self._subscriptions: list[Subscription[Any]] = []
        self.listen()

    def listen(self) -> None:
        """Hear transforms, if it does not already; what was heard before stays."""
        if not self._subscriptions:
            topics = [("/tf_static", STATIC_QOS), *([] if self._static_only else [("/tf", DYNAMIC_QOS)])]
            self._subscriptions = [
                self._node.create_subscription(TFMessage, topic, self._on_transforms, qos) for topic, qos in topics
            ]

    def frames(self) -> list[str]:
        """Every frame heard of, sorted."""
        return sorted(self._frames)

    def lookup(self, target: str, source: str) -> Array | None:
        """``T_target_source`` (4, 4), or None where the two frames are not connected."""
        return self._tree.between(target.lstrip("/"), source.lstrip("/"))

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_transforms(self, message: TFMessage) -> None:
        for transform in message.transforms:
            parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
            try:
                T = matrix_of_transform(transform.transform)
            except ValueError:
                continue  # a zero quaternion or NaN says nothing about where a frame is
            if parent != child and se3.is_rigid(T):
                self._frames |= {parent, child}
                self._tree.fix(parent, child, T)

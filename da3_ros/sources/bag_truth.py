"""Ground truth of a bag, joined to its images by stamp while the bag streams by."""

from __future__ import annotations

from typing import Any

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources import bag_types
from da3_ros.sources.encodings import decode_compressed_depth, decode_depth
from da3_ros.sources.pose_track import NEAREST_NS, PoseTrack
from da3_ros.sources.tally import Tally
from da3_ros.sources.tf_tree import TfTree
from da3_ros.types import FloatArray

_KEEP_NS = 1_000_000_000  # truth older than this before the last image is forgotten
_FAR_M = 1e9  # a position beyond this is damage
_KEEP_DEPTH = 32  # depth images held at most: they are the big ones


class BagTruth:
    """Holds the recent depth images and poses of a bag and answers for one stamp."""

    def __init__(self, tally: Tally, static: list[Any], *, depth: bool, pose_type: str | None) -> None:
        self._tally = tally
        self._has_depth, self._pose_type = depth, pose_type
        self._depth: dict[int, tuple[str, Any]] = {}  # stamp -> (message type, message)
        self._poses = PoseTrack()
        self._child = ""  # frame that the poses are those of; empty = the camera
        self._tree = TfTree()
        for message in static:
            for transform in message.transforms:
                T = self._transform(transform.transform)
                if T is not None:
                    self._tree.fix(_frame(transform.header.frame_id), _frame(transform.child_frame_id), T)

    def add_depth(self, msgtype: str, message: Any) -> None:
        """Note a depth image; it is decoded only when an image wants it."""
        self._depth[bag_types.stamp_ns(message.header)] = (msgtype, message)
        while len(self._depth) > _KEEP_DEPTH:
            del self._depth[min(self._depth)]

    def add_pose(self, message: Any) -> None:
        """Note a pose message of any kind that a bag may hold."""
        if self._pose_type == bag_types.TF:
            for transform in message.transforms:
                T, stamp = self._transform(transform.transform), bag_types.stamp_ns(transform.header)
                if T is not None:
                    self._tree.add(_frame(transform.header.frame_id), _frame(transform.child_frame_id), stamp, T)
            return
        if self._pose_type == bag_types.TRANSFORM:
            T = self._transform(message.transform)
        else:
            pose = message.pose if self._pose_type == bag_types.POSE else message.pose.pose
            T = self._pose(pose.position, pose.orientation)
        self._child = _frame(getattr(message, "child_frame_id", ""))
        if T is not None:
            self._poses.add(bag_types.stamp_ns(message.header), T)

    def settled(self, stamp_ns: int, frame_id: str) -> bool:
        """Tell whether nothing that is still to come can improve the answer for this stamp."""
        newest = max(self._depth, default=0)
        if self._has_depth and stamp_ns not in self._depth and newest < stamp_ns + NEAREST_NS:
            return False
        if self._pose_type is None:
            return True
        if self._pose_type == bag_types.TF:
            return self._tree.settled(_frame(frame_id), stamp_ns)
        return self._poses.reaches(stamp_ns)

    def pose(self, stamp_ns: int, frame_id: str) -> Array | None:
        """T_world_cam at a stamp, of the camera with this optical frame.

        Poses of another frame (a marker, a robot base) are moved to the camera where /tf_static connects the two,
        and are otherwise taken as they are.
        """
        frame = _frame(frame_id)
        if self._pose_type == bag_types.TF:
            return self._tree.pose(frame, stamp_ns)
        T = self._poses.at(stamp_ns)
        if T is None or self._child in ("", frame):
            return T
        T_child_cam = self.mount(self._child, frame)
        return T if T_child_cam is None else T @ T_child_cam

    def mount(self, parent: str, child: str) -> Array | None:
        """T_parent_child by /tf_static; None where it does not connect the two."""
        parent, child = _frame(parent), _frame(child)
        return np.eye(4) if parent == child else self._tree.between(parent, child)

    def depth(self, stamp_ns: int, shape: tuple[int, ...]) -> FloatArray | None:
        """Depth (H, W) in metres: of this stamp, else the nearest within 0.02 s; None where there is none."""
        near = min(self._depth, key=lambda s: (abs(s - stamp_ns), s), default=None)
        if near is None or abs(near - stamp_ns) > NEAREST_NS:
            return None
        msgtype, message = self._depth[near]
        try:
            depth = _decode(msgtype, message)
        except SourceError:
            self._tally.skip("depth images that cannot be decoded")
            return None
        if depth.shape != shape[:2]:
            self._tally.skip("depth images of another size than the image")
            return None
        return depth

    def forget_before(self, stamp_ns: int) -> None:
        """Drop what no later image can ask for."""
        limit = stamp_ns - _KEEP_NS
        for old in [s for s in self._depth if s < stamp_ns - NEAREST_NS]:
            del self._depth[old]
        self._poses.forget_before(limit)
        self._tree.forget_before(limit)

    def _transform(self, transform: Any) -> Array | None:
        return self._pose(transform.translation, transform.rotation)

    def _pose(self, position: Any, orientation: Any) -> Array | None:
        translation = np.array([position.x, position.y, position.z])
        q = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
        if not (np.abs(translation) < _FAR_M).all() or not (np.abs(q) <= 2).all() or np.abs(q).max() < 0.1:
            self._tally.skip("poses that are not finite or have no rotation")
            return None
        return se3.from_quaternion(translation, q)


def _decode(msgtype: str, message: Any) -> FloatArray:
    if msgtype == bag_types.COMPRESSED:
        return decode_compressed_depth(message.format, message.data)
    m = message
    return decode_depth(m.encoding, m.height, m.width, m.step, bool(m.is_bigendian), m.data)


def _frame(name: str) -> str:
    """Frame names of ROS 1 times may start with a slash."""
    return name.lstrip("/")

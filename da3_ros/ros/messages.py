"""ROS messages from values and back.  Buffers are filled in one piece, never element by element."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray

NS = 1_000_000_000


def stamp_ns(stamp: Time) -> int:
    """Integer nanoseconds of a time message."""
    return int(stamp.sec) * NS + int(stamp.nanosec)


def to_stamp(ns: int) -> Time:
    """Time message of integer nanoseconds; times before 1970 become 0."""
    sec, nanosec = divmod(max(int(ns), 0), NS)
    return Time(sec=sec, nanosec=nanosec)


def header(ns: int, frame_id: str) -> Header:
    """Header with a stamp in nanoseconds."""
    return Header(stamp=to_stamp(ns), frame_id=frame_id)


def buffer(values: NDArray[Any]) -> array.array[int]:
    """The bytes of an array as ``array('B')``: the one type that message fields take without checking each element."""
    out = array.array("B")
    out.frombytes(memoryview(np.ascontiguousarray(values).reshape(-1)).cast("B"))
    return out


def image(head: Header, values: NDArray[Any], encoding: str) -> Image:
    """Image message of an array (H, W) or (H, W, C), little endian."""
    height, width = values.shape[:2]
    return Image(
        header=head,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=values.nbytes // height,
        data=buffer(values),
    )


def camera_info(head: Header, camera: Pinhole) -> CameraInfo:
    """Undistorted CameraInfo: K and P of the camera, no distortion, identity rectification."""
    K = camera.matrix
    P = np.hstack([K, np.zeros((3, 1))])
    return CameraInfo(
        header=head,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=P.ravel(),
    )


def masked_depth(depth: FloatArray, confidence: FloatArray, least: float) -> FloatArray:
    """Depth (h, w) with NaN where it is not positive and finite or less confident than ``least`` (REP 117, 118)."""
    good = (confidence >= least) & (depth > 0) & np.isfinite(depth)
    return np.where(good, depth, np.float32(np.nan)).astype(np.float32, copy=False)


def preview(depth: FloatArray) -> NDArray[np.uint8]:
    """A picture (h, w, 3) RGB of a depth: near is bright, invalid is black; stretched to the 2..98 % quantiles."""
    import cv2

    valid = np.isfinite(depth)
    out = np.zeros((*depth.shape, 3), np.uint8)
    if not valid.any():
        return out
    inverse = 1.0 / depth[valid]
    low, high = np.percentile(inverse, [2, 98])
    grey = np.clip((inverse - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    out[valid] = cv2.applyColorMap(grey.reshape(-1, 1), cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    return out


def pose(T: Array) -> Pose:
    """Pose message of a (4, 4) transform."""
    x, y, z = T[:3, 3].tolist()
    qx, qy, qz, qw = se3.quaternion_from_rotation(T[:3, :3]).tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def matrix_of_pose(message: Pose) -> Array:
    """(4, 4) transform of a pose message; ValueError for a zero or non-finite quaternion or a non-finite position."""
    p, q = message.position, message.orientation
    return _matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def matrix_of_transform(message: Transform) -> Array:
    """(4, 4) transform of a transform message; ValueError as ``matrix_of_pose``."""
    p, q = message.translation, message.rotation
    return _matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform(ns: int, parent: str, child: str, T_parent_child: Array) -> TransformStamped:
    """Stamped transform message of a rigid (4, 4) transform."""
    x, y, z = T_parent_child[:3, 3].tolist()
    qx, qy, qz, qw = se3.quaternion_from_rotation(T_parent_child[:3, :3]).tolist()
    return TransformStamped(
        header=header(ns, parent),
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)),
    )


_CLOUD = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(("x", "y", "z", "rgb"))
]


def point_cloud(head: Header, points: FloatArray, colors: NDArray[np.uint8]) -> PointCloud2:
    """PointCloud2 of points (N, 3) and colours (N, 3) RGB: x y z float32 and rgb packed as PCL and RViz read it."""
    cloud = np.empty(len(points), _CLOUD)
    for i, name in enumerate("xyz"):
        cloud[name] = points[:, i]
    rgb = colors.astype(np.uint32)
    cloud["rgb"] = (rgb[:, 0] << 16) | (rgb[:, 1] << 8) | rgb[:, 2]
    return PointCloud2(
        header=head,
        height=1,
        width=len(cloud),
        fields=_FIELDS,
        is_bigendian=False,
        point_step=_CLOUD.itemsize,
        row_step=cloud.nbytes,
        data=buffer(cloud.view(np.uint8)),
        is_dense=True,
    )


def _matrix(position: list[float], quaternion: list[float]) -> Array:
    if not np.isfinite(position).all():
        raise ValueError("a position is not finite")
    return se3.from_quaternion(np.array(position), np.array(quaternion))


def now_ns(node: Node) -> int:
    """Node clock in nanoseconds; 0 while a simulated clock has not started."""
    return int(node.get_clock().now().nanoseconds)

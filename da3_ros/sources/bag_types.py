"""Message types of bags without ROS: rosbags' store of the standard types."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
POSE_COVARIANCE = "geometry_msgs/msg/PoseWithCovarianceStamped"
TRANSFORM = "geometry_msgs/msg/TransformStamped"
ODOMETRY = "nav_msgs/msg/Odometry"
IMU = "sensor_msgs/msg/Imu"
CLOUD = "sensor_msgs/msg/PointCloud2"
TF = "tf2_msgs/msg/TFMessage"

# What da3_ros writes, and looks for first.
IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/truth/depth"
POSE_TOPIC = "/truth/pose"
DEPTH_PRIOR_TOPIC = "/depth_prior"  # what the node calls them
ODOM_PRIOR_TOPIC = "/odom_prior"
IMU_TOPIC = "/imu"
CAMERA_FRAME = "camera_optical_frame"
WORLD_FRAME = "world"


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The standard types; those used here are the same in every ROS 2 distribution since Foxy."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def decode(raw: bytes, msgtype: str) -> Any:
    """Decode one message; arrays are views of ``raw``.

    Raises:
        ValueError: the bytes are not such a message.
    """
    from rosbags.serde import SerdeError

    try:
        return typestore().deserialize_cdr(raw, msgtype)
    except (SerdeError, struct.error, AssertionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def stamp_ns(header: Any) -> int:
    """Integer nanoseconds of a message header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)

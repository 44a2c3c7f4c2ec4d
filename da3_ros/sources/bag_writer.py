"""Any source as a rosbag2."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

from da3_ros.errors import OutputError, SourceError
from da3_ros.files import reason
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources import bag_types
from da3_ros.sources.bag_types import CAMERA_FRAME, WORLD_FRAME, typestore
from da3_ros.types import Frame, Inertial, Source

Storage: TypeAlias = Literal["mcap", "sqlite3"]
_JPEG_QUALITY = 95


def write_bag(
    source: Source,
    out: Path,
    *,
    storage: Storage = "mcap",
    compressed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a source as a rosbag2 folder; it appears whole or not at all.

    Topics: ``/camera/image_raw`` (rgb8, or ``/camera/image_raw/compressed`` as JPEG), ``/camera/camera_info``,
    ``/truth/depth`` (32FC1 metres), ``/truth/pose`` (PoseStamped of the optical frame in "world") and ``/imu`` (in the
    axes of the optical frame, at its own stamps).  The other messages of one frame share its stamp, and truth comes
    before camera_info and the image, so a reader that has the image has everything.

    Args:
        source: frames to write.
        out: folder to make; it must not exist.
        storage: "mcap" or "sqlite3".
        compressed: JPEG images (quality 95, lossy) instead of raw ones.
        progress: called with frames written and frames in all.

    Raises:
        OutputError: the folder exists or cannot be written; nothing is left behind.
        SourceError: the source cannot be read or is empty.
    """
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists already; remove it or choose another folder")
    temporary = _make_temporary(out)
    try:
        _write(source, temporary / out.name, storage, compressed, progress)
        (temporary / out.name).replace(out)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"cannot write the bag {out}: {_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_temporary(out: Path) -> Path:
    """A folder beside ``out``, so that the finished bag can be moved in one step."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write the bag {out}: {_reason(error)}") from error


def _write(
    source: Source, folder: Path, storage: Storage, compressed: bool, progress: Callable[[int, int], None] | None
) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    total, written = len(source), 0
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        messages = _Messages(writer, compressed)
        for frame in source:
            messages.write(frame)
            written += 1
            if progress is not None:
                progress(written, total)
        if not written:
            raise SourceError(f"{source.name} has no frame to write; check the source and --frames")


class _Messages:
    """Turns frames into messages; a topic comes into being with its first message."""

    def __init__(self, writer: Any, compressed: bool) -> None:
        self._writer = writer
        self._compressed = compressed
        self._connections: dict[str, Any] = {}
        self._types = typestore().types
        self._felt_ns = -1  # stamp of the last sample of the IMU

    def write(self, frame: Frame) -> None:
        """Write one frame: the IMU until then, truth, then camera_info, then the image."""
        stamp = frame.stamp_ns
        if frame.priors is not None and frame.priors.imu is not None:
            self._write_imu(frame.priors.imu)
        if frame.truth is not None and frame.truth.depth is not None:
            depth = np.ascontiguousarray(frame.truth.depth, "<f4")
            self._put(bag_types.DEPTH_TOPIC, self._image(stamp, "32FC1", depth))
        if frame.truth is not None and frame.truth.T_world_cam is not None:
            self._put(bag_types.POSE_TOPIC, self._pose(stamp, frame.truth.T_world_cam))
        height, width = frame.image.shape[:2]
        self._put(bag_types.CAMERA_INFO_TOPIC, self._camera_info(stamp, frame.camera, width, height))
        if self._compressed:
            self._put(bag_types.COMPRESSED_TOPIC, self._jpeg(stamp, frame))
        else:
            self._put(bag_types.IMAGE_TOPIC, self._image(stamp, "rgb8", np.ascontiguousarray(frame.image)))

    def _write_imu(self, imu: Inertial) -> None:
        """The samples since the frame before."""
        for stamp, gyro, force in zip(imu.stamps_ns.tolist(), imu.gyro, imu.force, strict=True):
            if stamp > self._felt_ns:
                self._felt_ns = stamp
                self._put(bag_types.IMU_TOPIC, self._imu(stamp, gyro, force))

    def _put(self, topic: str, message: Any) -> None:
        msgtype = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=typestore(), offered_qos_profiles=[_reliable()]
            )
        stamp = bag_types.stamp_ns(message.header)
        self._writer.write(self._connections[topic], stamp, typestore().serialize_cdr(message, msgtype))

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        time = self._types["builtin_interfaces/msg/Time"](seconds, nanoseconds)
        return self._types["std_msgs/msg/Header"](time, frame_id)

    def _image(self, stamp: int, encoding: str, pixels: Any) -> Any:
        height, width = pixels.shape[:2]
        data = pixels.view(np.uint8).reshape(-1)
        make = self._types[bag_types.IMAGE]
        return make(self._header(stamp, CAMERA_FRAME), height, width, encoding, 0, data.size // height, data)

    def _jpeg(self, stamp: int, frame: Frame) -> Any:
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise SourceError(f"frame {frame.id} cannot be compressed as JPEG; write the bag without compression")
        make = self._types[bag_types.COMPRESSED]
        return make(self._header(stamp, CAMERA_FRAME), "rgb8; jpeg compressed bgr8", data.reshape(-1))

    def _camera_info(self, stamp: int, camera: Pinhole | None, width: int, height: int) -> Any:
        """An undistorted camera; K of zeros says that the camera is not calibrated."""
        K = np.zeros((3, 3)) if camera is None else camera.matrix
        P = np.hstack([K, np.zeros((3, 1))])
        roi = self._types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        return self._types[bag_types.CAMERA_INFO](
            self._header(stamp, CAMERA_FRAME),
            height,
            width,
            "plumb_bob",
            np.zeros(5),
            K.reshape(-1),
            np.eye(3).reshape(-1),
            P.reshape(-1),
            0,
            0,
            roi,
        )

    def _imu(self, stamp: int, gyro: Array, force: Array) -> Any:
        """A sample in the camera's axes, without an orientation."""
        vector = self._types["geometry_msgs/msg/Vector3"]
        turned = self._types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        unknown = np.zeros(9)
        none = np.array([-1.0, *unknown[1:]])
        rates, forces = vector(*map(float, gyro)), vector(*map(float, force))
        header = self._header(stamp, CAMERA_FRAME)
        return self._types[bag_types.IMU](header, turned, none, rates, unknown, forces, unknown)

    def _pose(self, stamp: int, T_world_cam: Any) -> Any:
        point = self._types["geometry_msgs/msg/Point"](*(float(v) for v in T_world_cam[:3, 3]))
        q = se3.quaternion_from_rotation(T_world_cam[:3, :3])
        quaternion = self._types["geometry_msgs/msg/Quaternion"](*(float(v) for v in q))
        pose = self._types["geometry_msgs/msg/Pose"](point, quaternion)
        return self._types[bag_types.POSE](self._header(stamp, WORLD_FRAME), pose)


def _reliable() -> Any:
    """Quality of service that a player offers: images published best effort get lost."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    never = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )


def _reason(error: Exception) -> str:
    return f"{reason(error)}; free some space or choose another folder"

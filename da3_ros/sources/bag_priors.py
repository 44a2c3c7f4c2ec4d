"""What other sensors of a bag measured, joined to its images by stamp while the bag streams by."""

from __future__ import annotations

from typing import Any

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.sources import bag_types
from da3_ros.sources.bag_truth import BagTruth
from da3_ros.sources.camera_info import Rectifier
from da3_ros.sources.clouds import decode_cloud
from da3_ros.sources.depth_points import points_of_cloud, points_of_image
from da3_ros.sources.imu_track import ImuTrack, decode_imu
from da3_ros.sources.tally import Tally
from da3_ros.types import DepthPoints, Inertial, Priors

_NEAREST_NS = 50_000_000  # half the time between two turns of a LiDAR
_KEPT = 10  # clouds: they are large


class BagPriors:
    """Depth images and odometry as ``BagTruth`` joins them, point clouds, and an IMU."""

    def __init__(
        self, tally: Tally, static: list[Any], depth_type: str | None, pose_type: str | None, imu: bool
    ) -> None:
        """Take the types of depth and odometry, None where there is none, and whether there is an ``imu``."""
        self._tally, self._has_clouds = tally, depth_type == bag_types.CLOUD
        images = depth_type is not None and not self._has_clouds
        self._joined = BagTruth(tally, static, depth=images, pose_type=pose_type)
        self._imu = ImuTrack() if imu else None
        self._imu_frame = ""
        self._has_any = depth_type is not None or pose_type is not None or imu
        self._clouds: dict[int, Any] = {}

    def add_depth(self, msgtype: str, message: Any) -> None:
        """Note a depth image or a cloud; it is decoded only when an image wants it."""
        if not self._has_clouds:
            self._joined.add_depth(msgtype, message)
            return
        self._clouds[bag_types.stamp_ns(message.header)] = message
        while len(self._clouds) > _KEPT:
            del self._clouds[min(self._clouds)]

    def add_pose(self, message: Any) -> None:
        """Note a message of odometry."""
        self._joined.add_pose(message)

    def add_imu(self, message: Any) -> None:
        """Note a sample of the IMU."""
        assert self._imu is not None, "there is a topic of it"
        self._imu_frame = message.header.frame_id
        try:
            self._imu.add(bag_types.stamp_ns(message.header), *decode_imu(message))
        except SourceError:
            self._tally.skip("samples of the IMU that cannot be used")

    def settled(self, stamp_ns: int, frame_id: str) -> bool:
        """Tell whether nothing that is still to come can improve the answer for this stamp."""
        clouds = not self._has_clouds or max(self._clouds, default=0) >= stamp_ns
        felt = self._imu is None or self._imu.reaches(stamp_ns)
        return clouds and felt and self._joined.settled(stamp_ns, frame_id)

    def at(
        self, stamp_ns: int, frame_id: str, size: tuple[int, int], camera: Pinhole | None, rectifier: Rectifier | None
    ) -> Priors | None:
        """What is known of the (rectified) image of a stamp, a frame and a size (width, height)."""
        if not self._has_any:
            return None
        depth, T_odom_cam = None, self._joined.pose(stamp_ns, frame_id)
        if self._has_clouds:
            depth = self._cloud(stamp_ns, frame_id, camera)
        elif (measured := self._joined.depth(stamp_ns, (size[1], size[0]))) is not None:
            depth = points_of_image(measured if rectifier is None else rectifier.depth(measured), size)
        imu = None if self._imu is None else self._felt(self._imu, stamp_ns, frame_id)
        return None if depth is None and T_odom_cam is None and imu is None else Priors(depth, T_odom_cam, imu)

    def forget_before(self, stamp_ns: int) -> None:
        """Drop what no later image can ask for."""
        self._joined.forget_before(stamp_ns)

    def _felt(self, imu: ImuTrack, stamp_ns: int, frame_id: str) -> Inertial | None:
        T_cam_imu = self._joined.mount(frame_id, self._imu_frame)
        if T_cam_imu is None:
            if len(imu):
                self._tally.skip("samples of the IMU that /tf_static does not connect to the images")
            return None
        try:
            return imu.until(stamp_ns, T_cam_imu[:3, :3])
        except SourceError:
            self._tally.skip("samples of the IMU that cannot be used")
            return None

    def _cloud(self, stamp_ns: int, frame_id: str, camera: Pinhole | None) -> DepthPoints | None:
        near = min(self._clouds, key=lambda s: (abs(s - stamp_ns), s), default=None)
        if near is None or abs(near - stamp_ns) > _NEAREST_NS:
            return None
        message = self._clouds[near]
        T_cam_cloud = self._joined.mount(frame_id, message.header.frame_id)
        if camera is None or T_cam_cloud is None:
            self._tally.skip("point clouds that /tf_static or camera_info do not connect to the images")
            return None
        try:
            return points_of_cloud(decode_cloud(message), T_cam_cloud, camera)
        except SourceError:
            self._tally.skip("point clouds that cannot be decoded")
            return None

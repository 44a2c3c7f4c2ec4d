"""From the camera's axes to the robot's (REP 103, REP 105).

``slam`` works in the frame of the first camera, with optical axes (x right, y down, z forward).  ROS wants map and
odom with x forward, y left, z up, and the pose of a body frame in them:

- ``base_frame`` empty: the body is the camera's optical frame itself.  map and odom start at the first camera and
  are its optical axes turned to x forward, y left, z up.
- ``base_frame`` set: ``T_base_cam`` comes from TF.  map and odom start at the first pose of the base and have its
  axes, so they are level where the base is.

An IMU that speaks before the first image makes map and odom level: both are turned by the least that brings their z
axis up, so that they keep their heading and their origin, and the first pose of the body shows how it was tilted.

One constant ``T_world_slam`` turns everything: poses, map, submap anchors and saved files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

# Optical axes -> body axes: forward (x) is optical z, left (y) is -x, up (z) is -y.
T_FLU_OPTICAL: Array = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
_Z: Array = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The frame whose pose is published."""

    frame_id: str  # child of odom
    camera_frame: str  # optical
    T_body_cam: Array  # (4, 4)
    T_world_slam: Array  # (4, 4) frame of slam -> map and odom axes
    T_cam_body: Array = field(init=False)

    def __post_init__(self) -> None:
        """Invert once."""
        object.__setattr__(self, "T_cam_body", se3.inverse(self.T_body_cam))

    @classmethod
    def camera(cls, camera_frame: str) -> Body:
        """The camera itself."""
        return cls(camera_frame, camera_frame, np.eye(4), T_FLU_OPTICAL)

    @classmethod
    def mounted(cls, base_frame: str, camera_frame: str, T_base_cam: Array) -> Body:
        """A base with a rigidly mounted camera."""
        return cls(base_frame, camera_frame, T_base_cam, T_base_cam)

    def levelled(self, up: Array) -> Body:
        """The same body in axes whose z is up; ``up`` (3,) is opposite to gravity, in the frame of slam."""
        turn = se3.make(se3.exp_so3(se3.turning(self.T_world_slam[:3, :3] @ up, _Z)), np.zeros(3))
        return replace(self, T_world_slam=turn @ self.T_world_slam)

    def pose(self, T_slam_cam: Array) -> Array:
        """Pose of the body in map or odom (4, 4) from a camera pose of slam; broadcasts over leading axes."""
        return self.T_world_slam @ T_slam_cam @ self.T_cam_body

    def camera_pose(self, T_slam_cam: Array) -> Array:
        """Pose of the camera in map or odom (..., 4, 4)."""
        return self.T_world_slam @ T_slam_cam

    def correction(self, T_map_odom: Array) -> Array:
        """The map -> odom transform (4, 4) between the turned frames."""
        return self.T_world_slam @ T_map_odom @ se3.inverse(self.T_world_slam)

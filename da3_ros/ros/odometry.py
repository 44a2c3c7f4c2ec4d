"""From the poses of single frames to nav_msgs/Odometry: axes, twist, covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseWithCovariance, Twist, TwistWithCovariance, Vector3
from nav_msgs.msg import Odometry

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.ros import covariance
from da3_ros.ros.body import Body
from da3_ros.ros.covariance import StepCovariance
from da3_ros.ros.messages import header, pose
from da3_ros.types import Estimate, State


@dataclass(frozen=True, slots=True, eq=False)
class BodyState:
    """Pose and twist of the body at one frame, in ROS axes."""

    stamp_ns: int
    T_odom_body: Array  # (4, 4)
    T_map_body: Array  # (4, 4)
    twist: Array  # (6,) linear m/s then angular rad/s, in the child frame
    pose_covariance: Array  # (6, 6) ROS order, of T_odom_body
    map_covariance: Array  # (6, 6) ROS order, of T_map_body
    twist_covariance: Array  # (6, 6) ROS order


class OdometryChain:
    """Remembers the frame before, for the twist, and the accumulated uncertainty."""

    def __init__(self) -> None:
        self._previous: Estimate | None = None
        self._covariance = StepCovariance()

    def advance(self, body: Body, estimate: Estimate) -> BodyState:
        """The body's state at the next frame."""
        previous, self._previous = self._previous, estimate
        T_odom_body = body.pose(estimate.T_odom_cam)
        twist, factor = np.zeros(6), covariance.WEAK_FACTOR if estimate.state is State.WEAK else 1.0
        T_map_body = body.pose(estimate.T_map_cam)
        P_pose, P_map, P_twist = covariance.unknown(), covariance.unknown(), covariance.unknown()
        settled = previous is not None and previous.state is not State.INIT and estimate.state is not State.INIT
        if previous is not None and estimate.state is not State.INIT:
            step = se3.inverse(previous.T_odom_cam) @ estimate.T_odom_cam
            self._covariance.step(step, estimate.sigma_rotation, estimate.sigma_translation)
        # Before the first prediction nothing is known; the step that ends it spans all frames until then.
        if estimate.state not in (State.LOST, State.INIT):
            P_pose = self._covariance.pose(T_odom_body, body.T_body_cam, factor)
            if estimate.covariance is not None:
                P_map = covariance.of_body(estimate.covariance, T_map_body, body.T_body_cam, factor)
            if settled and previous is not None and previous.segment == estimate.segment:
                dt_s = (estimate.stamp_ns - previous.stamp_ns) / 1e9
                moved = se3.log(se3.inverse(body.pose(previous.T_odom_cam)) @ T_odom_body)
                twist = np.concatenate([moved[3:], moved[:3]]) / max(dt_s, 1e-3)
                P_twist = self._covariance.twist(body.T_body_cam, dt_s, factor)
        return BodyState(estimate.stamp_ns, T_odom_body, T_map_body, twist, P_pose, P_map, P_twist)


def odometry_message(state: BodyState, odom_frame: str, child_frame: str) -> Odometry:
    """Pose in the odom frame, twist in the child frame (REP 105)."""
    x, y, z, rx, ry, rz = state.twist.tolist()
    twist = Twist(linear=Vector3(x=x, y=y, z=z), angular=Vector3(x=rx, y=ry, z=rz))
    return Odometry(
        header=header(state.stamp_ns, odom_frame),
        child_frame_id=child_frame,
        pose=PoseWithCovariance(pose=pose(state.T_odom_body), covariance=state.pose_covariance.ravel()),
        twist=TwistWithCovariance(twist=twist, covariance=state.twist_covariance.ravel()),
    )

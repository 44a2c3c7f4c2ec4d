"""Cameras that publish, and nodes of ours that run."""

from __future__ import annotations

from collections.abc import Iterator

from da3_ros.commands.checks import library
from da3_ros.commands.checks.finding import Finding, State

_WITHIN_S = 2.0


def check() -> Iterator[Finding]:
    """What is heard within two seconds."""
    if not library.present("rclpy"):
        yield Finding(State.INFO, "ROS graph", "not looked at: rclpy is not installed")
        return
    try:
        from da3_ros.ros.graph_check import look

        seen = look(_WITHIN_S)
    except library.BROKEN as error:
        yield Finding(State.INFO, "ROS graph", f"cannot be looked at: {library.first_line(error)}")
        return
    if not seen.nodes and not seen.cameras:
        yield Finding(State.INFO, "ROS graph", f"no other node was heard within {_WITHIN_S:g} s")
        return
    for node in seen.slam_nodes:
        yield Finding(State.OK, node, "a node of da3_ros is up")
    for camera in seen.cameras:
        publishers = ", ".join(camera.publishers) or "nobody"
        told = f"{camera.kind} of {publishers}"
        if camera.camera_info:
            yield Finding(State.OK, camera.topic, f"{told}, calibrated by {camera.camera_info}")
        else:
            fix = "publish its calibration, or let the network guess it"
            yield Finding(State.INFO, camera.topic, f"{told}, no camera_info beside it", fix)
    if not seen.cameras:
        yield Finding(State.INFO, "cameras", f"none among {len(seen.nodes)} nodes", "start the camera's driver")
    if not seen.slam_nodes:
        yield Finding(State.INFO, "da3_slam_node", "not running", "ros2 launch da3_ros slam.launch.py starts it")

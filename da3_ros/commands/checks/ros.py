"""ROS 2, our messages, and how messages travel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

from da3_ros.commands.checks import library
from da3_ros.commands.checks.finding import Finding, State
from da3_ros.commands.checks.library import Library

_SETUP = "run 'make setup' in the source tree, or source ROS 2 and the workspace in which da3_ros was built"
_OTHERS = (
    Library("tf2_ros", ("tf2_ros_py",), use="other programs' transforms; the node brings its own listener"),
    Library("launch_ros", ("launch_ros",), use="ros2 launch"),
    Library("cv_bridge", ("cv_bridge",), use="not used by the node"),
)


def check() -> Iterator[Finding]:
    """What the live node needs; everything else runs without it."""
    if not library.present("rclpy"):
        yield Finding(State.MISSING, "rclpy", "not installed (the live node; the rest runs without)", _SETUP)
        return
    try:
        from da3_ros.ros import installation

        found = installation.describe()
    except library.BROKEN as error:
        told = f"does not load: {library.first_line(error)}"
        yield Finding(State.WRONG, "rclpy", told, f"the ROS 2 of another Python? {_SETUP}", needed=True)
        return
    yield Finding(State.OK, "rclpy", f"{found.version} ({found.distribution})")
    yield _messages()
    yield Finding(State.OK, "RMW", found.rmw)
    yield _profile(found.rmw, found.profile)
    yield Finding(State.INFO, "domain", f"{os.environ.get('ROS_DOMAIN_ID', '0')}, discovery {found.discovery}")
    for other in _OTHERS:
        if library.present(other.module):
            yield Finding(State.OK, other.module, library.version(other.packages) or "here")
        else:
            yield Finding(State.INFO, other.module, f"not installed ({other.use})")


def _messages() -> Finding:
    try:
        importlib.import_module("da3_ros.msg")
        importlib.import_module("da3_ros.srv")
    except library.BROKEN as error:
        told = f"not built, or for another ROS 2: {library.first_line(error)}"
        return Finding(State.MISSING, "messages of da3_ros", told, _SETUP, needed=True)
    return Finding(State.OK, "messages of da3_ros", "built")


def _profile(rmw: str, profile: str) -> Finding:
    if "fastrtps" not in rmw:
        return Finding(State.INFO, "Fast DDS profile", "not used by this RMW")
    if not profile:
        fix = "reinstall da3_ros, or let FASTDDS_DEFAULT_PROFILES_FILE name its config/fastdds.xml"
        return Finding(State.WRONG, "Fast DDS profile", "none: most raw images will be lost", fix)
    return Finding(State.OK, "Fast DDS profile", profile)

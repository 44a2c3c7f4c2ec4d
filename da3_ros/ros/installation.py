"""Which ROS 2 this is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

from da3_ros.ros.fastdds import NEW, OLD, profile_variables

_BY_RCLPY = {3: "humble", 4: "iron", 7: "jazzy", 9: "kilted"}  # major version -> distribution


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed and selected."""

    version: str  # of rclpy
    distribution: str
    rmw: str
    profile: str  # file that Fast DDS is given; empty: none
    discovery: str  # range


def describe() -> Installation:
    """Look at this process and at what it would use.

    Raises:
        ImportError, OSError, RuntimeError: parts of ROS 2 are missing or broken.
    """
    version = _version()
    chosen = os.environ.get(NEW) or os.environ.get(OLD) or next(iter(profile_variables().values()), "")
    return Installation(
        version=version or "of unknown version",
        distribution=os.environ.get("ROS_DISTRO") or _BY_RCLPY.get(int(version.split(".")[0] or 0), "unknown release"),
        rmw=get_rmw_implementation_identifier(),
        profile=chosen,
        discovery=os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET").lower(),
    )


def _version() -> str:
    """Of rclpy, from the manifest that every installation has."""
    try:
        manifest = Path(get_package_share_directory("rclpy")) / "package.xml"
        return ElementTree.parse(manifest).findtext("version") or "0"
    except (PackageNotFoundError, OSError, ElementTree.ParseError):
        return "0"

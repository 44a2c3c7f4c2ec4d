"""Libraries that some commands need."""

from __future__ import annotations

from collections.abc import Iterator

from da3_ros.commands.checks import library
from da3_ros.commands.checks.finding import Finding
from da3_ros.commands.checks.library import Library

_OPTIONAL = (
    Library("open3d", ("open3d-cpu", "open3d"), "0.18", "synthetic worlds and meshes", native="pybind*.so"),
    Library("rosbags", ("rosbags",), "0.10", "recordings"),
    Library("gtsam", ("gtsam",), "4.3", "closing loops"),
    Library("matplotlib", ("matplotlib",), "3.5", "figures of reports", native="ft2font*.so"),
)


def check() -> Iterator[Finding]:
    """Each by itself."""
    for optional in _OPTIONAL:
        yield library.check(optional)

"""Python itself, this package, and what it cannot do without."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import da3_ros
from da3_ros.commands.checks import library
from da3_ros.commands.checks.finding import Finding, State
from da3_ros.commands.checks.library import Library

_LEAST = (3, 10)
# As in setup.py.
_NEEDED = (
    Library("numpy", ("numpy",), "1.24"),
    Library("cv2", ("opencv-python-headless", "opencv-python", "opencv-contrib-python"), "4.6"),
    Library("scipy", ("scipy",), "1.10"),
    Library("psutil", ("psutil",), "5.9"),
    Library("yaml", ("PyYAML",), "6.0"),
)


def check() -> Iterator[Finding]:
    """What every command needs."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _LEAST:
        yield Finding(State.WRONG, "python", found, "use Python 3.10 or later", needed=True)
    else:
        yield Finding(State.OK, "python", found)
    yield Finding(State.OK, "da3_ros", f"{da3_ros.__version__} at {Path(da3_ros.__file__).parent}")
    for needed in _NEEDED:
        yield library.check(needed)

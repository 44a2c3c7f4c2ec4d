"""Which Python and which ROS 2 the environment is made from, and where its parts are."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from console import SetupError, say
from ros_wheels import DEFAULT_DISTRO, WHEELS

REPOSITORY = Path(__file__).resolve().parent.parent
SUPPORTED = range(10, 15)  # Python 3.x with ROS wheels
KIND_FILE = "da3_kind.txt"  # marks an environment as ours and holds its kind, such as "wheels kilted"


@dataclass(frozen=True)
class Environment:
    """Where things are, and which ROS 2 it is built on."""

    root: Path  # the virtual environment
    distro: str
    native: bool  # ROS 2 from the system rather than from wheels
    base_python: Path  # the interpreter that the environment is made from

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.root / "bin/python"

    @property
    def settings(self) -> Path:
        """What da3_ros_env.py applies."""
        return self.site_packages / "da3_ros_env.json"

    @property
    def kind(self) -> Path:
        """Where the kind of the environment is written down."""
        return self.root / KIND_FILE

    @property
    def wheel_prefix(self) -> list[str]:
        """The ament prefix that the wheels fill: the environment itself. Empty where ROS 2 is native."""
        return [] if self.native else [str(self.root)]

    @property
    def logs(self) -> Path:
        """Output of every long step."""
        return self.root / "ros_ws/log/setup"

    @property
    def install(self) -> Path:
        """Where colcon installs our messages (and tf2_msgs, if need be)."""
        return self.root / "ros_ws/install"

    @property
    def site_packages(self) -> Path:
        """Where pip installs."""
        (found,) = self.root.glob("lib/python3.*/site-packages")
        return found

    @property
    def official(self) -> Path:
        """Folder of the official network, with which the tests compare ours."""
        return self.root / "official"

    @property
    def message_packages(self) -> Path:
        """The folder of `install` from which Python imports the messages."""
        return self.install / self.site_packages.relative_to(self.root)


def use_supported_python() -> None:
    """Continue under a supported Python if this one is not."""
    if sys.version_info[0] == 3 and sys.version_info[1] in SUPPORTED:
        return
    for minor in SUPPORTED:
        other = shutil.which(f"python3.{minor}")
        if other:
            os.execv(other, [other, *sys.argv])
    raise SetupError("Python 3.10 to 3.14 is needed: install one (such as python3.12) and run this again.")


def choose_environment() -> Environment:
    """Decide between native ROS 2 and wheels: what is asked for, what is sourced, what is already there."""
    root = Path(os.environ.get("DA3_VENV") or "~/.venvs/da3_ros").expanduser().resolve()
    if root.is_relative_to(REPOSITORY):
        raise SetupError(f"DA3_VENV={root} lies in the source tree: choose a folder outside {REPOSITORY}.")
    wanted = os.environ.get("DA3_ROS_DISTRO", "")
    origin, present = existing_kind(root)
    if origin == "native" and not wanted and "ROS_DISTRO" not in os.environ:
        source_again(root, present)
    sourced = os.environ.get("ROS_DISTRO", "")
    native_python = find_native_python(root) if sourced else None
    if native_python and wanted in ("", sourced):
        say(f"using the native ROS 2 {sourced} with {native_python}")
        return Environment(root, sourced, True, native_python)
    if native_python:
        raise SetupError(f"DA3_ROS_DISTRO={wanted}, but ROS 2 {sourced} is sourced: use a shell without it.")
    return Environment(root, distro_of_wheels(wanted or present), False, base_python())


def distro_of_wheels(name: str) -> str:
    """`name` or the default, if there are wheels of it for this machine."""
    distro = name or DEFAULT_DISTRO
    if distro not in WHEELS:
        raise SetupError(f"No wheels of ROS 2 {distro}, only {' and '.join(WHEELS)}: source a native {distro}.")
    if os.uname().machine != "x86_64" or sys.platform != "linux":
        raise SetupError("ROS 2 wheels are for x86-64 Linux only: source a native ROS 2 and run this again.")
    return distro


def existing_kind(root: Path) -> tuple[str, str]:
    """("wheels" or "native", distribution) of the environment that is already there, else empty texts."""
    kind = root / KIND_FILE
    origin, _, distro = (kind.read_text() if kind.exists() else "").partition(" ")
    return origin, distro


def source_again(root: Path, distro: str) -> None:
    """Restore the variables that the shell had when this native environment was made."""
    os.environ["ROS_DISTRO"] = distro
    for settings in root.glob("lib/python3.*/site-packages/da3_ros_env.json"):
        for variable, entries in json.loads(settings.read_text())["paths"].items():
            os.environ[variable] = os.pathsep.join(entries)


def base_python() -> Path:
    """This interpreter, or the one that made the environment that it belongs to."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def find_native_python(root: Path) -> Path | None:
    """A Python outside the environment that imports rclpy in this shell."""
    for name in (str(base_python()), "/usr/bin/python3"):
        path = Path(name)
        if path.exists() and not path.is_relative_to(root):
            command = [name, "-c", "import rclpy"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return path
    return None


def clean_variables() -> dict[str, str]:
    """This process's variables without what another environment's Python has put there."""
    from_wheels = ("DA3_ROS_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in from_wheels}


def inherited(env: Environment, variable: str) -> list[str]:
    """Entries that a native ROS 2 has put into a variable of this shell, less our own."""
    entries = os.environ.get(variable, "").split(os.pathsep) if env.native else []
    ours = ("", str(REPOSITORY))
    return [entry for entry in entries if entry not in ours and not Path(entry).is_relative_to(env.root)]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Let only one set-up work on an environment at a time."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f".{root.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this environment ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

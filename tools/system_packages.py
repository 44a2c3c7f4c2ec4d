"""What pip cannot bring: a compiler, Python's headers, and the shared libraries that Open3D loads."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from console import SetupError, run

SHARED_LIBRARIES = {  # file that must load -> Debian package
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libgomp.so.1": "libgomp1",
    "libEGL.so.1": "libegl1",
}


def provide(log: Path) -> None:
    """Install what is missing, or say in one sentence what to install."""
    missing = find_missing()
    if not missing:
        return
    names = " ".join(missing)
    install = f"apt-get update -q && apt-get install -yq --no-install-recommends {names}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"System packages are missing; install them: sudo sh -c '{install}'")
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", install]
    run(f"Installing system packages: {names}", command, log)
    still_missing = find_missing()
    if still_missing:
        raise SetupError(f"{' '.join(still_missing)}: installed but still not found; see {log}.")


def find_missing() -> list[str]:
    """Names of the Debian packages whose content is not here."""
    missing = [package for library, package in SHARED_LIBRARIES.items() if not loads(library)]
    if not (shutil.which("c++") or shutil.which("g++")) or not shutil.which("make"):
        missing.append("build-essential")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("python3-dev")
    if not importlib.util.find_spec("ensurepip"):
        missing.append("python3-venv")
    return missing


def loads(library: str) -> bool:
    """Whether the dynamic linker finds this library and all that it needs."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

"""Whether a Python library is here, loads, and is new enough."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from da3_ros.commands.checks.finding import Finding, State

_LINK = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1]); os._exit(0)"
_TIMEOUT_S = 10
# What importing raises where a library, or what it is made of, is broken.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)


@dataclass(frozen=True, slots=True)
class Library:
    """One that is used here."""

    module: str
    packages: tuple[str, ...]  # names under which it may be installed; the first is what pip is told
    least: str = ""  # oldest version that will do
    use: str = ""  # what does not work without it; empty: nothing works
    native: str = ""  # pattern of its main shared library: loaded instead of a module that takes seconds


def check(library: Library) -> Finding:
    """Look for a library and load it."""
    name, package = library.packages[0], library.packages[0]
    needed = not library.use
    use = f" ({library.use})" if library.use else ""
    if not present(library.module):
        return Finding(State.MISSING, name, f"not installed{use}", f"pip install {package}", needed)
    found = version(library.packages)
    trouble = _trouble(library)
    if trouble:
        again = f"pip install --force-reinstall {package}, or install the system library that it names"
        return Finding(State.WRONG, name, f"{found} does not load: {trouble}", again, needed)
    if library.least and found and _numbers(found) < _numbers(library.least):
        fix = f"pip install '{package}>={library.least}'"
        return Finding(State.WRONG, name, f"{found} is too old", fix, needed)
    return Finding(State.OK, name, found or "of unknown version")


def present(module: str) -> bool:
    """Whether it is installed, without loading it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version(packages: tuple[str, ...]) -> str:
    """Of the first that is installed; empty where none is (a system package may not say)."""
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def first_line(error: BaseException) -> str:
    """What an exception says, for the middle of a line."""
    told = str(error).strip().splitlines()
    return told[0] if told else type(error).__name__


def _trouble(library: Library) -> str:
    """Why it does not load; empty where it does."""
    try:
        if library.native:
            return _linking_trouble(library)
        importlib.import_module(library.module)
    except BROKEN as error:
        return first_line(error)
    return ""


def _linking_trouble(library: Library) -> str:
    """Load its shared libraries in another process, which ends before they can do anything."""
    spec = importlib.util.find_spec(library.module)
    places = spec.submodule_search_locations if spec is not None else None
    for path in (path for place in places or () for path in Path(place).rglob(library.native)):
        command = [sys.executable, "-I", "-S", "-c", _LINK, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"{path.name} takes longer than {_TIMEOUT_S} s"
        if done.returncode:
            told = done.stderr.strip().splitlines()
            return told[-1].removeprefix("OSError: ") if told else f"{path.name} ends the process ({done.returncode})"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+", maxsplit=1)[0].split(".")[:3]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)

"""The text that names a world: ``world:SEED?option=value&...``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.errors import SourceError


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """Everything that decides what a world looks like."""

    seed: int
    motion: Path | None = None  # TUM file that drives the camera; None: its own walk
    frames: int = 300  # at most; a motion file may be shorter
    size: tuple[int, int] = (640, 480)  # width, height, px
    rate: float = 15.0  # frames per second
    fov: float = 62.0  # horizontal field of view, degrees
    windows: int | None = None  # windows open to the sky; None: the seed decides between 0 and 1
    noise: float = 1.0  # sensor noise, as a factor; 0: none
    light: float = 1.0  # lamps and exposure drift; 0: everything equally bright, constant exposure
    lens: float = 1.0  # vignetting, blur and offset principal point, as a factor; 0: ideal lens
    shake: float = 1.0  # tremble of the hand in the world's own walk, as a factor
    laps: float = 0.0  # rounds on an ellipse, so that places are seen again; 0: its own walk
    imu: float = 0.0  # samples per second of an inertial measurement unit at the camera; 0: none


OPTIONS = tuple(f.name for f in dataclasses.fields(WorldSpec) if f.name != "seed")


def parse(text: str) -> WorldSpec:
    """Read ``world:SEED?option=value&...``.

    Raises:
        SourceError: one sentence that says what is wrong and lists what is possible.
    """
    scheme, _, rest = text.partition(":")
    seed_text, _, query = rest.partition("?")
    if scheme != "world" or not seed_text.isascii() or not seed_text.isdigit() or int(seed_text) >= 2**63:
        raise SourceError(f"'{text}' names no world; write world:SEED with a whole number, as in world:7?frames=300")
    values: dict[str, Any] = {"seed": int(seed_text)}
    for assignment in filter(None, query.split("&")):
        name, _, value = assignment.partition("=")
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, 1, 0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise SourceError(f"unknown option '{name}' of '{text}'{hint} (options: {', '.join(OPTIONS)})")
        try:
            values[name] = _READERS[name](value)
        except ValueError as error:
            raise SourceError(f"option {name}={value} of '{text}': {error} (options: {', '.join(OPTIONS)})") from None
    return WorldSpec(**values)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"it must be a whole number from {low} to {high}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        problem = f"it must be a number from {low:g} to {high:g}"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(problem) from None
        if not low <= value <= high:
            raise ValueError(problem)
        return value

    return read


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isascii() and height.isascii() and width.isdigit() and height.isdigit()):
        raise ValueError("it must be WIDTHxHEIGHT, as in 640x480")
    size = int(width), int(height)
    if not all(16 <= side <= 4096 for side in size):
        raise ValueError("width and height must lie between 16 and 4096")
    return size


def _path(text: str) -> Path:
    if not text:
        raise ValueError("it must name a trajectory file in TUM form")
    return Path(text).expanduser()


_READERS: dict[str, Callable[[str], Any]] = {
    "motion": _path,
    "laps": _number(0.0, 1000.0),
    "frames": _whole(1, 10_000_000),
    "size": _size,
    "rate": _number(0.1, 1000.0),
    "fov": _number(20.0, 150.0),
    "windows": _whole(0, 8),
    "noise": _number(0.0, 10.0),
    "light": _number(0.0, 3.0),
    "lens": _number(0.0, 3.0),
    "shake": _number(0.0, 5.0),
    "imu": _number(0.0, 2000.0),
}

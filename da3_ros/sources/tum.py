"""Trajectory files in TUM form: ``seconds tx ty tz qx qy qz qw`` per line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.files import reason, write_atomic
from da3_ros.geometry import se3
from da3_ros.types import Trajectory

_NANO = 1_000_000_000


def nanoseconds(text: str) -> int:
    """Integer nanoseconds of decimal seconds ("12.000000001", "1.2e1"), without passing through a float.

    Raises:
        ValueError: not a finite number.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"'{text}' is not a number") from None
    if not value.is_finite() or abs(value) > 9_000_000_000:
        raise ValueError(f"'{text}' is not a time in seconds")
    return int((value * _NANO).to_integral_value())


def seconds(stamp_ns: int) -> str:
    """Decimal seconds of integer nanoseconds, nine digits, without rounding."""
    sign = "-" if stamp_ns < 0 else ""
    whole, rest = divmod(abs(stamp_ns), _NANO)
    return f"{sign}{whole}.{rest:09d}"


def read_tum(path: str | Path) -> Trajectory:
    """Read a trajectory; empty lines and comments (``#``) are skipped, quaternions are normalised.

    Raises:
        SourceError: the file cannot be read, holds no pose, or a line is not a pose later than the one before.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the trajectory {path}: {reason(error)}") from error
    stamps: list[int] = []
    values: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            stamp, pose = nanoseconds(words[0]), [float(word) for word in words[1:]]
            _check_pose(pose)
        except ValueError as error:
            raise SourceError(f"{path} line {number}: {error}; expected 'seconds tx ty tz qx qy qz qw'") from None
        if stamps and stamp <= stamps[-1]:
            raise SourceError(f"{path} line {number}: the time {words[0]} does not come after the line before; sort it")
        stamps.append(stamp)
        values.append(pose)
    if not stamps:
        raise SourceError(f"{path} holds no pose; expected lines 'seconds tx ty tz qx qy qz qw'")
    table = np.array(values)
    return Trajectory(np.array(stamps, np.int64), se3.from_quaternion(table[:, :3], table[:, 3:]))


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write a trajectory; the file appears whole or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    quaternions = se3.quaternion_from_rotation(trajectory.T_map_cam[:, :3, :3])
    rows = np.round(np.concatenate([trajectory.T_map_cam[:, :3, 3], quaternions], axis=1), 9) + 0.0  # no "-0"
    lines = [
        f"{seconds(int(stamp))} " + " ".join(f"{value:.9f}" for value in row) + "\n"
        for stamp, row in zip(trajectory.stamps_ns, rows, strict=True)
    ]
    write_atomic(Path(path), "".join(lines))


def _check_pose(pose: list[float]) -> None:
    if len(pose) != 7:
        raise ValueError(f"{len(pose) + 1} values instead of 8")
    if not np.isfinite(pose).all():
        raise ValueError("a value is not finite")
    norm = float(np.linalg.norm(pose[3:]))
    if abs(norm - 1) > 0.01:
        raise ValueError(f"the quaternion has length {norm:.3g} instead of 1")

"""A recorded camera motion, placed upright into the world."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.files import reason
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_INDEX_RATE = 30.0  # Hz, where the first column counts frames
_LARGEST = 60.0  # m, a room has to hold it
_EYE_HEIGHT = 1.4  # m, mean height of the camera above the floor
_LOWEST = 0.55  # m, least height of the camera above the floor


class Recording:
    """Poses of a TUM file, resampled at any time; rigidly moved so that up is +z and mean gaze is +y."""

    def __init__(self, path: Path) -> None:
        """Read a file of lines ``t tx ty tz qx qy qz qw``; whole numbers that increase by 1 are frames at 30 Hz.

        Raises:
            SourceError: the file cannot be read, or is no trajectory that a room can hold.
        """
        rows = _read(path)
        stamps = rows[:, 0]
        counted = bool((stamps == np.round(stamps)).all() and (np.diff(stamps) == 1).all())
        self._times = (stamps - stamps[0]) / (_INDEX_RATE if counted else 1.0)
        try:
            T_file_cam = se3.from_quaternion(rows[:, 1:4], rows[:, 4:8])
        except ValueError as error:
            raise SourceError(f"{path}: {error}; its lines must read 't tx ty tz qx qy qz qw'") from error
        self._T_file_cam = T_file_cam
        self.T_world_file = _upright(T_file_cam)
        spread = np.ptp(rows[:, 1:4], axis=0)
        if spread.max() > _LARGEST:
            raise SourceError(
                f"{path} moves over {spread.max():.0f} m, more than a room holds; use at most {_LARGEST:.0f} m"
            )

    def count(self, rate: float) -> int:
        """Frames that the recording lasts for at ``rate`` Hz."""
        return int(np.floor(self._times[-1] * rate + 1e-6)) + 1

    def pose(self, seconds: Array) -> Array:
        """Camera-to-world poses (N, 4, 4) at times (N,) since the first; exact at recorded times."""
        right = np.clip(np.searchsorted(self._times, seconds), 1, len(self._times) - 1)
        left = right - 1
        fraction = (seconds - self._times[left]) / (self._times[right] - self._times[left])
        fraction = np.clip(fraction, 0, 1)
        out = np.empty((len(right), 4, 4))
        for i, (a, b, f) in enumerate(zip(left, right, fraction, strict=True)):
            if f < 1e-6 or f > 1 - 1e-6:
                out[i] = self._T_file_cam[a if f < 0.5 else b]
            else:
                out[i] = se3.interpolate(self._T_file_cam[a], self._T_file_cam[b], float(f))
        return self.T_world_file @ out

    def path(self) -> Array:
        """Camera centres (N, 3) of the whole recording in the world, m."""
        return (self.T_world_file @ self._T_file_cam)[:, :3, 3]


def _read(path: Path) -> Array:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the motion file {path}: {reason(error)}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].replace(",", " ").split()
        if not text:
            continue
        try:
            row = [float(word) for word in text]
        except ValueError:
            row = []
        if len(row) != 8 or not np.isfinite(row).all():
            raise SourceError(f"{path}, line {number}: expected eight numbers 't tx ty tz qx qy qz qw'")
        rows.append(row)
    if len(rows) < 2:
        raise SourceError(f"{path} holds {len(rows)} poses; a motion needs at least two")
    out = np.array(rows)
    if (np.diff(out[:, 0]) <= 0).any():
        late = int(np.argmax(np.diff(out[:, 0]) <= 0)) + 2
        raise SourceError(f"{path}: the time of pose {late} is not later than the one before; sort the file")
    return out


def _upright(T_file_cam: Array) -> Array:
    """The rigid ``T_world_file`` that turns mean camera up to +z, mean gaze to +y, and stands the file on the floor."""
    up = -T_file_cam[:, :3, 1].mean(axis=0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.1 else np.array([0.0, 0.0, 1.0])
    gaze = T_file_cam[:, :3, 2].mean(axis=0)
    gaze = gaze - (gaze @ up) * up
    if np.linalg.norm(gaze) < 0.05:  # looks all around: any direction will do
        gaze = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    gaze = gaze / np.linalg.norm(gaze)
    rotation = np.stack([np.cross(gaze, up), gaze, up])
    path = T_file_cam[:, :3, 3] @ rotation.T
    low, high = path.min(axis=0), path.max(axis=0)
    shift = -(low + high) / 2
    shift[2] = max(_EYE_HEIGHT - path[:, 2].mean(), _LOWEST - low[2])
    return se3.make(rotation, shift)

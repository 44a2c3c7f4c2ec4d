"""The camera's intrinsics: given with the frames, or estimated from predicted rays."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from da3_ros.geometry import robust
from da3_ros.geometry.camera import Pinhole
from da3_ros.types import Frame

_WINDOWS = 30
_SETTLED = 0.01  # relative spread of the focal length below which it is frozen


class Intrinsics:
    """Running median of what windows say, frozen when it has settled; calibrated frames pass through."""

    def __init__(self) -> None:
        """Start without an estimate."""
        self._seen: deque[tuple[float, float, float, float]] = deque(maxlen=_WINDOWS)  # over width or height
        self._frozen: np.ndarray | None = None

    def of(self, frame: Frame) -> Pinhole | None:
        """The camera to use for a frame; None before any window of an uncalibrated camera was predicted."""
        if frame.camera is not None:
            return frame.camera
        if not self._seen:
            return None
        values = self._frozen if self._frozen is not None else np.median(np.array(self._seen), axis=0)
        height, width = frame.image.shape[:2]
        fx, fy, cx, cy = values * (width, height, width, height)
        return Pinhole(width, height, float(fx), float(fy), float(cx - 0.5), float(cy - 0.5))

    def observe(self, frames: Sequence[Frame], cameras: Sequence[Pinhole]) -> None:
        """Learn from the predicted cameras of one window of uncalibrated frames."""
        if self._frozen is not None or any(frame.camera is not None for frame in frames):
            return
        rows = [(c.fx / c.width, c.fy / c.height, (c.cx + 0.5) / c.width, (c.cy + 0.5) / c.height) for c in cameras]
        self._seen.append(tuple(np.median(np.array(rows), axis=0)))
        if len(self._seen) == _WINDOWS:
            values = np.array(self._seen)
            if robust.mad_sigma(values[:, 0]) < _SETTLED * np.median(values[:, 0]):
                self._frozen = np.median(values, axis=0)

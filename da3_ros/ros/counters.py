"""What the node counts and measures about itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, fields

import numpy as np

WINDOW_S = 10.0


@dataclass(slots=True)
class Counters:
    """Frames of one session.  Each field is written by one thread only; readers see a recent value."""

    received: int = 0
    accepted: int = 0
    mailbox_full: int = 0
    stamp_not_increasing: int = 0
    too_old: int = 0
    undecodable: int = 0
    size_changed: int = 0
    no_camera_info: int = 0
    no_truth: int = 0
    no_transform: int = 0
    paused: int = 0
    keyframes_dropped: int = 0

    def drop(self, cause: str, count: int = 1) -> None:
        """Count dropped frames by cause (a field name)."""
        setattr(self, cause, getattr(self, cause) + count)

    def clear(self) -> None:
        """Start a session."""
        for f in fields(self):
            setattr(self, f.name, 0)

    def drops(self) -> dict[str, int]:
        """Dropped frames by cause."""
        return {name: getattr(self, name) for name in DROP_CAUSES}


DROP_CAUSES = (
    "mailbox_full",
    "stamp_not_increasing",
    "too_old",
    "undecodable",
    "size_changed",
    "no_camera_info",
    "no_truth",
    "no_transform",
    "paused",
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations of a stage, seconds."""

    count: int
    p50: float
    p95: float
    max: float


class Stopwatch:
    """Durations and rates by stage over the last ten seconds; safe to use from every thread."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._samples: dict[str, deque[tuple[float, float]]] = {}
        self._lock = threading.Lock()
        self._window_s = window_s
        self._start = time.monotonic()

    def add(self, stage: str, seconds: float = 0.0) -> None:
        """Record one duration (or just one event)."""
        now = time.monotonic()
        with self._lock:
            samples = self._samples.setdefault(stage, deque())
            samples.append((now, seconds))
            while samples[0][0] < now - self._window_s:
                samples.popleft()

    def spread(self, stage: str) -> Spread | None:
        """Durations of a stage in the window; None without any."""
        values = [seconds for _, seconds in self._recent(stage)]
        if not values:
            return None
        p50, p95 = np.percentile(values, [50, 95])
        return Spread(len(values), float(p50), float(p95), max(values))

    def rate_hz(self, stage: str) -> float:
        """Events per second of a stage in the window."""
        span = min(self._window_s, max(time.monotonic() - self._start, 1.0))
        return len(self._recent(stage)) / span

    def age_s(self, stage: str) -> float | None:
        """Seconds since the last event of a stage, however long ago; None without any."""
        with self._lock:
            samples = self._samples.get(stage)
            return time.monotonic() - samples[-1][0] if samples else None

    def _recent(self, stage: str) -> list[tuple[float, float]]:
        oldest = time.monotonic() - self._window_s
        with self._lock:
            return [sample for sample in self._samples.get(stage, ()) if sample[0] >= oldest]

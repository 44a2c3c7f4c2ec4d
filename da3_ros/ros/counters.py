"""What the node counts and measures about itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW_S = 10.0

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
_NAMES = ("received", "accepted", *DROP_CAUSES, "keyframes_dropped")


class Counters:
    """Frames of one session, counted by several threads.

    A thread that still works on a frame of an earlier session names that session: such a count is void, so the sums
    of the new session are right from its first frame.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session = 0
        self._counts = dict.fromkeys(_NAMES, 0)

    def begin(self, session: int) -> None:
        """Start a session: everything is zero."""
        with self._lock:
            self._session, self._counts = session, dict.fromkeys(_NAMES, 0)

    def count(self, name: str, count: int = 1, session: int | None = None) -> None:
        """Count frames: received, accepted, dropped by cause, keyframes_dropped; of any session or of one only."""
        with self._lock:
            if session is None or session == self._session:
                self._counts[name] += count

    @property
    def received(self) -> int:
        """Image messages delivered by the middleware."""
        return self._counts["received"]

    @property
    def accepted(self) -> int:
        """Frames that got a pose."""
        return self._counts["accepted"]

    @property
    def keyframes_dropped(self) -> int:
        """Keyframes that never reached the map."""
        return self._counts["keyframes_dropped"]

    def drops(self) -> dict[str, int]:
        """Dropped frames by cause."""
        with self._lock:
            return {cause: self._counts[cause] for cause in DROP_CAUSES}


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

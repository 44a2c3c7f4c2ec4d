"""How often something that takes time may be done."""

from __future__ import annotations

import time

_SHARE = 0.1


class Pace:
    """At most at a rate, and at most a tenth of the time: what grows with the run then becomes rarer, not harmful."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1.0 / rate_hz
        self._next = 0.0

    def due(self) -> bool:
        """Whether it may be done now."""
        return time.monotonic() >= self._next

    def took(self, seconds: float) -> None:
        """It was just done, and took this long."""
        self._next = time.monotonic() + max(self._period_s - seconds, seconds / _SHARE)

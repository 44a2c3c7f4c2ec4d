"""Why is there no output?  The one sentence that says so."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the input when nothing comes out."""

    topic: str  # where images are expected
    publisher_problem: str  # no publisher, wrong type, incompatible QoS; empty: a publisher fits
    clock_missing: bool  # use_sim_time is set and /clock has not been heard
    received: int  # images since the last output
    dropped: dict[str, int]  # by cause, since the last output
    last_drop: str  # sentence of the last dropped frame
    last_image_s: float | None  # seconds since the last image; None: never
    lost: bool  # the tracker has lost the camera's motion
    slam_reason: str


def explain(facts: Facts) -> str:
    """Name the cause, the most basic one first."""
    if facts.received == 0:
        if facts.publisher_problem:
            return facts.publisher_problem
        if facts.last_image_s is not None:
            return f"{facts.topic} has a publisher but its last image came {facts.last_image_s:.0f} s ago"
        return f"{facts.topic} has a publisher but no image has arrived; check the camera and the network"
    if sum(facts.dropped.values()) and facts.last_drop:
        return facts.last_drop
    if facts.clock_missing:
        return "use_sim_time is set but nobody publishes /clock; play the recording with --clock or unset use_sim_time"
    if facts.lost:
        return facts.slam_reason or "tracking is lost; move back to where the camera has been or call ~/reset"
    return "images arrive but none has been processed; the machine is overloaded"


class Watchdog:
    """Notices silence, says why once, and notices when it ends."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._since = time.monotonic()
        self._received = 0
        self._dropped: dict[str, int] = {}
        self.reason = ""

    def restart(self) -> None:
        """Begin to wait (activation, resume, reset)."""
        self._since, self._received, self._dropped, self.reason = time.monotonic(), 0, {}, ""

    def silent(self, last_output: float, received: int, dropped: dict[str, int]) -> bool:
        """Whether there has been no output for too long; remembers the counts at the last output."""
        if last_output > self._since:
            self._since, self._received, self._dropped, self.reason = last_output, received, dropped, ""
        return time.monotonic() - self._since > self._silence_s

    def since(self, received: int, dropped: dict[str, int]) -> tuple[int, dict[str, int]]:
        """Images received and dropped since the last output."""
        counts = {cause: max(count - self._dropped.get(cause, 0), 0) for cause, count in dropped.items()}
        return max(received - self._received, 0), counts

    def accuse(self, reason: str) -> bool:
        """Keep the reason; True where it has not been said during this silence."""
        fresh = self.reason == ""
        self.reason = reason
        return fresh

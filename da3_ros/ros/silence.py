"""Why is there no output?  The one sentence that says so."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the input when nothing has come out for a while."""

    topic: str  # where images are expected
    publisher_problem: str  # no publisher, wrong type, incompatible QoS; empty: a publisher fits
    clock_missing: bool  # use_sim_time is set and /clock has not been heard
    image_age_s: float | None  # since the last image; None: there has been none since waiting began
    streaming: bool  # images still come
    drop: str  # why the last image since the last output was dropped; empty: it was not
    lost: bool  # the tracker has lost the camera's motion
    slam_reason: str


def explain(facts: Facts) -> str:
    """Name the cause, the most basic one first."""
    if not facts.streaming:
        if facts.publisher_problem:
            return facts.publisher_problem
        if facts.image_age_s is None:
            return f"{facts.topic} has a publisher but no image has arrived; check the camera and the network"
        dropped = f"; it was dropped: {facts.drop}" if facts.drop else ""
        return f"{facts.topic} has a publisher but its last image came {facts.image_age_s:.0f} s ago{dropped}"
    if facts.drop:
        return facts.drop
    if facts.clock_missing:
        return "use_sim_time is set but nobody publishes /clock; play the recording with --clock or unset use_sim_time"
    if facts.lost:
        return facts.slam_reason or "tracking is lost; move back to where the camera has been or call ~/reset"
    return "images arrive but none has been processed; the machine is overloaded"


class Watchdog:
    """Notices silence, says why once, and notices when it ends.  Times are monotonic seconds."""

    def __init__(self, silence_s: float) -> None:
        self.silence_s = silence_s
        self.since = time.monotonic()  # the last output, or when waiting began
        self.reason = ""

    def restart(self) -> None:
        """Begin to wait (activation, resume, reset)."""
        self.since, self.reason = time.monotonic(), ""

    def silent(self, last_output: float) -> bool:
        """Whether there has been no output for too long."""
        if last_output > self.since:
            self.since, self.reason = last_output, ""
        return time.monotonic() - self.since > self.silence_s

    def accuse(self, reason: str) -> bool:
        """Keep the reason; True where it is the first of this silence."""
        fresh = self.reason == ""
        self.reason = reason
        return fresh

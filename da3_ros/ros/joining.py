"""A prediction on its way into the map: joined step by step, so that a frame waits for one step and not for all."""

from __future__ import annotations

import time

from da3_ros.ros.counters import Stopwatch
from da3_ros.slam.slam import Slam
from da3_ros.types import Integration, Prediction

_REFINED = "move"  # the step after which poses are the refined ones; windows of keyframes have it, and no others


class Joining:
    """One integration under way; on the tracker's thread."""

    def __init__(self, slam: Slam, prediction: Prediction, stopwatch: Stopwatch) -> None:
        """Start with nothing done."""
        self._steps = slam.integrating(prediction)
        self._stopwatch = stopwatch
        self._begin = time.monotonic()
        self._parts: dict[str, float] = {}

    def advance(self) -> Integration | None:
        """Do one step; the result after the last.

        Raises:
            PredictorError: the prediction cannot be used.
        """
        begin = time.monotonic()
        try:
            part = next(self._steps)
        except StopIteration as end:
            self._note("keep", begin)
            self._tell()
            result: Integration = end.value
            return result
        self._note(part, begin)
        if part == _REFINED:
            self._stopwatch.add("refined", time.monotonic() - self._begin)
        return None

    def _note(self, part: str, begin: float) -> None:
        self._parts[part] = self._parts.get(part, 0.0) + time.monotonic() - begin

    def _tell(self) -> None:
        self._stopwatch.add("integrate", sum(self._parts.values()))
        if _REFINED not in self._parts:
            return
        for part, seconds in self._parts.items():
            self._stopwatch.add(part, seconds)
        self._stopwatch.add("place", sum(self._parts.values()))

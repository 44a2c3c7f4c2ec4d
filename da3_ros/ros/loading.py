"""How far a predictor is with what takes long: downloading, exporting, compiling, loading."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Loading:
    """One moment of it, immutable.  Times are monotonic seconds."""

    what: str  # the step, for a person
    share: float | None  # of the step that is done; None: not known
    since: float  # when loading began
    step_since: float  # when the step began; its parts ("compiling da3-small: mix") count as one
    told: float  # when this was said

    @classmethod
    def begun(cls, what: str) -> Loading:
        """The first step."""
        now = time.monotonic()
        return cls(what, None, now, now, now)

    def advanced(self, what: str, share: float | None) -> Loading:
        """The next moment."""
        now = time.monotonic()
        same = _activity(what) == _activity(self.what) and (share or 0.0) >= (self.share or 0.0)
        return replace(self, what=what, share=share, step_since=self.step_since if same else now, told=now)

    @property
    def elapsed_s(self) -> float:
        """Since loading began."""
        return time.monotonic() - self.since

    @property
    def remaining_s(self) -> float | None:
        """Of the step, if it goes on as it went so far; None where nothing tells."""
        if not self.share:
            return None
        whole = (self.told - self.step_since) / self.share
        return max(whole - (time.monotonic() - self.step_since), 0.0)


def _activity(what: str) -> str:
    """The part of a step's text that its parts share."""
    return what.partition(":")[0]

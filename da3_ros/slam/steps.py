"""Long work in steps of some milliseconds, between which its thread can do what is urgent.

One thread owns everything that the work changes, so that nothing is locked and nothing is copied.  Whoever wants the
result alone completes it; whoever has frames to track looks after them between two steps.  Either way the work is the
same, in the same order.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[str, None, T]  # yields the name of each step that is done, and returns the result with the last


def completed(steps: Steps[T]) -> T:
    """All that is left, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result

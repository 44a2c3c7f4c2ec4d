"""What waits for the tracker thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Inbox(Generic[T, R]):
    """Frames (bounded, the oldest gives way), results of the predictor and commands, for one consumer.

    Commands come first, then results (at most one is ever under way), then frames: a flood of frames can delay
    neither an answer to a service nor the use of a prediction.
    """

    def __init__(self, depth: int) -> None:
        self._frames: deque[T] = deque()
        self._results: deque[R] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._depth = depth
        self._ready = threading.Condition()

    def put_frame(self, frame: T) -> int:
        """Add a frame; returns how many older ones gave way."""
        with self._ready:
            self._frames.append(frame)
            dropped = 0
            while len(self._frames) > self._depth:
                self._frames.popleft()
                dropped += 1
            self._ready.notify()
            return dropped

    def put_result(self, result: R) -> None:
        """Add a finished prediction."""
        with self._ready:
            self._results.append(result)
            self._ready.notify()

    def put_command(self, command: Callable[[], None]) -> None:
        """Have a function called on the consumer's thread."""
        with self._ready:
            self._commands.append(command)
            self._ready.notify()

    def take(self, timeout_s: float | None = None) -> Callable[[], None] | T | R | None:
        """Wait for the next thing; None after the timeout."""
        with self._ready:
            if not self._ready.wait_for(lambda: self._commands or self._results or self._frames, timeout_s):
                return None
            for waiting in (self._commands, self._results, self._frames):
                if waiting:
                    return waiting.popleft()
        return None

    def clear_frames(self) -> int:
        """Drop the frames that wait; returns how many."""
        with self._ready:
            count = len(self._frames)
            self._frames.clear()
            return count

    def __len__(self) -> int:
        """Number of frames that wait."""
        return len(self._frames)

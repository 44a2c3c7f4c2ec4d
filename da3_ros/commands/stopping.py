"""Ending an offline run early so that what was processed is kept: Ctrl-C, or predictions that have run out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from da3_ros.errors import PredictorError
from da3_ros.predictors.recorded import NotRecordedError
from da3_ros.types import Frame, Prediction, Predictor, Source, Window


class StoppableSource:
    """A source that ends after the current frame when it is told to."""

    def __init__(self, source: Source) -> None:
        """Pass everything through until ``stop``."""
        self.name = source.name
        self.stopped = False
        self._source = source

    def __len__(self) -> int:
        """Number of frames that there would be."""
        return len(self._source)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end or the stop."""
        for frame in self._source:
            if self.stopped:
                return
            yield frame

    @property
    def skipped(self) -> dict[str, int]:
        """What the source could not use, by cause."""
        return dict(getattr(self._source, "skipped", {}))

    def stop(self) -> None:
        """Yield nothing more."""
        self.stopped = True


class WatchedPredictor:
    """Remembers what was refused; a recording that does not fit ends the run, as everything after it would differ."""

    def __init__(self, inner: Predictor, source: StoppableSource) -> None:
        """Pass windows on to ``inner`` and stop ``source`` where its recording ends."""
        self.name, self.needs_truth = inner.name, inner.needs_truth
        self.refusal: PredictorError | None = None  # the latest
        self.not_recorded: NotRecordedError | None = None
        self._inner, self._source = inner, source

    def prepare(self, width: int, height: int) -> None:
        """Prepare the predictor inside."""
        self._inner.prepare(width, height)

    def predict(self, window: Window) -> Prediction:
        """Predict; see the base protocol."""
        try:
            return self._inner.predict(window)
        except NotRecordedError as error:
            self.refusal = self.not_recorded = error
            self._source.stop()
            raise
        except PredictorError as error:
            self.refusal = error
            raise

    def close(self) -> None:
        """Close the predictor inside."""
        self._inner.close()


@contextmanager
def interruptible(source: StoppableSource | None = None, *, background: bool = False) -> Iterator[list[int]]:
    """Within, the first Ctrl-C stops the source and the second one raises KeyboardInterrupt.

    Args:
        source: what is stopped; None: whoever asked looks at the list.
        background: SIGTERM does the same, and Ctrl-C does so too where a shell has its background job ignore it.

    Yields:
        A list that holds the signal once there was one.
    """
    caught: list[int] = []

    def asked(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if source is not None:
            source.stop()
        restore()
        # Straight to the file: the signal may have come while Python was writing to it.
        start = b"\n" if sys.stderr.isatty() else b""
        os.write(2, start + b"da3: interrupted; saving what there is (Ctrl-C again: stop at once)\n")

    def restore() -> None:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)

    numbers = (signal.SIGINT, signal.SIGTERM) if background else (signal.SIGINT,)
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (ours or background):  # ignored (nohup), or somebody else's
        yield caught
        return
    for number in numbers:
        signal.signal(number, asked)
    try:
        yield caught
    finally:
        restore()

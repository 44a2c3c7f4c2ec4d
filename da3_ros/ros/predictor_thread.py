"""The thread that owns the predictor: one window in, one answer out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from da3_ros.config import Config
from da3_ros.errors import Da3Error, PredictorError
from da3_ros.predictors import open_predictor
from da3_ros.types import Prediction, Predictor, Window


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The answer to one window."""

    session: int
    window: Window
    prediction: Prediction | None
    error: PredictorError | None
    seconds: float


class PredictorThread(threading.Thread):
    """Opens the predictor, answers windows in turn, closes it."""

    def __init__(self, config: Config, deliver: Callable[[Finished], None]) -> None:
        super().__init__(name="da3 predictor", daemon=True)
        self._config = config
        self._deliver = deliver
        self._jobs: SimpleQueue[tuple[int, Window] | None] = SimpleQueue()
        self.opened = threading.Event()  # set once the predictor is there or could not be opened
        self.error: Da3Error | None = None
        self.predictor: Predictor | None = None

    def submit(self, session: int, window: Window) -> None:
        """Have a window predicted; whoever submits keeps at most one under way."""
        self._jobs.put((session, window))

    def stop(self) -> None:
        """End after the window under way."""
        self._jobs.put(None)

    def run(self) -> None:
        """The thread."""
        try:
            self.predictor = open_predictor(self._config)
        except Da3Error as error:
            self.error = error
            return
        finally:
            self.opened.set()
        try:
            while (job := self._jobs.get()) is not None:
                self._deliver(self._predict(*job))
        finally:
            self.predictor.close()

    def _predict(self, session: int, window: Window) -> Finished:
        assert self.predictor is not None
        begin = time.monotonic()
        try:
            prediction, error = self.predictor.predict(window), None
        except PredictorError as failure:
            prediction, error = None, failure
        return Finished(session, window, prediction, error, time.monotonic() - begin)

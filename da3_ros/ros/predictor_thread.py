"""The thread that owns the predictor: it opens it, makes it ready for a size of images, and answers windows.

Opening may download a model, and making ready may export and compile it, which takes up to many minutes: nobody waits
for it.  Whatever takes long tells its steps.  When the thread is stopped or another size is wanted, telling raises, so
that it ends at its next step; the store keeps nothing of what is unfinished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from da3_ros.config import Config
from da3_ros.errors import Da3Error, PredictorError
from da3_ros.predictors import open_predictor
from da3_ros.ros.loading import Loading
from da3_ros.types import Engine, Prediction, Predictor, Tell, Window

OPENING = "opening the predictor"

Say = Callable[[str], None]
Opener = Callable[[Config, Tell], Predictor]
_Size = tuple[int, int]  # width, height


class _AbandonedError(Da3Error):
    """Nobody wants any more what is under way."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The answer to one window."""

    session: int
    window: Window
    prediction: Prediction | None
    error: PredictorError | None
    seconds: float


class PredictorThread(threading.Thread):
    """Opens the predictor, makes it ready, answers windows in turn, closes it."""

    def __init__(
        self, config: Config, deliver: Callable[[Finished], None], say: Say, opener: Opener = open_predictor
    ) -> None:
        """Start with nothing opened.

        Args:
            config: the whole configuration.
            deliver: given every answer, on this thread.
            say: given the lines that are worth keeping, on this thread.
            opener: opens the predictor, and raises Da3Error where that fails.
        """
        super().__init__(name="da3 predictor", daemon=True)
        self._config, self._deliver, self._say, self._opener = config, deliver, say, opener
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._wanted: _Size | None = None
        self._preparing: _Size | None = None
        self._given_up = False  # the preparation under way was told to end
        self._stopping = self._needs_size = False
        self.opened = threading.Event()  # set once the predictor is there or could not be opened
        self.ready = threading.Event()  # set while it is ready for the size that is wanted
        self.error: Da3Error | None = None  # why it cannot be used at all
        self.predictor: Predictor | None = None
        self.engine: Engine | None = None  # what runs its network; None where it has none; swapped by reference
        self.loading: Loading | None = Loading.begun(OPENING)  # swapped by reference
        self.took_s: float | None = None  # the last loading

    def prepare(self, width: int, height: int) -> None:
        """Make ready for images of this size; what is under way for another size is given up.  From any thread."""
        with self._lock:
            if self._wanted == (width, height):
                return
            self._wanted = (width, height)
            if self._needs_size:
                self.ready.clear()
        self._jobs.put(self._prepare)

    def submit(self, session: int, window: Window) -> None:
        """Have a window predicted; whoever submits keeps at most one under way, and only while it is ready."""
        self._jobs.put(lambda: self._deliver(self._predict(session, window)))

    def stop(self) -> None:
        """End after the window, or the step of loading, that is under way."""
        self._stopping = True
        self._jobs.put(None)

    def run(self) -> None:
        """The thread."""
        try:
            self.predictor = self._open()
        finally:
            self.opened.set()
        if self.predictor is None:
            return
        try:
            while (job := self._jobs.get()) is not None and not self._stopping:
                job()
        finally:
            self.predictor.close()

    def _open(self) -> Predictor | None:
        try:
            predictor = self._opener(self._config, self._tell)
        except Da3Error as error:
            self._fail(error)
            return None
        self.engine = _engine_of(predictor)
        with self._lock:
            self._needs_size = self.engine is not None
            if not self._needs_size:
                self.ready.set()  # there is nothing to load
        self._loaded()
        return predictor

    def _prepare(self) -> None:
        assert self.predictor is not None
        with self._lock:
            size = self._preparing = self._wanted
            self._given_up = False
        if size is None or self.ready.is_set() or self.error is not None:
            return
        self.loading = Loading.begun("preparing the network")
        try:
            self.predictor.prepare(*size)
        except Da3Error as error:
            self._fail(error)
            return
        self.engine = _engine_of(self.predictor)
        with self._lock:
            if size == self._wanted:
                self.ready.set()
        self._loaded()

    def _predict(self, session: int, window: Window) -> Finished:
        assert self.predictor is not None
        begin = time.monotonic()
        try:
            prediction, error = self.predictor.predict(window), None
        except PredictorError as failure:
            prediction, error = None, failure
        except Da3Error as failure:  # of another size of image, opened on the way
            prediction, error = None, PredictorError(str(failure))
        return Finished(session, window, prediction, error, time.monotonic() - begin)

    def _tell(self, what: str, share: float | None) -> None:
        if self._abandoned():
            self._given_up = True
            raise _AbandonedError(f"given up: {what}")
        loading = self.loading or Loading.begun(what)
        self.loading = loading.advanced(what, share)
        if share == 1:
            self._say(what)

    def _abandoned(self) -> bool:
        superseded = self._preparing is not None and self._preparing != self._wanted
        return self._stopping or superseded

    def _fail(self, error: Da3Error) -> None:
        """Note an error, unless it comes of being given up: compilers wrap what stops them into errors of their own."""
        # By now the size that was given up may be wanted again: its own job follows.
        if not self._given_up and not self._abandoned():
            self.error = error
        self._loaded()

    def _loaded(self) -> None:
        if self.loading is not None:
            self.took_s = self.loading.elapsed_s
        self.loading = None


def _engine_of(predictor: Predictor) -> Engine | None:
    """What runs its network, for predictors that have one."""
    engine: Engine | None = getattr(predictor, "engine", None)
    return engine

"""What TensorRT complains of: kept for our own sentences instead of being printed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class Complaints:
    """A logger for the library that keeps its first error."""

    def __init__(self, library: Any) -> None:
        """``library`` is the module ``tensorrt`` or ``tensorrt_rtx``."""
        self.interrupt: BaseException | None = None  # that came while the library had us log something
        self._first = ""
        outer = self

        class Logger(library.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                with outer.kept():
                    if severity <= library.ILogger.Severity.ERROR and not outer._first:
                        outer._first = message.strip().splitlines()[0]

        self.logger = Logger()

    @property
    def first(self) -> str:
        """The first error since ``forget``, which is the cause of those that follow it."""
        return self._first or "it gives no reason"

    def forget(self) -> None:
        """What was complained of so far was handled."""
        self._first = ""

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Within a function that the library calls: keep what is raised there in ``interrupt``.

        The bindings print such exceptions and go on; Ctrl-C arrives in whatever Python code runs next, so also here.
        """
        with contextlib.ExitStack() as stack:
            stack.push(self._keep)
            yield

    def _keep(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self.interrupt = self.interrupt or error
        return True

    def raise_interrupt(self) -> None:
        """Raise what was kept, if anything."""
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt


def named(library: Any) -> str:
    """Library and version, for sentences."""
    return f"{library.__name__} {library.__version__}"

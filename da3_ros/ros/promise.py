"""Work that one thread asks of another, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from da3_ros.errors import Da3Error

T = TypeVar("T")


def promised(work: Callable[[], T]) -> tuple[Future[T], Callable[[], None]]:
    """The future of some work, and what the other thread has to call for it; Da3Error comes back through the future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Da3Error as error:
            future.set_exception(error)

    return future, run

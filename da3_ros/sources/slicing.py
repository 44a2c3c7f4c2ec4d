"""A part of a source: ``--frames A:B`` and a stride."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

from da3_ros.errors import SourceError
from da3_ros.types import Frame, Source


@runtime_checkable
class Selectable(Protocol):
    """A source that can skip frames without reading them."""

    def select(self, indices: range) -> Iterator[Frame]:
        """Frames whose index, counted over all, is in ``indices``."""
        ...


class SlicedSource:
    """Frames ``start:stop:stride`` of a source, as Python slices count; ids stay those of the source."""

    def __init__(self, source: Source, start: int | None, stop: int | None, stride: int) -> None:
        self.source = source
        self.name = source.name
        self._indices = range(len(source))[slice(start, stop, stride)]

    def __len__(self) -> int:
        """Number of frames selected."""
        return len(self._indices)

    @property
    def skipped(self) -> dict[str, int]:
        """What the source could not use in its latest pass, by cause."""
        return dict(getattr(self.source, "skipped", {}))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the selected frames."""
        if isinstance(self.source, Selectable):
            return self.source.select(self._indices)
        return islice(iter(self.source), self._indices.start, self._indices.stop, self._indices.step)


def sliced(source: Source, frames: tuple[int | None, int | None], stride: int = 1) -> Source:
    """The part of a source that ``--frames A:B`` and ``stride`` ask for; the source itself where that is all.

    Raises:
        SourceError: nothing is left, or the stride is not positive.
    """
    if stride < 1:
        raise SourceError(f"the stride between frames must be 1 or more, not {stride}")
    if frames == (None, None) and stride == 1:
        return source
    part = SlicedSource(source, *frames, stride)
    if len(part) == 0:
        start, stop = ("" if bound is None else bound for bound in frames)
        raise SourceError(f"frames {start}:{stop} select nothing: {source.name} has frames 0..{len(source) - 1}")
    return part


def parse_frames(text: str) -> tuple[int | None, int | None]:
    """Read ``A:B`` (either may be empty, negative counts from the end) for ``open_source``.

    Raises:
        SourceError: it is something else.
    """
    start, colon, stop = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return (int(start) if start.strip() else None), (int(stop) if stop.strip() else None)
    except ValueError:
        raise SourceError(f"'{text}' does not select frames; write A:B, as in 100:200, :50 or -50:") from None

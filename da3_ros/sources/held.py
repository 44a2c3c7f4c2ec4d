"""Frames that are in memory already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from da3_ros.types import Frame, Source


class HeldSource:
    """A source of given frames: to pass over what was rendered or decoded more than once."""

    def __init__(self, frames: Sequence[Frame], name: str = "memory") -> None:
        """Take the frames, in time order."""
        self.name = name
        self.frames = frames

    @classmethod
    def of(cls, source: Source) -> HeldSource:
        """All frames of a source, rendered or decoded once."""
        return cls(list(source), source.name)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        return iter(self.frames)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

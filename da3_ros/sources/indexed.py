"""Sources whose frames can be opened one by one: files in a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from da3_ros.errors import SourceError
from da3_ros.types import Frame


class IndexedSource(ABC):
    """A recording of numbered frames; a subclass says how many and opens one."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """Open frame ``index`` (0-based, also its id).

        Raises:
            SourceError: a file of it cannot be read.
        """

    def __iter__(self) -> Iterator[Frame]:
        """All frames in time order."""
        return self.select(range(len(self)))

    def select(self, indices: range) -> Iterator[Frame]:
        """Frames of these indices; the others are not opened.

        Raises:
            SourceError: a frame cannot be read, or has another size than the first.
        """
        size: tuple[int, ...] | None = None
        for index in indices:
            frame = self.frame(index)
            size = size or frame.image.shape
            if frame.image.shape != size:
                raise SourceError(
                    f"frame {index} of {self.name} is {frame.image.shape[1]}x{frame.image.shape[0]} but the ones "
                    f"before are {size[1]}x{size[0]}; images of one source must have one size"
                )
            yield frame

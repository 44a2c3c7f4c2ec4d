"""What is kept of each frame: its tokens, so that a sliding window encodes no frame twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from da3_ros.engine.runtime import Host


@dataclass(slots=True, eq=False)
class Encoded:
    """One frame."""

    tokens: Any  # (1, T, C), where the runtime keeps it
    chooser: Host  # (C,) class token from which the reference view is chosen; also a descriptor of the place
    entered: dict[bool, Any] = field(default_factory=dict)  # is the reference -> (1, T, C)
    size: int = 0  # bytes


class TokenCache:
    """Least recently used frames give way beyond a number of bytes."""

    def __init__(self, capacity: int) -> None:
        """``capacity`` in bytes; the frames of the window at hand are always kept."""
        self._capacity = capacity
        self._frames: OrderedDict[Hashable, Encoded] = OrderedDict()
        self.size = 0
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def __contains__(self, key: Hashable) -> bool:
        """Whether something is kept of a frame."""
        return key in self._frames

    def get(self, key: Hashable) -> Encoded | None:
        """What is kept of a frame, which becomes the most recently used one."""
        found = self._frames.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._frames.move_to_end(key)
        return found

    def put(self, key: Hashable, encoded: Encoded) -> None:
        """Keep a frame."""
        self._frames[key] = encoded
        self.size += encoded.size

    def grew(self, encoded: Encoded, size: int) -> None:
        """Something more is kept of a frame."""
        encoded.size += size
        self.size += size

    def trim(self, needed: int) -> None:
        """Let frames go until the capacity holds, but not the ``needed`` most recently used ones."""
        while self.size > self._capacity and len(self._frames) > needed:
            _, gone = self._frames.popitem(last=False)
            self.size -= gone.size

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self.size = 0

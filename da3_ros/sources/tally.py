"""Counting what a recording holds that cannot be used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from da3_ros.errors import SourceError


class Tally:
    """Counts skipped items by cause; when strict, the first one raises."""

    def __init__(self, path: Path, *, strict: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._path, self._strict = path, strict

    def skip(self, cause: str) -> None:
        """Count one.

        Raises:
            SourceError: the tally is strict.
        """
        self.counts[cause] += 1
        if self._strict:
            raise SourceError(f"{self._path} holds {cause}; without 'strict' they are skipped and counted")

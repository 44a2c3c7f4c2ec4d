"""The text that names a source: a place, and options after a question mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from da3_ros.errors import SourceError


@dataclass(frozen=True, slots=True)
class Spec:
    """``PATH?key=value&key=value``."""

    path: Path
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Split a spec; a path that really has a question mark in its name wins.

        Raises:
            SourceError: an option is not key=value.
        """
        place, mark, query = text.partition("?")
        if not text:
            raise SourceError("the name of the source is empty; give a recording, a folder of images or world:SEED")
        if not mark or Path(text).exists():
            return cls(Path(text), {})
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
        except ValueError as error:
            raise SourceError(f"the options '{query}' of {place} are not key=value&key=value") from error
        return cls(Path(place), dict(pairs))

    def check(self, known: Iterable[str]) -> None:
        """Refuse options that nobody reads.

        Raises:
            SourceError: names the unknown option and the known ones.
        """
        known = list(known)
        unknown = [key for key in self.options if key not in known]
        if unknown:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise SourceError(f"{self.path} has no option '{unknown[0]}'; {has}")

    def number(self, key: str, default: float | None = None) -> float | None:
        """A positive number.

        Raises:
            SourceError: it is not one.
        """
        if key not in self.options:
            return default
        try:
            value = float(self.options[key])
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            raise SourceError(f"option {key} of {self.path} must be a positive number, not '{self.options[key]}'")
        return value

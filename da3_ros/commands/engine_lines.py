"""Entries of the store in words."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from da3_ros.engine.store import Entry
    from da3_ros.engine.verify import Verdict

_COLUMNS = (
    "key", "kind", "network", "size", "precision", "made with", "for GPU", "views", "MB", "made", "self-test"
)  # fmt: skip


def megabytes(size: int) -> str:
    """Of bytes."""
    return f"{size / 1e6:.1f}"


def date(made: float) -> str:
    """Local time, to the minute."""
    return datetime.datetime.fromtimestamp(made).astimezone().strftime("%Y-%m-%d %H:%M")


def most_views(entry: Entry) -> str:
    """For which an entry was made; empty where that is any number."""
    if any(name.startswith("look.") for name in entry.files):
        return "1"
    return entry.fields.get("views", "")


def table(entries: Sequence[Entry]) -> list[str]:
    """A heading and one line per entry, in columns as wide as they must be."""
    rows = [_COLUMNS, *(_row(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    right = {_COLUMNS.index("views"), _COLUMNS.index("MB")}
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def verdict(found: Verdict) -> str:
    """How a verification ended."""
    if found.problem:
        return found.problem
    if found.not_run:
        return f"not run here: {found.not_run}"
    worst = max(found.differences.values(), default=0.0)
    return f"passed on {found.where} (differs by {worst:.1g} of the spread, {found.tolerance:g} is allowed)"


def _row(entry: Entry) -> tuple[str, ...]:
    from da3_ros.engine import self_test

    fields, about = entry.fields, entry.about
    if fields.get("kind") == "engines":
        made_with = f"{fields.get('library', '?')} {fields.get('version', '?')}"
        gpu = f"{fields.get('gpu', '?')} ({fields.get('compute_capability', '?')})"
    else:
        made_with = f"torch {about.get('torch', '?')}, opset {fields.get('opset', '?')}"
        gpu = "-"
    passed = self_test.passed(entry)
    return (
        entry.key,
        fields.get("kind", "?"),
        fields.get("network", "?"),
        fields.get("size", "?"),
        fields.get("precision", "?"),
        made_with,
        gpu,
        most_views(entry) or "any",
        megabytes(entry.size),
        date(entry.made),
        f"passed: {', '.join(sorted(passed))}" if passed else "not run",
    )

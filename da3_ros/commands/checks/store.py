"""Where graphs and engines are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from da3_ros.commands.checks.finding import Finding, State
from da3_ros.engine.store import Store
from da3_ros.errors import EngineError
from da3_ros.files import reason

_LITTLE = 4_000_000_000  # bytes: graphs and engines of the larger models take as much


def check() -> Iterator[Finding]:
    """Its folder, its disk, and what is in it."""
    store = Store()
    yield _folder(store.folder)
    try:
        entries, broken = store.entries()
        left = store.leftovers()
    except EngineError as error:
        yield Finding(State.WRONG, "entries", str(error))
        return
    size = sum(entry.size for entry in entries)
    yield Finding(State.OK, "entries", f"{len(entries)}, {size / 1e6:.1f} MB ('da3 engine list' shows them)")
    for sentence in broken:
        yield Finding(State.WRONG, "entry", sentence)
    if left:
        fix = "if none is, 'da3 engine clean --broken' removes them"
        yield Finding(State.INFO, "unfinished", f"{len(left)} being made, or left by killed processes", fix)


def _folder(folder: Path) -> Finding:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    fix = "change its owner, or let DA3_CACHE name another folder"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(State.WRONG, "folder", f"{folder} cannot be written", fix)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(State.WRONG, "folder", f"{folder} cannot be read ({reason(error)})", fix)
    found = f"{folder}, {free / 1e9:.1f} GB free"
    if free < _LITTLE:
        return Finding(State.WRONG, "folder", f"{found}: little for graphs and engines", "make room")
    return Finding(State.OK, "folder", found)

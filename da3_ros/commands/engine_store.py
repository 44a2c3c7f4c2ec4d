"""``da3 engine list|verify|clean``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from da3_ros.commands import options
from da3_ros.commands.engine_lines import megabytes, table, verdict
from da3_ros.engine.store import Store, read_entry
from da3_ros.errors import ConfigError, Da3Error, EngineError

_BUILD = "'da3 engine build MODEL --image-size WxH' makes some"


def run_list() -> int:
    """Print one line per entry, then what is broken, then where and how large all of it is."""
    store = Store()
    entries, broken = store.entries()
    left = store.leftovers()
    if not entries and not broken and not left:
        _say(f"{store.folder} holds no graphs and no engines yet; {_BUILD}")
        return 0
    for line in table(entries) if entries else ():
        _say(line)
    for sentence in broken:
        _say(f"broken: {sentence}")
    for path in left:
        _say(f"unfinished: {path}: a process is at it, or was killed; then 'da3 engine clean --broken' removes it")
    _say(f"{_count(len(entries), 'entry', 'entries')}, {megabytes(sum(e.size for e in entries))} MB in {store.folder}")
    return 0


def run_verify(keys: Sequence[str]) -> int:
    """Verify entries and print what was found; 1 if anything is wrong."""
    from da3_ros.commands.progress import Steps
    from da3_ros.engine.verify import Verdict, verify

    store = Store()
    folders = _chosen(store, keys)
    if not folders:
        _say(f"{store.folder} holds no graphs and no engines yet; {_BUILD}")
        return 0
    failed = 0
    for folder in folders:
        with Steps() as tell:
            tell(f"verifying {folder.name}", None)
            try:
                entry = read_entry(folder)
            except EngineError as error:
                title, found = folder.name, Verdict(problem=str(error))
            else:
                title = f"{folder.name} {entry.fields.get('kind')} of {entry.fields.get('network')}"
                found = verify(store, entry)
        failed += bool(found.problem)
        _say(f"{'WRONG' if found.problem else 'OK   '} {title}: {_whole(found.problem)}{verdict(found)}")
        for output, difference in found.differences.items():
            _say(f"        {output:<18}{difference:>9.2g} of {found.tolerance:g}")
    _say(f"{_count(len(folders), 'entry', 'entries')} verified, {failed or 'none'} wrong")
    return 1 if failed else 0


def run_clean(keys: Sequence[str], *, broken: bool, everything: bool) -> int:
    """Remove entries and print what was freed; 1 if one could not be removed."""
    from da3_ros.commands.progress import Steps
    from da3_ros.engine.engines import forget_timings

    store = Store()
    entries, _ = store.entries()
    folders = store.folders()
    options.require(
        bool(keys) or broken or everything,
        f"name the entries to remove ('da3 engine list' shows them), or give --broken, or --all: "
        f"{_count(len(folders), 'entry', 'entries')}, {megabytes(sum(e.size for e in entries))} MB",
    )
    options.require(not (keys and everything), "name the entries to remove, or give --all, not both")
    condemned = {folder.name: folder for folder in (folders if everything else _chosen(store, keys) if keys else ())}
    if broken:
        condemned |= {folder.name: folder for folder in folders if _is_broken(folder)}
    freed, failed = 0, False
    for key in condemned:
        try:
            with Steps() as tell:
                size = store.remove(key, tell)
        except Da3Error as error:
            _say(str(error))
            failed = True
            continue
        freed += size
        _say(f"removed {key}: {megabytes(size)} MB")
    if broken or everything:
        freed += store.sweep()
    if everything:
        freed += forget_timings(store)
    _say(f"{freed:,} bytes freed in {store.folder}")
    return 1 if failed else 0


def _chosen(store: Store, keys: Sequence[str]) -> list[Path]:
    """Folders of entries by their names or the beginning of these; all of them where none is named."""
    folders = store.folders()
    if not keys:
        return folders
    chosen, problems = {}, []
    for key in keys:
        fitting = [folder for folder in folders if folder.name == key] or [
            folder for folder in folders if key and folder.name.startswith(key)
        ]
        if len(fitting) == 1:
            chosen[fitting[0].name] = fitting[0]
        elif fitting:
            problems.append(f"'{key}' begins the names of {len(fitting)} entries; give more of it")
        else:
            problems.append(f"there is no entry '{key}' in {store.folder}; 'da3 engine list' shows them")
    if problems:
        raise ConfigError("\n".join(problems))
    return list(chosen.values())


def _is_broken(folder: Path) -> bool:
    try:
        read_entry(folder).check()
    except EngineError:
        return True
    return False


def _whole(problem: str) -> str:
    return "" if problem else "whole; self-test "


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

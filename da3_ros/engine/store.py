"""What takes long to make and is kept on disk: exported graphs and compiled engines.

One folder an entry.  Its name is the digest of everything that the content depends on; a side-car, ``entry.json``,
spells that out and holds the checksum of every file.  An entry appears whole or not at all, and two processes that want
the same one make it once: the second waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.errors import EngineError, OutputError
from da3_ros.files import reason, write_atomic
from da3_ros.types import Tell

FORMAT = 1
_SIDE_CAR = "entry.json"
_DIGITS = 24  # of the digest, in names of folders


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of an entry."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the store."""

    folder: Path
    fields: Mapping[str, str]  # what the content depends on
    files: Mapping[str, Stored]
    made: float  # s since the epoch
    seconds: float  # that it took
    about: Mapping[str, str]  # what else is worth telling: versions it was made with

    @property
    def key(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def path(self, name: str) -> Path:
        """One of the files."""
        return self.folder / name

    def check(self) -> None:
        """Compare every file with its checksum.

        Raises:
            EngineError: something is missing or differs.
        """
        for name, told in self.files.items():
            path = self.path(name)
            try:
                whole = path.stat().st_size == told.size and digest_of(path) == told.sha256
            except OSError as error:
                raise EngineError(f"{path} cannot be read ({reason(error)}); {_remedy(self.key)}") from error
            if not whole:
                raise EngineError(f"{path} is damaged (its checksum is wrong); {_remedy(self.key)}")

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep something that was learnt about the entry later."""
        write_atomic(self.folder / f"{name}.json", json.dumps(values, indent=2))

    def noted(self, name: str) -> dict[str, Any] | None:
        """What was noted; None where nothing was or it cannot be read."""
        try:
            values = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None


class Store:
    """A folder of entries."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: default ``default_folder()``; it is made when something is put there."""
        self.folder = folder or default_folder()

    def find(self, fields: Mapping[str, str]) -> Entry | None:
        """The entry with this content, its files checked; None where there is none.

        Raises:
            EngineError: there is one, and it is damaged or does not belong there.
        """
        folder = self.folder / key_of(fields)
        if not folder.is_dir():
            return None
        entry = read_entry(folder)
        entry.check()
        return entry

    def make(
        self, fields: Mapping[str, str], write: Callable[[Path], Mapping[str, str]], tell: Tell, *, what: str
    ) -> Entry:
        """Find an entry or make it; a damaged one is replaced.

        Args:
            fields: what the content depends on.
            write: fills an empty folder and returns what else is worth telling.
            tell: told when another process is at it.
            what: name of the content, for sentences.

        Raises:
            OutputError: the store cannot be written.
            Da3Error: whatever ``write`` raises; nothing is left of a failed attempt.
        """
        key = key_of(fields)
        with self._locked(key, tell, what):
            found = self._sound(fields, tell)
            if found is not None:
                return found
            for left in self.folder.glob(f".{key}.*"):  # of a process that was killed: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            temporary = self.folder / f".{key}.{os.getpid()}"
            begin = time.monotonic()
            try:
                temporary.mkdir()
                about = write(temporary)
                self._describe(temporary, fields, about, time.monotonic() - begin)
                shutil.rmtree(self.folder / key, ignore_errors=True)
                temporary.rename(self.folder / key)
            except OSError as error:
                raise OutputError(
                    f"cannot write {what} into {self.folder}: {reason(error)}; make room, or let DA3_CACHE name another"
                    " folder"
                ) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return read_entry(self.folder / key)

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All entries, newest first; and a sentence for each folder that is none."""
        found, broken = [], []
        folders = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                try:
                    found.append(read_entry(folder))
                except EngineError as error:
                    broken.append(str(error))
        return sorted(found, key=lambda entry: -entry.made), broken

    def remove(self, key: str) -> int:
        """Remove an entry, whatever state it is in; returns the bytes that were freed.

        Raises:
            EngineError: there is no such entry.
            OutputError: it cannot be removed.
        """
        folder = self.folder / key
        if not folder.is_dir() or "/" in key or key.startswith("."):
            raise EngineError(f"there is no entry {key} in {self.folder}; 'da3 engine list' shows them")
        with self._locked(key, lambda *_: None, key):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise OutputError(f"cannot remove {folder}: {reason(error)}; remove it by hand") from error
        (self.folder / f".{key}.lock").unlink(missing_ok=True)
        return size

    def _sound(self, fields: Mapping[str, str], tell: Tell) -> Entry | None:
        try:
            return self.find(fields)
        except EngineError as error:
            tell(f"{error}: making it anew", None)
            return None

    @staticmethod
    def _describe(folder: Path, fields: Mapping[str, str], about: Mapping[str, str], seconds: float) -> None:
        files = {
            path.name: {"size": path.stat().st_size, "sha256": digest_of(path)} for path in sorted(folder.iterdir())
        }
        told = {
            "format": FORMAT,
            "fields": dict(fields),
            "files": files,
            "made": round(time.time(), 3),
            "seconds": round(seconds, 3),
            "about": dict(about),
        }
        write_atomic(folder / _SIDE_CAR, json.dumps(told, indent=2))

    @contextlib.contextmanager
    def _locked(self, key: str, tell: Tell, what: str) -> Iterator[None]:
        """One process at a time; the system lets go of the lock of one that dies."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f".{key}.lock").open("w")
        except OSError as error:
            raise OutputError(
                f"cannot write into {self.folder}: {reason(error)}; let DA3_CACHE name another folder"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"waiting for another process that is making {what}", None)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def default_folder() -> Path:
    """``$DA3_CACHE``, else below the user's cache folder."""
    chosen = os.environ.get("DA3_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "da3_ros"


def key_of(fields: Mapping[str, str]) -> str:
    """Digest of what a content depends on."""
    text = json.dumps({"format": FORMAT, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def read_entry(folder: Path) -> Entry:
    """Read a side-car.

    Raises:
        EngineError: it is missing, not ours, or describes another entry than its folder's name says.
    """
    path = folder / _SIDE_CAR
    try:
        told = json.loads(path.read_bytes())
        fields = {str(name): str(value) for name, value in told["fields"].items()}
        files = {str(name): Stored(int(f["size"]), str(f["sha256"])) for name, f in told["files"].items()}
        about = {str(name): str(value) for name, value in told["about"].items()}
        entry = Entry(folder, fields, files, float(told["made"]), float(told["seconds"]), about)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{folder} is no entry of ours (its {_SIDE_CAR} cannot be read); {_remedy(folder.name)}"
        ) from (error)
    if told.get("format") != FORMAT or key_of(fields) != folder.name:
        raise EngineError(f"{folder} describes another content than its name says; {_remedy(folder.name)}")
    if not files or any(Path(name).name != name for name in files):
        raise EngineError(f"{folder} lists no files of its own; {_remedy(folder.name)}")
    return entry


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remedy(key: str) -> str:
    return f"remove it with 'da3 engine clean {key}'"

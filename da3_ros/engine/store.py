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
import re
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
_KEY = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
_TEMPORARY = re.compile(rf"\.({_KEY.pattern})\.\d+")  # key; then the number of the process that fills it


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

    def named(self, suffix: str) -> dict[str, Path]:
        """Files by their names without this ending, which all of them have."""
        names = [name.removesuffix(suffix) for name in self.files if name.endswith(suffix)]
        return {name: self.path(name + suffix) for name in names}

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
        if not _is_folder(folder):
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
        with contextlib.suppress(EngineError):  # what is damaged is told of, and made anew, under the lock
            found = self.find(fields)  # needs no lock: a store that cannot be written can still be read
            if found is not None:
                return found
        with self._locked(key, tell, what):
            found = self._sound(fields, tell)
            if found is not None:
                return found
            self._drop_leftovers(key)
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
        """All entries, newest first; and a sentence for each folder that should be one and is none.

        Raises:
            EngineError: the store cannot be read.
        """
        found, broken = [], []
        for folder in self.folders():
            try:
                found.append(read_entry(folder))
            except EngineError as error:
                broken.append(str(error))
        return sorted(found, key=lambda entry: -entry.made), broken

    def folders(self) -> list[Path]:
        """Folders that are entries, or should be: what else lies here is left alone.

        Raises:
            EngineError: the store cannot be read.
        """
        return [path for path in self._listed() if _is_ours(path)]

    def leftovers(self) -> list[Path]:
        """Folders that processes are filling, or were filling when they were killed.

        Raises:
            EngineError: the store cannot be read.
        """
        return [path for path in self._listed() if _TEMPORARY.fullmatch(path.name)]

    def sweep(self) -> int:
        """Remove what killed processes have left; returns the bytes that were freed.  Who is at work is not disturbed.

        Raises:
            EngineError: the store cannot be read.
            OutputError: it cannot be written.
        """
        freed = 0
        for key in {path.name.split(".")[1] for path in self.leftovers()}:
            with contextlib.suppress(BlockingIOError), self._locked(key, None, key):
                freed += self._drop_leftovers(key)
        return freed

    def remove(self, key: str, tell: Tell | None = None) -> int:
        """Remove an entry, whatever state it is in; returns the bytes that were freed.

        ``tell`` is told when another process is making it, which is waited for.

        Raises:
            EngineError: there is no such entry.
            OutputError: it cannot be removed.
        """
        folder = self.folder / key
        missing = f"there is no entry {key or 'without a name'} in {self.folder}; 'da3 engine list' shows them"
        if folder.parent != self.folder or folder.name != key or not _is_ours(folder):
            raise EngineError(missing)
        with self._locked(key, tell or (lambda *_: None), key):
            if not _is_folder(folder):
                raise EngineError(missing)  # another process was faster
            freed = _size(folder) + self._drop_leftovers(key)
            condemned = self.folder / f".{key}.{os.getpid()}"  # gone at once; swept up later if we are killed
            try:
                folder.rename(condemned)
                shutil.rmtree(condemned)
            except OSError as error:
                raise OutputError(f"cannot remove {folder}: {reason(error)}; remove it by hand") from error
            (self.folder / f".{key}.lock").unlink(missing_ok=True)
        return freed

    def _listed(self) -> list[Path]:
        try:
            return [path for path in sorted(self.folder.iterdir()) if _is_folder(path)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EngineError(
                f"cannot read {self.folder}: {reason(error)}; let DA3_CACHE name another folder"
            ) from error

    def _drop_leftovers(self, key: str) -> int:
        """What a process that was killed has left of an entry; the caller holds the lock.  Returns the bytes."""
        freed = 0
        for left in self.folder.glob(f".{key}.*"):
            if _is_folder(left):
                freed += _size(left)
                shutil.rmtree(left, ignore_errors=True)
        return freed

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
    def _locked(self, key: str, tell: Tell | None, what: str) -> Iterator[None]:
        """One process at a time; the system lets go of the lock of one that dies.

        Raises:
            OutputError: the store cannot be written.
            BlockingIOError: another process has it, and without ``tell`` it is not waited for.
        """
        path = self.folder / f".{key}.lock"
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = path.open("w")
            except OSError as error:
                raise OutputError(
                    f"cannot write into {self.folder}: {reason(error)}; let DA3_CACHE name another folder"
                ) from error
            with lock:
                self._wait(lock.fileno(), tell, what)
                # Whoever removes an entry removes its lock: the one that was waited for may be gone by now.
                if _same_file(lock.fileno(), path):
                    yield
                    return

    def _wait(self, lock: int, tell: Tell | None, what: str) -> None:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if tell is None:
                    raise
                tell(f"waiting for another process that is making {what}", None)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except BlockingIOError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot lock {self.folder}: {reason(error)}; let DA3_CACHE name a folder on a local disk"
            ) from error


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
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise EngineError(
            f"{folder} is no entry of ours (its {_SIDE_CAR} cannot be read); {_remedy(folder.name)}"
        ) from error
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


def _is_ours(folder: Path) -> bool:
    """By its name or its side-car; anything else in the folder that DA3_CACHE names is not ours to judge or remove."""
    named = _KEY.fullmatch(folder.name) is not None
    return _is_folder(folder) and not folder.name.startswith(".") and (named or (folder / _SIDE_CAR).is_file())


def _size(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _remedy(key: str) -> str:
    return f"remove it with 'da3 engine clean {key}'"


def _is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        EngineError: that cannot be told, as a folder above it may not be entered.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise EngineError(
            f"cannot look into {path.parent}: {reason(error)}; let DA3_CACHE name another folder"
        ) from error

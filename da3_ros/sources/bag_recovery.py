"""Reading the undamaged beginning of a bag file that was cut short.

A recorder that was killed leaves an MCAP file without its index and footer, and a copy that broke off leaves an SQLite
file without its last pages.  Both keep their messages in the order of recording, so everything before the damage
can be read.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from da3_ros.errors import SourceError

MCAP_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


class RawMessage(NamedTuple):
    """One recorded message, not decoded."""

    t_ns: int  # time of recording
    topic: str
    msgtype: str
    raw: bytes  # CDR


def mcap_is_complete(path: Path) -> bool:
    """Tell whether an MCAP file has its first and last bytes; one that has not was cut short."""
    with path.open("rb") as file:
        first = file.read(8)
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        return size >= 16 and first == MCAP_MAGIC and file.read(8) == MCAP_MAGIC


def damage_errors() -> tuple[type[Exception], ...]:
    """What rosbags raises on damaged files: its own errors, and those of parsing bytes that are not what they seem."""
    from rosbags.rosbag2 import ReaderError

    errors: list[type[Exception]] = [
        ReaderError,
        EOFError,
        OSError,
        sqlite3.Error,
        struct.error,
        ValueError,
        TypeError,
        LookupError,
        AssertionError,
        OverflowError,
        MemoryError,
        RuntimeError,
    ]
    for module, name in (("apsw", "Error"), ("backports.zstd", "ZstdError"), ("compression.zstd", "ZstdError")):
        with suppress(ImportError):  # which of them rosbags uses depends on its version and on Python's
            errors.append(getattr(import_module(module), name))
    return tuple(errors)


def recover(path: Path) -> Iterator[RawMessage]:
    """Messages of a damaged ``.mcap`` or ``.db3`` in the order of recording, up to the damage.

    Raises:
        SourceError: nothing in the file can be read.
    """
    return _recover_mcap(path) if path.suffix == ".mcap" else _recover_sqlite(path)


def _recover_mcap(path: Path) -> Iterator[RawMessage]:
    """Walk the records (mcap.dev/spec): opcode, uint64 length, body; chunks hold more records."""
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with path.open("rb") as file:
        if file.read(8) != MCAP_MAGIC:
            raise SourceError(f"{path} is not an MCAP file: its first bytes are wrong; copy or record it again")
        for opcode, body, whole in _records(file):
            if opcode == _DATA_END:
                return
            try:
                content = _records(BytesIO(_chunk(body, whole))) if opcode == _CHUNK else [(opcode, body, whole)]
                found = [m for op, b, ok in content if ok and (m := _read(op, b, schemas, channels))]
            except (struct.error, ValueError, RuntimeError):  # bytes that are not what they seem: the damage
                return
            yield from sorted(found, key=lambda m: m.t_ns)


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Records until the end; the last may be cut short, then its flag is False."""
    while len(head := file.read(9)) == 9:
        opcode, length = struct.unpack("<BQ", head)
        here = file.tell()
        left = file.seek(0, 2) - here
        file.seek(here)
        body = file.read(min(length, left))
        yield opcode, body, len(body) == length


def _chunk(body: bytes, whole: bool) -> bytes:
    """Uncompressed content of a chunk record; of a cut uncompressed chunk the part that is there."""
    if len(body) < 40:
        return b""
    (size,) = struct.unpack_from("<Q", body, 16)
    (name_length,) = struct.unpack_from("<I", body, 28)
    start = 32 + name_length + 8
    compression, data = body[32 : 32 + name_length], body[start:]
    if not compression:
        return data
    if not whole:
        return b""
    from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

    decompress = DECOMPRESSORS.get(compression.decode("ascii", "replace"))
    if decompress is None:
        return b""
    try:
        content: bytes = decompress(data, size)
    except damage_errors() as error:
        raise ValueError("a chunk cannot be decompressed") from error
    return content


def _read(opcode: int, body: bytes, schemas: dict[int, str], channels: dict[int, tuple[str, str]]) -> RawMessage | None:
    """Note a schema or channel, or return a message."""
    if opcode == _SCHEMA:
        (key,) = struct.unpack_from("<H", body, 0)
        schemas[key] = _string(body, 2)
    elif opcode == _CHANNEL:
        key, schema = struct.unpack_from("<HH", body, 0)
        channels[key] = (_string(body, 4), schemas.get(schema, ""))
    elif opcode == _MESSAGE:
        channel, _, log_time, _ = struct.unpack_from("<HIQQ", body, 0)
        if channel in channels:
            return RawMessage(log_time, *channels[channel], body[22:])
    return None


def _string(body: bytes, offset: int) -> str:
    (length,) = struct.unpack_from("<I", body, offset)
    return body[offset + 4 : offset + 4 + length].decode("utf-8", "replace")


def _recover_sqlite(path: Path) -> Iterator[RawMessage]:
    """Walk the table by row id, which is the order of writing, until a page is missing.

    SQLite refuses a file shorter than its header says unless the schema is declared writable; the connection is
    read-only all the same.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            topics = {key: (name, kind) for key, name, kind in connection.execute("SELECT id, name, type FROM topics")}
            rows = connection.execute("SELECT timestamp, topic_id, data FROM messages ORDER BY id")
            yield from _rows(rows, topics)
    except sqlite3.Error as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _rows(rows: sqlite3.Cursor, topics: dict[int, tuple[str, str]]) -> Iterator[RawMessage]:
    while True:
        try:
            row = rows.fetchone()
        except sqlite3.DatabaseError:  # the first missing page
            return
        if row is None:
            return
        t_ns, topic, data = row
        if topic in topics:
            yield RawMessage(t_ns, *topics[topic], data)

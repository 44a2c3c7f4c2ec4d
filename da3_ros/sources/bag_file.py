"""A rosbag2 recording as a stream of undecoded messages, damaged or not."""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.errors import SourceError
from da3_ros.sources.bag_recovery import RawMessage, damage_errors, mcap_is_complete, recover
from da3_ros.sources.images import natural_key

_SUFFIXES = (".mcap", ".db3")


def is_bag_folder(folder: Path) -> bool:
    """Tell whether a folder is a rosbag2; the metadata may be missing when the recorder was killed."""
    metadata = folder / "metadata.yaml"
    if metadata.is_file() and "rosbag2_bagfile_information" in metadata.read_text(errors="replace")[:4096]:
        return True
    return any(p.suffix in _SUFFIXES for p in folder.iterdir())


@dataclass(frozen=True, slots=True)
class Topic:
    """What a bag says of one topic."""

    name: str
    msgtype: str  # "sensor_msgs/msg/Image"
    count: int  # messages
    transient_local: bool = False  # late subscribers got the last message
    reliable: bool = True


class BagFile:
    """Opens a bag to say what it holds; each pass over the messages opens it again, so passes are independent.

    A file that was cut short is read up to the damage, and ``damage`` says so.

    Raises:
        SourceError: nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None  # one sentence, or None for a whole bag
        self.start_ns = 0  # recording time of the first message
        self.end_ns = 0  # and of the last
        self._parts: list[_Whole | _Cut] = []
        if not path.exists():
            raise SourceError(f"{path} does not exist; give the folder of a rosbag2, or its .mcap or .db3 file")
        try:
            whole = _Whole(path)
        except damage_errors() as error:
            self._open_parts(path, error)
        else:
            self._parts = [whole]
        counts: Counter[str] = Counter()
        found: dict[str, Topic] = {}
        for part in self._parts:
            for topic in part.topics:
                counts[topic.name] += topic.count
                found[topic.name] = topic
        self.topics = {name: dataclasses.replace(topic, count=counts[name]) for name, topic in sorted(found.items())}
        spans = [part.span for part in self._parts if part.span is not None]
        if not counts.total():
            raise SourceError(f"{path} holds no message{f' ({self.damage})' if self.damage else ''}; record it again")
        if spans:
            self.start_ns, self.end_ns = min(s[0] for s in spans), max(s[1] for s in spans)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages of these topics (None = all) in the order of recording time, without loading the bag.

        Raises:
            SourceError: damage that was not noticed at opening; everything before it has been yielded.
        """
        streams = [part.messages(topics) for part in self._parts]
        stream = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda message: message.t_ns)
        try:
            yield from stream
        except damage_errors() as error:
            raise SourceError(f"{self.path} is damaged: {error}; what was before has been read") from error

    def _open_parts(self, path: Path, reason: BaseException) -> None:
        """Open the storage files one by one; those that cannot be opened whole are recovered."""
        files = (
            [path]
            if path.is_file()
            else sorted((p for p in path.iterdir() if p.suffix in _SUFFIXES), key=lambda p: natural_key(p.name))
        )
        cut: list[str] = []
        for file in files:
            part = _open_part(file)
            self._parts.append(part)
            if isinstance(part, _Cut):
                cut.append(f"{file.name} ends early after {part.count} messages")
        if not self._parts:
            raise SourceError(f"{path} cannot be opened as a bag: it holds no .mcap or .db3 file") from reason
        self.damage = ", ".join(cut) or None


class _Whole:
    """A bag folder or file that rosbags can open."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".mcap" and not mcap_is_complete(path):
            raise EOFError(f"{path.name} ends early")
        self._path = path
        with _reader(path) as reader:
            self.topics = [Topic(c.topic, c.msgtype, c.msgcount, *_qos(c.ext)) for c in reader.connections]
            self.span = (reader.start_time, reader.end_time - 1) if reader.message_count else None

    def messages(self, topics: Collection[str] | None) -> Iterator[RawMessage]:
        with _reader(self._path) as reader:
            wanted = [c for c in reader.connections if topics is None or c.topic in topics]
            if not wanted:
                return
            for connection, t_ns, raw in reader.messages(wanted):
                yield RawMessage(t_ns, connection.topic, connection.msgtype, raw)


class _Cut:
    """A storage file that ends early; one pass says what is left of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        counts: Counter[tuple[str, str]] = Counter()
        times: list[int] = []
        for message in recover(path):
            counts[message.topic, message.msgtype] += 1
            times = [min(times[0], message.t_ns), max(times[1], message.t_ns)] if times else [message.t_ns] * 2
        self.count = counts.total()
        self.topics = [Topic(name, msgtype, n) for (name, msgtype), n in counts.items()]
        self.span = (times[0], times[1]) if times else None

    def messages(self, topics: Collection[str] | None) -> Iterator[RawMessage]:
        return (m for m in recover(self._path) if topics is None or m.topic in topics)


def _open_part(file: Path) -> _Whole | _Cut:
    try:
        return _Whole(file)
    except damage_errors():
        return _Cut(file)


def _reader(path: Path) -> Any:
    from rosbags.rosbag2 import Reader

    return Reader(path)


def _qos(ext: Any) -> tuple[bool, bool]:
    """Whether any recorded publisher was transient local, and whether all were reliable."""
    profiles = getattr(ext, "offered_qos_profiles", None) or []
    durable = any(p.durability.name == "TRANSIENT_LOCAL" for p in profiles)
    return durable, all(p.reliability.name != "BEST_EFFORT" for p in profiles)

"""Playing a bag: its messages in time order, as the bytes that a publisher takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from da3_ros.errors import SourceError
from da3_ros.sources.bag_file import BagFile, Topic
from da3_ros.sources.bag_recovery import RawMessage

__all__ = ["BagPlayback", "RawMessage", "Topic"]


class BagPlayback:
    """Messages ``(t_ns, topic, msgtype, raw)`` of a bag in the order of recording time.

    Iterating again starts again.  ``raw`` is CDR, so ``publisher.publish(raw)`` sends it without decoding.  Nothing
    here waits: pacing is the player's.

    Args:
        path: bag folder, ``.mcap`` or ``.db3``.
        topics: play only these; None = all.

    Raises:
        SourceError: the bag cannot be opened or lacks one of the topics.
    """

    def __init__(self, path: Path, topics: Collection[str] | None = None) -> None:
        self._file = BagFile(path)
        missing = [name for name in topics or () if name not in self._file.topics]
        if missing:
            raise SourceError(f"{path} has no topic {missing[0]}; it has {', '.join(self._file.topics)}")
        self._names = topics
        self.topics: dict[str, Topic] = {
            name: topic for name, topic in self._file.topics.items() if topics is None or name in topics
        }
        self.start_ns = self._file.start_ns  # recording time of the first message of the bag
        self.end_ns = self._file.end_ns  # and of the last
        self.damage = self._file.damage  # one sentence where the bag was cut short, else None

    def __len__(self) -> int:
        """Number of messages."""
        return sum(topic.count for topic in self.topics.values())

    def __iter__(self) -> Iterator[RawMessage]:
        """Yield the messages.

        Raises:
            SourceError: damage that was not noticed at opening; everything before it has been yielded.
        """
        return self._file.messages(self._names)

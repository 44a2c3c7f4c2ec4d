"""Plays a bag into ROS: recorded bytes are published as they are, in recorded time, with a simulated clock."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from da3_ros.errors import Da3Error, MissingDependencyError, SourceError
from da3_ros.ros.fastdds import use_profile
from da3_ros.ros.messages import to_stamp
from da3_ros.sources.player import BagPlayback

CLOCK_HZ = 100.0
_DEPTH = 20
_SETTLE_S = 1.0  # after the first subscriber, others are waited for until none has come for this long
_FLUSH_S = 5.0
_HEARD_BY_ALL = ("/tf", "/tf_static")  # RViz and every tf2 buffer listen to these: that says nothing about the node

Progress = Callable[[float, float], None]  # seconds played of seconds in all
OnPublish = Callable[[str, bytes], None]  # topic as recorded, CDR bytes


@dataclass(slots=True)
class PlayResult:
    """What was played."""

    messages: int = 0
    loops: int = 0
    interrupted: bool = False
    skipped: dict[str, str] = field(default_factory=dict)  # topic -> why it was not played
    late_max_s: float = 0.0  # how far publishing fell behind the recording


def play(
    bag: Path,
    *,
    rate: float = 1.0,
    clock: bool = False,
    loop: bool = False,
    wait_s: float = 0.0,
    wait_for_all: bool = False,
    remap: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    context: Context | None = None,
    on_publish: OnPublish | None = None,
) -> PlayResult:
    """Publish a bag until its end, or until interrupted (SIGINT).

    Args:
        bag: folder or file.
        rate: speed; 2 plays twice as fast.
        clock: also publish /clock at 100 Hz of real time, for nodes with ``use_sim_time``.
        loop: start again at the end; the clock then jumps back.
        wait_s: wait this long at most for subscribers before the first message; 0: do not wait.
        wait_for_all: every topic must have a subscriber, not just one of them.
        remap: recorded topic -> topic to publish on; "" leaves a topic out.
        progress: called a few times a second.
        context: an initialised one to use; otherwise ROS is initialised here.
        on_publish: called right before each message is sent.

    Raises:
        SourceError: the bag cannot be read, or ``remap`` names a topic that it lacks.
        Da3Error: rate is not positive, or nobody (to some topic) subscribed within ``wait_s``.
    """
    if not rate > 0:
        raise Da3Error(f"the rate must be positive, not {rate:g}")
    remap = dict(remap or {})
    playback = BagPlayback(bag)
    unknown = [topic for topic in remap if topic not in playback.topics]
    if unknown:
        raise SourceError(f"{bag} has no topic {unknown[0]} to remap; it has {', '.join(playback.topics)}")
    result = PlayResult()
    with _node(context) as node:
        player = _Player(node, playback, remap, rate, clock, result)
        try:
            player.wait_for_subscribers(wait_s, everywhere=wait_for_all)
            while True:
                player.play_once(progress, on_publish)
                result.loops += 1
                if not loop:
                    break
        except KeyboardInterrupt:
            result.interrupted = True
        player.flush()
    return result


class _Player:
    """One bag, one set of publishers."""

    def __init__(
        self,
        node: Node,
        playback: BagPlayback,
        remap: Mapping[str, str],
        rate: float,
        clock: bool,
        result: PlayResult,
    ) -> None:
        self._playback, self._rate, self._result = playback, rate, result
        self._publishers: dict[str, Any] = {}
        for name, topic in playback.topics.items():
            target = remap.get(name, name)
            if not target or not topic.count:
                continue
            try:
                kind = message_class(topic.msgtype)
            except MissingDependencyError as error:
                result.skipped[name] = str(error)
                continue
            self._publishers[name] = node.create_publisher(kind, target, _profile(name))
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._clock = node.create_publisher(Clock, "/clock", best_effort) if clock else None
        self._clock_due = 0.0
        self._ticked_ns = 0

    def wait_for_subscribers(self, wait_s: float, *, everywhere: bool) -> None:
        """Return once somebody subscribed (to each topic, if asked for) and nobody else came for a second.

        Raises:
            Da3Error: nobody came.
        """
        enough = all if everywhere else any
        if wait_s <= 0:
            return
        publishers = list(self._publishers.values())
        awaited = [p for p in publishers if p.topic_name not in _HEARD_BY_ALL] or publishers
        begin = changed = time.monotonic()
        before: list[int] = []
        while time.monotonic() - begin < wait_s:
            counts = [publisher.get_subscription_count() for publisher in awaited]
            if counts != before:
                before, changed = counts, time.monotonic()
            if enough(counts) and time.monotonic() - changed > _SETTLE_S:
                return
            # A node under use_sim_time may need time to run before it subscribes.
            self._tick(self._playback.start_ns)
            time.sleep(0.01)
        if not enough(before):
            heard = zip(awaited, before, strict=True)
            names = ", ".join(publisher.topic_name for publisher, count in heard if not count)
            raise Da3Error(f"nobody subscribed to {names} within {wait_s:g} s; start the node, or play without waiting")

    def play_once(self, progress: Progress | None, on_publish: OnPublish | None) -> None:
        """Publish everything in recorded time."""
        first, last = self._playback.start_ns, self._playback.end_ns
        begin, shown = time.monotonic(), 0.0
        for t_ns, topic, _, raw in self._playback:
            publisher = self._publishers.get(topic)
            if publisher is None:
                continue
            due = begin + (t_ns - first) / 1e9 / self._rate
            self._sleep_until(due, t_ns)
            now = time.monotonic()
            self._result.late_max_s = max(self._result.late_max_s, now - due)
            if on_publish is not None:
                on_publish(topic, raw)
            publisher.publish(raw)
            self._result.messages += 1
            if progress is not None and now - shown > 0.25:
                shown = now
                progress((t_ns - first) / 1e9, (last - first) / 1e9)
        self._tick(max(last, self._ticked_ns))  # a tick may have come after the last message; never go back
        if progress is not None:
            progress((last - first) / 1e9, (last - first) / 1e9)

    def flush(self) -> None:
        """Wait until reliable subscribers have everything."""
        deadline = time.monotonic() + _FLUSH_S
        for publisher in self._publishers.values():
            # In short steps: rclpy keeps Python's lock while it waits, and other threads may be receiving.
            while not publisher.wait_for_all_acked(Duration(nanoseconds=1)) and time.monotonic() < deadline:
                time.sleep(0.01)

    def _sleep_until(self, due: float, t_ns: int) -> None:
        """Sleep until a message of recorded time ``t_ns`` is due, and keep the clock ticking meanwhile.

        The clock never runs ahead of a message that is late: it would have to be set back at the end.
        """
        while True:
            now = time.monotonic()
            left = due - now
            if self._clock is not None and now >= self._clock_due:
                self._tick(t_ns - round(max(left, 0.0) * self._rate * 1e9))
            if left <= 0:
                return
            step = left if self._clock is None else min(left, max(self._clock_due - now, 0.0))
            time.sleep(step)

    def _tick(self, t_ns: int) -> None:
        if self._clock is not None:
            self._clock_due = time.monotonic() + 1.0 / CLOCK_HZ
            self._ticked_ns = t_ns
            self._clock.publish(Clock(clock=to_stamp(t_ns)))


def message_class(msgtype: str) -> type:
    """The Python class of "package/msg/Name".

    Raises:
        MissingDependencyError: the package is not installed here.
    """
    package, _, name = msgtype.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(f"{msgtype} is not installed here; source the workspace that has it") from error


def _profile(topic: str) -> QoSProfile:
    """Reliable, because best effort loses raw images; latched where the topic always is."""
    latched = topic.endswith("/tf_static")
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


@contextmanager
def _node(context: Context | None) -> Iterator[Node]:
    """A node for publishing; nothing spins it."""
    owned = context is None
    if context is None:
        use_profile()
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("da3_player", context=context, start_parameter_services=False, enable_rosout=False)
    try:
        yield node
    finally:
        node.destroy_node()
        if owned:
            context.try_shutdown()

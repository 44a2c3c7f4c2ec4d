"""Playing a bag: what goes out is what was recorded, in recorded order and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from ros_bench import BEST_EFFORT, LATCHED, RELIABLE, Bench
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage

from da3_ros.errors import Da3Error, MissingDependencyError, SourceError
from da3_ros.ros import messages, player
from da3_ros.ros.player import message_class, play
from da3_ros.sources.player import BagPlayback


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Nobody else will subscribe: the tests do so before they play."""
    monkeypatch.setattr(player, "_SETTLE_S", 0.05)


@dataclass
class Ears:
    """Serialized messages by topic, and in order over all topics."""

    bench: Bench
    heard: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def listen(self, kind: type, topic: str, qos=RELIABLE) -> None:
        self.bench.ears.create_subscription(kind, topic, self.heard[topic].append, qos, raw=True)

    def listen_to(self, bag: Path, **names: str) -> None:
        for topic in BagPlayback(bag).topics.values():
            self.listen(message_class(topic.msgtype), names.get(topic.name, topic.name))

    def count(self) -> int:
        return sum(map(len, self.heard.values()))


@pytest.fixture
def ears(bench) -> Iterator[Ears]:
    return Ears(bench)


def recorded(bag: Path) -> dict[str, list[bytes]]:
    out = defaultdict(list)
    for _, topic, _, raw in BagPlayback(bag):
        out[topic].append(raw)
    return out


class SimulatedTime:
    """Time for the player: sleeping is instant and exact."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


# ------------------------------------------------------------ messages


def test_messages_arrive_byte_by_byte_and_in_order(ears, walk_bag):
    ears.listen_to(walk_bag)
    result = play(walk_bag, rate=4, wait_s=30, context=ears.bench.context)
    expected = recorded(walk_bag)
    ears.bench.until(lambda: ears.count() == 120, "every message")
    assert ears.heard == expected
    assert (result.messages, result.loops, result.interrupted, result.skipped) == (120, 1, False, {})


def test_topics_can_be_renamed_and_left_out(ears, walk_bag):
    ears.listen_to(walk_bag, **{"/camera/image_raw": "/front"})
    remap = {"/camera/image_raw": "/front", "/truth/pose": ""}
    play(walk_bag, rate=20, wait_s=30, remap=remap, context=ears.bench.context)
    expected = recorded(walk_bag)
    ears.bench.until(lambda: ears.count() == 90, "every message")
    assert not ears.heard["/truth/pose"]
    assert ears.heard["/front"] == expected["/camera/image_raw"]


def test_a_topic_that_the_bag_lacks_is_refused(walk_bag, bench):
    with pytest.raises(SourceError, match=r"has no topic /imu to remap; it has .*/camera/image_raw"):
        play(walk_bag, remap={"/imu": "/x"}, context=bench.context)


def test_unknown_message_types_are_left_out_and_named(ears, tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("int32 value\n", "robot_msgs/msg/Secret"))
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, kind in (("/secret", "robot_msgs/msg/Secret"), ("/words", "std_msgs/msg/String")):
            connection = writer.add_connection(topic, kind, typestore=store)
            message = store.types[kind](3 if topic == "/secret" else "hello")
            writer.write(connection, 10**9, store.serialize_cdr(message, kind))
    ears.listen(message_class("std_msgs/msg/String"), "/words")
    result = play(tmp_path / "bag", wait_s=30, context=ears.bench.context)
    ears.bench.until(lambda: ears.count() == 1, "the words")
    assert result.messages == 1
    assert set(result.skipped) == {"/secret"}
    assert "robot_msgs/msg/Secret is not installed here" in result.skipped["/secret"]


def test_message_classes():
    assert message_class("tf2_msgs/msg/TFMessage") is TFMessage
    for unknown in ("no_such_msgs/msg/Thing", "std_msgs/msg/NoSuchThing"):
        with pytest.raises(MissingDependencyError, match="is not installed here"):
            message_class(unknown)


def test_static_transforms_are_kept_for_late_listeners(bench, tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "tf2_msgs/msg/TFMessage"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/tf_static", kind, typestore=store)
        writer.write(connection, 10**9, store.serialize_cdr(store.types[kind]([]), kind))
    heard = []

    def late(topic: str, raw: bytes) -> None:
        heard.append(bench.listen(TFMessage, "/tf_static", LATCHED))

    def wait(done: float, whole: float) -> None:
        bench.until(lambda: heard[0], "the transform")

    play(tmp_path / "bag", on_publish=late, progress=wait, context=bench.context)
    assert len(heard[0]) == 1


# ------------------------------------------------------------ time


@pytest.mark.parametrize("rate", [0.5, 1.0, 3.0])
def test_recorded_time_is_kept_at_every_rate(bench, walk_bag, monkeypatch, rate):
    clock = SimulatedTime()
    monkeypatch.setattr(player, "time", clock)
    sent = []
    play(walk_bag, rate=rate, context=bench.context, on_publish=lambda *_: sent.append(clock.now))
    times = [t_ns for t_ns, *_ in BagPlayback(walk_bag)]
    expected = [(t - times[0]) / 1e9 / rate for t in times]
    assert sent == pytest.approx(expected, abs=1e-3)


def test_the_clock_runs_with_the_recording(ears, walk_bag, monkeypatch):
    """Heard from outside; /clock is best effort, so a tick may be lost on the way, but not in the player."""
    sent = note_ticks(monkeypatch)
    heard = ears.bench.listen(Clock, "/clock", BEST_EFFORT)
    ears.listen_to(walk_bag)
    playback, shown = BagPlayback(walk_bag), []
    context = ears.bench.context
    play(walk_bag, clock=True, rate=4, wait_s=30, context=context, progress=lambda *args: shown.append(args))
    ears.bench.until(lambda: len(heard) > 5, "some ticks")
    ticks = [messages.stamp_ns(message.clock) for message in heard]
    for some in (ticks, sent):
        assert some == sorted(some)
    assert set(ticks) <= set(sent)
    assert (sent[0], sent[-1]) == (playback.start_ns, playback.end_ns)
    assert shown[-1] == pytest.approx(((playback.end_ns - playback.start_ns) / 1e9,) * 2)


def test_the_clock_ticks_a_hundred_times_a_second_between_messages(bench, walk_bag, monkeypatch):
    monkeypatch.setattr(player, "time", SimulatedTime())
    ticks = note_ticks(monkeypatch)
    play(walk_bag, clock=True, context=bench.context)
    whole = (BagPlayback(walk_bag).end_ns - BagPlayback(walk_bag).start_ns) / 1e9
    assert len(ticks) == pytest.approx(whole * player.CLOCK_HZ, rel=0.1)


def test_a_player_that_falls_behind_never_sets_the_clock_back(bench, walk_bag, monkeypatch):
    clock = SimulatedTime()
    monkeypatch.setattr(player, "time", clock)
    ticks = note_ticks(monkeypatch)
    result = play(walk_bag, clock=True, context=bench.context, on_publish=lambda *_: clock.sleep(0.05))
    assert result.late_max_s > 1
    assert ticks == sorted(ticks)
    assert ticks[-1] == BagPlayback(walk_bag).end_ns


def note_ticks(monkeypatch) -> list[int]:
    """Collect what the player publishes on /clock."""
    ticks, tick = [], player._Player._tick

    def note(self, t_ns: int) -> None:
        ticks.append(t_ns)
        tick(self, t_ns)

    monkeypatch.setattr(player._Player, "_tick", note)
    return ticks


def test_a_loop_starts_again_with_time_set_back(ears, walk_bag, monkeypatch):
    ears.listen_to(walk_bag)
    sent, ticks = [], note_ticks(monkeypatch)

    def enough(topic: str, raw: bytes) -> None:
        sent.append(topic)
        if len(sent) > 250:  # in the third round
            raise KeyboardInterrupt

    result = play(walk_bag, rate=10, clock=True, loop=True, wait_s=30, context=ears.bench.context, on_publish=enough)
    assert (result.interrupted, result.loops, result.messages) == (True, 2, 250)
    ears.bench.until(lambda: ears.count() == 250, "what was sent before the interruption")
    first = recorded(walk_bag)["/camera/image_raw"]
    assert ears.heard["/camera/image_raw"][:60] == first + first
    assert sum(b < a for a, b in pairwise(ticks)) == 2


# ------------------------------------------------------------ refusals


def test_nobody_listens(bench, walk_bag):
    with pytest.raises(Da3Error, match=r"nobody subscribed to .*/camera/image_raw.* within 0.1 s; start the node"):
        play(walk_bag, wait_s=0.1, context=bench.context)


def test_listeners_of_transforms_say_nothing_about_the_node(ears, walk_bag):
    ears.listen(message_class("geometry_msgs/msg/PoseStamped"), "/tf")  # as RViz does, whoever else is there
    with pytest.raises(Da3Error, match="nobody subscribed to /camera"):
        play(walk_bag, wait_s=0.5, remap={"/truth/pose": "/tf"}, context=ears.bench.context)


def test_every_topic_may_have_to_be_heard(ears, walk_bag):
    ears.listen(message_class("sensor_msgs/msg/Image"), "/camera/image_raw")
    with pytest.raises(Da3Error) as refusal:
        play(walk_bag, wait_s=0.3, wait_for_all=True, context=ears.bench.context)
    assert "nobody subscribed to /camera/camera_info, /truth/depth, /truth/pose within" in str(refusal.value)
    ears.listen_to(walk_bag)
    assert play(walk_bag, rate=50, wait_s=30, wait_for_all=True, context=ears.bench.context).messages == 120


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_no_rate(walk_bag, rate):
    with pytest.raises(Da3Error, match="the rate must be positive"):
        play(walk_bag, rate=rate)


def test_what_is_no_bag(tmp_path):
    with pytest.raises(SourceError):
        play(tmp_path / "nothing")


def test_without_a_context_ros_is_started_and_ended(walk_bag, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    assert play(walk_bag, rate=100).messages == 120
    assert play(walk_bag, rate=100).messages == 120

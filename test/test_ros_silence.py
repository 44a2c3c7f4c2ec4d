"""Why is there no output?  The sentence, and the choice of how to subscribe."""

from __future__ import annotations

import pytest

from da3_ros.ros import silence
from da3_ros.ros.following import Choice, Offer, choose
from da3_ros.ros.silence import Facts, Watchdog, explain

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
WANTED = [("/image", IMAGE), ("/image", COMPRESSED), ("/image/compressed", COMPRESSED)]
START = Choice("/image", IMAGE, True)


def facts(**changes: object) -> Facts:
    values = {
        "topic": "/image",
        "publisher_problem": "",
        "clock_missing": False,
        "image_age_s": 0.1,
        "streaming": True,
        "drop": "",
        "lost": False,
        "slam_reason": "",
    }
    return Facts(**{**values, **changes})


NONE = {"streaming": False, "image_age_s": None}
STOPPED = {"streaming": False, "image_age_s": 12.0}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**NONE, "publisher_problem": "nobody publishes /image"}, "nobody publishes /image"),
        (NONE, "/image has a publisher but no image has arrived; check the camera and the network"),
        (STOPPED, "/image has a publisher but its last image came 12 s ago"),
        (
            {**STOPPED, "drop": "old"},
            "/image has a publisher but its last image came 12 s ago; it was dropped: old",
        ),
        ({"drop": "images are 3 s older than the clock"}, "images are 3 s older than the clock"),
        ({"lost": True}, "tracking is lost; move back to where the camera has been or call ~/reset"),
        ({"lost": True, "slam_reason": "the scale broke"}, "the scale broke"),
        ({}, "images arrive but none has been processed; the machine is overloaded"),
    ],
)
def test_the_most_basic_cause_is_named(changes, sentence):
    assert explain(facts(**changes)) == sentence


def test_a_simulated_clock_that_nobody_publishes():
    assert "nobody publishes /clock" in explain(facts(clock_missing=True))


def test_no_publisher_outranks_everything():
    all_at_once = facts(**STOPPED, publisher_problem="nobody publishes", drop="x", clock_missing=True, lost=True)
    assert explain(all_at_once) == "nobody publishes"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""

    class Time:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    time = Time()
    monkeypatch.setattr(silence, "time", time)
    return time


def test_silence_is_noticed_said_once_and_over_with_output(clock):
    watchdog = Watchdog(5.0)
    assert not watchdog.silent(0.0)
    clock.now += 5.1
    assert watchdog.silent(0.0)
    assert watchdog.accuse("because")
    assert not watchdog.accuse("because it still is")
    assert watchdog.reason == "because it still is"
    assert not watchdog.silent(clock.now)  # output came
    assert (watchdog.reason, watchdog.since) == ("", clock.now)
    clock.now += 5.1
    assert watchdog.silent(100.0)
    assert watchdog.accuse("again")


def test_waiting_begins_anew_after_a_reset(clock):
    watchdog = Watchdog(5.0)
    clock.now += 5.1
    watchdog.accuse("because")
    watchdog.restart()
    assert (watchdog.reason, watchdog.silent(0.0)) == ("", False)


# ------------------------------------------------------------ following publishers


def offer(topic: str, kind: str = IMAGE, *, reliable: bool = True) -> Offer:
    return Offer(topic, kind, reliable, "/driver")


@pytest.mark.parametrize(
    ("offers", "qos", "expected"),
    [
        ([], "auto", START),
        ([offer("/image")], "auto", START),
        ([offer("/image", reliable=False)], "auto", Choice("/image", IMAGE, False)),
        ([offer("/image"), offer("/image", reliable=False)], "auto", Choice("/image", IMAGE, False)),
        ([offer("/image", reliable=False)], "reliable", START),
        ([offer("/image")], "best_effort", Choice("/image", IMAGE, False)),
        ([offer("/image/compressed", COMPRESSED)], "auto", Choice("/image/compressed", COMPRESSED, True)),
        ([offer("/image", COMPRESSED)], "auto", Choice("/image", COMPRESSED, True)),
        ([offer("/image/compressed", COMPRESSED), offer("/image")], "auto", START),  # raw where there is raw
        ([offer("/image", "std_msgs/msg/String")], "auto", START),
    ],
)
def test_the_subscription_fits_the_publishers(offers, qos, expected):
    assert choose(WANTED, offers, qos, START) == expected


def test_a_publisher_that_left_may_come_back():
    current = Choice("/image/compressed", COMPRESSED, False)
    assert choose(WANTED, [], "auto", current) == current

"""What lies between the threads: the inbox, counters, the pace of slow work, frames that wait for their truth."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from da3_ros.msg import PoseGraphEdge
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.geometry import se3
from da3_ros.ros import messages
from da3_ros.ros.body import Body
from da3_ros.ros.calibration import announced_size
from da3_ros.ros.counters import DROP_CAUSES, Counters, Stopwatch
from da3_ros.ros.graph import GraphLog
from da3_ros.ros.inbox import Inbox
from da3_ros.ros.loading import Loading
from da3_ros.ros.mapper_thread import MapperThread
from da3_ros.ros.outputs import thinned
from da3_ros.ros.pace import Pace
from da3_ros.ros.predictor_thread import PredictorThread
from da3_ros.ros.prior_pairing import PriorPairing
from da3_ros.ros.tracker_thread import TrackerThread
from da3_ros.ros.truth import TruthPairing
from da3_ros.types import DepthPoints, Engine, Frame, FusedKeyframe, LoopEdge, Prediction, Tell, Window

# ------------------------------------------------------------ inbox


def test_the_oldest_frame_gives_way():
    inbox: Inbox[str, str] = Inbox(2)
    assert [inbox.put_frame(frame) for frame in "abcd"] == [0, 0, 1, 1]
    assert len(inbox) == 2
    assert [inbox.take(0), inbox.take(0), inbox.take(0)] == ["c", "d", None]


def test_commands_come_before_results_before_frames():
    inbox: Inbox[str, str] = Inbox(5)
    ran = []
    inbox.put_frame("frame")
    inbox.put_result("result")
    inbox.put_command(lambda: ran.append(1))
    command, result, frame = inbox.take(0), inbox.take(0), inbox.take(0)
    assert callable(command)
    assert (result, frame) == ("result", "frame")
    assert inbox.clear_frames() == 0


def test_cleared_frames_are_counted():
    inbox: Inbox[str, str] = Inbox(5)
    for frame in "abc":
        inbox.put_frame(frame)
    inbox.put_result("stays")
    assert inbox.clear_frames() == 3
    assert inbox.take(0) == "stays"


def test_a_waiting_consumer_is_woken():
    inbox: Inbox[str, str] = Inbox(2)
    got = []
    consumer = threading.Thread(target=lambda: got.append(inbox.take(30)))
    consumer.start()
    inbox.put_frame("x")
    consumer.join(30)
    assert got == ["x"]


# ------------------------------------------------------------ counters and durations


def test_counts_of_an_earlier_session_are_void():
    counters = Counters()
    counters.begin(1)
    counters.count("received", 3)
    counters.count("accepted", session=1)
    counters.begin(2)
    counters.count("accepted", session=1)  # the tracker was still busy with a frame of session 1
    counters.count("mailbox_full", 2)
    assert (counters.received, counters.accepted) == (0, 0)
    assert counters.drops() == {**dict.fromkeys(DROP_CAUSES, 0), "mailbox_full": 2}


def test_every_drop_has_a_field_in_the_status():
    from da3_ros.msg import SlamStatus

    fields = SlamStatus.get_fields_and_field_types()
    assert {f"dropped_{cause}" for cause in DROP_CAUSES} == {name for name in fields if name.startswith("dropped_")}


def test_counting_from_many_threads_loses_nothing():
    counters = Counters()
    threads = [threading.Thread(target=lambda: [counters.count("received") for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.received == 16000


def test_the_stopwatch_knows_the_last_seconds():
    watch = Stopwatch(window_s=60)
    assert watch.spread("track") is None
    assert watch.age_s("track") is None
    for seconds in range(1, 101):
        watch.add("track", float(seconds))
    spread = watch.spread("track")
    assert (spread.count, spread.p50, spread.max) == (100, 50.5, 100.0)
    assert 95 <= spread.p95 <= 96
    assert watch.age_s("track") < 30


def test_the_stopwatch_forgets():
    watch = Stopwatch(window_s=0.05)
    watch.add("track", 1.0)
    deadline = time.monotonic() + 30
    while watch.spread("track") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert watch.rate_hz("track") == 0
    assert watch.age_s("track") >= 0.05  # but not when something last happened


def test_slow_work_is_done_more_rarely():
    pace = Pace(1000.0)
    assert pace.due()
    pace.took(1000.0)
    assert not pace.due()  # it would take all the time there is
    quick = Pace(0.001)
    quick.took(0.0)
    assert not quick.due()  # once in a thousand seconds


# ------------------------------------------------------------ loading


def test_the_rest_of_a_step_is_guessed_from_its_beginning():
    loading = Loading.begun("opening")
    assert (loading.share, loading.remaining_s) == (None, None)
    first = loading.advanced("exporting x: encode", 0.0)
    assert first.remaining_s is None
    begun = replace(first, step_since=first.step_since - 10, told=first.told - 10)  # ten seconds ago
    later = begun.advanced("exporting x: mix", 0.25)  # a part of the same step
    assert later.step_since == begun.step_since
    assert 25 < later.remaining_s <= 30.1
    assert later.elapsed_s < 10  # of loading, which began just now
    assert later.advanced("compiling x: encode", 0.5).step_since > begun.step_since
    assert later.advanced("exporting x: mix", 0.1).step_since > begun.step_since  # it began anew


@pytest.mark.parametrize(
    ("fields", "roi", "size"),
    [
        ({"width": 640, "height": 480}, {}, (640, 480)),
        ({"width": 640, "height": 480, "binning_x": 2, "binning_y": 2}, {}, (320, 240)),
        ({"width": 640, "height": 480}, {"width": 100, "height": 50}, (100, 50)),
        ({}, {}, None),
    ],
)
def test_the_size_that_a_camera_info_announces(fields, roi, size):
    assert announced_size(CameraInfo(**fields, roi=RegionOfInterest(**roi))) == size


class Slow:
    """A predictor that loads in two steps."""

    name, needs_truth = "slow", False
    engine = Engine("slow", "mine", "torch", "cpu", "", "fp32", (0, 0), 1)

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.begun, self.go = threading.Event(), threading.Event()
        self.sizes: list[tuple[int, int]] = []
        self.closed = False

    def prepare(self, width: int, height: int) -> None:
        self.tell("exporting", 0.0)
        self.begun.set()
        assert self.go.wait(30)
        self.tell("done", 1.0)
        self.sizes.append((width, height))

    def predict(self, window: Window) -> Prediction:
        raise PredictorError("it predicts nothing")

    def close(self) -> None:
        self.closed = True


def test_a_thread_makes_ready_for_the_size_that_is_wanted_last():
    """What is under way for another size ends at its next step; so does everything when the thread is stopped."""
    said: list[str] = []
    thread = PredictorThread(Config(), lambda _: None, said.append, lambda _, tell: Slow(tell))
    thread.start()
    assert thread.opened.wait(30)
    assert not thread.ready.is_set()
    slow = thread.predictor
    thread.prepare(640, 480)
    assert slow.begun.wait(30)
    assert thread.loading.what == "exporting"
    thread.prepare(320, 240)
    slow.go.set()
    assert thread.ready.wait(30)
    thread.prepare(320, 240)  # nothing to do
    assert thread.ready.is_set()
    assert (slow.sizes, said, thread.error) == ([(320, 240)], ["done"], None)
    slow.begun.clear()
    slow.go.clear()
    thread.prepare(640, 480)
    assert slow.begun.wait(30)
    thread.stop()
    slow.go.set()
    thread.join(30)
    assert not thread.is_alive()
    assert (slow.sizes, slow.closed, thread.error, thread.ready.is_set()) == ([(320, 240)], True, None, False)


# ------------------------------------------------------------ truth


def frame(stamp: int, shape=(4, 6)) -> Frame:
    return Frame(stamp, stamp, np.zeros((*shape, 3), np.uint8), None)


DEPTH = np.ones((4, 6), np.float32)


def test_frames_wait_for_truth_in_order():
    pairing = TruthPairing(wait_s=60)
    for stamp in (1, 2):
        pairing.add_frame(frame(stamp), arrived=stamp / 10)
    pairing.add_depth(2, DEPTH)
    pairing.add_pose(2, np.eye(4))
    assert list(pairing.ready()) == []  # the first still waits, and order is kept
    pairing.add_pose(1, np.eye(4))
    pairing.add_depth(1, DEPTH)
    got = list(pairing.ready())
    assert [(f.id, arrived) for f, arrived in got] == [(1, 0.1), (2, 0.2)]
    np.testing.assert_array_equal(got[0][0].truth.depth, DEPTH)
    np.testing.assert_array_equal(got[0][0].truth.T_world_cam, np.eye(4))


def test_truth_may_come_first():
    pairing = TruthPairing(wait_s=60)
    pairing.add_depth(7, DEPTH)
    pairing.add_pose(7, np.eye(4))
    pairing.add_frame(frame(7), 0.0)
    assert [f.id for f, _ in pairing.ready()] == [7]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "no truth/depth has arrived"),
        ({"depth": (1, DEPTH)}, "no truth/pose has arrived"),
        ({"depth": (2, DEPTH), "pose": 2}, "do not equal"),  # other stamps
        ({"depth": (1, DEPTH[:2]), "pose": 1}, "do not equal"),  # another size
    ],
)
def test_frames_without_truth_are_given_up_with_a_reason(given, reason):
    pairing = TruthPairing(wait_s=0)
    pairing.add_frame(frame(1), 0.0)
    if "depth" in given:
        pairing.add_depth(*given["depth"])
    if "pose" in given:
        pairing.add_pose(given["pose"], np.eye(4))
    time.sleep(0.001)
    assert list(pairing.ready()) == [None]
    assert reason in pairing.explain()


def test_truth_that_stops_coming():
    pairing = TruthPairing(wait_s=0)
    pairing.add_depth(1, DEPTH)
    pairing.add_pose(1, np.eye(4))
    pairing.add_frame(frame(1), 0.0)
    assert len(list(pairing.ready())) == 1
    pairing.add_frame(frame(2), 0.0)
    time.sleep(0.001)
    assert list(pairing.ready()) == [None]
    assert pairing.explain() == "truth/depth or truth/pose does not come with every image"


def test_truth_that_nobody_asks_for_is_forgotten():
    pairing = TruthPairing(wait_s=60)
    for stamp in range(1, 200):
        pairing.add_depth(stamp, DEPTH)
        pairing.add_pose(stamp, np.eye(4))
    pairing.add_frame(frame(1), 0.0)
    assert list(pairing.ready()) == []
    assert pairing.forget_frames() == 1
    assert len(pairing) == 0


# ------------------------------------------------------------ graph and path


def keyframe(index: int, submap: int, x: float) -> FusedKeyframe:
    nothing = np.zeros((1, 1), np.float32)
    T = se3.make(np.eye(3), np.array([x, 0, 0]))
    return FusedKeyframe(index, index * 10**9, submap, T, None, nothing, nothing, np.zeros((1, 1, 3), np.uint8))


def test_the_graph_places_keyframes_at_their_submaps():
    log = GraphLog(3)
    log.add((keyframe(4, 0, 1.0),))
    log.add((keyframe(7, 1, 0.5), keyframe(9, 1, 2.0)))
    anchors = {0: np.eye(4), 1: se3.make(np.eye(3), np.array([10.0, 0, 0]))}
    graph = log.message("map", anchors, 5, metric=True)
    assert (graph.header.frame_id, graph.session_id, graph.revision, graph.metric) == ("map", 3, 5, True)
    assert list(graph.keyframe_ids) == [4, 7, 9]
    assert list(graph.keyframe_submap_ids) == [0, 1, 1]
    assert [messages.stamp_ns(stamp) for stamp in graph.keyframe_stamps] == [4 * 10**9, 7 * 10**9, 9 * 10**9]
    assert [pose.position.x for pose in graph.keyframe_poses] == [1.0, 10.5, 12.0]
    assert [(e.type, e.from_keyframe_id, e.to_keyframe_id) for e in graph.edges] == [
        (PoseGraphEdge.TYPE_SEAM, 4, 7),
        (PoseGraphEdge.TYPE_SEAM, 7, 9),
    ]
    assert [e.t_from_to.position.x for e in graph.edges] == [9.5, 1.5]
    assert np.isnan(graph.edges[0].residual)  # not known, so not a number


def test_the_graph_has_loops_and_submaps_that_grew():
    log = GraphLog(3)
    log.add((keyframe(4, 0, 1.0), keyframe(7, 1, 0.5)))
    T = se3.make(np.eye(3), np.array([0.25, 0, 0]))
    log.loops = (LoopEdge(4, 7, T, 0.01, 0.02, 0.003, 0.004, 1.5), LoopEdge(7, 99, T, 0, 1, 1, 1, 0))
    graph = log.message("map", {0: np.eye(4), 1: np.eye(4)}, 6, metric=True, sizes={0: 1.0, 1: 2.0})
    assert [pose.position.x for pose in graph.keyframe_poses] == [1.0, 1.0]
    loops = [e for e in graph.edges if e.type == PoseGraphEdge.TYPE_LOOP]
    assert len(loops) == 1  # the other one's newer end is not out yet
    edge = loops[0]
    assert (edge.from_keyframe_id, edge.to_keyframe_id, edge.t_from_to.position.x) == (4, 7, 0.25)
    sigmas = (edge.log_scale, edge.log_scale_sigma, edge.rotation_sigma_rad, edge.translation_sigma_m, edge.residual)
    assert np.allclose(sigmas, (0.01, 0.02, 0.003, 0.004, 1.5))


@pytest.mark.parametrize(("count", "most"), [(5, 10), (10, 10), (11, 10), (5000, 100), (5001, 101)])
def test_a_thinned_path_keeps_both_ends_and_the_recent_half(count, most):
    chosen = thinned(count, most)
    assert len(chosen) == min(count, most)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert (np.diff(chosen) > 0).all()
    recent = chosen[-(most // 2) :]
    assert (np.diff(recent) == 1).all()


# ------------------------------------------------------------ priors

MS = 1_000_000


def points(number: int) -> DepthPoints:
    return DepthPoints(np.zeros((number, 2), np.float32), np.ones(number, np.float32))


def at(x: float) -> np.ndarray:
    return se3.make(np.eye(3), np.array([x, 0.0, 0.0]))


def test_depth_finds_its_frame_whichever_comes_first_and_the_nearest_wins():
    pairing = PriorPairing(tolerance_s=0.03)
    assert pairing.add_depth(100 * MS, lambda: points(1)) == []
    assert len(pairing.add_frame(7, 110 * MS).depth.depth) == 1
    ((frame_id, nearer),) = pairing.add_depth(112 * MS, lambda: points(2))
    assert (frame_id, len(nearer.depth.depth)) == (7, 2)
    assert pairing.add_depth(85 * MS, lambda: points(3)) == []  # farther
    assert pairing.add_frame(8, 160 * MS) is None  # too far
    assert pairing.add_depth(160 * MS, lambda: None) == []  # cannot be used: the next may
    assert [frame_id for frame_id, _ in pairing.add_depth(165 * MS, lambda: points(4))] == [8]
    pairing.forget_frames()
    assert pairing.add_depth(166 * MS, lambda: points(5)) == []


def test_odometry_is_interpolated_as_soon_as_it_has_passed_the_frame():
    pairing = PriorPairing(tolerance_s=0.03)
    assert pairing.add_frame(1, 50 * MS) is None
    assert pairing.add_pose(40 * MS, at(1.0)) == []
    ((frame_id, priors),) = pairing.add_pose(60 * MS, at(3.0))
    assert frame_id == 1
    np.testing.assert_allclose(priors.T_odom_cam[:3, 3], [2, 0, 0])
    assert pairing.add_pose(80 * MS, np.eye(4)) == []  # once


def test_poses_of_another_drive_are_forgotten_when_time_jumps_back():
    pairing = PriorPairing(tolerance_s=0.03)
    pairing.add_pose(9_000 * MS, np.eye(4))
    pairing.add_pose(40 * MS, np.eye(4))
    assert pairing.add_frame(1, 50 * MS) is None
    ((_, priors),) = pairing.add_pose(60 * MS, at(2.0))
    np.testing.assert_allclose(priors.T_odom_cam[:3, 3], [1, 0, 0])


# ------------------------------------------------------------ a window that is joined while frames come


class EndlessJoining:
    """A window with steps of three milliseconds."""

    def __init__(self) -> None:
        self.steps = 0

    def advance(self) -> None:
        self.steps += 1
        time.sleep(0.003)


class Silent:
    """Outputs that nobody listens to."""

    def wants_path(self, _: object) -> bool:
        return False


def test_a_waiting_frame_goes_before_the_steps_that_commands_would_bring():
    config = Config()
    mapper = MapperThread(config, Silent(), Counters(), Stopwatch())
    thread = TrackerThread(config, Silent(), mapper, Counters(), Stopwatch(), lambda *_: None)
    thread._body, thread._joining, thread._predicting = Body.camera("camera"), EndlessJoining(), True
    thread._owed_s = 0.008  # as after a frame
    thread._inbox.put_frame("the next frame")
    thread._work(lambda: None)
    assert 1 <= thread._joining.steps <= 3  # what the frame before owes, although another waits
    owed = thread._joining.steps
    for _ in range(5):
        thread._work(lambda: None)
    assert thread._joining.steps == owed
    assert thread._inbox.take(0.0) == "the next frame"
    thread._work(None)
    assert thread._joining.steps == owed + 1  # nothing waits: step by step

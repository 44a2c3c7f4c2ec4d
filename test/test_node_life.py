"""The life of the node: managed states, start and end of its process, and neighbours."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from da3_ros.msg import SlamStatus
from da3_ros.srv import SaveTrajectory
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import Odometry
from ros_bench import DEFAULTS, RELIABLE, Bench, Camera, NodeProcess, arguments
from std_srvs.srv import SetBool, Trigger

from da3_ros.errors import ConfigError


@pytest.fixture
def launch(domain, tmp_path) -> Iterator[Callable[..., NodeProcess]]:
    """Start nodes as processes of their own."""
    processes, number = [], count()

    def start(*more: str, **options: str) -> NodeProcess:
        process = NodeProcess(domain, *more, log=tmp_path / f"node{next(number)}.log", **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.close()


def state(bench: Bench) -> int:
    return bench.call(GetState, "get_state", harmless=True).current_state.id


def workers() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("da3 ")}


# ------------------------------------------------------------ lifecycle


def test_a_manager_takes_the_node_through_its_states_twice(bench, walk):
    bench.start(node__autostart=False)
    assert state(bench) == State.PRIMARY_STATE_UNCONFIGURED
    assert bench.until_status(lambda s: True, "a status").state == SlamStatus.STATE_UNCONFIGURED
    camera = Camera(bench)
    for session, first in ((1, 0), (2, 20)):
        assert workers() == set()
        assert bench.transition("configure")
        assert state(bench) == State.PRIMARY_STATE_INACTIVE
        assert workers() == {"da3 tracker", "da3 predictor", "da3 mapper"}
        bench.until_status(lambda s: s.state == SlamStatus.STATE_PAUSED, "not active")
        assert bench.transition("activate")
        assert state(bench) == State.PRIMARY_STATE_ACTIVE
        camera.wait()
        camera.show(walk[first : first + 6])
        status = bench.until_status(lambda s: s.frames_accepted == 6, "six frames")
        assert status.session_id == session  # no number is used twice: consumers tell maps apart by it
        assert bench.transition("deactivate")
        assert camera.image.get_subscription_count() == 0
        assert bench.call(SaveTrajectory, "save_trajectory", SaveTrajectory.Request(path="/proc/x/y")).result != 0
        assert bench.transition("cleanup")
        assert state(bench) == State.PRIMARY_STATE_UNCONFIGURED
    bench.until_status(lambda s: s.state == SlamStatus.STATE_UNCONFIGURED, "unconfigured")


def test_deactivation_keeps_the_map(bench, walk):
    running = bench.start()
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:20])
    bench.until(lambda: running.map_points and running.accepted == 20, "a map")
    assert bench.transition("deactivate")
    assert bench.transition("activate")
    camera.wait()
    camera.show(walk[20:24])
    status = bench.until_status(lambda s: s.frames_accepted == 24, "more frames")
    assert (status.session_id, status.time_jumps) == (1, 0)
    assert status.map_points > 0


def test_a_predictor_that_cannot_be_opened_fails_the_transition(bench, tmp_path):
    bench.start(node__autostart=False, predictor=f"recorded:{tmp_path}/none")
    assert not bench.transition("configure")
    assert state(bench) == State.PRIMARY_STATE_UNCONFIGURED
    bench.until(lambda: bench.logged("no recording at"), "the log")
    assert workers() == set()


def test_services_are_gone_while_unconfigured(bench):
    bench.start(node__autostart=False)
    bench.until_status(lambda s: True, "a status")
    names = {name for name, _ in bench.ears.get_service_names_and_types()}
    assert not {"/da3_slam/reset", "/da3_slam/save_map"} & names
    assert bench.transition("configure")
    assert bench.call(Trigger, "reset").success


def test_bad_parameters_are_refused_all_at_once(bench):
    with pytest.raises(ConfigError) as refusal:
        bench.start(window__size=99, windw__size=3, map__voxel="fine", node__image_qos="loud")
    lines = str(refusal.value).splitlines()
    assert len(lines) == 4
    for part in (
        "window.size must lie in [1, 64]",
        "did you mean 'window.size'",
        "map.voxel must be of type float",
        "node.image_qos must be one of auto, reliable, best_effort",
    ):
        assert any(part in line for line in lines)


# ------------------------------------------------------------ neighbours


def test_two_nodes_in_two_namespaces_share_nothing(domain, walk):
    benches = [Bench(domain, namespace) for namespace in ("/left", "/right")]
    try:
        for bench in benches:
            bench.start()
        cameras = [Camera(bench) for bench in benches]
        for camera in cameras:
            camera.wait()
        cameras[0].show(walk[:6])
        cameras[1].show(walk[20:24])
        left = benches[0].until_status(lambda s: s.frames_accepted == 6, "six on the left")
        right = benches[1].until_status(lambda s: s.frames_accepted == 4, "four on the right")
        assert (left.frames_received, right.frames_received) == (6, 4)
        assert benches[0].call(Trigger, "reset").success
        benches[0].until_status(lambda s: s.session_id == 2, "a new session on the left")
        assert benches[1].status[-1].session_id == 1
        topics = {name for name, _ in benches[0].ears.get_topic_names_and_types()}
        assert {"/left/odom", "/right/odom", "/left/map/points", "/left/da3_slam/status"} <= topics
        assert "/odom" not in topics
    finally:
        for bench in benches:
            bench.close()


# ------------------------------------------------------------ the process


def test_sigint_ends_a_busy_process_cleanly(bench, walk, launch):
    process = launch(*arguments(DEFAULTS))
    camera = Camera(bench)
    camera.wait()
    bench.until(lambda: (camera.send(walk[0]), bench.odometry)[1], "odometry of the first frame")
    camera.show(walk[1:8])
    assert process.interrupt() == 0
    assert "Traceback" not in process.output
    assert "active: predictor simulated" in process.output
    assert not [line for line in process.output.splitlines() if "ERROR" in line or "FATAL" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_before_any_image(launch, number):
    process = launch()
    _until(lambda: "active" in process.output)
    assert process.interrupt(number) == 0
    assert "Traceback" not in process.output


def test_names_and_topics_can_be_remapped(bench, walk, launch):
    launch(*arguments(DEFAULTS), "-r", "__ns:=/robot", "-r", "image:=/camera/image_raw", "-r", "__node:=slam")
    camera = Camera(bench, topic="/camera/image_raw", prefix="/robot/")
    odometry = bench.listen(Odometry, "/robot/odom")
    status = bench.listen(SlamStatus, "/robot/slam/status", RELIABLE)
    camera.wait()
    bench.until(lambda: (camera.send(walk[0]), odometry and status)[1], "odometry and status")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("-p", "window.size:=99", "-p", "windw.size:=3"), ("window.size must lie in [1, 64]", "unknown config key")),
        (("--params-file", "/nowhere.yaml"), ("the ROS arguments cannot be used", "/nowhere.yaml")),
        (("-p", "predictor:=recorded:/nowhere"), ("no recording at /nowhere",)),
    ],
)
def test_what_cannot_start_says_so_and_exits_1(launch, more, parts):
    process = launch(*more)
    assert process.wait() == 1
    assert "Traceback" not in process.output
    for part in parts:
        assert part in process.output


def test_a_dead_worker_ends_the_process_with_one_line(bench, walk, launch):
    """A bug in the tracker must not leave a node that looks alive and does nothing."""
    code = (
        "import sys\n"
        "from da3_ros.ros.slam_node import main\n"
        "from da3_ros.slam.slam import Slam\n"
        "track = Slam.track\n"
        "def broken(self, frame):\n"
        "    if frame.id == 2:\n"
        "        raise RuntimeError('a bug')\n"
        "    return track(self, frame)\n"
        "Slam.track = broken\n"
        "sys.exit(main(sys.argv))\n"
    )
    process = launch(*arguments(DEFAULTS), code=code)
    camera = Camera(bench)
    camera.wait()
    for frame in walk:  # the first may go before the node has seen the camera
        if process.process.poll() is not None:
            break
        camera.send(frame)
        bench.pause(0.1)
    assert process.wait() == 1
    lines = [line for line in process.output.splitlines() if "da3 tracker died" in line]
    assert len(lines) == 1
    assert "da3 tracker died of RuntimeError: a bug at " in lines[0]
    assert "Traceback" not in process.output
    status = bench.until_status(lambda s: s.state == SlamStatus.STATE_FAILED, "the last status")
    assert "died of RuntimeError: a bug" in status.reason


def test_pausing_a_process_from_outside(bench, launch):
    """What a user does in a terminal works on the process as well."""
    launch(*arguments(DEFAULTS))
    assert bench.call(SetBool, "pause", SetBool.Request(data=True)).success
    bench.until_status(lambda s: s.state == SlamStatus.STATE_PAUSED, "paused")


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_installed_program_is_the_module():
    """`ros2 run da3_ros slam_node` and `da3_slam_node` call the main that is tested here."""
    root = Path(__file__).resolve().parents[1]
    assert "install_program(slam_node da3_ros.ros.slam_node)" in (root / "CMakeLists.txt").read_text()
    assert "da3_slam_node = da3_ros.ros.slam_node:main" in (root / "setup.py").read_text()

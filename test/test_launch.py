"""The launch files: their arguments, the processes they start, and those processes for real.

Where ROS 2's own ``launch`` is importable it runs the files; everywhere else a stand-in for the names they use does.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ros_missing
from launch_stand_in import Executable, Exited, LaunchFile, Process

REPOSITORY = Path(__file__).parents[1]
FILES = {path.name: path for path in (REPOSITORY / "launch").glob("*.launch.py")}

pytestmark = [pytest.mark.ros, pytest.mark.skipif(bool(ros_missing()), reason=ros_missing())]


@pytest.fixture
def slam() -> LaunchFile:
    return LaunchFile(FILES["slam.launch.py"])


@pytest.fixture
def replay(monkeypatch) -> LaunchFile:
    monkeypatch.setenv("ROS_DOMAIN_ID", os.environ.get("ROS_DOMAIN_ID", "0"))
    return LaunchFile(FILES["replay.launch.py"])


def command(process: Process) -> list[str]:
    """As a process that runs here: our programs by their modules, ROS arguments as launch_ros writes them."""
    modules = {"slam_node": "da3_ros.ros.slam_node", "da3": "da3_ros.cli"}
    if process.cmd:
        start, *rest = process.cmd
        assert isinstance(start, Executable)
        return [sys.executable, "-m", modules[start.executable], *rest]
    out = [sys.executable, "-m", modules[process.executable], *process.arguments]
    out += ["--ros-args", "-r", f"__node:={process.name}"]
    out += ["-r", f"__ns:=/{process.namespace}"] if process.namespace else []
    for parameters in process.parameters:
        if isinstance(parameters, dict):
            for name, value in parameters.items():
                out += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        else:
            out += ["--params-file", parameters]
    for a, b in process.remappings:
        out += ["-r", f"{a}:={b}"]
    return out


def test_there_is_a_test_for_every_launch_file():
    assert set(FILES) == {"slam.launch.py", "replay.launch.py"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_argument_is_described_and_its_default_is_possible(name, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    for argument in LaunchFile(FILES[name]).arguments.values():
        assert len(argument.description) > 10
        assert argument.default_value is not None or argument.name == "bag"
        if argument.choices is not None:
            assert argument.default_value in argument.choices


def test_without_arguments_the_parameter_file_is_in_charge(slam):
    (node,) = slam.processes({})
    assert (node.package, node.executable, node.name, node.namespace) == ("da3_ros", "slam_node", "da3_slam", "")
    path, overrides = node.parameters
    assert Path(path).resolve() == REPOSITORY / "config" / "slam.yaml"
    assert overrides == {"use_sim_time": False}
    assert node.on_exit is not None  # when the node ends, so does the launch


def test_arguments_reach_the_node(slam):
    values = {
        "params_file": "/my.yaml",
        "namespace": "robot",
        "image_topic": "/front/image_raw",
        "camera_info_topic": "/front/camera_info",
        "image_transport": "compressed",
        "predictor": "recorded:/a b.npz",
        "base_frame": "base_link",
        "use_sim_time": "true",
        "autostart": "false",
        "log_level": "debug",
    }
    (node,) = slam.processes(values)
    assert node.namespace == "robot"
    assert node.parameters == [
        "/my.yaml",
        {
            "use_sim_time": True,
            "predictor": "recorded:/a b.npz",
            "node.image_transport": "compressed",
            "node.base_frame": "base_link",
            "node.autostart": False,
        },
    ]
    assert ("image", "/front/image_raw") in node.remappings
    assert ("image/compressed", "/front/image_raw/compressed") in node.remappings
    assert ("camera_info", "/front/camera_info") in node.remappings
    assert node.arguments == ["--ros-args", "--log-level", "debug"]


def test_a_bag_is_played_with_a_clock_and_recorded_beside(slam):
    node, play, record, rviz = slam.processes(
        {"bag": "/bags/a", "rate": "2.0", "record": "/bags/out", "rviz": "true", "namespace": "robot"}
    )
    assert node.parameters[1]["use_sim_time"] is True
    assert ("truth/depth", "/truth/depth") in node.remappings
    assert play.cmd == [Executable("da3", "da3_ros"), "play", "/bags/a", "--clock", "--wait", "30", "--rate", "2.0"]
    assert record.cmd[:5] == ["ros2", "bag", "record", "--output", "/bags/out"]
    assert {"/tf", "/tf_static", "/robot/odom", "/robot/da3_slam/status"} <= set(record.cmd[5:])
    assert (rviz.package, rviz.namespace) == ("rviz2", "robot")
    assert Path(rviz.arguments[1]).read_text().startswith("# RViz")


def test_simulated_time_can_be_refused_beside_a_bag(slam):
    node, _ = slam.processes({"bag": "/bags/a", "use_sim_time": "false"})
    assert node.parameters[1]["use_sim_time"] is False


def test_replay_evaluates_and_ends_with_the_evaluation(replay):
    (evaluation,) = replay.processes({"bag": "/bags/a"})
    assert evaluation.cmd == [Executable("da3", "da3_ros"), "eval", "/bags/a", "--live", "--rate", "1.0"]
    evaluation, rviz = replay.processes(
        {"bag": "a", "out": "o", "rate": "2", "predictor": "p", "params_file": "f.yaml", "rviz": "true"}
    )
    assert evaluation.cmd[5:] == ["2", "--out", "o", "--predictor", "p", "--config", "f.yaml"]
    assert rviz.parameters == [{"use_sim_time": True}]
    assert evaluation.on_exit(Exited(0), None).reason
    with pytest.raises(RuntimeError, match="exit code 2"):
        evaluation.on_exit(Exited(2), None)


def test_the_programs_that_are_started_are_installed():
    cmake = (REPOSITORY / "CMakeLists.txt").read_text()
    assert "install_program(da3 da3_ros.cli)" in cmake
    assert "install_program(slam_node da3_ros.ros.slam_node)" in cmake
    assert "install(DIRECTORY launch config " in cmake


def test_the_node_comes_up_and_ends_cleanly_as_launched(slam, domain, tmp_path):
    from ros_bench import Bench

    (node,) = slam.processes({"namespace": "robot", "image_topic": "/front/image_raw", "log_level": "warn"})
    bench = Bench(domain, "robot")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}
    process = subprocess.Popen(command(node), env=environment, stderr=subprocess.PIPE, text=True)
    try:
        status = bench.until_status(lambda s: s.state == s.STATE_INIT, "the node is ready")
        assert status.frames_received == 0
        bench.until(lambda: bench.ears.count_subscribers("/front/image_raw"), "it listens to the camera")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        bench.close()
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_replay_writes_a_report_as_launched(replay, domain, tmp_path):
    from da3_ros.sources import open_source
    from da3_ros.sources.bag_writer import write_bag

    write_bag(open_source("world:3?frames=20&size=160x120"), tmp_path / "bag")
    (evaluation,) = replay.processes({"bag": str(tmp_path / "bag"), "out": str(tmp_path / "out"), "rate": "2.0"})
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command(evaluation), env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "coverage                       1.000" in done.stdout
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="ROS 2's launch is in no wheel; source a native ROS 2 to run the launch files for real",
)
def test_ros2_launch_runs_the_node(domain, tmp_path):
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": str(tmp_path)}
    process = subprocess.Popen(["ros2", "launch", str(FILES["slam.launch.py"])], env=environment)
    from ros_bench import Bench

    bench = Bench(domain)
    try:
        bench.until_status(lambda s: s.state == s.STATE_INIT, "the node is ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        bench.close()

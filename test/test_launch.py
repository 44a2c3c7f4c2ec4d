"""The launch files: their arguments, the processes they start, and those processes for real.

Everywhere, a stand-in for the few names of ROS 2's ``launch`` that the files use works out the command lines, and
these are run. Where ``launch`` itself is installed it must come to the same command lines, and runs the files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ros_missing
from launch_stand_in import Context, Ended, Exited, LaunchFile, Said, Started

from da3_ros.config import Config

REPOSITORY = Path(__file__).parents[1]
FILES = {path.name: path for path in (REPOSITORY / "launch").glob("*.launch.py")}
REAL_LAUNCH = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="ROS 2's launch is in no wheel; the stand-in was used. Source a native ROS 2 to run the files with it",
)
# Runs a launch file as 'ros2 launch' does: FILE NAME:=VALUE ...
RUNNER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

path, *arguments = sys.argv[1:]
service = LaunchService(noninteractive=True)
source = PythonLaunchDescriptionSource(path)
pairs = [tuple(text.split(":=", 1)) for text in arguments]
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)]))
sys.exit(service.run())
"""
# Put in front of every command that launch starts: writes it down instead, and stays until it is interrupted.
NOTE = (
    "import json, os, signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit()); name = str(os.getpid());"
    "json.dump(sys.argv[2:], open(name, 'w')); os.rename(name, f'{sys.argv[1]}/{name}'); signal.pause()"
)

pytestmark = [pytest.mark.ros, pytest.mark.skipif(bool(ros_missing()), reason=ros_missing())]


@pytest.fixture
def slam() -> LaunchFile:
    return LaunchFile(FILES["slam.launch.py"])


@pytest.fixture
def replay() -> LaunchFile:
    return LaunchFile(FILES["replay.launch.py"])


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    """Parameter files of the launches go where pytest cleans up, and nothing is inherited."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_DOMAIN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bag(walk_bag) -> Path:
    return walk_bag


def parameter_file(path: Path, section: str = "/**", **values: object) -> str:
    path.write_text(yaml.dump({section: {"ros__parameters": values}}))
    return str(path)


# ------------------------------------------------------------ arguments


def test_there_is_a_test_for_every_launch_file():
    assert set(FILES) == {"slam.launch.py", "replay.launch.py"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_argument_is_described_and_its_default_is_possible(name):
    for argument in LaunchFile(FILES[name]).arguments.values():
        assert len(argument.description) > 10 or argument.name == "log_level"
        assert argument.default_value is not None
        if argument.choices is not None:
            assert argument.default_value in argument.choices


def test_choices_are_those_of_the_parameters(slam):
    from da3_ros.config import leaves

    (transport,) = (leaf for leaf in leaves(Config()) if leaf.key == "node.image_transport")
    assert set(slam.arguments["image_transport"].choices) == {"", *transport.choices}


# ------------------------------------------------------------ the node


def test_without_arguments_the_parameter_file_is_in_charge(slam, tmp_path):
    (node,) = slam.start()
    path = Path(slam.arguments["params_file"].default_value)
    assert path.read_text() == (REPOSITORY / "config" / "slam.yaml").read_text()
    assert node.command[node.command.index("--params-file") + 1] == str(path)
    assert node.command.count("--params-file") == 1
    mine = parameter_file(tmp_path / "my.yaml", use_sim_time=True, predictor="recorded:mine")
    (node,) = slam.start(params_file=mine)
    assert node.parameters == {"use_sim_time": True, "predictor": "recorded:mine"}
    assert node.remappings == {
        "__node": "da3_slam",
        "__ns": "/",
        "image": "image",
        "image/compressed": "image/compressed",
        "camera_info": "camera_info",
        "depth_prior": "depth_prior",
        "odom_prior": "odom_prior",
        "imu": "imu",
    }


def test_arguments_win_over_the_parameter_file(slam, tmp_path):
    mine = parameter_file(
        tmp_path / "my.yaml", section="/robot/da3_slam", use_sim_time=False, predictor="simulated", seed=3
    )
    (node,) = slam.start(
        params_file=mine,
        namespace="robot",
        image_topic="/front/image_raw",
        camera_info_topic="/front/camera_info",
        depth_prior_topic="/front/depth",
        odom_prior_topic="/wheels",
        imu_topic="/camera/imu",
        image_transport="compressed",
        predictor="recorded:/a b.npz",
        base_frame="1e3",
        use_sim_time="true",
        autostart="false",
        log_level="debug",
    )
    assert node.parameters == {
        "use_sim_time": True,
        "seed": 3,
        "predictor": "recorded:/a b.npz",
        "node.image_transport": "compressed",
        "node.base_frame": "1e3",  # a text, whatever it looks like
        "node.autostart": False,
    }
    assert node.remappings == {
        "__node": "da3_slam",
        "__ns": "/robot",
        "image": "/front/image_raw",
        "image/compressed": "/front/image_raw/compressed",
        "camera_info": "/front/camera_info",
        "depth_prior": "/front/depth",
        "odom_prior": "/wheels",
        "imu": "/camera/imu",
    }
    assert node.command[1:4] == ["--ros-args", "--log-level", "robot.da3_slam:=debug"]


def test_a_compressed_topic_may_be_named_itself(slam):
    (node,) = slam.start(image_topic="/camera/image_raw/compressed")
    assert node.remappings["image"] == node.remappings["image/compressed"] == "/camera/image_raw/compressed"


def test_the_node_gets_the_transport_profile_unless_the_user_has_one(slam, monkeypatch):
    (node,) = slam.start()
    ((name, path),) = node.action.additional_env.items()
    assert name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    assert "da3_shared_memory" in Path(path).read_text()
    monkeypatch.setenv(name, "/mine.xml")
    (node,) = slam.start()
    assert node.action.additional_env == {}


def test_a_node_alone_ends_alone_and_may_be_started_again(slam):
    (node,) = slam.start()
    assert node.action.on_exit is None
    assert not node.action.respawn
    (node,) = slam.start(respawn="true")
    assert node.action.respawn
    assert node.action.respawn_delay > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"params_file": "/nowhere.yaml"}, "params_file /nowhere.yaml is not a file"),
        ({"rate": "2"}, "give bag:=FOLDER"),
        ({"bag": "/nowhere"}, "/nowhere does not exist"),
        ({"bag": "/nowhere", "use_sim_time": "false"}, "leave use_sim_time:=false out"),
    ],
)
def test_what_cannot_work_is_refused(slam, given, words):
    from da3_ros.errors import SourceError

    with pytest.raises((RuntimeError, SourceError), match=words):
        slam.start(**given)


# ------------------------------------------------------------ bag, record, RViz


def test_a_bag_is_played_on_its_own_names(slam, bag):
    node, player = slam.start(bag=str(bag), rate="2.0", namespace="robot")
    assert node.parameters["use_sim_time"] is True
    assert {name: node.remappings[name] for name in ("image", "camera_info", "truth/depth", "truth/pose")} == {
        "image": "/camera/image_raw",
        "camera_info": "/camera/camera_info",
        "truth/depth": "/truth/depth",
        "truth/pose": "/truth/pose",
    }
    assert (player.program, player.command[1:]) == (
        "da3",
        ["play", str(bag), "--clock", "--wait", "30", "--rate", "2.0"],
    )
    node, _ = slam.start(bag=str(bag), image_topic="/image_rect")  # such as from a node that rectifies
    assert node.remappings["image"] == "/image_rect"
    assert node.remappings["camera_info"] == "/camera/camera_info"


def test_a_failure_is_the_launch_s_own(slam, bag):
    node, player = slam.start(bag=str(bag))
    running, ending = Context({}), Context({}, is_shutdown=True)
    for process, what in ((node, "the SLAM node"), (player, "playing the bag")):
        with pytest.raises(RuntimeError, match=f"{what} ended with exit code 2"):
            process.action.on_exit(Exited(2), running)
        assert process.action.on_exit(Exited(130), ending) == []
    assert [type(action) for action in node.action.on_exit(Exited(0), running)] == [Ended]
    assert [type(action) for action in player.action.on_exit(Exited(0), running)] == [Said]


def test_outputs_are_recorded(slam, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    _, recorder = slam.start({"ros_namespace": "fleet"}, record=str(tmp_path / "out"), namespace="robot")
    assert recorder.command[:6] == ["ros2", "bag", "record", "--output", str(tmp_path / "out"), "--regex"]
    names = recorder.command[6].removeprefix("^(").removesuffix(")$").split("|")
    assert {"/fleet/robot/odom", "/fleet/robot/map/points", "/fleet/robot/da3_slam/status", "/tf"} <= set(names)
    _, recorder = slam.start({"ros_namespace": "fleet"}, record=str(tmp_path / "out"), namespace="/robot")
    assert "|/robot/pose|" in recorder.command[6]
    with pytest.raises(RuntimeError, match="record into another folder"):
        slam.start(record=str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(RuntimeError, match="record needs 'ros2 bag'"):
        slam.start(record=str(tmp_path / "out"))


@pytest.fixture
def rviz_package(tmp_path, monkeypatch) -> None:
    """RViz as far as a launch file looks for it."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "rviz2").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}")


@pytest.mark.usefixtures("rviz_package")
def test_rviz_shows_the_node_s_namespace(slam, replay, bag):
    _, rviz = slam.start(rviz="true", namespace="robot")
    assert rviz.command[1:] == [
        *("-d", str(Path(slam.arguments["params_file"].default_value).with_name("slam.rviz"))),
        *("--ros-args", "-r", "__ns:=/robot", "--params-file", rviz.command[-1]),
    ]
    assert rviz.parameters == {"use_sim_time": False}
    _, rviz = replay.start(bag=str(bag), rviz="true")
    assert rviz.parameters == {"use_sim_time": True}


def test_a_missing_rviz_is_refused_before_anything_starts(slam, replay, bag, monkeypatch):
    import ament_index_python.packages as index

    if "rviz2" in index.get_packages_with_prefixes():
        monkeypatch.setenv("AMENT_PREFIX_PATH", index.get_package_prefix("da3_ros"))
    for start in (slam.start, replay.start):
        with pytest.raises(RuntimeError, match="rviz:=true needs rviz2"):
            start(rviz="true", bag=str(bag))


def displays() -> dict[str, str]:
    """Topic -> message type of what RViz shows."""
    settings = yaml.safe_load((REPOSITORY / "config" / "slam.rviz").read_text())["Visualization Manager"]
    assert settings["Global Options"]["Fixed Frame"] == Config().node.map_frame
    kinds = {"PointCloud2": "sensor_msgs", "Image": "sensor_msgs", "Path": "nav_msgs", "Odometry": "nav_msgs"}
    out = {}
    for display in settings["Displays"]:
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        if "Topic" in display:
            out[display["Topic"]["Value"]] = f"{kinds[kind]}/msg/{kind}"
    return out


# ------------------------------------------------------------ replay


def test_replay_evaluates_and_ends_with_the_evaluation(replay, monkeypatch):
    (evaluation,) = replay.start(bag="/bags/a")
    settings = replay.arguments["params_file"].default_value
    assert (evaluation.program, evaluation.command[1:]) == (
        "da3",
        ["eval", "/bags/a", "--live", "--rate", "1.0", "--config", settings],
    )
    assert evaluation.action.additional_env["ROS_DOMAIN_ID"] == "0"
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    (evaluation,) = replay.start(bag="a", out="o", rate="2", predictor="p", params_file="f.yaml")
    assert evaluation.command[5:] == ["2", "--config", "f.yaml", "--out", "o", "--predictor", "p"]
    assert evaluation.action.additional_env["ROS_DOMAIN_ID"] == "7"
    running, ending = Context({}), Context({}, is_shutdown=True)
    assert isinstance(evaluation.action.on_exit(Exited(0), running), Ended)
    assert evaluation.action.on_exit(Exited(130), ending) is None
    with pytest.raises(RuntimeError, match="exit code 2"):
        evaluation.action.on_exit(Exited(2), running)
    with pytest.raises(RuntimeError, match="give a bag"):
        replay.start()


# ------------------------------------------------------------ for real


def test_the_programs_that_are_started_are_installed(slam, bag):
    cmake = (REPOSITORY / "CMakeLists.txt").read_text()
    assert "install_program(da3 da3_ros.cli)" in cmake
    assert "install_program(slam_node da3_ros.ros.slam_node)" in cmake
    assert "install(DIRECTORY launch config " in cmake
    for process in slam.start(bag=str(bag)):
        assert os.access(process.command[0], os.X_OK)


class Running:
    """Processes that are ended with the test."""

    def __init__(self, domain: int, folder: Path) -> None:
        self._folder = folder
        places = dict.fromkeys(("ROS_LOG_DIR", "TMPDIR"), str(folder))
        self._environment = {**os.environ, **places, "ROS_DOMAIN_ID": str(domain)}
        self._environment["PYTHONPATH"] = os.pathsep.join(
            [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._all: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, process: Started) -> subprocess.Popen[bytes]:
        """As the launch file says, with this Python: its own need not be the first in PATH."""
        return self.run([sys.executable, *process.command], process.action.additional_env)

    def run(self, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        log = self._folder / f"{len(self._all)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment | (environment or {}),
                start_new_session=True,
            )
        self._all.append((process, log))
        return process

    def interrupt(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGINT)
        return process.wait(30)

    def output(self) -> str:
        return "\n".join(log.read_text() for _, log in self._all)

    def close(self) -> None:
        for process, _ in self._all:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what it has started itself as well
                process.wait()


@pytest.fixture
def running(domain, tmp_path) -> Iterator[Running]:
    running = Running(domain, tmp_path)
    try:
        yield running
    finally:
        running.close()


def test_the_node_takes_a_bag_and_ends_cleanly_as_launched(slam, bag, running, domain, tmp_path):
    from ros_bench import Bench

    mine = parameter_file(tmp_path / "my.yaml", seed=5)
    bench = Bench(domain, "robot")
    try:
        node, player = [
            running.start(process)
            for process in slam.start(
                bag=str(bag), rate="2.0", namespace="robot", params_file=mine, autostart="true", log_level="error"
            )
        ]
        bench.until_status(lambda s: s.frames_accepted, "frames of the bag, with calibration and truth")
        shown = {f"/robot/{topic}": [kind] for topic, kind in displays().items()}
        bench.until(
            lambda: shown.items() <= dict(bench.ears.get_topic_names_and_types()).items(), "all that RViz shows"
        )
        assert player.wait(30) == 0, running.output()
        assert running.interrupt(node) == 0
    finally:
        bench.close()
    assert "Traceback" not in running.output()


def test_replay_starts_the_evaluation_as_launched(replay, bag, running, tmp_path):
    (evaluation,) = replay.start(bag=str(bag), out=str(tmp_path / "out"), predictor="recorded:nothing")
    evaluation.action.additional_env.pop("ROS_DOMAIN_ID")  # the one of this test instead
    assert running.start(evaluation).wait(60) == 2
    # The node itself, with all the settings, has refused the predictor.
    assert "the node ended with exit code 1" in running.output()
    assert "--record nothing" in running.output()


@REAL_LAUNCH
@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.usefixtures("rviz_package")
def test_launch_comes_to_the_same_command_lines(name, bag, running, tmp_path):
    program = tmp_path / "lib" / "rviz2" / "rviz2"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    mine = parameter_file(tmp_path / "my.yaml", seed=5)
    given = {"bag": str(bag), "rviz": "true", "rate": "2.0", "predictor": "recorded:/a b", "params_file": mine}
    if name == "slam.launch.py":
        given |= {"namespace": "robot", "base_frame": "1e3", "autostart": "false", "log_level": "debug"}
    expected = LaunchFile(FILES[name]).start(**given)
    noted = tmp_path / "noted"
    noted.mkdir()
    prefix = f'launch-prefix:={sys.executable} -c "{NOTE}" {noted}'
    arguments = [f"{key}:={value}" for key, value in given.items()]
    launch = running.run([sys.executable, "-c", RUNNER, str(FILES[name]), prefix, *arguments])
    deadline = time.monotonic() + 60
    while len(list(noted.iterdir())) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.interrupt(launch) == 0, running.output()
    got = [Started(json.loads(path.read_text()), expected[0].action) for path in noted.iterdir()]
    for ours in expected:
        (theirs,) = (one for one in got if one.program == ours.program)
        temporary = {path for path in (*ours.command, *theirs.command) if "launch_params_" in path}
        assert [a for a in theirs.command if a not in temporary] == [a for a in ours.command if a not in temporary]
        assert theirs.parameters == ours.parameters
    assert len(got) == len(expected)


@REAL_LAUNCH
def test_launch_runs_the_node_on_a_bag(bag, running, domain):
    from ros_bench import Bench

    arguments = [f"bag:={bag}", "rate:=2.0", "namespace:=robot"]
    launch = running.run([sys.executable, "-c", RUNNER, str(FILES["slam.launch.py"]), *arguments])
    bench = Bench(domain, "robot")
    try:
        bench.until_status(lambda s: s.frames_accepted, "frames of the bag")
        assert running.interrupt(launch) == 0
    finally:
        bench.close()
    assert "Traceback" not in running.output()


@REAL_LAUNCH
def test_launch_fails_where_the_evaluation_does(running, bag, tmp_path):
    arguments = [f"bag:={bag}", f"out:={tmp_path / 'out'}", "predictor:=nonsense"]
    launch = running.run([sys.executable, "-c", RUNNER, str(FILES["replay.launch.py"]), *arguments])
    assert launch.wait(60) == 1
    assert "da3 eval ended with exit code 2" in running.output()

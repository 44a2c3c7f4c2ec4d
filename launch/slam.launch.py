"""The SLAM node on a camera or a bag.

    ros2 launch da3_ros slam.launch.py image_topic:=/camera/image_raw camera_info_topic:=/camera/camera_info
    ros2 launch da3_ros slam.launch.py bag:=my_bag rviz:=true
    ros2 launch da3_ros slam.launch.py -s      (all arguments)

An argument that is left alone leaves the parameter file in charge.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import ExecutableInPackage

from da3_ros.ros.fastdds import profile_variables

NAME = "da3_slam"
CONFIG = Path(get_package_share_directory("da3_ros")) / "config"
BOOLEANS = ("true", "false")
KEEP = ("", *BOOLEANS)  # empty: as in params_file

# name, default, description, choices
ARGUMENTS = (
    ("params_file", str(CONFIG / "slam.yaml"), "parameter file of the node", None),
    ("namespace", "", "namespace of the node and of all its topics", None),
    ("image_topic", "", "images to subscribe to; empty: 'image', or with a bag what is recorded in it", None),
    ("camera_info_topic", "", "calibration of the camera; empty: 'camera_info', or with a bag what is in it", None),
    (
        "depth_prior_topic",
        "",
        "measured depth or points; empty: 'depth_prior', or with a bag what is in it",
        None,
    ),
    ("odom_prior_topic", "", "odometry in metres; empty: 'odom_prior', or with a bag what is in it", None),
    ("imu_topic", "", "an IMU's rates and accelerations; empty: 'imu', or with a bag what is in it", None),
    ("image_transport", "", "how images come; empty: as in params_file", ("", "auto", "raw", "compressed")),
    ("predictor", "", "simulated, recorded:FILE, or a network such as da3-tiny; empty: as in params_file", None),
    ("base_frame", "", "body frame whose pose is published, from TF; empty: as in params_file", None),
    ("use_sim_time", "", "take time from /clock; empty: as in params_file, and always with a bag", KEEP),
    ("autostart", "", "configure and activate at start; empty: as in params_file", KEEP),
    ("log_level", "info", "of the node", ("debug", "info", "warn", "error", "fatal")),
    ("respawn", "false", "start the node again, 2 s after it ended by itself", BOOLEANS),
    ("rviz", "false", "show the results in RViz", BOOLEANS),
    ("bag", "", "rosbag2 to play, with /clock, as soon as the node listens; empty: none", None),
    ("rate", "1.0", "with a bag: playback speed", None),
    ("record", "", "new folder for a rosbag2 of what the node publishes; empty: none", None),
)
# Not the confidence and the preview: both can be made again, from the network and from the depth.
OUTPUTS = ("odom", "pose", "path", "depth/image", "depth/camera_info", "map/points", "map/updates", "pose_graph")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; everything else depends on their values."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    _check(given)
    companions = []
    if given["bag"]:
        companions.append(_player(given))
    if given["record"]:
        companions.append(_recorder(given, context))
    if given["rviz"] == "true":
        companions.append(_rviz(given))
    return [_node(given, context, alone=not companions), *companions]


def _check(given: dict[str, str]) -> None:
    """Refuse what launch would pass over in silence."""
    if not Path(given["params_file"]).is_file():
        raise RuntimeError(f"params_file {given['params_file']} is not a file; start from {CONFIG / 'slam.yaml'}")
    if given["bag"] and given["use_sim_time"] == "false":
        raise RuntimeError("a bag brings its own clock: leave use_sim_time:=false out")
    if not given["bag"] and given["rate"] != "1.0":
        raise RuntimeError("rate is the speed of a bag: give bag:=FOLDER, or leave rate out")
    if given["rviz"] == "true" and "rviz2" not in get_packages_with_prefixes():
        # launch itself would notice with the node half started, and leave it behind
        raise RuntimeError("rviz:=true needs rviz2: install ros-$ROS_DISTRO-rviz2, or leave rviz out")


def _place(given: dict[str, str], context: LaunchContext) -> Path:
    """The node's namespace: that of the including launch file and, below it or instead, the one given."""
    return Path("/", context.launch_configurations.get("ros_namespace", ""), given["namespace"])


def _node(given: dict[str, str], context: LaunchContext, *, alone: bool) -> Node:
    respawn = given["respawn"] == "true"
    logger = ".".join([*_place(given, context).parts[1:], NAME])  # not all of the middleware's
    topics = _inputs(given)
    base = topics["image"].removesuffix("/compressed")
    return Node(
        package="da3_ros",
        executable="slam_node",
        # With its full name, what is given here wins over any section of params_file.
        name=NAME,
        namespace=given["namespace"],
        parameters=[given["params_file"], *_overrides(given)],
        remappings=[*topics.items(), ("image/compressed", f"{base}/compressed")],
        arguments=["--ros-args", "--log-level", f"{logger}:={given['log_level']}"],
        additional_env=profile_variables(),
        output="screen",
        sigterm_timeout="20",  # a prediction that is under way is waited for
        respawn=respawn,
        respawn_delay=2.0,
        # Alone (maybe in a larger launch file) its end concerns nobody else; its companions are of no use without it.
        on_exit=None if alone or respawn else _end_with("the SLAM node"),
    )


def _overrides(given: dict[str, str]) -> list[dict[str, object]]:
    """Parameters for the arguments that were given; an argument left empty must not hide params_file."""
    texts = {
        "predictor": given["predictor"],
        "node.image_transport": given["image_transport"],
        "node.base_frame": given["base_frame"],
    }
    flags = {
        "use_sim_time": given["use_sim_time"] or ("true" if given["bag"] else ""),
        "node.autostart": given["autostart"],
    }
    overrides: dict[str, object] = {k: ParameterValue(v, value_type=str) for k, v in texts.items() if v}
    overrides |= {k: v == "true" for k, v in flags.items() if v}
    return [overrides] if overrides else []


def _inputs(given: dict[str, str]) -> dict[str, str]:
    """What the node calls its inputs -> the topics they are on."""
    names = {"image", "camera_info", "depth_prior", "odom_prior", "imu"}
    topics = {name: given[f"{name}_topic"] or name for name in sorted(names)}
    if given["bag"]:
        # The player keeps the names of the recording, whatever the node's namespace.
        recorded = _recorded(Path(given["bag"]))
        topics |= {name: given[f"{name}_topic"] or getattr(recorded, name) or name for name in sorted(names)}
        topics |= {"truth/depth": recorded.depth or "truth/depth", "truth/pose": recorded.pose or "truth/pose"}
    return topics


def _recorded(bag: Path):
    """The topics of a bag, as 'da3 eval' finds them."""
    from da3_ros.sources.bag import BagSource

    return BagSource(bag).topics


def _player(given: dict[str, str]) -> ExecuteProcess:
    """Not 'ros2 bag play': ours waits until the node has subscribed, so that the start of the bag is not lost, and
    publishes reliably, as raw images need it.
    """
    ended = LogInfo(msg="the bag has ended; the node keeps its map until Ctrl-C")
    return ExecuteProcess(
        cmd=[
            ExecutableInPackage("da3", "da3_ros"),
            *("play", given["bag"], "--clock", "--wait", "30", "--rate", given["rate"]),
        ],
        additional_env=profile_variables(),
        output="screen",
        on_exit=_after("playing the bag", ended),
    )


def _recorder(given: dict[str, str], context: LaunchContext) -> ExecuteProcess:
    if shutil.which("ros2") is None:
        raise RuntimeError("record needs 'ros2 bag': install ros-$ROS_DISTRO-ros2bag, or leave record out")
    if Path(given["record"]).exists():
        raise RuntimeError(f"{given['record']} exists already; record into another folder")
    topics = [str(_place(given, context) / topic) for topic in (*OUTPUTS, f"{NAME}/status")]
    topics += ["/tf", "/tf_static", "/diagnostics"]
    command = ["ros2", "bag", "record", "--output", given["record"]]
    if given["bag"] or given["use_sim_time"] == "true":
        command.append("--use-sim-time")
    # As an expression: naming topics one by one is written differently in every distribution.
    command += ["--regex", f"^({'|'.join(topics)})$"]
    return ExecuteProcess(cmd=command, additional_env=profile_variables(), output="screen", on_exit=_after("recording"))


def _rviz(given: dict[str, str]) -> Node:
    sim_time = bool(given["bag"]) or given["use_sim_time"] == "true"
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],  # the topics in its settings are relative
        arguments=["-d", str(CONFIG / "slam.rviz")],
        parameters=[{"use_sim_time": sim_time}],
        additional_env=profile_variables(),
        output="log",
    )


def _after(what: str, *actions: object) -> Callable:
    """At the end of a process: the actions; its failure becomes that of the launch."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        if event.returncode != 0:
            raise RuntimeError(f"{what} ended with exit code {event.returncode}; the last lines above say why")
        return list(actions)

    return on_exit


def _end_with(what: str) -> Callable:
    return _after(what, Shutdown(reason=f"{what} has ended"))

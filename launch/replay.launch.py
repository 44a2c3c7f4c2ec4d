"""Evaluate the live node on a bag: play it, compare what the node publishes with the ground truth, write a report.

    ros2 launch da3_ros replay.launch.py bag:=my_bag out:=results rviz:=true
    ros2 launch da3_ros replay.launch.py -s      (all arguments)

Ends with the evaluation. Where that failed the exit code of the launch is 1, and the last line says with which code.
"""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from da3_ros.ros.fastdds import profile_variables

CONFIG = Path(get_package_share_directory("da3_ros")) / "config"

# name, default, description, choices
ARGUMENTS = (
    ("bag", "", "rosbag2 with images and ground truth, as 'da3 bag make' writes it; must be given", None),
    ("out", "", "folder for the results; empty: a new one below out/ of the current folder", None),
    ("rate", "1.0", "playback speed", None),
    ("predictor", "", "simulated, recorded:FILE, or a network such as da3-tiny; empty: as in params_file", None),
    ("params_file", str(CONFIG / "slam.yaml"), "parameter file of the node", None),
    ("rviz", "false", "show the results in RViz while the bag plays", ("true", "false")),
)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; everything else depends on their values."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    if not given["bag"]:
        raise RuntimeError("give a bag:=FOLDER; 'da3 bag make world:7 FOLDER' makes one")
    if given["rviz"] == "true" and "rviz2" not in get_packages_with_prefixes():
        # launch itself would notice with the evaluation half started, and leave it behind
        raise RuntimeError("rviz:=true needs rviz2: install ros-$ROS_DISTRO-rviz2, or leave rviz out")
    # Left to itself the evaluation takes a domain that is free. Here others are to see it, as with any launch.
    environment = {**profile_variables(), "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID") or "0"}
    command = [ExecutableInPackage("da3", "da3_ros"), "eval", given["bag"], "--live", "--rate", given["rate"]]
    command += ["--config", given["params_file"]]
    for option, name in (("--out", "out"), ("--predictor", "predictor")):
        if given[name]:
            command += [option, given[name]]
    actions: list = [
        ExecuteProcess(
            cmd=command,
            additional_env=environment,
            output="screen",
            sigterm_timeout="20",  # it ends its node first
            on_exit=_finish,
        )
    ]
    if given["rviz"] == "true":
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(CONFIG / "slam.rviz")],
                parameters=[{"use_sim_time": True}],
                additional_env=environment,
                output="log",
            )
        )
    return actions


def _finish(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the launch with the evaluation; its failure becomes that of the launch."""
    if context.is_shutdown:
        return None
    if event.returncode != 0:
        raise RuntimeError(f"da3 eval ended with exit code {event.returncode}; the last lines above say why")
    return Shutdown(reason="the evaluation is done")

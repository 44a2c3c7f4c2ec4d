"""Evaluate the live node on a bag: play it, compare what the node publishes with the ground truth, write a report.

ros2 launch da3_ros replay.launch.py bag:=my_bag out:=results rviz:=true
"""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from da3_ros.ros.fastdds import use_profile

# name, default (None: must be given), description, choices
ARGUMENTS = (
    ("bag", None, "rosbag2 with images and, for metrics, ground truth", None),
    ("out", "", "folder for the results; empty: a new one below out/", None),
    ("rate", "1.0", "playback speed", None),
    ("predictor", "", "simulated, or recorded:FILE; empty: as in params_file", None),
    ("params_file", "", "parameter file; empty: the defaults", None),
    ("rviz", "false", "show the results in RViz while the bag plays", ("true", "false")),
)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; everything else depends on their values."""
    use_profile()
    # The evaluation would choose a free domain of its own; RViz has to be on the same one.
    os.environ.setdefault("ROS_DOMAIN_ID", "0")
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    command = [ExecutableInPackage("da3", "da3_ros"), "eval", value["bag"], "--live", "--rate", value["rate"]]
    for option, name in (("--out", "out"), ("--predictor", "predictor"), ("--config", "params_file")):
        if value[name]:
            command += [option, value[name]]
    actions: list = [ExecuteProcess(cmd=command, output="screen", on_exit=_finish)]
    if value["rviz"] == "true":
        rviz = str(Path(get_package_share_directory("da3_ros")) / "config" / "slam.rviz")
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", rviz],
                parameters=[{"use_sim_time": True}],
                output="log",
            )
        )
    return actions


def _finish(event: ProcessExited, context: LaunchContext) -> Shutdown:
    """End the launch with the evaluation; its failure becomes the launch's."""
    if event.returncode != 0:
        raise RuntimeError(f"da3 eval ended with exit code {event.returncode}; its last lines say why")
    return Shutdown(reason="the evaluation is done")

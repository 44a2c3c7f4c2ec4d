"""The SLAM node on a camera or a bag.

    ros2 launch da3_ros slam.launch.py image_topic:=/camera/image_raw camera_info_topic:=/camera/camera_info
    ros2 launch da3_ros slam.launch.py bag:=my_bag image_topic:=/camera/image_raw rviz:=true
    ros2 launch da3_ros slam.launch.py -s      (all arguments)

An argument that is left empty leaves the parameter file in charge.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from da3_ros.ros.fastdds import use_profile

BOOLEANS = ("true", "false")
KEEP = ("", *BOOLEANS)  # empty: as in params_file
OUTPUTS = ("odom", "pose", "path", "depth/image", "depth/camera_info", "map/updates", "pose_graph", "da3_slam/status")

# name, default, description, choices
ARGUMENTS = (
    ("params_file", "", "parameter file; empty: config/slam.yaml of the package", None),
    ("namespace", "", "namespace of the node and of all its topics", None),
    ("image_topic", "image", "images to subscribe to", None),
    ("camera_info_topic", "camera_info", "calibration of the camera", None),
    ("image_transport", "", "how images come; empty: as in params_file", ("", "auto", "raw", "compressed")),
    ("predictor", "", "simulated, or recorded:FILE; empty: as in params_file", None),
    ("base_frame", "", "body frame whose pose is published, from TF; empty: as in params_file", None),
    ("use_sim_time", "", "take time from /clock; empty: true with a bag, else false", KEEP),
    ("autostart", "", "configure and activate at start; empty: as in params_file", KEEP),
    ("log_level", "info", "of the node", ("debug", "info", "warn", "error", "fatal")),
    ("rviz", "false", "show the results in RViz", BOOLEANS),
    ("bag", "", "rosbag2 to play to the node, with /clock, once it has subscribed; empty: none", None),
    ("rate", "1.0", "with bag: playback speed", None),
    ("record", "", "new folder for a rosbag2 of what the node publishes; empty: none", None),
)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; everything else depends on their values."""
    # Raw images get lost with the default buffers; this process's children inherit the profile.
    use_profile()
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    config = Path(get_package_share_directory("da3_ros")) / "config"
    sim_time = value["use_sim_time"] or ("true" if value["bag"] else "false")
    overrides: dict[str, object] = {"use_sim_time": sim_time == "true"}
    given = {
        "predictor": value["predictor"],
        "node.image_transport": value["image_transport"],
        "node.base_frame": value["base_frame"],
        "node.autostart": value["autostart"] and value["autostart"] == "true",
    }
    overrides.update({name: given_value for name, given_value in given.items() if given_value != ""})
    remappings = [
        ("image", value["image_topic"]),
        ("image/compressed", f"{value['image_topic'].removesuffix('/compressed')}/compressed"),
        ("camera_info", value["camera_info_topic"]),
    ]
    if value["bag"]:  # what the bag says of the truth does not follow the node's namespace
        remappings += [("truth/depth", "/truth/depth"), ("truth/pose", "/truth/pose")]
    actions = [
        Node(
            package="da3_ros",
            executable="slam_node",
            name="da3_slam",
            namespace=value["namespace"],
            parameters=[value["params_file"] or str(config / "slam.yaml"), overrides],
            remappings=remappings,
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
            on_exit=Shutdown(reason="the SLAM node has ended"),
        )
    ]
    if value["bag"]:
        # Not 'ros2 bag play': ours waits until the node has subscribed, so that no frame is lost at the start.
        play = [ExecutableInPackage("da3", "da3_ros"), "play", value["bag"], "--clock", "--wait", "30"]
        actions.append(ExecuteProcess(cmd=[*play, "--rate", value["rate"]], output="screen"))
    if value["record"]:
        prefix = f"/{value['namespace'].strip('/')}/" if value["namespace"].strip("/") else "/"
        topics = ["/tf", "/tf_static", *(prefix + topic for topic in OUTPUTS)]
        record = ["ros2", "bag", "record", "--output", value["record"], *topics]
        actions.append(ExecuteProcess(cmd=record, output="screen"))
    if value["rviz"] == "true":
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value["namespace"],
                arguments=["-d", str(config / "slam.rviz")],
                parameters=[{"use_sim_time": sim_time == "true"}],
                output="log",
            )
        )
    return actions

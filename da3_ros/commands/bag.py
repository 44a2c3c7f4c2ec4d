"""``da3 bag make``: any source as a rosbag2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from da3_ros.commands import options


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bag", help="make a rosbag2 from any recording", description="Make rosbag2 recordings; ROS is not needed."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    make = actions.add_parser(
        "make",
        help="write a recording as a rosbag2",
        description="Write SOURCE as a rosbag2 with /camera/image_raw, /camera/camera_info and, where SOURCE knows "
        "them, /truth/depth, /truth/pose and /imu.  The bag appears when it is complete, or not at all.",
    )
    options.add_source(make)
    make.add_argument("out", type=Path, metavar="OUT", help="the new bag, a folder that does not exist yet")
    make.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format (default mcap)")
    make.add_argument("--compressed", action="store_true", help="JPEG images instead of raw ones")
    make.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the bag."""
    from da3_ros.commands.progress import Progress
    from da3_ros.sources.bag_writer import write_bag

    source = options.opened_source(arguments)
    with Progress(f"{arguments.out}: frame") as progress:
        write_bag(source, arguments.out, storage=arguments.storage, compressed=arguments.compressed, progress=progress)
    sys.stdout.write(f"bag: {arguments.out.resolve()}\n")
    return 0

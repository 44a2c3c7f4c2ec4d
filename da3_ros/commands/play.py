"""``da3 play``: publish a bag over ROS 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from da3_ros.commands import options


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "play",
        help="publish a bag over ROS 2",
        description="Publish the messages of a bag at their recorded pace, as 'ros2 bag play' does.",
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="a rosbag2: folder, .mcap or .db3")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="playback speed (default 1)")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for nodes with use_sim_time")
    parser.add_argument("--loop", action="store_true", help="start again at the end, until interrupted")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="wait up to so many seconds for subscribers first"
    )
    parser.add_argument(
        "--remap", action="append", default=[], metavar="FROM:=TO", help="publish a topic under another name"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play the bag."""
    from da3_ros.commands.progress import Progress

    options.require(arguments.rate > 0, "--rate must be positive")
    pairs = [text.partition(":=") for text in arguments.remap]
    options.require(all(a and sep and b for a, sep, b in pairs), "write --remap FROM:=TO")
    play = _player()
    with Progress(f"{arguments.bag}: message") as progress:
        result = play(
            arguments.bag,
            rate=arguments.rate,
            clock=arguments.clock,
            loop=arguments.loop,
            wait_s=arguments.wait,
            remap={a: b for a, _, b in pairs},
            progress=progress,
        )
    sys.stdout.write(f"{result}\n")
    return 0


def _player():  # type: ignore[no-untyped-def]
    from da3_ros.commands.live import needs_ros

    with needs_ros():
        from da3_ros.ros.player import play
    return play

"""``da3 play``: publish a bag over ROS 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.commands import options

if TYPE_CHECKING:
    from da3_ros.ros.player import PlayResult

_INTERRUPTED = 130


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "play",
        help="publish a bag over ROS 2",
        description="Publish the messages of a bag over ROS 2 at their recorded pace, as 'ros2 bag play' does.",
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="a rosbag2: folder, .mcap or .db3")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="playback speed (default 1)")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for nodes with use_sim_time")
    parser.add_argument("--loop", action="store_true", help="start again at the end, until Ctrl-C")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="wait up to so many seconds for subscribers first"
    )
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="FROM:=TO",
        help="rename a topic; may be repeated",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play the bag; 130 where Ctrl-C ended it before its end."""
    from da3_ros.commands.live import needs_ros
    from da3_ros.commands.progress import Progress

    options.require(0 < arguments.rate < float("inf"), "--rate must be a positive number")
    options.require(0 <= arguments.wait < float("inf"), "--wait must be a number of seconds")
    pairs = [text.partition(":=") for text in arguments.remap]
    options.require(all(a and sep for a, sep, _ in pairs), "write --remap FROM:=TO, or FROM:= to leave FROM out")
    with needs_ros():
        from da3_ros.ros.player import play
    with Progress(f"{arguments.bag}: second") as progress:
        result = play(
            arguments.bag,
            rate=arguments.rate,
            clock=arguments.clock,
            loop=arguments.loop,
            wait_s=arguments.wait,
            remap={a: b for a, _, b in pairs},
            progress=lambda done, total: progress(round(done), round(total)),
        )
    for topic, why in result.skipped.items():
        sys.stderr.write(f"da3: {topic} was not played: {why}\n")
    sys.stdout.write(f"{_told(result)}\n")
    # A loop has no other end than Ctrl-C.
    return _INTERRUPTED if result.interrupted and not arguments.loop else 0


def _told(result: PlayResult) -> str:
    """What was played, in a line."""
    parts = [f"played {result.messages} messages"]
    if result.loops > 1:
        parts.append(f"in {result.loops} rounds")
    if result.interrupted:
        parts.append("until interrupted")
    late = f", at most {1e3 * result.late_max_s:.0f} ms late" if result.messages else ""
    return " ".join(parts) + late

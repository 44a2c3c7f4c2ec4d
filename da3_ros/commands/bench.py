"""``da3 bench``: measure accuracy, memory and speed, on synthetic worlds and of the network."""

from __future__ import annotations

import argparse
import sys

NAMES = ("worlds", "memory", "cameras", "network", "node")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="measure accuracy, memory and speed, on synthetic worlds and of the network",
        description="worlds: scale, error and scale breaks over ten worlds (ten minutes). memory: resident memory over "
        "5,000 frames (two minutes). cameras: cameras from rays, their error and their time (a few seconds). network: "
        "windows of Depth Anything 3 in stages, against the official code, with random weights (three minutes). node: "
        "what the live ROS 2 node adds to a prediction (one minute).",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="worlds: how many (default 10)")
    parser.add_argument("--frames", type=int, metavar="N", help="memory, node: frames (default 5000 and 400)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is asked for, in order."""
    from da3_ros.commands import options

    unknown = [name for name in arguments.names if name not in NAMES]
    options.require(not unknown, f"there is no benchmark '{' '.join(unknown)}'; use {', '.join(NAMES)}")
    options.require(arguments.seeds > 0, "--seeds must be positive")
    options.require(arguments.frames is None or arguments.frames >= 100, "--frames must be at least 100")
    if "memory" in arguments.names and arguments.frames is not None:
        options.require(arguments.frames >= 2000, "memory needs --frames 2000 or more: the first 1000 do not count")
    for name in arguments.names or NAMES:
        _say(f"== {name}")
        if name == "worlds":
            from da3_ros.benchmarks import worlds

            worlds.run(range(1, arguments.seeds + 1), _say)
        elif name == "memory":
            from da3_ros.benchmarks import memory

            memory.run(arguments.frames or 5000, _say)
        elif name == "cameras":
            from da3_ros.benchmarks import cameras

            cameras.run(_say)
        elif name == "network":
            from da3_ros.benchmarks import network

            network.run(_say)
        else:
            from da3_ros.commands.live import needs_ros

            with needs_ros():
                from da3_ros.benchmarks import node
            node.run(arguments.frames or 400, _say)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

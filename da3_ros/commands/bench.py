"""``da3 bench``: measure accuracy, memory and speed, on synthetic worlds and of the network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAMES = ("worlds", "pixels", "priors", "imu", "slam", "memory", "cameras", "network", "node")
LONG = ("slam", "priors", "imu", "pixels")  # by name only


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="measure accuracy, memory and speed, on synthetic worlds and of the network",
        description="worlds: scale, error and scale breaks over ten worlds (ten minutes). pixels: the same from images "
        "alone, by da3-tiny, on worlds that it was not trained on (ten minutes). priors: how metric worlds "
        "are by measured depth, by odometry and by the predictor (twenty minutes). imu: drift of roll and "
        "pitch with and without an IMU, the predictor's poses as usual and coarse (twenty minutes). slam: "
        "the ablation, every method and every part of ours on the same predictions (an hour; --seeds and "
        "--frames shorten it). memory: memory and time per frame over 5,000 frames (two minutes). cameras: cameras "
        "from rays, error and time (a few seconds). network: windows of Depth Anything 3 in stages, against "
        "the official code, with random weights (three minutes). node: what the live ROS 2 node adds to a "
        "prediction (two minutes).",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all but {', '.join(LONG)})"
    )
    parser.add_argument(
        "--seeds", type=int, default=10, metavar="N", help="worlds, pixels, priors, imu, slam: number (default 10)"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="slam, memory, node: frames (default 200, 5000, 400)")
    parser.add_argument(
        "--motions", type=Path, metavar="DIR", help="slam: camera trajectories (TUM) that drive some of the worlds"
    )
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
    for name in arguments.names or [name for name in NAMES if name not in LONG]:
        _say(f"== {name}")
        if name == "worlds":
            from da3_ros.benchmarks import worlds

            worlds.run(range(1, arguments.seeds + 1), _say)
        elif name == "pixels":
            from da3_ros.benchmarks import pixels

            pixels.run(arguments.seeds, _say)
        elif name == "priors":
            from da3_ros.benchmarks import priors

            priors.run(range(1, arguments.seeds + 1), _say)
        elif name == "imu":
            from da3_ros.benchmarks import imu

            imu.run(range(1, arguments.seeds + 1), _say)
        elif name == "slam":
            from da3_ros.benchmarks import slam

            slam.run(arguments.seeds, arguments.frames or 200, arguments.motions, _say)
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

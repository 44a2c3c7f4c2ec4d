"""``da3``: one entry for everything outside a launch file.

Nothing heavy is imported before a command has been chosen, so that help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import da3_ros
from da3_ros.commands import bag, bench, demo, doctor, engine, evaluate, model, play, predict, settings, train
from da3_ros.errors import Da3Error

_COMMANDS = (demo, evaluate, bag, play, predict, model, train, engine, doctor, settings, bench)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"da3: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="da3",
        description="Real-time SLAM on Depth Anything 3: camera frames in; depth, odometry and a map out.",
        epilog="Start with      da3 demo\n"
        "Your recording  da3 eval SOURCE\n"
        "Options         da3 COMMAND --help\n\n"
        "The live node is started by ROS: ros2 launch da3_ros slam.launch.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"da3_ros {da3_ros.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in _COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after one sentence on what to change, 130 when interrupted."""
    top = parser()
    arguments = top.parse_args(_attached(sys.argv[1:] if argv is None else argv))
    if arguments.command is None:
        top.print_help(sys.stderr)
        return 2
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what is wrong with a video is said by us
    try:
        return int(arguments.run(arguments))
    except Da3Error as error:
        for line in str(error).splitlines():
            print(f"da3: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("da3: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _attached(argv: Sequence[str]) -> list[str]:
    """``--frames -50:`` as ``--frames=-50:``, which argparse does not take for another option."""
    out: list[str] = []
    for word in argv:
        if out and out[-1] == "--frames" and word.startswith("-") and word[1:2].isdigit():
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


if __name__ == "__main__":
    sys.exit(main())

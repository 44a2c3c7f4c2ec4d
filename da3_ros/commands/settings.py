"""``da3 config``: the configuration as a file to start from, or as the README's table."""

from __future__ import annotations

import argparse
import sys

from da3_ros.commands import options


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "config",
        help="print the configuration, to save and edit",
        description="Print the resolved configuration with a comment for each key: da3 config > my.yaml",
    )
    options.add_config(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--ros", action="store_true", help="as a ROS 2 parameter file (as config/slam.yaml)")
    form.add_argument("--markdown", action="store_true", help="as the table in the README")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from da3_ros import config

    resolved = options.resolved_config(arguments)
    text = config.markdown(resolved) if arguments.markdown else config.dump(resolved, ros=arguments.ros, comments=True)
    sys.stdout.write(text)
    return 0

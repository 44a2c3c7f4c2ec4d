"""``da3 doctor``: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import sys


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="what is installed here, what is missing, and what to do about it",
        description="Check Python, ROS 2, the GPU, what runs networks, the store of engines, models and libraries; and "
        "list the cameras that publish. Exit code 1 if something that is needed is missing or does not work.",
    )
    parser.add_argument("--no-topics", dest="topics", action="store_false", help="do not look for cameras and nodes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per check, section by section as they come."""
    from da3_ros.commands.checks import SECTIONS, TOPICS, findings
    from da3_ros.commands.checks.finding import line

    wrong = 0
    for title, module in (SECTIONS | TOPICS if arguments.topics else SECTIONS).items():
        _say(title)
        for finding in findings(module):
            wrong += finding.stops
            _say(f"  {line(finding)}")
    if wrong:
        _say(f"{wrong} of what is needed {'is' if wrong == 1 else 'are'} missing or not working: see above")
    else:
        _say("everything that is needed is here")
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

"""The checks of ``da3 doctor``: each section is a module whose ``check`` yields what it has found."""

from __future__ import annotations

import contextlib
import importlib
import io

from da3_ros.commands.checks.finding import Finding, State
from da3_ros.commands.checks.library import BROKEN, first_line
from da3_ros.errors import Da3Error

SECTIONS = {
    "Python": "python",
    "ROS 2": "ros",
    "GPU": "accelerator",
    "What runs networks": "runtimes",
    "Graphs and engines": "store",
    "Models": "models",
    "Libraries": "libraries",
}
TOPICS = {"Topics": "topics"}


def findings(module: str) -> list[Finding]:
    """Of one section; a library that breaks it is told of, and the other sections go on.

    What libraries print while they are loaded is left out: some print pages where they are broken.
    """
    found: list[Finding] = []
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for finding in importlib.import_module(f"{__name__}.{module}").check():
                found.append(finding)  # noqa: PERF402 (what was found before it broke stays)
    except (*BROKEN, Da3Error) as error:
        found.append(Finding(State.WRONG, "this section", f"cannot be checked: {first_line(error)}"))
    return found

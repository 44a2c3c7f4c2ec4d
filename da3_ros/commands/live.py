"""What the commands that need ROS 2 share: a clear refusal without it, and a bag through the live node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from da3_ros.commands import options
from da3_ros.commands.progress import Progress
from da3_ros.config import Config
from da3_ros.errors import MissingDependencyError


@contextmanager
def needs_ros() -> Iterator[None]:
    """Turn a failed import of ROS 2 or of our messages into one sentence."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"this needs ROS 2 with the messages of da3_ros ({error}): run 'make setup' in the source tree, or source "
            "the workspace in which da3_ros was built"
        ) from error


def evaluate_bag(bag: Path, config: Config, out: Path | None, rate: float, name: str | None = None) -> int:
    """Play a bag to a live node; write and print the results, under its name where none is given."""
    options.require(rate > 0, "--rate must be positive")
    with needs_ros():
        from da3_ros.ros.live import evaluate_live
    from da3_ros.evaluation.summary import table
    from da3_ros.sources.bag import BagSource

    BagSource(bag)  # refuses what is no bag before anything is made
    folder = options.output_folder(out, f"{bag.name}-live")
    with Progress(f"{bag}: second") as progress:
        _, summary = evaluate_live(
            bag,
            config,
            folder,
            rate=rate,
            name=name,
            progress=lambda done, total: progress(round(done), round(total)),
            say=_say,
        )
    sys.stdout.write(f"{table(summary)}\nreport: {(folder / 'report.html').resolve()}\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()

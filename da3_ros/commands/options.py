"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from da3_ros.config import Config
    from da3_ros.types import Source

SOURCES = (
    "a rosbag2 (folder, .mcap or .db3), a 7-Scenes, TUM RGB-D, EuRoC or KITTI sequence, a folder of images, a video, "
    "or the synthetic world:SEED, such as 'world:7?frames=300&size=640x480&rate=15&motion=FILE'"
)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE and --frames."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument("--frames", metavar="A:B", help="frames A up to B only, such as 0:100, 50: or -50:")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare the options that make up the configuration."""
    group = parser.add_argument_group("configuration (a later one of these wins)")
    group.add_argument("--config", type=Path, metavar="FILE", help="a YAML file, as 'da3 config' prints it")
    group.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one value, such as window.size=6; may be repeated",
    )
    group.add_argument(
        "--predictor",
        metavar="NAME",
        help="simulated (the default: ground truth with the errors of a network) or recorded:FILE (made by --record)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of everything random (default 0)")


def resolved_config(arguments: argparse.Namespace) -> Config:
    """Defaults, then --config, then --set, then the named options."""
    from da3_ros import config

    result = config.load(arguments.config) if arguments.config else config.Config()
    result = config.updated(result, config.parse_assignments(arguments.assignments))
    named = {"predictor": arguments.predictor, "seed": arguments.seed}
    return config.updated(result, {key: value for key, value in named.items() if value is not None})


def opened_source(arguments: argparse.Namespace) -> Source:
    """Open SOURCE, cut to --frames.

    Raises:
        SourceError: it cannot be read, or nothing is left of it.
    """
    from da3_ros.sources import open_source
    from da3_ros.sources.slicing import parse_frames

    return open_source(arguments.source, parse_frames(":" if arguments.frames is None else arguments.frames))


def output_folder(wanted: Path | None, name: str, below: Path = Path("out")) -> Path:
    """Make the folder for results: as wanted, else a new one ``below``; checks that it can be written.

    Raises:
        OutputError: it cannot be made or written.
    """
    import tempfile

    from da3_ros.files import reason

    if wanted is None:
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip("._") or "run"
        wanted, count = below / stem, 1
        while wanted.exists():
            count += 1
            wanted = below / f"{stem}-{count}"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {wanted}: {reason(error)}; choose another folder with --out") from error
    return wanted


def require(condition: bool, sentence: str) -> None:
    """Refuse options that do not go together."""
    if not condition:
        raise ConfigError(sentence)

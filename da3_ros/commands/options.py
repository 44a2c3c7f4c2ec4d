"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from da3_ros.config import Config
from da3_ros.errors import ConfigError, OutputError

SOURCES = (
    "world:SEED[?motion=FILE&frames=300&size=640x480&rate=15], a rosbag2, a 7-Scenes, TUM RGB-D, EuRoC or KITTI "
    "sequence, a folder of images, or a video"
)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE and --frames."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--frames", type=frame_range, default=(None, None), metavar="A:B", help="only these frames, as a Python slice"
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare the options that make up the configuration."""
    parser.add_argument("--predictor", metavar="NAME", help="simulated (default), or recorded:FILE")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file, such as config/slam.yaml")
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one configuration value, such as window.size=6; may be repeated",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of everything random (default 0)")


def resolved_config(arguments: argparse.Namespace) -> Config:
    """Defaults, then --config, then --set, then the named options."""
    from da3_ros import config

    result = config.load(arguments.config) if arguments.config else Config()
    result = config.updated(result, config.parse_assignments(arguments.assignments))
    named = {"predictor": arguments.predictor, "seed": arguments.seed}
    return config.updated(result, {key: value for key, value in named.items() if value is not None})


def frame_range(text: str) -> tuple[int | None, int | None]:
    """Read "A:B", "A:", ":B"."""
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return (int(first) if first else None), (int(last) if last else None)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a range of frames; write A:B, such as 0:100") from None


def output_folder(wanted: Path | None, name: str) -> Path:
    """Make the folder for results: as wanted, else a new one below ``out``; checks that it can be written.

    Raises:
        OutputError: it cannot be made or written.
    """
    import tempfile

    from da3_ros.files import reason

    if wanted is None:
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip("._") or "run"
        wanted, count = Path("out") / stem, 1
        while wanted.exists():
            count += 1
            wanted = Path("out") / f"{stem}-{count}"
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

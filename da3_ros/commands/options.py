"""Options that several commands share."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from da3_ros.config import Config
    from da3_ros.engine.loader import Loader
    from da3_ros.types import Predictor, Source, Tell

SOURCES = (
    "a rosbag2 (folder, .mcap or .db3), a 7-Scenes, TUM RGB-D, EuRoC or KITTI sequence, a folder of images, a video, "
    "or the synthetic world:SEED, such as 'world:7?frames=300&size=640x480&rate=15&motion=FILE'"
)


# As in config.NetworkConfig, which is not imported before a command is chosen.
RUNTIME = {
    "runtime": ("tensorrt", "tensorrt_rtx", "onnxruntime", "torch"),
    "device": ("cpu", "cuda"),
    "precision": ("fp32", "fp16", "bf16"),
}


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE and --frames."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument("--frames", metavar="A:B", help="frames A up to B only, such as 0:100, 50: or -50:")


def add_config(parser: argparse.ArgumentParser, predictor: str = "simulated") -> None:
    """Declare the options that make up the configuration; ``predictor`` is the command's default."""
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
        help=f"simulated (ground truth with the errors of a network), recorded:FILE (made by --record), or a network: "
        f"da3-tiny, da3-small, another of 'da3 model list', owner/name of the hub, a folder (default: {predictor})",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of everything random (default 0)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Declare how a network is run."""
    group = parser.add_argument_group("how the network runs ('da3 doctor' tells what is usable here)")
    for name, choices in RUNTIME.items():
        group.add_argument(f"--{name}", default="auto", choices=("auto", *choices), help="default auto: the best here")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="on a CPU (default: the library's choice)")


def opened_loader(arguments: argparse.Namespace, model: str, tell: Tell) -> Loader:
    """Find a model, or download it, and choose what runs it.

    Raises:
        ModelError: there is no such model.
        MissingDependencyError: what was asked for cannot run here.
    """
    from da3_ros.engine.loader import open_loader

    require(arguments.threads >= 0, "--threads must not be negative")
    return open_loader(
        model, arguments.runtime, arguments.device, arguments.precision, threads=arguments.threads, tell=tell
    )


def resolved_config(arguments: argparse.Namespace, defaults: Mapping[str, object] | None = None) -> Config:
    """Defaults (a command may have ``defaults`` of its own), or else --config, then --set, then the named options."""
    from da3_ros import config

    result = config.load(arguments.config) if arguments.config else config.updated(config.Config(), defaults or {})
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


def prepared_predictor(config: Config, source: Source) -> Predictor:
    """Open the predictor and make it ready for the images of a source, telling what takes long.

    Raises:
        Da3Error: it cannot be opened, or the source's first frame cannot be read.
    """
    from da3_ros.commands.progress import Steps
    from da3_ros.predictors import open_predictor

    with Steps() as tell:
        predictor = open_predictor(config, tell)
        try:
            for frame in itertools.islice(source, 1):
                predictor.prepare(*frame.image.shape[1::-1])
        except BaseException:
            predictor.close()
            raise
    return predictor


def require_writable(path: Path) -> None:
    """Say before minutes of work that a file cannot be written where it is wanted.

    Raises:
        OutputError: it cannot; what is there stays.
    """
    import tempfile

    from da3_ros.files import reason

    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; choose another place") from error


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

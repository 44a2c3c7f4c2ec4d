"""``da3 demo``: the synthetic world as a bag, played to the live node, with a table and a report at the end."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from da3_ros.commands import options
from da3_ros.errors import OutputError

WORLD = "world:7?frames=300&size=640x480&rate=15"  # da3-tiny was not trained on it
PREDICTOR = "da3-tiny"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="synthetic world -> bag -> live ROS 2 node -> table and report",
        description="Make a bag from a synthetic room, start the node, play the bag to it with a simulated clock, and "
        "compare what the node published with the ground truth. The node sees nothing but the images: the network "
        f"that is shipped ({PREDICTOR}) predicts depth and rays, unless --predictor or --config name another.",
    )
    parser.add_argument("--source", default=WORLD, metavar="SOURCE", help=f"what to play (default {WORLD})")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="playback speed (default 1)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")
    options.add_config(parser, PREDICTOR)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the bag, then evaluate the live node on it."""
    from da3_ros.commands.live import evaluate_bag, needs_ros
    from da3_ros.commands.progress import Progress
    from da3_ros.sources import open_source
    from da3_ros.sources.bag_writer import write_bag

    options.require(arguments.rate > 0, "--rate must be positive")
    with needs_ros():
        import da3_ros.ros.live  # noqa: F401  (say what is missing before minutes of work)
    config = options.resolved_config(arguments, {"predictor": PREDICTOR})
    out = options.output_folder(arguments.out, "demo")
    source = open_source(arguments.source)
    bag = _fresh_bag(out)
    with Progress(f"{arguments.source} -> {bag}: frame") as progress:
        write_bag(source, bag, progress=progress)
    code = evaluate_bag(bag, config, out, arguments.rate, source.name)
    da3 = Path(sys.argv[0]).absolute() if Path(sys.argv[0]).name == "da3" else "da3"
    sys.stdout.write(
        f"map: {(out / 'map.ply').resolve()}\n"
        f"Next: {da3} eval {bag.resolve()} --predictor {config.predictor}   (the same without ROS)\n"
        f"      {da3} eval YOUR_BAG --live --predictor {PREDICTOR}\n"
    )
    return code


def _fresh_bag(out: Path) -> Path:
    """Where the bag goes: in place of that of an earlier demo, but of nothing else.

    Raises:
        OutputError: something else is there.
    """
    bag = out / "bag"
    if bag.exists():
        if {path.suffix for path in bag.iterdir()} - {".mcap", ".yaml"} or not (out / "node.log").exists():
            raise OutputError(f"{bag} exists and is not of an earlier demo; choose another folder with --out")
        shutil.rmtree(bag)
    return bag

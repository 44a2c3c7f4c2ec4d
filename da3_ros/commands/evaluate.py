"""``da3 run`` and ``da3 eval``: a source through the whole system, offline or as a live node."""

from __future__ import annotations

import argparse
from pathlib import Path

from da3_ros.commands import options
from da3_ros.config import Config


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    run_parser = commands.add_parser(
        "run",
        help="process a source offline; write trajectory, map and report.json",
        description="Process a source offline and write trajectory.tum, trajectory_causal.tum, map.ply, report.json "
        "and the resolved config.yaml.",
    )
    eval_parser = commands.add_parser(
        "eval",
        help="the same, with metrics and report.html",
        description="Process a source and compare with its ground truth: everything that 'da3 run' writes, a table of "
        "metrics, and report.html to look at.",
    )
    for parser in (run_parser, eval_parser):
        options.add_source(parser)
        options.add_config(parser)
        parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default: below out/)")
        parser.add_argument("--record", type=Path, metavar="FILE", help="save the predictions, for recorded:FILE")
    eval_parser.add_argument(
        "--method", default="ours", choices=("ours", "free_sim3"), help="how windows are joined (for comparison)"
    )
    eval_parser.add_argument(
        "--live", action="store_true", help="play the source, a bag, through the live ROS 2 node instead"
    )
    eval_parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="with --live: playback speed")
    run_parser.set_defaults(run=run, html=False, method="ours", live=False)
    eval_parser.set_defaults(run=run, html=True)


def run(arguments: argparse.Namespace) -> int:
    """Process the source and write the results."""
    config = options.resolved_config(arguments)
    if arguments.live:
        from da3_ros.commands.live import evaluate_bag

        options.require(arguments.method == "ours", "--live runs the node, which has one method; leave --method out")
        options.require(arguments.record is None, "--record works offline; leave --live out")
        options.require(arguments.frames == (None, None), "--live plays the whole bag; leave --frames out")
        return evaluate_bag(Path(arguments.source), config, arguments.out, arguments.rate)
    return _offline(arguments, config)


def _offline(arguments: argparse.Namespace, config: Config) -> int:
    from da3_ros.commands.progress import Progress
    from da3_ros.commands.results import write_results
    from da3_ros.evaluation.baselines import method
    from da3_ros.evaluation.offline import OfflineRun
    from da3_ros.predictors import open_predictor
    from da3_ros.predictors.recorded import RecordingPredictor
    from da3_ros.sources import open_source

    source = open_source(arguments.source, arguments.frames)
    predictor = open_predictor(config)
    out = options.output_folder(arguments.out, source.name)
    if arguments.record:
        predictor = RecordingPredictor(predictor, arguments.record)
    try:
        with Progress(f"{source.name}: frame") as progress:
            record, failure = OfflineRun(source, predictor, config, method(arguments.method)).run(
                lambda done, total, slam: progress(done, total, f"{slam.status().keyframes} keyframes")
            )
    finally:
        predictor.close()
    write_results(out, record, config, html=arguments.html)
    if failure is not None:
        raise failure  # everything up to there is saved; now say what happened
    return 0

"""``da3 run`` and ``da3 eval``: a source through the whole system, offline or as a live node."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.commands import options
from da3_ros.errors import Da3Error, PredictorError, SourceError
from da3_ros.evaluation.baselines import METHODS

if TYPE_CHECKING:
    from da3_ros.commands.stopping import StoppableSource
    from da3_ros.config import Config
    from da3_ros.evaluation.record import Record
    from da3_ros.types import Predictor, Source

_INTERRUPTED = 130
_PROBED = 30  # frames that are searched for a ground truth


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    run_parser = commands.add_parser(
        "run",
        help="process a recording; write trajectory, map and figures",
        description="Process a recording without ROS. Writes into a new folder below out/ (or --out): trajectory.tum "
        "(final) and trajectory_causal.tum (as known right after each frame), both camera poses with time in seconds; "
        "map.ply; report.json; and config.yaml, with which the run can be repeated. Ctrl-C saves what was processed.",
    )
    eval_parser = commands.add_parser(
        "eval",
        help="the same, compared with the ground truth, with a report to look at",
        description="Process a recording as 'da3 run' does, compare it with the ground truth that comes with it, and "
        "write report.html beside the other results.",
    )
    for parser in (run_parser, eval_parser):
        options.add_source(parser)
        parser.add_argument(
            "--out", type=Path, metavar="DIR", help="folder for the results; older ones in it are replaced"
        )
        parser.add_argument(
            "--record", type=Path, metavar="FILE", help="save the predictions, to be replayed by recorded:FILE"
        )
    eval_parser.add_argument(
        "--method",
        default="ours",
        choices=METHODS,
        help="ours, or for comparison: free_sim3 (windows aligned by their points), pose_averaging (as AMB3R), pnp "
        "(the tracker's poses), chunked_irls (chunks of 60 frames, 30 shared, as VGGT-Long and DA3-Streaming)",
    )
    eval_parser.add_argument(
        "--live", action="store_true", help="play SOURCE, a bag, through the live ROS 2 node instead"
    )
    eval_parser.add_argument("--rate", type=float, metavar="R", help="with --live: playback speed (default 1)")
    for parser in (run_parser, eval_parser):
        options.add_config(parser)
    run_parser.set_defaults(run=run, html=False, method="ours", live=False, rate=None)
    eval_parser.set_defaults(run=run, html=True)


def run(arguments: argparse.Namespace) -> int:
    """Process the source and write the results."""
    config = options.resolved_config(arguments)
    if arguments.live:
        from da3_ros.commands.live import evaluate_bag

        options.require(arguments.method == "ours", "--live runs the node, which has one method; leave --method out")
        options.require(arguments.record is None, "--record works offline; leave --live out")
        options.require(arguments.frames is None, "--live plays the whole bag; leave --frames out")
        rate = 1.0 if arguments.rate is None else arguments.rate
        return evaluate_bag(Path(arguments.source), config, arguments.out, rate)
    options.require(arguments.rate is None, "--rate is the speed at which --live plays; add --live or leave it out")
    return _offline(arguments, config)


def _offline(arguments: argparse.Namespace, config: Config) -> int:
    from da3_ros.commands.stopping import StoppableSource

    source = StoppableSource(options.opened_source(arguments))
    predictor = options.prepared_predictor(config, source)
    _require_truth(source, predictor)
    out = options.output_folder(arguments.out, source.name)
    try:
        return _run_and_save(source, predictor, config, out, arguments)
    finally:
        if arguments.out is None:
            with contextlib.suppress(OSError):
                out.rmdir()  # our own new folder, where it stayed empty


def _run_and_save(
    source: StoppableSource, predictor: Predictor, config: Config, out: Path, arguments: argparse.Namespace
) -> int:
    from da3_ros.commands.results import write_results
    from da3_ros.commands.stopping import WatchedPredictor
    from da3_ros.predictors.recorded import RecordingPredictor

    recorder = RecordingPredictor(predictor, arguments.record) if arguments.record else None
    watched = WatchedPredictor(recorder or predictor, source)
    try:
        record, failure, interrupted = _process(source, watched, config, arguments.method)
        failure = failure or watched.not_recorded
        if interrupted:
            record.notes.append(f"interrupted after {len(record.trajectory)} of {len(source)} frames")
            record.notes += [f"the predictions until then are in {recorder.partial}"] if recorder else []
        elif recorder:
            recorder.complete()
        _require_usable(record, failure or watched.refusal, interrupted=interrupted)
        if (failure or interrupted) and (out / "report.json").exists():
            out = options.output_folder(None, f"{out.name}-partial", out.parent)  # older results may be whole ones
        write_results(out, record, config, html=arguments.html)
    finally:
        watched.close()
    if failure is not None:
        raise failure  # everything up to there is saved; now say what happened
    return _INTERRUPTED if interrupted else 0


def _process(
    source: StoppableSource, predictor: Predictor, config: Config, method: str
) -> tuple[Record, Da3Error | None, bool]:
    """The run: its record, what ended the source early if anything did, and whether the user did."""
    from da3_ros.commands.progress import Progress
    from da3_ros.commands.stopping import interruptible
    from da3_ros.evaluation import baselines
    from da3_ros.evaluation.baselines import chunked_irls
    from da3_ros.evaluation.offline import OfflineRun

    if method == baselines.CHUNKED:
        with Progress(f"{source.name}: frame") as progress, interruptible(source) as caught:
            record = chunked_irls.record(source, predictor, config, lambda done, total: progress(done, total, ""))
        return record, None, bool(caught)
    offline = OfflineRun(source, predictor, config, baselines.method(method))
    with Progress(f"{source.name}: frame") as progress, interruptible(source) as caught:
        record, failure = offline.run(
            lambda done, total, slam: progress(done, total, f"{slam.status().keyframes} keyframes")
        )
    return record, failure, bool(caught)


def _require_truth(source: Source, predictor: Predictor) -> None:
    """Say at once, and not after the whole source, that a predictor which needs the ground truth has none.

    Raises:
        PredictorError: none of the first frames can be predicted.
    """
    from da3_ros.types import Window

    refusal = None
    for frame in itertools.islice(source, _PROBED) if predictor.needs_truth else ():
        try:
            predictor.predict(Window(0, (frame,), (0,)))
        except PredictorError as error:
            refusal = error
        else:
            return
    if refusal is not None:
        raise refusal


def _require_usable(record: Record, cause: Da3Error | None, *, interrupted: bool) -> None:
    """Refuse to save a run without a single pose: older results are worth more.

    Raises:
        KeyboardInterrupt: it was interrupted so early.
        Da3Error: the cause, or that nothing could be used.
    """
    if record.counts["keyframes"]:
        return
    if interrupted:
        raise KeyboardInterrupt
    drops = ", ".join(f"{number} {why}" for why, number in record.drops.items())
    if cause is None and len(record.trajectory):
        raise PredictorError("; ".join(record.notes) or f"the predictor made nothing of {record.source}")
    raise cause or SourceError(
        f"no frame of {record.source} could be used ({drops or 'it has none'}); check its stamps"
    )

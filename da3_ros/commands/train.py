"""``da3 train``: train a small network of one's own on synthetic worlds."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.commands import options
from da3_ros.errors import OutputError

if TYPE_CHECKING:
    from da3_ros.model.network import Network
    from da3_ros.training.config import TrainingConfig
    from da3_ros.training.state import State
    from da3_ros.training.trainer import Log, Trainer
    from da3_ros.training.worlds import CachedWorld

CHECKPOINT = "checkpoint"  # folder in that of the run
CURVE = "curve.svg"
_NICE = 15


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a small network of your own on synthetic worlds",
        description="Render procedural worlds (once), train da3-tiny on them at low priority, judge it on worlds it "
        "never saw, and keep in the folder of the run: state.pt to go on from, log.jsonl, curve.svg, config.yaml, and "
        f"{CHECKPOINT}/ in the released layout, which --model and predictor take. Ctrl-C and SIGTERM save and stop.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("training"), metavar="DIR", help="folder of the run (default training)")
    add("--config", type=Path, metavar="FILE", help="YAML of what differs from the defaults (--defaults shows them)")
    add("--resume", action="store_true", help="go on where the run in --out stopped")
    add("--start", type=Path, metavar="DIR", help="start a run from the weights in this folder, of a da3-tiny")
    add("--minutes", type=float, metavar="N", help="stop after so many minutes of training")
    add("--steps", type=int, metavar="N", help="stop at this step (default: the end of the schedule)")
    add("--worlds-only", action="store_true", help="render the worlds that are missing, and stop")
    add("--judge", action="store_true", help="only judge the run's network, on all held-out worlds, and write its card")
    add("--teach", metavar="SOURCE", help="let --teacher predict this recording, and keep that as worlds to train on")
    add(
        "--teacher", type=Path, metavar="DIR", help="folder of the network that teaches, as da3 model download makes it"
    )
    add("--stride", type=int, default=1, metavar="N", help="with --teach: use every Nth frame")
    add("--defaults", action="store_true", help="print the default configuration and stop")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the data, train, judge, write."""
    from da3_ros.config import dump
    from da3_ros.training import config as configs

    options.require(arguments.minutes is None or arguments.minutes > 0, "--minutes must be positive")
    options.require(arguments.steps is None or arguments.steps > 0, "--steps must be positive")
    if arguments.defaults:
        sys.stdout.write(dump(configs.TrainingConfig(), comments=True))
        return 0
    out: Path = arguments.out
    given = arguments.config
    if given is None and (arguments.resume or arguments.judge) and (out / "config.yaml").exists():
        given = out / "config.yaml"
    config = configs.load(given)
    options.require(
        arguments.start is None or not arguments.resume,
        "--start begins a run and --resume goes on with one; give one of them",
    )
    options.require((arguments.teach is None) == (arguments.teacher is None), "--teach and --teacher go together")
    os.nice(max(0, _NICE - os.nice(0)))
    if arguments.teach is not None:
        _teach(out, config, arguments)
        return 0
    if arguments.worlds_only:
        _worlds(out, config)
        return 0
    from da3_ros.training.threads import limit_threads

    limit_threads(config.threads)
    if arguments.judge:
        return _judge_all(out, config)
    from da3_ros.training import state as states

    saved = states.load(out / states.STATE) if arguments.resume else None
    if saved is not None:  # a run keeps its optimiser; that of a version before Muon is AdamW alone
        muon = bool(saved.config.get("optimiser.muon", False))
        config = replace(config, optimiser=replace(config.optimiser, muon=muon))
    if saved is None and (out / states.STATE).exists():
        raise OutputError(f"{out} holds a run already; add --resume to go on with it, or give another --out")
    options.require(
        arguments.start is not None or arguments.resume or not config.way_for_origins,
        "way_for_origins is fitted to a trained network; give one with --start",
    )
    start = None if arguments.start is None else _trained(arguments.start)
    trained, judged = _worlds(out, config)
    _train(arguments, config, saved, start, trained, judged)
    return 0


def _worlds(
    out: Path, config: TrainingConfig, judged: int | None = None
) -> tuple[list[CachedWorld], list[CachedWorld]]:
    """Worlds to train on and to be judged by, rendered where they are missing."""
    from da3_ros.commands.progress import Progress
    from da3_ros.training.split import HELD_OUT_SEEDS, training_seeds
    from da3_ros.training.teacher import taught_seeds
    from da3_ros.training.worlds import drawn_spec, judging_spec, open_worlds, recorded_motions, render

    data = config.data
    cache = out / data.cache
    motions = recorded_motions(data.motions)
    held = HELD_OUT_SEEDS[: data.judged_worlds if judged is None else judged]
    both = []
    for label, specs in (
        ("worlds that judge", [judging_spec(seed) for seed in held]),
        ("worlds to train on", [drawn_spec(seed, data.views, motions) for seed in training_seeds(data.worlds)]),
    ):
        if judged is None or "judge" in label:
            with Progress(label) as progress:
                both.append(open_worlds(cache, render(cache, specs, progress)))
    taught = [] if judged is not None else open_worlds(cache, taught_seeds(cache))
    return [*both[-1], *taught], both[0]


def _teach(out: Path, config: TrainingConfig, arguments: argparse.Namespace) -> None:
    """Let a larger network say what is in a recording."""
    from da3_ros.commands.progress import Progress
    from da3_ros.model.checkpoint import load
    from da3_ros.sources import open_source
    from da3_ros.training.teacher import teach
    from da3_ros.training.worlds import RENDERED

    source = open_source(arguments.teach, stride=arguments.stride)
    teacher = load(arguments.teacher).network
    with Progress("windows taught") as progress:
        made = teach(source, teacher, out / config.data.cache, progress, views=config.data.taught_views, size=RENDERED)
    _say(f"{len(made)} windows of {config.data.taught_views} frames of {arguments.teach} are among the worlds now")


def _train(
    arguments: argparse.Namespace,
    config: TrainingConfig,
    saved: State | None,
    start: Network | None,
    worlds: list[CachedWorld],
    judged: list[CachedWorld],
) -> None:
    """Train until told to stop."""
    import math

    from da3_ros.commands.stopping import interruptible
    from da3_ros.config import dump
    from da3_ros.files import write_atomic
    from da3_ros.model.presets import TINY
    from da3_ros.training import state as states
    from da3_ros.training.trainer import Log, Trainer, Until

    out: Path = arguments.out
    trainer = Trainer(config, TINY, worlds, start)
    log = Log(out)
    if saved is not None:
        trainer.resume(saved)
        if saved.worlds != [world.seed for world in worlds]:
            _say(
                f"the run had {len(saved.worlds)} worlds when it was saved; from here on it learns from other ones too"
            )
        log.forget_after(trainer.step)
    write_atomic(out / "config.yaml", dump(config, comments=True))
    until = Until(math.inf if arguments.minutes is None else arguments.minutes, arguments.steps)
    _say(f"step {trainer.step} of {config.steps}, {len(worlds)} worlds, {_millions(trainer):.1f} M parameters")
    # After the step that is being done, so that what is saved is whole.
    with interruptible(background=True) as caught:
        for step, found, row in trainer.train(until):
            line = log.add(step, trainer.minutes, found, row)
            if line is not None:
                shown = ("loss", "patches", "rays", "camera", "attention", "displacement")
                parts = "  ".join(f"{name} {line[name]:.3f}" for name in shown if name in line)
                _say(f"step {step}  {trainer.minutes:.0f} min  {parts}  {line['views_per_s']:.1f} views/s")
            if caught:
                break
            if step % config.save_every == 0:
                states.save(out / states.STATE, trainer.state())
            if step % config.judge_every == 0:
                _judge(out, trainer, log, judged)
    states.save(out / states.STATE, trainer.state())
    _judge(out, trainer, log, judged)
    ended = "interrupted" if caught else "stopped"
    _say(f"{ended} at step {trainer.step}; go on with: da3 train --resume --out {out}")


def _trained(folder: Path) -> Network:
    """The any-view network of a folder."""
    from da3_ros.errors import ModelError
    from da3_ros.model.checkpoint import load
    from da3_ros.model.network import Network

    network = load(folder).network
    if not isinstance(network, Network):
        raise ModelError(f"{network.preset.name} looks at one view at a time; --start takes a da3-tiny")
    return network


def _judge(out: Path, trainer: Trainer, log: Log, judged: list[CachedWorld]) -> None:
    """Judge the averaged network, export it, draw the curve."""
    from da3_ros.evaluation.learning import learning_curve
    from da3_ros.files import write_atomic
    from da3_ros.training.curriculum import difficulty
    from da3_ros.training.export import export
    from da3_ros.training.judge import judge
    from da3_ros.training.trainer import read_log

    network = trainer.averaged()
    size = difficulty(trainer.config.curriculum, trainer.step).size
    verdict = judge(network, judged, size)
    figures = {f"held_out_{name}": value for name, value in verdict.row().items()}
    log.write({"step": trainer.step, "minutes": trainer.minutes, "width": size[0], **figures})
    export(out / CHECKPOINT, network, longest=max(size))
    write_atomic(out / CURVE, learning_curve(read_log(out)))
    _say(f"held out, {size[0]}x{size[1]}: {verdict.text()}")


def _judge_all(out: Path, config: TrainingConfig) -> int:
    """The figures of a run's checkpoint on all held-out worlds, for pairs and for larger windows."""
    from da3_ros.files import write_atomic
    from da3_ros.model.checkpoint import load
    from da3_ros.model.folder import CARD
    from da3_ros.model.network import Network
    from da3_ros.model.preprocess import LONGEST, fitted_size
    from da3_ros.training import state as states
    from da3_ros.training.card import card
    from da3_ros.training.curriculum import difficulty
    from da3_ros.training.judge import judge
    from da3_ros.training.split import HELD_OUT_SEEDS

    network, saved = load(out / CHECKPOINT).network, states.load(out / states.STATE)
    assert isinstance(network, Network)
    _, judged = _worlds(out, config, len(HELD_OUT_SEEDS))
    # At the size that the checkpoint asks for, which may be set to another than it was trained at.
    size = fitted_size(*difficulty(config.curriculum, saved.step).size, network.preset.longest or LONGEST)
    verdicts = {views: judge(network.float(), judged, size, views=views) for views in (2, 4)}
    for views, verdict in verdicts.items():
        _say(f"windows of {views} views in {len(judged)} held-out worlds: {verdict.text()}")
    write_atomic(out / CHECKPOINT / CARD, card(network.preset, config, saved, verdicts, size, len(judged)))
    return 0


def _millions(trainer: Trainer) -> float:
    return sum(parameter.numel() for parameter in trainer.network.parameters()) / 1e6


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

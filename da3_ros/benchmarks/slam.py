"""The ablation: every method and every part of ours on the same predictions, over worlds and real hand-held motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from da3_ros import config as configuration
from da3_ros.benchmarks import worlds
from da3_ros.config import Config
from da3_ros.errors import SourceError
from da3_ros.evaluation import baselines
from da3_ros.evaluation.baselines import chunked_irls
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import evaluate
from da3_ros.predictors import open_predictor
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource

SIZE = "640x480"

# Name of the row, method, parameters.
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("chunked_irls", baselines.CHUNKED, {}),
    ("free_sim3", "free_sim3", {}),
    ("pnp", "pnp", {}),
    ("pose_averaging", "pose_averaging", {}),
    ("ours, chained only", "ours", {"refine.enabled": False, "loops.enabled": False}),
    ("ours, no loops", "ours", {"loops.enabled": False}),
    ("ours, no metres", "ours", {"simulated.metric": False}),
    ("ours", "ours", {}),
)
HEAD = (
    f"{'':20}{'ATE after Sim3, mm (median, worst)':>38}{'after SE3, mm':>18}{'scale error, %':>18}\n"
    f"{'':20}{'causal':>19}{'final':>19}{'causal':>18}{'final, worst':>18}"
)


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one source, metres."""

    causal: float
    final: float
    causal_se3: float
    scale: float  # of the final trajectory


def run(seeds: int, frames: int, motions: Path | None, say: Callable[[str], None]) -> dict[str, list[Score]]:
    """Measure; ``say`` gets one line at a time.

    Args:
        seeds: how many sources.
        frames: of each, at most.
        motions: folder with trajectories (TUM format) of real cameras that drive every second and third world; None:
            all worlds by their own walk.
        say: given each line.
    """
    scores: dict[str, list[Score]] = {name: [] for name, _, _ in ROWS}
    for number, spec in enumerate(_specs(seeds, frames, motions)):
        source = HeldSource.of(open_source(spec))
        for name, method, values in ROWS:
            scores[name].append(_score(source, number, method, values))
        say(f"{spec}: " + ", ".join(f"{name} {1e3 * found[-1].causal:.1f}" for name, found in scores.items()))
    say(HEAD)
    for name, found in scores.items():
        say(row(name, found))
    return scores


def row(name: str, found: Sequence[Score]) -> str:
    """One line of the table."""
    causal, final, se3 = (1e3 * np.array([getattr(s, key) for s in found]) for key in ("causal", "final", "causal_se3"))
    scale = max(abs(100 * (s.scale - 1)) for s in found)
    return (
        f"{name:20}{np.median(causal):>10.1f}{causal.max():>9.1f}{np.median(final):>10.1f}{final.max():>9.1f}"
        f"{np.median(se3):>18.1f}{scale:>18.1f}"
    )


def _specs(seeds: int, frames: int, motions: Path | None) -> list[str]:
    files = sorted(motions.glob("*.txt")) if motions else []
    if motions and not files:
        raise SourceError(f"{motions} holds no trajectory (*.txt in TUM format) that could drive a camera")
    drives = ["", *(f"&motion={path}" for path in files)]
    return [f"world:{1 + i}?frames={frames}&size={SIZE}{drives[i % len(drives)]}" for i in range(seeds)]


def _score(source: HeldSource, seed: int, method: str, values: dict[str, Any]) -> Score:
    config = configuration.updated(Config(), {"seed": seed, **values})
    record = _run(source, config, method)
    assert record.truth is not None, "worlds know the truth"
    causal, final = (evaluate(t, record.truth).metrics for t in (record.causal, record.trajectory))
    return Score(causal.ate_sim3_m, final.ate_sim3_m, causal.ate_se3_m, final.scale)


def _run(source: HeldSource, config: Config, method: str) -> Record:
    if method == baselines.CHUNKED:
        return chunked_irls.record(source, open_predictor(config), config)
    return worlds.run_method(source, config, method)

"""The whole path from pixels: worlds that da3-tiny was never trained on, known by their images and cameras alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from da3_ros import config as configuration
from da3_ros.benchmarks.worlds import run_method
from da3_ros.config import Config
from da3_ros.evaluation.trajectory import evaluate
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource
from da3_ros.training.split import HELD_OUT_SEEDS

SPEC = "world:{seed}?frames=200&size=640x480&rate=10"
PREDICTOR = "da3-tiny"
SHARE = 0.03  # of the path; what the causal ATE must reach
HEAD = (
    f"{'world':>8}{'path, m':>9}{'coverage':>10}{'ATE after Sim3, % of the path':>31}{'frames/s':>10}"
    f"{'tracked/s':>11}\n"
    f"{'':27}{'final':>20}{'causal':>11}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One world."""

    seed: int
    path_m: float
    coverage: float
    final: float  # ATE after Sim3, share of the path
    causal: float
    frames_per_s: float  # everything included: tracking, a prediction for nearly every frame, the map
    tracked_per_s: float  # by tracking alone, which is what a frame waits for

    def __str__(self) -> str:
        """The row of the table."""
        return (
            f"{self.seed:>8}{self.path_m:>9.2f}{self.coverage:>10.3f}{100 * self.final:>20.2f}"
            f"{100 * self.causal:>11.2f}{self.frames_per_s:>10.1f}"
            f"{self.tracked_per_s:>11.1f}"
        )


def run(count: int, say: Callable[[str], None], spec: str = SPEC) -> list[Row]:
    """Measure on the first ``count`` held-out worlds; ``say`` gets one line at a time."""
    say(HEAD)
    rows = []
    for seed in HELD_OUT_SEEDS[:count]:
        source = HeldSource.of(open_source(spec.format(seed=seed)))
        started = time.perf_counter()
        record = run_method(source, configuration.updated(Config(), {"seed": seed, "predictor": PREDICTOR}))
        took = time.perf_counter() - started
        assert record.truth is not None, "worlds know the truth"
        final, causal = (evaluate(t, record.truth).metrics for t in (record.trajectory, record.causal))
        path = causal.path_length_m
        errors = final.ate_sim3_m / path, causal.ate_sim3_m / path
        tracked = 1e3 / record.latency_ms["track"]["p50"]
        rows.append(Row(seed, path, causal.coverage, *errors, len(source) / took, tracked))
        say(str(rows[-1]))
    shares = [row.causal for row in rows]
    say(
        f"{PREDICTOR}: causal ATE, median {100 * np.median(shares):.2f} %, worst {100 * max(shares):.2f} % of the "
        f"path; {sum(share <= SHARE for share in shares)} of {len(rows)} worlds within {100 * SHARE:.0f} %; "
        f"least coverage {min(row.coverage for row in rows):.3f}"
    )
    return rows

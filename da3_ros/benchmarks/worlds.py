"""Ten synthetic worlds with default noise: scale, error against free Sim3 chaining, and injected scale breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.evaluation.baselines import method
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import TrajectoryMetrics, evaluate
from da3_ros.predictors import open_predictor
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource
from da3_ros.types import Source

SPEC = "world:{seed}?frames=300&size=320x240"
# Windows; early ones, while the scale rests on few claims, are the hardest.  The one after a break is its second look.
BREAKS = (2, 5, 8, *range(12, 200, 10))


@dataclass(frozen=True, slots=True)
class Row:
    """One world."""

    seed: int
    ours: TrajectoryMetrics
    causal: TrajectoryMetrics
    free: TrajectoryMetrics  # free Sim3 Umeyama chaining of the same predictions
    broken: TrajectoryMetrics  # ours without live windows, with x2 breaks injected
    injected: int
    missed: int  # injected breaks whose window was joined

    def __str__(self) -> str:
        """The row of the table."""
        return (
            f"{self.seed:>5}{self.ours.path_length_m:>8.2f}{100 * (self.ours.scale - 1):>9.2f}"
            f"{100 * (self.causal.scale - 1):>9.2f}{1e3 * self.ours.ate_sim3_m:>9.1f}"
            f"{1e3 * self.causal.ate_sim3_m:>9.1f}{1e3 * self.free.ate_sim3_m:>9.1f}"
            f"{self.ours.ate_sim3_m / self.free.ate_sim3_m:>9.3f}{1e3 * self.broken.ate_sim3_m:>9.1f}"
            f"{self.injected:>9}{self.missed:>8}"
        )


HEAD = (
    f"{'':5}{'path':>8}{'scale error, %':>18}{'ATE after Sim3, mm':>27}{'ratio':>9}{'no live, x2 breaks':>26}\n"
    f"{'seed':>5}{'m':>8}{'final':>9}{'causal':>9}{'final':>9}{'causal':>9}{'free':>9}{'':>9}{'ATE':>9}{'breaks':>9}"
    f"{'missed':>8}"
)


def run(seeds: Sequence[int], say: Callable[[str], None]) -> list[Row]:
    """Measure; ``say`` gets one line at a time."""
    say(HEAD)
    rows = []
    for seed in seeds:
        rows.append(measure(seed))
        say(str(rows[-1]))
    worst = max(abs(r.ours.scale - 1) for r in rows)
    ratios = [r.ours.ate_sim3_m / r.free.ate_sim3_m for r in rows]
    injected, missed = sum(r.injected for r in rows), sum(r.missed for r in rows)
    say(
        f"worst scale error {100 * worst:.2f} %; ATE ratio to free Sim3: median {np.median(ratios):.3f}, "
        f"worst {max(ratios):.3f}; {injected} breaks injected, {missed} missed"
    )
    return rows


def measure(seed: int) -> Row:
    """One world, three runs."""
    source = HeldSource.of(open_source(SPEC.format(seed=seed)))
    config = configuration.updated(Config(), {"seed": seed})
    ours, free = run_method(source, config), run_method(source, config, "free_sim3")
    # Every window places keyframes: a live window that is refused would cost nothing, nor one that compares places.
    values = {"window.live": False, "loops.enabled": False, "simulated.break_windows": list(BREAKS)}
    broken = run_method(source, configuration.updated(config, values))
    refused = {w.number for w in broken.windows if w.outcome in ("refused", "weak")}
    hit = [number for number in BREAKS if number <= broken.counts["windows"]]
    return Row(
        seed,
        _metrics(ours, final=True),
        _metrics(ours, final=False),
        _metrics(free, final=True),
        _metrics(broken, final=True),
        len(hit),
        sum(number not in refused for number in hit),
    )


def run_method(source: Source, config: Config, name: str = "ours") -> Record:
    """Run a method that chains our windows over a source."""
    record, failure = OfflineRun(source, open_predictor(config), config, method(name)).run()
    if failure is not None:
        raise failure
    return record


def _metrics(record: Record, *, final: bool) -> TrajectoryMetrics:
    assert record.truth is not None, "worlds know the truth"
    return evaluate(record.trajectory if final else record.causal, record.truth).metrics

"""How metric a run is with one source of metres at a time: depth, odometry, or a predictor that claims them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from da3_ros import config as configuration
from da3_ros.benchmarks.worlds import SPEC, run_method
from da3_ros.config import Config
from da3_ros.evaluation.trajectory import TrajectoryMetrics, evaluate
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource

# Name of the row, parameters.  A window's unit is half a metre, give or take 10 %, where the predictor claims none.
_BLIND = {"simulated.metric": False, "simulated.log_scale_bias": 0.7}
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", _BLIND),
    ("depth_prior", {**_BLIND, "prior.depth": "always"}),
    ("odom_prior", {**_BLIND, "prior.odometry": "always"}),
    ("the predictor", {}),
)
SCALE, RATIO = 0.03, 1.5  # what one source of metres must reach
HEAD = (
    f"{'':5}{'':15}{'scale error, %':>18}{'final ATE, mm':>22}{'ratio':>8}{'causal':>8}\n"
    f"{'seed':>5} {'metres by':14}{'final':>9}{'causal':>9}{'after Sim3':>12}{'SE3':>10}{'':>8}{'ratio':>8}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One world with one source of metres."""

    seed: int
    name: str
    final: TrajectoryMetrics
    causal: TrajectoryMetrics

    @property
    def good(self) -> bool:
        """The final trajectory is as metric as it must be."""
        return abs(self.final.scale - 1) <= SCALE and ratio(self.final) <= RATIO

    def __str__(self) -> str:
        """The row of the table."""
        final, causal = self.final, self.causal
        return (
            f"{self.seed:>5} {self.name:14}{100 * (final.scale - 1):>9.2f}{100 * (causal.scale - 1):>9.2f}"
            f"{1e3 * final.ate_sim3_m:>12.1f}{1e3 * final.ate_se3_m:>10.1f}{ratio(final):>8.2f}{ratio(causal):>8.2f}"
        )


def ratio(metrics: TrajectoryMetrics) -> float:
    """ATE after SE3 over ATE after Sim3."""
    return metrics.ate_se3_m / metrics.ate_sim3_m


def run(seeds: Sequence[int], say: Callable[[str], None], spec: str = SPEC) -> list[Row]:
    """Measure; ``say`` gets one line at a time."""
    say(HEAD)
    rows = []
    for seed in seeds:
        source = HeldSource.of(open_source(spec.format(seed=seed)))
        for name, values in ROWS:
            record = run_method(source, configuration.updated(Config(), {"seed": seed, **values}))
            assert record.truth is not None, "worlds know the truth"
            final, causal = (evaluate(t, record.truth).metrics for t in (record.trajectory, record.causal))
            rows.append(Row(seed, name, final, causal))
            say(str(rows[-1]))
    for name, _ in ROWS[1:]:
        own = [row for row in rows if row.name == name]
        say(
            f"{name}: worst scale error {100 * max(abs(row.final.scale - 1) for row in own):.2f} %, worst ratio "
            f"{max(ratio(row.final) for row in own):.2f}; {sum(row.good for row in own)} of {len(own)} worlds within "
            f"{100 * SCALE:.0f} % and {RATIO}"
        )
    return rows

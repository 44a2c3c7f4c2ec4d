"""What an IMU is worth: the same worlds with and without one, with the predictor as it is and with coarse poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from da3_ros import config as configuration
from da3_ros.benchmarks.worlds import run_method
from da3_ros.config import Config
from da3_ros.evaluation.tilt import tilt_deg
from da3_ros.evaluation.trajectory import evaluate
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource

SPEC = "world:{seed}?frames=300&size=320x240&imu=200"
# Name of the row, parameters.
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("usual", {}),
    ("coarse poses", {"simulated.rotation_deg": 1.0}),
)
HEAD = (
    f"{'':5} {'':14}{'':6}{'final, rms':>22}{'causal, rms':>22}\n"
    f"{'seed':>5} {'predictor':14}{'imu':6}{'tilt, deg':>11}{'ATE, mm':>11}{'tilt, deg':>11}{'ATE, mm':>11}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One world with or without an IMU; tilts are drifts of roll and pitch since the first frame."""

    seed: int
    name: str
    imu: bool
    tilt: tuple[float, float]  # rms of the final and of the causal trajectory, deg
    ate: tuple[float, float]  # after Sim3, m

    def __str__(self) -> str:
        """The row of the table."""
        parts = "".join(f"{tilt:>11.2f}{1e3 * ate:>11.1f}" for tilt, ate in zip(self.tilt, self.ate, strict=True))
        return f"{self.seed:>5} {self.name:14}{'yes' if self.imu else 'no':6}{parts}"


def run(seeds: Sequence[int], say: Callable[[str], None], spec: str = SPEC) -> list[Row]:
    """Measure; ``say`` gets one line at a time."""
    say(HEAD)
    rows = []
    for seed in seeds:
        source = HeldSource.of(open_source(spec.format(seed=seed)))
        for name, values in ROWS:
            for imu in (False, True):
                rows.append(_measure(source, seed, name, imu, values))
                say(str(rows[-1]))
    for name, _ in ROWS:
        for imu in (False, True):
            own = [row for row in rows if (row.name, row.imu) == (name, imu)]
            tilt, ate = (np.median([getattr(row, key) for row in own], axis=0) for key in ("tilt", "ate"))
            say(
                f"{name}, {'with' if imu else 'without'} an IMU: median tilt {tilt[0]:.2f} deg (causal {tilt[1]:.2f}), "
                f"median ATE {1e3 * ate[0]:.1f} mm (causal {1e3 * ate[1]:.1f})"
            )
    return rows


def _measure(source: HeldSource, seed: int, name: str, imu: bool, values: dict[str, Any]) -> Row:
    heard = {"seed": seed, "prior.imu": "always" if imu else "never", **values}
    record = run_method(source, configuration.updated(Config(), heard))
    assert record.truth is not None, "worlds know the truth"
    tilt, ate = [], []
    for trajectory in (record.trajectory, record.causal):
        tilt.append(float(np.sqrt(np.mean(tilt_deg(trajectory, record.truth) ** 2))))
        ate.append(evaluate(trajectory, record.truth).metrics.ate_sim3_m)
    return Row(seed, name, imu, (tilt[0], tilt[1]), (ate[0], ate[1]))

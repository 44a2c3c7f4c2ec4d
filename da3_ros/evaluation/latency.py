"""How long each stage takes: percentiles in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LOWEST_S = 1e-6
_GROWTH = 1.01  # each bucket is 1 % wider than the one below
_BUCKETS = math.ceil(math.log(1e9) / math.log(_GROWTH))  # 1 us .. 1000 s

Histogram = tuple[NDArray[np.float64], NDArray[np.int64]]  # edges (n + 1,) in ms, counts (n,)


class Latency:
    """Durations by stage in histograms with logarithmic buckets, 17 KB a stage however long the run.

    Percentiles are exact to 0.5 % between 1 us and 1000 s; the largest value and the count are exact.
    """

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._max: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Count one duration; a negative one (clock skew between machines) counts as 0.

        Raises:
            ValueError: the duration is not finite.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"the latency of '{stage}' is {seconds}, not a duration")
        if stage not in self._counts:
            self._counts[stage] = np.zeros(_BUCKETS, np.int64)
            self._max[stage] = 0.0
        seconds = max(seconds, 0.0)
        bucket = int(math.log(max(seconds / _LOWEST_S, 1.0)) / math.log(_GROWTH))
        self._counts[stage][min(bucket, _BUCKETS - 1)] += 1
        self._max[stage] = max(self._max[stage], seconds)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage, in order of first use: ``p50``, ``p95`` and ``max`` in ms and ``count``."""
        return {
            stage: {
                "p50": self._percentile_ms(stage, 0.50),
                "p95": self._percentile_ms(stage, 0.95),
                "max": 1e3 * self._max[stage],
                "count": int(counts.sum()),
            }
            for stage, counts in self._counts.items()
        }

    def histograms(self, merge: int = 8) -> dict[str, Histogram]:
        """Per stage the occupied part of the histogram, ``merge`` buckets (8: 8 % wide) in one."""
        out: dict[str, Histogram] = {}
        for stage, counts in self._counts.items():
            padded = np.concatenate([counts, np.zeros(-len(counts) % merge, np.int64)])
            coarse = padded.reshape(-1, merge).sum(axis=1)
            used = np.flatnonzero(coarse)
            first, last = int(used[0]), int(used[-1])
            edges = 1e3 * _LOWEST_S * _GROWTH ** (merge * np.arange(first, last + 2, dtype=float))
            out[stage] = edges, coarse[first : last + 1]
        return out

    def _percentile_ms(self, stage: str, fraction: float) -> float:
        counts = self._counts[stage]
        rank = math.ceil(fraction * int(counts.sum()))
        bucket = int(np.searchsorted(np.cumsum(counts), rank))
        middle = _LOWEST_S * _GROWTH ** (bucket + 0.5)
        return float(1e3 * min(middle, self._max[stage]))

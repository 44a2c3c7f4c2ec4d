"""The network over a sliding window: the official code, ours in one go, and ours in stages that encode no frame twice.

Every row runs in a process of its own, with the same number of threads and the same random weights; the rows take turns
at each window, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from da3_ros.benchmarks.network_rows import OFFICIAL, ROWS, Outputs, Setting, export, official_missing, work
from da3_ros.engine.choice import choose, survey
from da3_ros.errors import PredictorError
from da3_ros.model.presets import PRESETS

PRESET = PRESETS["da3-small"]
SIZE = (280, 210)
VIEWS = (8, 4)
WINDOWS = 7
WARM_UP = 2  # windows that do not count: the first has nothing to reuse

_HEAD = (
    f"{'':<24}{'ms/window':>10}{'times the rate':>16}{'windows, MB':>13}{'process, MB':>13}   largest difference, std"
)


@dataclass(slots=True)
class Row:
    """One way to run the network."""

    name: str
    ms: list[float] = field(default_factory=list)  # per window that counts
    rates: list[float] = field(default_factory=list)  # of it to the first row's, window by window
    differences: dict[str, float] = field(default_factory=dict)  # from the first row, largest, in its std
    memory: tuple[int, int] = (0, 0)  # bytes of resident memory: added by its windows at most, of the process at most

    def __str__(self) -> str:
        """The row of the table."""
        growth, peak = (value / 1e6 for value in self.memory)
        worst = max(self.differences.items(), key=lambda item: item[1], default=("", 0.0))
        return (
            f"{self.name:<24}{np.median(self.ms):>10.0f}{np.median(self.rates):>16.2f}{growth:>13.0f}{peak:>13.0f}"
            f"   {worst[1]:.1e} ({worst[0]})"
        )


def run(say: Callable[[str], None]) -> dict[int, list[Row]]:
    """Measure; ``say`` gets one line at a time.  Returns the rows by the number of views.

    Raises:
        MissingDependencyError: torch, or what the graphs need, is not installed.
        PredictorError: a row's process has failed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # rows that wait for their turn leave the cores alone
    for runtime in ("torch", "onnxruntime"):
        choose(runtime, "cpu", offers=survey(None))
    missing = official_missing()
    names = [name for name in ROWS if name != OFFICIAL or not missing]
    threads = len(os.sched_getaffinity(0))
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = [Setting(PRESET, SIZE, views, WINDOWS, threads, Path(folder)) for views in VIEWS]
        say("exporting the graphs ...")
        _in_a_process(export, settings[0])
        for setting in settings:
            width, height = SIZE
            say(f"{setting.views} views of {width}x{height}, {PRESET.name}, {threads} threads; rate against {names[0]}")
            rows = tables[setting.views] = _measure(names, setting, say)
            say(_HEAD)
            if missing:
                say(f"{OFFICIAL:<24}{missing}")
            for row in rows:
                say(str(row))
    return tables


def _measure(names: Sequence[str], setting: Setting, say: Callable[[str], None]) -> list[Row]:
    rows = [Row(name) for name in names]
    processes = [_Process(name, setting) for name in names]
    try:
        for number in range(setting.windows):
            first: tuple[float, Outputs] | None = None
            for row, process in zip(rows, processes, strict=True):
                seconds, out, row.memory = process.predict(number)
                first = first or (seconds, out)
                for name, difference in _differences(first[1], out).items():
                    row.differences[name] = max(difference, row.differences.get(name, 0.0))
                if number >= WARM_UP:
                    row.ms.append(1e3 * seconds)
                    row.rates.append(first[0] / seconds)
            say(f"window {number + 1} of {setting.windows}")
    finally:
        for process in processes:
            process.close()
    return rows


def _differences(right: Outputs, found: Outputs) -> dict[str, float]:
    return {name: float(np.abs(found[name] - value).max() / value.std()) for name, value in right.items()}


class _Process:
    """One row's process."""

    def __init__(self, row: str, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._row = row
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(row, setting, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def predict(self, number: int) -> tuple[float, Outputs, tuple[int, int]]:
        """Seconds, outputs, resident memory (see ``work``)."""
        try:
            self._pipe.send(number)
            answer: tuple[float, Outputs, tuple[int, int]] = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise PredictorError(f"the process of '{self._row}' has ended; what it printed says why") from error
        return answer

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._pipe.close()


def _in_a_process(function: Callable[[Setting], Any], setting: Setting) -> None:
    """So that what it leaves in memory goes with it."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=(setting,), daemon=True)
    process.start()
    process.join()
    if process.exitcode:
        raise PredictorError("the graphs cannot be exported; what was printed says why")

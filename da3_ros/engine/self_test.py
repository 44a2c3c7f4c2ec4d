"""The self-test of what lies in the store: run once for each library and GPU, and remembered beside it."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping

from da3_ros.engine import parity
from da3_ros.engine.gpu import Gpu
from da3_ros.engine.graphs import Graphs
from da3_ros.engine.parity import Parity
from da3_ros.engine.runtime import Runtime
from da3_ros.engine.store import Entry
from da3_ros.errors import EngineError, OutputError

_NOTE = "self_tests"


def label(runtime: Runtime, version: str, gpu: Gpu | None) -> str:
    """What a self-test holds for: another library, GPU, driver or kind of processor is tested anew."""
    where = f" {gpu.name} {gpu.driver}" if gpu is not None else ""
    return f"{runtime.name} {version} {platform.machine()}{where}"


def passed(entry: Entry) -> Mapping[str, Mapping[str, float]]:
    """Differences by output, by what the test was passed with."""
    tests = entry.noted(_NOTE) or {}
    return {name: differences for name, differences in tests.items() if isinstance(differences, dict)}


def run(
    runtime: Runtime, graphs: Graphs, entry: Entry, *, precision: str, where: str, most: int = parity.WINDOWS[-1]
) -> Parity:
    """Compare a runtime, opened from an entry, with the network, in windows of at most so many views.

    Raises:
        EngineError: it says something else; what the entry is remembered to have passed is forgotten.
        PredictorError: it cannot run.
    """
    found = parity.compare(runtime, graphs.self_test(), graphs.cameras(), most)
    others = {name: dict(differences) for name, differences in passed(entry).items() if name != where}
    try:
        found.require(precision, where)
    except EngineError:
        _remember(entry, others)
        raise
    _remember(entry, others | {where: dict(found.differences)})
    return found


def _remember(entry: Entry, tests: Mapping[str, Mapping[str, float]]) -> None:
    # In a store that cannot be written nothing is remembered: the test is repeated at the next start.
    with contextlib.suppress(OutputError):
        entry.note(_NOTE, tests)

"""Whether an entry of the store is whole, and says what the network says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from da3_ros.engine import parity, self_test
from da3_ros.engine.choice import library
from da3_ros.engine.engines import GRAPHS_FROM, Engines
from da3_ros.engine.gpu import Gpu, find_gpu
from da3_ros.engine.graphs import Graphs
from da3_ros.engine.loader import engine_runtime, graph_runtime, library_version
from da3_ros.engine.parity import TOLERANCE
from da3_ros.engine.runtime import Runtime
from da3_ros.engine.store import Entry, Store, read_entry
from da3_ros.errors import Da3Error, EngineError, MissingDependencyError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one entry."""

    problem: str = ""  # a sentence; empty where nothing is wrong
    not_run: str = ""  # why its self-test was not repeated here
    where: str = ""  # what the self-test was run with
    differences: Mapping[str, float] = field(default_factory=dict)  # by output, see ``Parity``
    tolerance: float = 0.0


class _NotHereError(Exception):
    """The entry cannot be run on this machine; says why."""


def verify(store: Store, entry: Entry) -> Verdict:
    """Compare an entry with its checksums and, where it can be run here, with the network.

    Whatever is wrong is told by the verdict; what passes is remembered as a self-test.
    """
    where = ""
    try:
        entry.check()
        graphs, runtime, version, gpu = _opened(store, entry)
        precision = entry.fields["precision"]
        where = self_test.label(runtime, version, gpu)
        try:
            most = int(entry.fields.get("views", parity.WINDOWS[-1]))
            found = self_test.run(runtime, graphs, entry, precision=precision, where=where, most=most)
        finally:
            runtime.close()
    except _NotHereError as reason:
        return Verdict(not_run=str(reason))
    except Da3Error as error:
        return Verdict(problem=str(error), where=where)
    return Verdict(where=where, differences=found.differences, tolerance=TOLERANCE[precision])


def _opened(store: Store, entry: Entry) -> tuple[Graphs, Runtime, str, Gpu | None]:
    """The graphs that have the self-test, the runtime, its library's version, and the GPU where it runs on one."""
    kind = entry.fields.get("kind")
    if kind == "graphs":
        try:
            version = library_version("onnxruntime")
        except (ImportError, OSError, RuntimeError) as error:
            raise _NotHereError(f"ONNX Runtime is not installed or does not load ({error})") from error
        graphs = Graphs(entry)
        return graphs, graph_runtime(graphs, "cpu", entry.fields["precision"]), version, None
    if kind != "engines":
        raise EngineError(f"{entry.folder} holds '{kind}', which this version does not know; update da3_ros")
    module, version, gpu = _matching(entry)
    graphs = _graphs_of(store, entry)
    return graphs, engine_runtime(Engines(entry), module, entry.fields["precision"]), version, gpu


def _matching(entry: Entry) -> tuple[str, str, Gpu]:
    """Library, its version and the GPU that engines were made for, where they are here."""
    made = entry.fields
    try:
        version = str(library(made["library"]).__version__)
    except MissingDependencyError as error:
        raise _NotHereError(str(error)) from error
    if version != made["version"]:
        raise _NotHereError(f"they were made by {made['library']} {made['version']}; {version} is installed")
    gpu = find_gpu()
    if gpu is None:
        raise _NotHereError("no NVIDIA GPU was found")
    if gpu.compute_capability != made["compute_capability"] or made["gpu"] not in ("any", gpu.name):
        wanted = "a GPU" if made["gpu"] == "any" else made["gpu"]
        raise _NotHereError(
            f"they were made for {wanted} ({made['compute_capability']}); here is {gpu.name} ({gpu.compute_capability})"
        )
    return made["library"], version, gpu


def _graphs_of(store: Store, entry: Entry) -> Graphs:
    key = entry.about.get(GRAPHS_FROM, "")
    folder = store.folder / key
    if not key or not folder.is_dir():
        raise _NotHereError(f"the graphs that they were made from ({key or 'unknown'}) are not in the store")
    graphs = read_entry(folder)
    graphs.check()
    return Graphs(graphs)

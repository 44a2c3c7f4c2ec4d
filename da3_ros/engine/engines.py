"""Engines of one network at one image size for one GPU: compiled once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.engine import tensorrt_build, tensorrt_inspect
from da3_ros.engine.choice import library
from da3_ros.engine.gpu import Gpu
from da3_ros.engine.graphs import Graphs
from da3_ros.engine.signature import ONE_VIEW
from da3_ros.engine.store import Entry, Store
from da3_ros.errors import EngineError
from da3_ros.files import write_atomic
from da3_ros.types import Tell

GRAPHS_FROM = "graphs from"  # what is told about an entry: key of the graphs, which have the self-test

_SUFFIX = ".engine"
_TIMINGS = "timing"
_STEPS = (1, 4)  # views for which an engine is made fast, besides the most
_MOST = (4, 8, 16, 32, 64)  # views that engines are made for: one set serves windows of many sizes
_JUST_IN_TIME = "tensorrt_rtx"  # compiles for the GPU at hand when an engine is loaded: one engine fits all of a kind


@dataclass(frozen=True, slots=True)
class Target:
    """What engines are made for."""

    runtime: str  # tensorrt or tensorrt_rtx
    compute_capability: str  # "8.9"
    gpu: str | None  # name; None: any of that capability, on this machine or not

    @classmethod
    def of(cls, runtime: str, gpu: Gpu) -> Target:
        """The GPU at hand."""
        return cls(runtime, gpu.compute_capability, None if runtime == _JUST_IN_TIME else gpu.name)


@dataclass(frozen=True, slots=True)
class Engines:
    """An entry of the store with an engine per stage."""

    entry: Entry

    @property
    def stages(self) -> Mapping[str, Path]:
        """Stage -> file."""
        return self.entry.named(_SUFFIX)

    @property
    def runtime_cache(self) -> Path:
        """Where kernels that are compiled while running are kept."""
        return self.entry.path("kernels.cache")


def profiles(stage: str, views: int) -> list[tuple[int, int, int]]:
    """Least, best and most views of each optimisation profile of a stage that is given at most so many."""
    if stage in ONE_VIEW:
        return [(1, 1, 1)]
    best = sorted({*(step for step in _STEPS if step < views), views})
    return [(before + 1, most, most) for before, most in zip((0, *best), best, strict=False)]


def open_engines(store: Store, graphs: Graphs, target: Target, views: int, *, build: bool, tell: Tell) -> Engines:
    """Find the engines of graphs for at most so many views, or build them.

    Raises:
        MissingDependencyError: the library is not installed.
        EngineError: there are none and ``build`` forbids to make them, or a graph cannot be compiled.
        OutputError: the store cannot be written.
    """
    module = library(target.runtime)
    about = graphs.entry.fields
    views = next((most for most in _MOST if views <= most), views) if views > 1 else views
    fields = {
        "kind": "engines",
        "network": about["network"],
        "size": about["size"],
        "precision": about["precision"],
        "views": str(views),
        "library": target.runtime,
        "version": str(module.__version__),
        "gpu": target.gpu or "any",
        "compute_capability": target.compute_capability,
        "graphs": graphs.digest,
    }
    what = f"engines of {about['network']} at {about['size']} for up to {views} views"
    if not build:
        found = store.find(fields)
        if found is None:
            raise EngineError(
                f"there are no {what} with {target.runtime} {module.__version__} on {target.gpu or 'any GPU'} "
                f"({target.compute_capability}) yet; make them with 'da3 engine build MODEL --runtime {target.runtime} "
                f"--size {about['size']} --views {views}', or allow network.build"
            )
        return Engines(found)
    timing = store.folder / f"{_TIMINGS}-{target.runtime}-{module.__version__}-{target.compute_capability}.cache"

    def write(place: Path) -> Mapping[str, str]:
        stages = graphs.stages
        for i, (stage, graph) in enumerate(stages.items()):

            def inner(share: float, i: int = i, stage: str = stage) -> None:
                tell(f"compiling {about['network']}: {stage}", (i + min(share, 0.99)) / len(stages))  # 1: all is done

            inner(0.0)
            _require_single_precision(module, stage, graph)
            engine, kept = tensorrt_build.build(
                module,
                graph,
                profiles(stage, views),
                compute_capability=target.compute_capability if target.gpu is None else None,
                timing_cache=timing.read_bytes() if timing.exists() else b"",
                progress=inner,
            )
            (place / f"{stage}{_SUFFIX}").write_bytes(engine)
            if kept:
                write_atomic(timing, kept)
        return {GRAPHS_FROM: graphs.entry.key}

    return Engines(store.make(fields, write, tell, what=what))


def _require_single_precision(module: Any, stage: str, graph: Path) -> None:
    """Refuse a graph whose last layers the library would compute in half precision.

    Raises:
        EngineError: names the first of them.
    """
    nodes = tensorrt_inspect.single_precision_nodes(stage, graph)
    wrong = tensorrt_inspect.not_single(nodes, tensorrt_inspect.graph_layers(module, graph)) if nodes else []
    if wrong:
        raise EngineError(
            f"'{stage}' would lose precision where it must not ({wrong[0]}); remove its graphs with 'da3 engine clean' "
            "and build them anew"
        )


def forget_timings(store: Store) -> int:
    """Remove what builds have learnt about the speed of kernels; returns the bytes that were freed."""
    freed = 0
    for path in store.folder.glob(f"{_TIMINGS}-*.cache"):
        freed += path.stat().st_size
        path.unlink()
    return freed

"""Engines from ONNX graphs, with TensorRT or TensorRT for RTX: the same strongly typed interface.

The bindings let go of the interpreter lock while they parse and build, so that other threads go on; they take it for
every line that they log and for every step, which is when Ctrl-C arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from da3_ros.engine.tensorrt_log import Complaints, named
from da3_ros.errors import EngineError

# Told the share of the build that is done.  False ends the build; so does an exception, which comes out of ``build``.
Progress = Callable[[float], bool | None]

_JUST_IN_TIME = "tensorrt_rtx"  # chooses kernels where the engine runs: it times nothing


def build(
    library: Any,
    graph: Path,
    views: Sequence[tuple[int, int, int]],
    *,
    compute_capability: str | None = None,
    workspace_bytes: int = 2 << 30,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Compile a graph whose first axes are numbers of views.

    Args:
        library: the module ``tensorrt`` or ``tensorrt_rtx``.
        graph: ONNX, mixed precision spelt out.
        views: per optimisation profile the least, best and most views.
        compute_capability: such as "8.9", to build for a GPU that is not here (TensorRT for RTX only).
        workspace_bytes: scratch memory that tactics may use.
        timing_cache: of an earlier build; empty: none.  One that the library does not like is not used.
        progress: called now and then; see ``Progress``.

    Returns:
        (the engine, the timing cache; empty where the library keeps none)

    Raises:
        EngineError: the graph cannot be parsed or compiled (the sentence has the library's first complaint), the
            library cannot build for this GPU, or ``progress`` has ended the build.
        KeyboardInterrupt: Ctrl-C; the build ends within a step.
    """
    log = Complaints(library)
    builder = _builder(library, log)
    network = parse(library, graph, builder, log)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if compute_capability is not None:
        _target(library, config, compute_capability)
    monitor = _monitor(library, log, progress)
    config.progress_monitor = monitor
    timings = None if library.__name__ == _JUST_IN_TIME else _start_from(config, timing_cache)
    for least, best, most in views:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            node = network.get_input(i)
            rest = tuple(node.shape)[1:]
            profile.set_shape(node.name, (least, *rest), (best, *rest), (most, *rest))
        config.add_optimization_profile(profile)
    log.forget()
    engine = builder.build_serialized_network(network, config)
    log.raise_interrupt()
    if monitor.ended:
        raise EngineError(f"compiling {graph.name} was stopped before its end; start it again to have the engine")
    if engine is None:
        raise EngineError(f"{named(library)} cannot compile {graph.name}: {log.first}; use another runtime")
    if progress is not None:
        progress(1.0)  # the library's last step comes before its end
    return bytes(engine), bytes(timings.serialize()) if timings is not None else b""


def parse(library: Any, graph: Path, builder: Any, log: Complaints) -> Any:
    """A graph as a strongly typed network of the library.

    Raises:
        EngineError: it cannot be parsed.
        KeyboardInterrupt: Ctrl-C.
    """
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log.logger)
    parsed = parser.parse_from_file(str(graph))
    log.raise_interrupt()
    if not parsed:
        why = parser.get_error(0).desc() if parser.num_errors else log.first
        raise EngineError(f"{named(library)} cannot parse {graph.name}: {why}; use another runtime")
    if not network.num_outputs:  # the parser takes arbitrary bytes for a graph without nodes
        raise EngineError(f"{graph} is no ONNX graph; remove its entry with 'da3 engine clean' and build it anew")
    return network


def parsed_network(library: Any, graph: Path) -> Any:
    """A graph as the library understands it, without compiling it; see ``parse`` for errors."""
    log = Complaints(library)
    return parse(library, graph, _builder(library, log), log)


def _builder(library: Any, log: Complaints) -> Any:
    try:
        return library.Builder(log.logger)
    except TypeError as error:  # the bindings' word for a builder that the library did not give
        raise EngineError(
            f"{named(library)} cannot build engines here: {log.first}; is the GPU's driver new enough?"
        ) from (error)


def _start_from(config: Any, timing_cache: bytes) -> Any:
    """Begin with what an earlier build has measured, unless that is damaged or of another GPU or version."""
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _target(library: Any, config: Any, capability: str) -> None:
    """Build for a named GPU generation instead of the one in this machine."""
    kinds = getattr(library, "ComputeCapability", None)
    name = f"SM{capability.replace('.', '')}"
    if kinds is None or not hasattr(kinds, name):
        numbers = sorted(int(kind[2:]) for kind in dir(kinds) if kind.startswith("SM")) if kinds is not None else []
        known = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
        raise EngineError(
            f"{named(library)} cannot build for compute capability {capability}; "
            + (f"it knows {known}" if known else "build on the machine that has the GPU")
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(kinds, name), 0)


def _monitor(library: Any, log: Complaints, progress: Progress | None) -> Any:
    """The library's progress monitor: phases within phases, of which the outermost counts."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.ended = False  # by ``progress``
            self._outer, self._steps = "", 1

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outer, self._steps = phase, max(steps, 1)

        def step_complete(self, phase: str, step: int) -> bool:
            with log.kept():
                if progress is not None and phase == self._outer and not self.ended:
                    self.ended = progress((step + 1) / self._steps) is False
            return not self.ended and log.interrupt is None

        def phase_finish(self, phase: str) -> None:
            """Nothing: the last step has said so."""

    return Monitor()

"""Engines from ONNX graphs, with TensorRT or TensorRT for RTX: the same strongly typed interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from da3_ros.errors import ModelError

Progress = Callable[[float], None]  # share of the build that is done


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
        timing_cache: of an earlier build; empty: none.
        progress: called now and then.

    Returns:
        (the engine, the timing cache)

    Raises:
        ModelError: the graph cannot be parsed or compiled; the sentence has the library's first complaint.
    """
    log = _Log(library)
    builder = library.Builder(log.logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        raise ModelError(f"{graph.name} cannot be parsed by {library.__name__}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if compute_capability is not None:
        _target(library, config, compute_capability)
    if progress is not None:
        config.progress_monitor = _monitor(library, progress)
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, ignore_mismatch=True)
    for least, best, most in views:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            node = network.get_input(i)
            rest = tuple(node.shape)[1:]
            profile.set_shape(node.name, (least, *rest), (best, *rest), (most, *rest))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"{library.__name__} cannot compile {graph.name}: {log.first_error or 'no reason given'}")
    kept = config.get_timing_cache()
    return bytes(engine), bytes(kept.serialize()) if kept is not None else b""


def _target(library: Any, config: Any, capability: str) -> None:
    """Build for a named GPU generation instead of the one in this machine."""
    kinds = getattr(library, "ComputeCapability", None)
    name = f"SM{capability.replace('.', '')}"
    if kinds is None or not hasattr(kinds, name):
        known = [k[2:-1] + "." + k[-1] for k in dir(kinds) if k.startswith("SM")] if kinds is not None else []
        raise ModelError(
            f"{library.__name__} cannot build for compute capability {capability}"
            + (f"; it knows {', '.join(sorted(known))}" if known else "; build on the machine that has the GPU")
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(kinds, name), 0)


class _Log:
    """Keeps the library's complaints instead of printing them."""

    def __init__(self, library: Any) -> None:
        self.first_error = ""
        outer = self

        class Logger(library.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                if severity <= library.ILogger.Severity.ERROR and not outer.first_error:
                    outer.first_error = message

        self.logger = Logger()


def _monitor(library: Any, progress: Progress) -> Any:
    """The library's progress monitor: phases within phases, of which the outermost counts."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._outer = ""

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            if parent is None:
                self._outer = phase

        def step_complete(self, phase: str, step: int) -> bool:
            if phase == self._outer:
                progress((step + 1) / max(self._steps[phase], 1))
            return True

        def phase_finish(self, phase: str) -> None:
            if phase == self._outer:
                progress(1.0)

    return Monitor()

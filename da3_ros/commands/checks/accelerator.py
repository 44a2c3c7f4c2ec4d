"""The GPU."""

from __future__ import annotations

from collections.abc import Iterator

from da3_ros.commands.checks.finding import Finding, State
from da3_ros.engine.gpu import find_gpu

_GIB = 1 << 30


def check() -> Iterator[Finding]:
    """The one that would be used."""
    gpu = find_gpu()
    if gpu is None:
        yield Finding(State.INFO, "GPU", "none that NVIDIA's driver tells of; networks run on the CPU")
        return
    memory = f"{gpu.memory / _GIB:.1f} GiB" if gpu.memory else "memory not told (shared with the CPU?)"
    driver = gpu.driver if gpu.driver[:1].isdigit() else "of unknown version"
    yield Finding(
        State.OK, "GPU", f"{gpu.name}, compute capability {gpu.compute_capability}, {memory}, driver {driver}"
    )

"""ONNX Runtime: on a CPU about twice as fast as torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from da3_ros.engine.runtime import Host
from da3_ros.engine.signature import INPUTS
from da3_ros.errors import ModelError, PredictorError

# What the library raises; they share no base but Exception.
_FAILURES = (
    "EPFail",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # of the inputs of stages


class OnnxRuntime:
    """Sessions for exported stages; values are host arrays."""

    def __init__(
        self,
        graphs: Mapping[str, Path],
        *,
        provider: str = "CPUExecutionProvider",
        precision: str = "fp32",
        threads: int = 0,
    ) -> None:
        """Open a graph per stage; ``threads`` 0 leaves the choice to the library.

        Raises:
            ModelError: a graph cannot be read.
            PredictorError: the provider cannot be used here.
        """
        from onnxruntime import InferenceSession
        from onnxruntime.capi import onnxruntime_pybind11_state as library

        self.name = f"onnxruntime {provider.removesuffix('ExecutionProvider').lower()} {precision}"
        self._failures: tuple[type[Exception], ...] = (
            RuntimeError,
            *(getattr(library, name) for name in _FAILURES if hasattr(library, name)),
        )
        options = _options(threads)
        self._sessions: dict[str, Any] = {}
        for stage, graph in graphs.items():
            try:
                session = self._sessions[stage] = InferenceSession(str(graph), options, providers=[provider])
            except self._failures as error:
                raise ModelError(
                    f"{graph} is no graph that ONNX Runtime can run ({_first_line(error)}); remove it with 'da3 engine "
                    "clean', and it is made anew"
                ) from error
            if session.get_providers()[0] != provider:  # the library falls back to the CPU and only prints it
                raise PredictorError(
                    f"ONNX Runtime cannot use its {provider} here; install the onnxruntime-gpu that fits the GPU's "
                    "driver and CUDA, or choose --device cpu"
                )

    def upload(self, array: Host) -> Host:
        """As it is."""
        return array

    def fetch(self, value: Host) -> Host:
        """As it is, in single precision."""
        return value.astype(np.float32, copy=False)

    def join(self, values: Sequence[Host]) -> Host:
        """See ``Runtime``."""
        return np.concatenate(values) if len(values) > 1 else values[0]

    def pick(self, value: Host, views: Sequence[int]) -> Host:
        """See ``Runtime``."""
        if list(views) == list(range(len(value))):
            return value
        return np.ascontiguousarray(value[list(views)])

    def size(self, value: Host) -> int:
        """See ``Runtime``."""
        return value.nbytes

    def run(self, stage: str, values: Sequence[Host]) -> tuple[Host, ...]:
        """See ``Runtime``."""
        session = self._sessions.get(stage)
        if session is None:
            raise PredictorError(f"ONNX Runtime has no '{stage}' here: it is closed, or the network is of another kind")
        if len(values) != len(INPUTS[stage]):
            raise PredictorError(f"ONNX Runtime could not run '{stage}': it takes {len(INPUTS[stage])} values")
        feed = {
            node.name: value.astype(_TYPES[node.type], copy=False)
            for node, value in zip(session.get_inputs(), values, strict=True)
        }
        try:
            return tuple(session.run(None, feed))
        except self._failures as error:
            raise PredictorError(f"ONNX Runtime could not run '{stage}': {_first_line(error)}") from error

    def close(self) -> None:
        """See ``Runtime``."""
        self._sessions = {}


def _options(threads: int) -> Any:
    from onnxruntime import SessionOptions

    _share_arena()
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures come as exceptions; the library would print them besides
    options.add_session_config_entry("session.use_env_allocators", "1")
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":  # cores are shared: as with the other libraries
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@functools.cache
def _share_arena() -> None:
    """One arena on the host for all stages, which run one after the other, instead of one each.

    Without any, mixing takes 1.4 times as long (its large values would be mapped anew each time); by default each stage
    keeps its own for good, rounded up to a power of two, which takes 1.4 times the memory.  It outlives the sessions:
    the next network finds it there.
    """
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(place, as_requested)


def _first_line(error: Exception) -> str:
    """What the library says, less its own numbers."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return first.removeprefix("[ONNXRuntimeError] : ")

"""TensorRT and TensorRT for RTX on an NVIDIA GPU: compiled stages on memory that torch manages.

Everything goes onto one CUDA stream of our own, so it happens in the order in which it is asked for, and torch gives
memory that was let go of only to what comes later on that stream.

The interpreter lock: NVIDIA's bindings (python/src/infer/pyCore.cpp, the same from TensorRT 9.3 to 11.1) let go of it
in deserialize_cuda_engine, create_execution_context and execute_async_v3, and torch in waiting for a stream, so the
node's threads go on meanwhile.  set_* and get_* keep it and take microseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from da3_ros.engine.gpu import find_gpu
from da3_ros.engine.runtime import Host
from da3_ros.engine.signature import ONE_VIEW
from da3_ros.engine.tensorrt_engine import Engine
from da3_ros.engine.tensorrt_kernels import KernelCache
from da3_ros.engine.tensorrt_log import Complaints, named
from da3_ros.errors import PredictorError

_LOWER = "lower window.size, network.size or network.cache_mb, or close what else uses the GPU"


class TensorRTRuntime:
    """Engines of the stages; values are tensors on the GPU.

    Outputs of the stages in ``ONE_VIEW`` are the caller's to keep.  Those of all other stages hold until the same stage
    runs again: they live in buffers that are used from window to window.
    """

    def __init__(
        self,
        library: Any,
        engines: Mapping[str, Path],
        *,
        precision: str,
        runtime_cache: Path | None = None,
        device: str = "cuda",
    ) -> None:
        """Load engines.

        Args:
            library: the module ``tensorrt`` or ``tensorrt_rtx``.
            engines: stage -> file.
            precision: fp32 or fp16, for the name.
            runtime_cache: file for the kernels that TensorRT for RTX compiles while running.
            device: cuda or cuda:N.  "cpu" is for tests of this logic with a stand-in for the library, and never chosen.

        Raises:
            PredictorError: there is no GPU that can be used; the sentence says what is missing.
            EngineError: an engine cannot be loaded.
        """
        self.name = f"{library.__name__} {device} {precision}"
        self._library = named(library)
        self._device = torch.device(device)
        self._on_gpu = self._device.type != "cpu"
        self._stream = _open_stream(self._device, self._library) if self._on_gpu else None
        self._handle: int = self._stream.cuda_stream if self._stream is not None else 0
        self._log = Complaints(library)
        self._kernels = KernelCache(runtime_cache) if hasattr(library, "IRuntimeCache") else None
        self._buffers: dict[tuple[str, str], Tensor] = {}
        self._engines: dict[str, Engine] = {}
        try:
            self._runtime = library.Runtime(self._log.logger)
        except TypeError as error:  # the bindings' word for a runtime that the library did not give
            raise PredictorError(
                f"{self._library} does not start: {self._log.first}; update the GPU's driver"
            ) from error
        for stage, path in engines.items():
            self._engines[stage] = Engine(library, self._runtime, stage, path, self._log)

    def upload(self, array: Host) -> Tensor:
        """See ``Runtime``."""
        with self._doing("uploading"):
            # Pinned memory is copied while we go on; torch keeps it from being used again before that is over.
            pinned = torch.empty(array.shape, dtype=torch.float32, pin_memory=self._on_gpu)
            pinned.numpy()[...] = array
            return pinned.to(self._device, non_blocking=True)

    def fetch(self, value: Tensor) -> Host:
        """See ``Runtime``; the array is the caller's own."""
        with self._doing("fetching"):
            pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=self._on_gpu)
            pinned.copy_(value, non_blocking=True)
            if self._stream is not None:
                self._stream.synchronize()
            host = torch.empty(value.shape, dtype=torch.float32)  # a map may keep this: pinned memory is too dear
            return np.asarray(host.copy_(pinned))

    def join(self, values: Sequence[Tensor]) -> Tensor:
        """See ``Runtime``."""
        if len(values) == 1:
            return values[0]
        with self._doing("joining views"):
            return torch.cat(list(values))

    def pick(self, value: Tensor, views: Sequence[int]) -> Tensor:
        """See ``Runtime``."""
        if list(views) == list(range(len(value))):
            return value
        with self._doing("picking views"):
            return torch.stack([value[view] for view in views])  # an index would wait for its own upload

    def size(self, value: Tensor) -> int:
        """See ``Runtime``."""
        return value.element_size() * value.nelement()

    def run(self, stage: str, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See ``Runtime``; the class says how long outputs hold."""
        if stage not in self._engines:
            raise PredictorError(
                f"{self._library} has no '{stage}' here: it is closed, or the network is of another kind"
            )
        engine, views = self._engines[stage], len(values[0])
        what = f"'{stage}' with {views} view{'s' if views > 1 else ''}"
        with self._doing(what):
            self._log.forget()
            context = engine.context(engine.profile(views), self._handle, self._context)
            if context is None:
                raise self._no_memory(f"{what} ({self._log.first})")
            inputs = []  # held until the stage is on the stream
            for name, value in zip(engine.inputs, values, strict=True):
                value = value.to(engine.dtypes[name]).contiguous()
                inputs.append(value)
                self._require(context.set_input_shape(name, tuple(value.shape)), stage, f"{name} {tuple(value.shape)}")
                self._require(context.set_tensor_address(name, value.data_ptr()), stage, f"the address of {name}")
            outputs = []
            for name in engine.outputs:
                shape = tuple(context.get_tensor_shape(name))
                self._require(min(shape, default=0) > 0, stage, f"the shape of {name}")
                value = self._output(stage, name, shape, engine.dtypes[name])
                outputs.append(value)
                self._require(context.set_tensor_address(name, value.data_ptr()), stage, f"the address of {name}")
            executed = context.execute_async_v3(self._handle)
            self._log.raise_interrupt()
            self._require(executed, stage, "to execute")
        return tuple(outputs)

    def close(self) -> None:
        """See ``Runtime``."""
        if self._stream is not None:
            with contextlib.suppress(RuntimeError):  # whatever went wrong on the GPU was said when it did
                self._stream.synchronize()
        for engine in self._engines.values():
            engine.idle()
        if self._kernels is not None:
            self._kernels.close()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._buffers.clear()
        self._runtime = None

    def _context(self, engine: Any) -> Any:
        if self._kernels is None:
            return engine.create_execution_context()
        return engine.create_execution_context(self._kernels.config(engine))

    def _output(self, stage: str, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for an output: its own, or the stage's buffer, which grows to the largest that was asked for."""
        if stage in ONE_VIEW:
            return torch.empty(shape, dtype=dtype, device=self._device)
        count = prod(shape)
        buffer = self._buffers.get((stage, name))
        if buffer is None or len(buffer) < count:
            self._buffers.pop((stage, name), None)
            buffer = None  # let go of before more is asked for
            buffer = self._buffers[stage, name] = torch.empty(count, dtype=dtype, device=self._device)
        return buffer[:count].view(shape)

    def _require(self, done: bool, stage: str, what: str) -> None:
        if done:
            return
        why = self._log.first
        if "memory" in why.lower():
            raise self._no_memory(f"'{stage}' ({why})")
        raise PredictorError(f"{self._library} refuses {what} for '{stage}': {why}; use another runtime or image size")

    def _no_memory(self, what: str) -> PredictorError:
        return PredictorError(f"the GPU's memory does not suffice for {what}; {_LOWER}")

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Within, torch works on our stream and its failures are ours."""
        on_stream = torch.cuda.stream(self._stream) if self._on_gpu else contextlib.nullcontext()
        try:
            with torch.inference_mode(), on_stream:
                yield
        except torch.OutOfMemoryError as error:
            raise self._no_memory(what) from error
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise PredictorError(f"{self._library} failed at {what}: {first}; start again") from error


def _open_stream(device: torch.device, library: str) -> torch.cuda.Stream:
    """A stream of our own on a GPU.

    Raises:
        PredictorError: there is no GPU, or torch cannot use it.
    """
    gpu = find_gpu()
    if gpu is None:
        raise PredictorError(f"{library} needs an NVIDIA GPU, and there is none here; use --runtime auto")
    if torch.version.cuda is None:
        raise PredictorError(
            f"torch {torch.__version__} was built without CUDA and cannot use the {gpu.name}; install the build that "
            "fits its driver"
        )
    if not torch.cuda.is_available():
        raise PredictorError(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the {gpu.name}: its driver "
            f"{gpu.driver} is too old or does not run; update the driver"
        )
    try:
        return torch.cuda.Stream(device)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise PredictorError(f"the {gpu.name} cannot be used ({first}); free it or restart its driver") from error

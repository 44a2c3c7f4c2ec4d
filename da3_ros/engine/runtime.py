"""What runs stages: one interface for torch, ONNX Runtime and TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Host = NDArray[np.float32]
Value = Any  # an array where the runtime keeps it: host memory, or an accelerator's


class Runtime(Protocol):
    """Stages of one network at one image size.  Used by one thread.

    Values stay where the runtime keeps them; only what is asked for by ``fetch`` comes to the host.
    """

    @property
    def name(self) -> str:
        """For reports: "torch cpu fp32"."""
        ...

    def upload(self, array: Host) -> Value:
        """A value from the host."""
        ...

    def fetch(self, value: Value) -> Host:
        """A value to the host, float32."""
        ...

    def join(self, values: Sequence[Value]) -> Value:
        """Values (1, ...) one after the other, as (N, ...)."""
        ...

    def pick(self, value: Value, views: Sequence[int]) -> Value:
        """Some views of a value (S, ...)."""
        ...

    def size(self, value: Value) -> int:
        """Bytes that a value occupies."""
        ...

    def run(self, stage: str, values: Sequence[Value]) -> tuple[Value, ...]:
        """Run a stage (see ``stages``).

        Raises:
            PredictorError: out of memory, or whatever the library reports.
        """
        ...

    def close(self) -> None:
        """Free what it holds; idempotent."""
        ...

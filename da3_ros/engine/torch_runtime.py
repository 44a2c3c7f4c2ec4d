"""torch, on a CPU or an NVIDIA GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from da3_ros.engine.runtime import Host
from da3_ros.engine.stages import INPUTS, stages
from da3_ros.errors import PredictorError
from da3_ros.model.grid import Grid
from da3_ros.model.network import MonoNetwork, Network


class TorchRuntime:
    """The stages as they are; values are tensors."""

    def __init__(
        self, network: Network | MonoNetwork, grid: Grid, *, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        """``precision`` is fp32 or bf16 (matrix products only; heads stay in fp32)."""
        self.name = f"torch {device} {precision}"
        self._device = torch.device(device)
        self._autocast = precision == "bf16"
        with _doing("loading"):
            self._stages = {name: stage.to(self._device) for name, stage in stages(network, grid).items()}

    def upload(self, array: Host) -> Tensor:
        """See ``Runtime``."""
        with _doing("uploading"):
            return torch.from_numpy(array).to(self._device, non_blocking=True)

    def fetch(self, value: Tensor) -> Host:
        """See ``Runtime``."""
        with _doing("fetching"):  # where what went wrong on a GPU earlier comes out
            return np.asarray(value.float().cpu())

    def join(self, values: Sequence[Tensor]) -> Tensor:
        """See ``Runtime``."""
        with _doing("joining views"):
            return torch.cat(list(values)) if len(values) > 1 else values[0]

    def pick(self, value: Tensor, views: Sequence[int]) -> Tensor:
        """See ``Runtime``."""
        with _doing("picking views"):
            return value if list(views) == list(range(len(value))) else value[list(views)]

    def size(self, value: Tensor) -> int:
        """See ``Runtime``."""
        return value.element_size() * value.nelement()

    def run(self, stage: str, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See ``Runtime``."""
        if stage not in self._stages:
            raise PredictorError(f"torch has no '{stage}' here: it is closed, or the network is of another kind")
        if len(values) != len(INPUTS[stage]):
            raise PredictorError(f"torch could not run '{stage}': it takes {len(INPUTS[stage])} values")
        mixed = self._autocast and stage in ("encode", "enter", "mix", "look")
        on_device = torch.autocast(self._device.type, torch.bfloat16, enabled=mixed)
        with _doing(f"running '{stage}'"), torch.inference_mode(), on_device:
            out = self._stages[stage](*(value if mixed else value.float() for value in values))
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def close(self) -> None:
        """See ``Runtime``."""
        self._stages = {}


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    """Within, torch's failures are ours: out of memory is a RuntimeError, wrong shapes are any of these."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise PredictorError(f"torch failed at {what}: {first}") from error

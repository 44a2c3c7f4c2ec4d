"""A stage compiled by TensorRT or TensorRT for RTX: its tensors, its profiles, and what executes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from da3_ros.engine.signature import INPUTS, OUTPUTS
from da3_ros.engine.tensorrt_log import Complaints, named
from da3_ros.errors import EngineError, PredictorError
from da3_ros.files import reason

_REMEDY = "remove its entry with 'da3 engine clean' and build it anew"


class Engine:
    """One stage, with an execution context for each of its optimisation profiles that was needed so far."""

    def __init__(self, library: Any, runtime: Any, stage: str, path: Path, log: Complaints) -> None:
        """Load a file.

        Raises:
            EngineError: it cannot be read, is of another version or GPU, or is another stage's.
        """
        self.stage = stage
        self.inputs, self.outputs = INPUTS[stage], OUTPUTS[stage]
        log.forget()
        try:
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        except OSError as error:
            raise EngineError(f"{path} cannot be read ({reason(error)}); {_REMEDY}") from error
        log.raise_interrupt()
        if self._engine is None:
            raise EngineError(f"{named(library)} cannot load {path}: {log.first}; {_REMEDY}")
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != {*self.inputs, *self.outputs}:
            raise EngineError(f"{path} is not the stage '{stage}' of this version; {_REMEDY}")
        types = _types(library)
        self.dtypes: Mapping[str, torch.dtype] = {name: types[self._engine.get_tensor_dtype(name)] for name in names}
        self._views = [self._range(profile) for profile in range(self._engine.num_optimization_profiles)]
        self._contexts: dict[int, Any] = {}

    def profile(self, views: int) -> int:
        """The narrowest profile for a number of views.

        Raises:
            PredictorError: there is none.
        """
        fitting = [i for i, (least, most) in enumerate(self._views) if least <= views <= most]
        if not fitting:
            most = max(most for _, most in self._views)
            raise PredictorError(
                f"the engine of '{self.stage}' takes at most {most} views, not {views}; lower window.size, or build "
                "engines for more views with 'da3 engine build'"
            )
        return min(fitting, key=lambda i: self._views[i][1] - self._views[i][0])

    def context(self, profile: int, stream: int, make: Callable[[Any], Any]) -> Any:
        """What executes the stage under a profile; None where there is no memory for it, or the profile is refused.

        Args:
            profile: see ``profile``.
            stream: handle of the CUDA stream.
            make: makes a context of the library's engine; called once per profile.
        """
        found = self._contexts.get(profile)
        if found is None:
            found = make(self._engine)
            if found is None or not found.set_optimization_profile_async(profile, stream):
                return None
            self._contexts[profile] = found
        return found

    def idle(self) -> None:
        """Free all contexts."""
        self._contexts.clear()

    def close(self) -> None:
        """Free contexts, then the engine; idempotent."""
        self.idle()
        self._engine = None

    def _range(self, profile: int) -> tuple[int, int]:
        """Least and most views of a profile."""
        least, _, most = self._engine.get_tensor_profile_shape(self.inputs[0], profile)
        return least[0], most[0]


def _types(library: Any) -> dict[Any, torch.dtype]:
    kinds = library.DataType
    return {kinds.FLOAT: torch.float32, kinds.HALF: torch.float16, kinds.BF16: torch.bfloat16}

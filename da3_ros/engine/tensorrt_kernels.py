"""Kernels that TensorRT for RTX compiles on the machine at hand, kept in a file from one run to the next."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from da3_ros.errors import OutputError, PredictorError
from da3_ros.files import write_atomic


class KernelCache:
    """One cache for all engines of a runtime; without it every start compiles every kernel again."""

    def __init__(self, path: Path | None) -> None:
        """``path`` is read when the first context is made; None: nothing outlives this run."""
        self._path = path
        self._cache: Any = None
        self._stored = b""

    def config(self, engine: Any) -> Any:
        """What a context of this engine is to be made with.  Needs a current CUDA context.

        Raises:
            PredictorError: the library refuses.
        """
        config = engine.create_runtime_config()
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._load()
        if not config.set_runtime_cache(self._cache):
            raise PredictorError("TensorRT for RTX refuses its own cache of kernels; update it, or use another runtime")
        return config

    def close(self) -> None:
        """Write what is new; idempotent.

        Contexts must be gone by then, as they go on compiling while they are there, and the engines must not.
        """
        if self._cache is None:
            return
        kept = bytes(self._cache.serialize())
        self._cache = None
        if self._path is not None and kept != self._stored:
            # A store that cannot be written costs the next start some seconds, and this one nothing.
            with contextlib.suppress(OutputError):
                write_atomic(self._path, kept)

    def _load(self) -> None:
        """Leave the cache empty where the file is missing, damaged, or of another GPU, driver or version.

        The library looks at that itself.
        """
        if self._path is None:
            return
        try:
            stored = self._path.read_bytes()
        except OSError:
            return
        if stored and self._cache.deserialize(stored):
            self._stored = stored

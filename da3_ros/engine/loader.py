"""A model on a runtime: its networks, opened at the image sizes that are asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from da3_ros.engine import parity, self_test
from da3_ros.engine.choice import Choice, choose, library
from da3_ros.engine.engines import Engines, Target, open_engines
from da3_ros.engine.gpu import Gpu, find_gpu
from da3_ros.engine.graphs import OPSET_ATTENTION, OPSET_PLAIN, Graphs, open_graphs
from da3_ros.engine.look import Looker
from da3_ros.engine.onnx_runtime import OnnxRuntime
from da3_ros.engine.runtime import Host, Runtime
from da3_ros.engine.staged import StagedNetwork
from da3_ros.engine.store import Entry, Store
from da3_ros.errors import EngineError, ModelError
from da3_ros.model import hub
from da3_ros.model.folder import ModelFolder, open_folder
from da3_ros.model.layout import Part
from da3_ros.types import Tell

if TYPE_CHECKING:
    from da3_ros.model.checkpoint import Model


def silent(what: str, share: float | None) -> None:
    """Tell nobody."""


def open_loader(
    name: str,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    *,
    build: bool = True,
    threads: int = 0,
    cache_bytes: int = 1 << 30,
    tell: Tell = silent,
    choice: Choice | None = None,
) -> Loader:
    """Find a model, or download it, and choose what runs it; nothing is loaded before a size is asked for.

    Args:
        name: as ``model.hub.resolve`` takes it.
        runtime: as ``choice.choose`` takes it, likewise ``device`` and ``precision``.
        build: make graphs and engines that are missing.
        threads: of a CPU runtime; 0: the library's choice.
        cache_bytes: that may be kept of frames.
        tell: told what takes long; and, with a share of 1, what was chosen.
        choice: what runs it, where that has been chosen already.

    Raises:
        ModelError: there is no such model.
        MissingDependencyError: what was asked for cannot run here.
    """

    def downloading(file: str, done: int, total: int) -> None:
        tell(f"downloading {name}: {file}", done / total if total else None)

    choice = choice or choose(runtime, device, precision)
    folder = open_folder(hub.resolve(name, progress=downloading).folder)
    tell(f"{folder.name} (licence {folder.licence}) on {choice.name}: {choice.why}", 1.0)
    return Loader(folder, choice, build=build, threads=threads, cache_bytes=cache_bytes, tell=tell)


@dataclass(slots=True)
class Loader:
    """Opens the networks of one model folder.  Used by one thread."""

    folder: ModelFolder
    choice: Choice
    store: Store = field(default_factory=Store)
    build: bool = True  # make graphs and engines that are missing
    threads: int = 0  # of a CPU runtime; 0: the library's choice
    cache_bytes: int = 1 << 30  # that may be kept of frames
    tell: Tell = silent
    _model: Model | None = None

    def window(self, size: tuple[int, int], views: int) -> StagedNetwork:
        """The network that mixes views, at an image size (width, height), for at most so many views.

        Raises:
            ModelError: the model looks at one view at a time, or its weights cannot be loaded.
            EngineError: an engine is missing, cannot be built, or says something else than the network.
            MissingDependencyError, OutputError, PredictorError: see ``open_graphs``, ``open_engines`` and the runtimes.
        """
        part = self.folder.parts[0]
        if not part.preset.any_view:
            raise ModelError(
                f"{self.folder.name} looks at one view at a time and gives no poses; use it as metric.model, or use a "
                "model such as da3-small"
            )
        runtime, cameras = self._open(part, size, views)
        assert cameras is not None, "a network that mixes views has camera tokens"
        return StagedNetwork(runtime, cameras, self.cache_bytes)

    def looker(self, size: tuple[int, int]) -> Looker:
        """The network that looks at one view at a time, at an image size (width, height); of the nested model too.

        Raises:
            ModelError: the model has none.
            Da3Error: as ``window``.
        """
        part = self.folder.parts[-1]
        if part.preset.any_view:
            raise ModelError(f"{self.folder.name} knows no metres; use da3metric-large")
        runtime, _ = self._open(part, size, 1)
        return Looker(runtime)

    def make(self, size: tuple[int, int], views: int, target: Target | None = None) -> list[Entry]:
        """Make what opening all networks at an image size needs, without opening them; what is there already is kept.

        Args:
            size: (width, height) of the images, px.
            views: most of them in a window.
            target: what engines are made for, where the choice compiles them; default the GPU at hand.

        Returns:
            The graphs of each network, and its engines.

        Raises:
            Da3Error: as ``window``.
        """
        entries = []
        for part in self.folder.parts:
            graphs = self._graphs(part, size)
            entries.append(graphs.entry)
            if self.choice.compiled:
                entries.append(self._engines(graphs, views if part.preset.any_view else 1, target).entry)
        return entries

    def _open(self, part: Part, size: tuple[int, int], views: int) -> tuple[Runtime, Host | None]:
        if self.choice.runtime == "torch":
            return self._torch(part, size)
        graphs = self._graphs(part, size)
        precision = self.choice.precision
        if self.choice.compiled:
            engines, runtime = self._loaded(graphs, views)
            self._self_test(runtime, graphs, engines.entry, find_gpu())
            return runtime, graphs.cameras()
        self.tell(f"loading {part.preset.name}", None)
        runtime = graph_runtime(graphs, self.choice.device, precision, threads=self.threads)
        self._self_test(runtime, graphs, graphs.entry, find_gpu() if self.choice.device == "cuda" else None)
        return runtime, graphs.cameras()

    def _loaded(self, graphs: Graphs, views: int) -> tuple[Engines, Runtime]:
        """Engines that load: whole files that the library does not take, of whatever reason, are made anew once."""
        engines = self._engines(graphs, views)
        self.tell("loading engines", None)
        try:
            return engines, engine_runtime(engines, self.choice.runtime, self.choice.precision)
        except EngineError as error:
            if not self.build:
                raise
            self.tell(f"{error}: making them anew", None)
        self.store.remove(engines.entry.key)
        engines = self._engines(graphs, views)
        return engines, engine_runtime(engines, self.choice.runtime, self.choice.precision)

    def _graphs(self, part: Part, size: tuple[int, int]) -> Graphs:
        return open_graphs(
            self.store,
            self.folder,
            part,
            size,
            precision=self.choice.precision,
            opset=OPSET_PLAIN if self.choice.compiled else OPSET_ATTENTION,
            build=self.build,
            tell=self.tell,
        )

    def _engines(self, graphs: Graphs, views: int, target: Target | None = None) -> Engines:
        if target is None:
            gpu = find_gpu()
            assert gpu is not None, "the choice has seen one"
            target = Target.of(self.choice.runtime, gpu)
        return open_engines(self.store, graphs, target, views, build=self.build, tell=self.tell)

    def _torch(self, part: Part, size: tuple[int, int]) -> tuple[Runtime, Host | None]:
        import torch

        from da3_ros.engine.torch_runtime import TorchRuntime
        from da3_ros.model.checkpoint import load
        from da3_ros.model.grid import Grid
        from da3_ros.model.network import Network

        if self.threads:
            torch.set_num_threads(self.threads)
        if self._model is None:
            self.tell(f"loading {self.folder.name}", None)
            self._model = load(self.folder)
        network = self._model.network if part is self.folder.parts[0] else self._model.metric
        assert network is not None
        runtime = TorchRuntime(
            network, Grid.of(size[1], size[0]), device=self.choice.device, precision=self.choice.precision
        )
        if not isinstance(network, Network):
            return runtime, None
        return runtime, network.backbone.camera_tokens(2).detach().float().cpu().numpy()

    def _self_test(self, runtime: Runtime, graphs: Graphs, entry: Entry, gpu: Gpu | None) -> None:
        """Once for each entry, library and GPU; a runtime that fails is closed and not used."""
        where = self_test.label(runtime, library_version(self.choice.runtime), gpu)
        if where in self_test.passed(entry):
            return
        try:
            self.tell("comparing with the network", None)
            most = int(entry.fields.get("views", parity.WINDOWS[-1]))
            self_test.run(runtime, graphs, entry, precision=self.choice.precision, where=where, most=most)
        except BaseException:
            runtime.close()
            raise


def graph_runtime(graphs: Graphs, device: str, precision: str, *, threads: int = 0) -> Runtime:
    """ONNX Runtime with the graphs of a network.

    Raises:
        ModelError: it cannot load them.
    """
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    return OnnxRuntime(graphs.stages, provider=provider, precision=precision, threads=threads)


def engine_runtime(engines: Engines, runtime: str, precision: str) -> Runtime:
    """TensorRT, or TensorRT for RTX, with the engines of a network.

    Raises:
        MissingDependencyError: the library is not installed.
        EngineError: it cannot load them.
    """
    from da3_ros.engine.tensorrt_runtime import TensorRTRuntime

    return TensorRTRuntime(library(runtime), engines.stages, precision=precision, runtime_cache=engines.runtime_cache)


def library_version(runtime: str) -> str:
    """Version of the module that runs it."""
    return str(importlib.import_module(runtime).__version__)

"""Which runtime runs the network: as asked for, or the best that can really be used here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from da3_ros.engine.gpu import Gpu, find_gpu
from da3_ros.engine.store import Store, default_folder
from da3_ros.errors import EngineError, MissingDependencyError

RUNTIMES = ("tensorrt", "tensorrt_rtx", "torch", "onnxruntime")
DEVICES = ("cpu", "cuda")
_PRECISIONS = {
    ("tensorrt", "cuda"): ("fp16", "fp32"),
    ("tensorrt_rtx", "cuda"): ("fp16", "fp32"),
    ("torch", "cuda"): ("bf16", "fp32"),
    ("onnxruntime", "cuda"): ("fp16", "fp32"),
    ("onnxruntime", "cpu"): ("fp32",),
    ("torch", "cpu"): ("fp32", "bf16"),
}  # best first, as are the precisions of each; those of "auto" come first
_EXPORT = ("torch", "onnx", "onnxscript")  # needed to make graphs
_NO_GPU = "no NVIDIA GPU was found"


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to run the network."""

    runtime: str
    device: str
    usable: bool
    why: str  # version where usable, else what is missing and what to do

    @property
    def name(self) -> str:
        """For lists."""
        return f"{self.runtime} {self.device}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime that will be used."""

    runtime: str
    device: str
    precision: str
    why: str  # one clause: why this one

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.runtime} {self.device} {self.precision}"

    @property
    def compiled(self) -> bool:
        """Engines are built for it."""
        return self.runtime.startswith("tensorrt")


def survey(gpu: Gpu | None) -> list[Offer]:
    """Every way to run the network, best first.

    Nothing heavy is loaded for an accelerator that is not there.
    """
    return [Offer(runtime, device, *_judge(runtime, device, gpu)) for runtime, device in _PRECISIONS]


def choose(
    runtime: str = "auto", device: str = "auto", precision: str = "auto", *, offers: Sequence[Offer] | None = None
) -> Choice:
    """Choose.

    Args:
        runtime: one of ``RUNTIMES``, or auto.
        device: cpu, cuda or auto.
        precision: fp32, fp16, bf16, or auto: the first that the runtime is good at.
        offers: of ``survey``; made where not given.

    Raises:
        MissingDependencyError: what was asked for cannot be used here; the sentence says what is missing.
    """
    offers = survey(find_gpu()) if offers is None else offers
    fitting = [o for o in offers if runtime in ("auto", o.runtime) and device in ("auto", o.device)]
    if not fitting:
        raise MissingDependencyError(f"{runtime} does not run on {device}; use --runtime auto, or the other device")
    usable = [o for o in fitting if o.usable]
    if not usable:
        raise MissingDependencyError(f"the network cannot run here ({_reasons(fitting)}); see 'da3 doctor'")
    able = [o for o in usable if precision == "auto" or precision in _PRECISIONS[o.runtime, o.device]]
    if not able:
        known = "; ".join(f"{o.name}: {', '.join(_PRECISIONS[o.runtime, o.device])}" for o in usable)
        raise MissingDependencyError(f"{precision} is not to be had here ({known}); use --precision auto")
    best = able[0]
    found = _PRECISIONS[best.runtime, best.device][0] if precision == "auto" else precision
    return Choice(best.runtime, best.device, found, _reason(best, fitting, runtime, device))


def ahead_of_time(precision: str = "auto") -> Choice:
    """What can be compiled for a GPU that is not here.

    Raises:
        MissingDependencyError: it does not have this precision, or is not installed.
    """
    runtime, device = "tensorrt_rtx", "cuda"
    known = _PRECISIONS[runtime, device]
    if precision not in ("auto", *known):
        raise MissingDependencyError(f"{runtime} has no {precision}, only {', '.join(known)}; use --precision auto")
    library(runtime)
    return Choice(runtime, device, known[0] if precision == "auto" else precision, "for a GPU that need not be here")


def library(runtime: str) -> Any:
    """The module of TensorRT or TensorRT for RTX.

    Raises:
        MissingDependencyError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(runtime)
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(f"{_absent(runtime)} ({_first_line(error)})") from error


def _reason(best: Offer, fitting: Sequence[Offer], runtime: str, device: str) -> str:
    passed = [o for o in fitting[: fitting.index(best)] if not o.usable]
    if runtime != "auto" and device != "auto":
        return "as asked for"
    return "the best that can be used here" + (f"; {_reasons(passed)}" if passed else "")


def _reasons(offers: Sequence[Offer]) -> str:
    """Why each of them is of no use, what shares a reason together."""
    names: dict[str, list[str]] = {}
    for offer in offers:
        names.setdefault(offer.why, []).append(offer.name)
    return "; ".join(f"{', '.join(shared)}: {why}" for why, shared in names.items())


def _judge(runtime: str, device: str, gpu: Gpu | None) -> tuple[bool, str]:
    if device == "cuda" and gpu is None:
        return False, _NO_GPU
    if runtime == "torch":
        return _torch_on(device)
    if runtime == "onnxruntime":
        return _onnxruntime_on(device)
    return _compiled(runtime)


def _compiled(runtime: str) -> tuple[bool, str]:
    """Execution keeps its values in torch's memory, so torch must see the GPU too."""
    try:
        version = str(library(runtime).__version__)
    except MissingDependencyError as error:
        return False, str(error)
    usable, why = _torch_on("cuda")
    return usable, version if usable else why


def _torch_on(device: str) -> tuple[bool, str]:
    if importlib.util.find_spec("torch") is None:
        return False, "torch is not installed: pip install torch"
    if device == "cpu":
        return True, _version("torch")
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return False, f"torch does not load ({_first_line(error)}): install it anew"
    if torch.cuda.is_available():
        return True, torch.__version__
    what = "was built without CUDA" if torch.version.cuda is None else "does not see the GPU (is the driver too old?)"
    return False, f"torch {torch.__version__} {what}: install the build that fits the GPU's driver"


def _onnxruntime_on(device: str) -> tuple[bool, str]:
    if importlib.util.find_spec("onnxruntime") is None:
        wanted = "onnxruntime-gpu" if device == "cuda" else "onnxruntime"
        return False, f"ONNX Runtime is not installed: pip install {wanted}"
    try:
        import onnxruntime
    except (ImportError, OSError, RuntimeError) as error:
        return False, f"ONNX Runtime does not load ({_first_line(error)}): install it anew"
    missing = [name for name in _EXPORT if importlib.util.find_spec(name) is None]
    if missing and not _has_graphs():
        return False, (
            f"graphs cannot be exported without {' and '.join(missing)}: pip install {' '.join(missing)}, or copy "
            f"{default_folder()} from a machine where they have been made"
        )
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False, f"ONNX Runtime {onnxruntime.__version__} has no CUDA: pip install onnxruntime-gpu instead"
    return True, str(onnxruntime.__version__)


def _has_graphs() -> bool:
    """Graphs are here, from wherever they come: they run without what has made them."""
    try:
        entries, _ = Store().entries()
    except EngineError:
        return False
    return any(entry.fields.get("kind") == "graphs" for entry in entries)


def _first_line(error: Exception) -> str:
    told = str(error).strip().splitlines()
    return told[0] if told else type(error).__name__


def _absent(runtime: str) -> str:
    package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu12"}[runtime]
    name = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}[runtime]
    return f"{name} is not installed or does not load: pip install {package}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"

"""Stages as ONNX graphs with a free number of views."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from da3_ros.engine import parity
from da3_ros.engine.precision import halve
from da3_ros.engine.signature import CAMERAS, INPUTS, LEVELS, OUTPUTS, SELF_TEST
from da3_ros.engine.stages import stages
from da3_ros.engine.torch_runtime import TorchRuntime
from da3_ros.errors import EngineError
from da3_ros.model.checkpoint import load
from da3_ros.model.folder import ModelFolder
from da3_ros.model.grid import Grid
from da3_ros.model.layout import Part
from da3_ros.model.network import MonoNetwork, Network
from da3_ros.model.presets import Preset
from da3_ros.types import Tell

_Part = TypeVar("_Part", bound=nn.Module)
_LARGEST_INSIDE = 1_900_000_000  # bytes; a protobuf message ends at 2^31


def write_graphs(
    place: Path,
    folder: ModelFolder,
    part: Part,
    size: tuple[int, int],
    *,
    precision: str,
    opset: int,
    tell: Tell,
) -> Mapping[str, str]:
    """Export every stage of a network at an image size (width, height) into a folder, with its self-test.

    Returns the versions it was made with.

    Raises:
        ModelError: the weights cannot be loaded.
        EngineError: the exporter failed.
    """
    tell(f"loading {folder.name}", None)
    model = load(folder)
    networks = dict(zip((p.prefix for p in folder.parts), (model.network, model.metric), strict=False))
    network = networks[part.prefix]
    assert network is not None
    grid = Grid.of(size[1], size[0])
    cameras = _cameras(network)
    if cameras is not None:
        np.save(place / CAMERAS, cameras)
    tell("computing the self-test", None)
    images = parity.pictures(*size)
    right = parity.outputs(TorchRuntime(network, grid), images, cameras)
    np.savez(place / SELF_TEST, images=images, **right)  # type: ignore[arg-type]
    if precision == "fp16":
        network = halve(network)
    modules = stages(network, grid)
    for i, (stage, module) in enumerate(modules.items()):
        tell(f"exporting {part.preset.name}: {stage}", i / len(modules))
        try:
            export(stage, module, part.preset, grid, place / f"{stage}.onnx", opset=opset)
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise EngineError(
                f"torch {torch.__version__} cannot export '{stage}' of {part.preset.name}: {first}; use --runtime torch"
            ) from error
    return {"torch": torch.__version__, "onnx": onnx.__version__}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says about itself (missing torchvision, its own deprecations) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _cameras(network: Network | MonoNetwork) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    if isinstance(network, MonoNetwork):
        return None
    return np.asarray(network.backbone.camera_tokens(2).detach().float().numpy())


def example(stage: str, preset: Preset, grid: Grid, views: int) -> tuple[Tensor, ...]:
    """Inputs of a stage, of the right shapes."""
    tokens, wide = 1 + grid.rows * grid.columns, 2 * preset.dim
    if stage in ("encode", "look"):
        shapes: list[tuple[int, ...]] = [(views, 3, *grid.image)]
    elif stage == "enter":
        shapes = [(views, tokens, preset.dim), (views, preset.dim)]
    elif stage == "mix":
        shapes = [(views, tokens, preset.dim)]
    elif stage == "neck":
        shapes = [(views, tokens - 1, wide)] * LEVELS
    elif stage == "camera":
        shapes = [(views, wide)]
    else:
        sizes = [(4 * grid.rows, 4 * grid.columns), (2 * grid.rows, 2 * grid.columns), (grid.rows, grid.columns)]
        sizes.append(((grid.rows + 1) // 2, (grid.columns + 1) // 2))
        shapes = [(views, preset.features, *size) for size in sizes]
    return tuple(torch.randn(shape) for shape in shapes)


def _trimmed(stage: str, module: nn.Module) -> nn.Module:
    """A stage that holds only what it uses: the exporter takes every parameter along through all its passes."""
    network = module.network
    if isinstance(network, MonoNetwork):
        return module
    assert isinstance(network, Network)
    if stage not in ("encode", "enter", "mix"):
        return _holding(module, {"network": _holding(network, {stage: getattr(network, stage)})})
    backbone, first = network.backbone, network.preset.alternate_from
    assert first is not None
    mixing = first + 1 - first % 2
    used = {"encode": range(first), "enter": range(first, mixing), "mix": range(mixing, len(backbone.blocks))}
    blocks = nn.ModuleList(block if i in used[stage] else nn.Module() for i, block in enumerate(backbone.blocks))
    backbone = _holding(backbone, {**dict(backbone.named_children()), "blocks": blocks})
    return _holding(module, {"network": _holding(network, {"backbone": backbone})})


def _holding(module: _Part, children: Mapping[str, nn.Module]) -> _Part:
    """The same module with other children."""
    part = copy.copy(module)
    vars(part)["_modules"] = dict(children)
    return part


def export(stage: str, module: nn.Module, preset: Preset, grid: Grid, path: Path, *, opset: int) -> None:
    """Write a stage as ``path`` (ONNX) in the precision that its module has.

    Weights lie inside; where they would pass the limit of the format (the giant's), in a file beside it.
    """
    views = torch.export.Dim("views", min=1, max=64)
    dtype = next(module.parameters()).dtype  # of the backbone: that of everything between stages
    inputs = tuple(value.to(dtype) for value in example(stage, preset, grid, 3))
    shapes: tuple[Any, ...] = tuple({0: views} for _ in inputs)
    if stage in ("neck", "depth", "rays"):
        shapes = (shapes,)  # variadic
    with _quiet():
        program = torch.onnx.export(
            _trimmed(stage, module),
            inputs,
            dynamo=True,
            opset_version=opset,
            input_names=list(INPUTS[stage]),
            output_names=list(OUTPUTS[stage]),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    program.save(str(path), external_data=weights > _LARGEST_INSIDE)

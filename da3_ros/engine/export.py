"""Stages as ONNX graphs with a free number of views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from da3_ros.engine.stages import INPUTS, LEVELS, OUTPUTS
from da3_ros.model.grid import Grid
from da3_ros.model.presets import Preset

# ONNX Runtime has a fast kernel for the Attention operator of opset 23; TensorRT wants plain operators and fuses them.
OPSET_ATTENTION, OPSET_PLAIN = 23, 18


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


def export(stage: str, module: nn.Module, preset: Preset, grid: Grid, path: Path, *, opset: int) -> None:
    """Write a stage as ``path`` (ONNX) with its weights inside, in the precision that its module has."""
    views = torch.export.Dim("views", min=1, max=64)
    dtype = next(module.parameters()).dtype  # of the backbone: that of everything between stages
    inputs = tuple(value.to(dtype) for value in example(stage, preset, grid, 3))
    shapes: tuple[Any, ...] = tuple({0: views} for _ in inputs)
    if stage in ("neck", "depth", "rays"):
        shapes = (shapes,)  # variadic
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        opset_version=opset,
        input_names=list(INPUTS[stage]),
        output_names=list(OUTPUTS[stage]),
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)

"""Networks small enough to be exported in seconds, with weights under which every output varies, and their graphs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from da3_ros.benchmarks.network_rows import network
from da3_ros.engine.export import export
from da3_ros.engine.precision import halve
from da3_ros.engine.stages import names, stages
from da3_ros.model.grid import Grid
from da3_ros.model.presets import PRESETS, Preset

GRID = Grid(3, 4)


def preset(name: str, blocks: int, mixes_from: int | None) -> Preset:
    last = (blocks - 4, blocks - 3, blocks - 2, blocks - 1)
    return Preset(name, "", "none", 32, blocks, 2, last, mixes_from, 16, (8, 8, 16, 16))


# Where views start to mix at an odd block, taking a part in the window costs no block.
SMALL = {p.name: p for p in (preset("even", 7, 2), preset("odd", 7, 3), preset("mono", 4, None))}
# As wide as da3-small, which is what kernels are chosen by, with as few blocks as possible.
SMALL["wide"] = replace(PRESETS["da3-small"], name="wide", depth=7, out_layers=(3, 4, 5, 6), alternate_from=2)


@cache
def made(name: str) -> torch.nn.Module:
    """One of them, which nobody changes."""
    return network(SMALL[name])


class Exported:
    """Graphs of them, each exported when it is first asked for, which is what takes time.

    Precisions are fp32, fp16, and half: without the layers that are spared.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self, name: str, stage: str, opset: int, precision: str = "fp32") -> Path:
        path = self._folder / f"{name}-{opset}" / f"{stage}-{precision}.onnx"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            module = self._modules(name, precision)[stage]
            export(stage, module, SMALL[name], GRID, path, opset=opset)
        return path

    def every_stage(self, name: str, opset: int) -> dict[str, Path]:
        return {stage: self.stage(name, stage, opset) for stage in names(SMALL[name])}

    @cache  # noqa: B019 (there is one for all tests)
    def _modules(self, name: str, precision: str) -> dict[str, torch.nn.Module]:
        whole = made(name)
        if precision != "fp32":
            whole = {"fp16": halve, "half": torch.nn.Module.half}[precision](network(SMALL[name]))
        return stages(whole, GRID)

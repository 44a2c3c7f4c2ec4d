"""The memory that a window is said to need is what a process grows by."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from da3_ros.engine.memory import window_bytes
from da3_ros.model.presets import PRESETS

SIZE = (280, 210)
# One window, with everything wanted, in a process that has done nothing else.
SCRIPT = """
import sys
import numpy as np
import torch
from da3_ros.benchmarks.network_rows import network
from da3_ros.benchmarks.resident import Resident
from da3_ros.engine.staged import StagedNetwork
from da3_ros.engine.torch_runtime import TorchRuntime
from da3_ros.model.grid import Grid
from da3_ros.model.presets import PRESETS
name, width, height, views = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(2)
made = network(PRESETS[name])
staged = StagedNetwork(TorchRuntime(made, Grid.of(height, width)), made.backbone.camera_tokens(2).numpy(), 1 << 30)
images = list(np.random.default_rng(0).standard_normal((views, 1, 3, height, width), dtype=np.float32))
memory = Resident()
staged.predict(range(views), images, depth_views=range(views), ray_views=range(views))
print(memory.growth)
"""
# Of ONNX Runtime the stage that needs most, as exporting takes longer than all the rest.
ONNX_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from da3_ros.benchmarks.resident import Resident
from da3_ros.engine.onnx_runtime import OnnxRuntime
runtime = OnnxRuntime({"mix": Path(sys.argv[1])}, threads=2)
entered = np.random.default_rng(0).standard_normal(tuple(map(int, sys.argv[2:])), dtype=np.float32)
memory = Resident()
runtime.run("mix", [entered])
print(memory.growth)
"""


def growth(script: str, *arguments: object) -> int:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "views"), [("da3-small", 4), ("da3-small", 8), ("da3-base", 2)])
def test_torch_grows_by_what_is_said(name, views):
    said = window_bytes(PRESETS[name], SIZE, views, "torch")
    assert growth(SCRIPT, name, *SIZE, views) == pytest.approx(said, rel=0.35)


@pytest.mark.slow
def test_onnx_runtime_grows_by_what_is_said(tmp_path):
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    from da3_ros.benchmarks.network_rows import network
    from da3_ros.engine.export import export
    from da3_ros.engine.stages import stages
    from da3_ros.model.grid import Grid

    preset, grid, views = PRESETS["da3-small"], Grid.of(SIZE[1], SIZE[0]), 8
    export("mix", stages(network(preset), grid)["mix"], preset, grid, tmp_path / "mix.onnx", opset=23)
    said = window_bytes(preset, SIZE, views, "onnxruntime")
    shape = (views, 1 + grid.rows * grid.columns, preset.dim)
    assert growth(ONNX_SCRIPT, tmp_path / "mix.onnx", *shape) == pytest.approx(said, rel=0.35)


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.any_view], ids=lambda p: p.name)
def test_more_needs_more(preset):
    for runtime in ("torch", "onnxruntime"):
        by_views = [window_bytes(preset, SIZE, views, runtime) for views in (1, 2, 4, 8, 16, 64)]
        by_size = [window_bytes(preset, size, 4, runtime) for size in ((140, 112), SIZE, (504, 378))]
        assert all(a < b for series in (by_views, by_size) for a, b in pairwise(series))


def test_the_larger_counts_where_the_runtime_is_not_known():
    preset = PRESETS["da3-small"]
    for views in (1, 64):
        known = [window_bytes(preset, SIZE, views, runtime) for runtime in ("torch", "onnxruntime")]
        assert window_bytes(preset, SIZE, views) == max(known)

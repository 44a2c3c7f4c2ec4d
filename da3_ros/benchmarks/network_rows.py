"""The rows of ``da3 bench network``: each is a process of its own that predicts windows when it is told to."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da3_ros.benchmarks.resident import Resident
from da3_ros.engine.staged import StagedNetwork
from da3_ros.model.presets import Preset

OFFICIAL, WHOLE, TORCH, ONNX = "official", "whole", "staged, torch", "staged, ONNX Runtime"
ROWS = (OFFICIAL, WHOLE, TORCH, ONNX)
_NEEDED = ("depth_anything_3", "addict", "einops", "omegaconf")  # by the official network
_CAMERAS = "cameras.npy"
_CACHE = 1 << 30  # bytes

Outputs = dict[str, NDArray[np.float32]]
Predict = Callable[[int], Outputs]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured; the same for all rows."""

    preset: Preset
    size: tuple[int, int]  # (width, height), px
    views: int
    windows: int
    threads: int
    graphs: Path  # folder with an ONNX graph per stage, see ``export``

    def pictures(self) -> NDArray[np.float32]:
        """Normalised frames (F, 3, H, W), from which window k takes frames k to k + views - 1."""
        rng = np.random.default_rng(1)
        width, height = self.size
        shape = (self.views + self.windows - 1, 3, height, width)
        return rng.standard_normal(shape, dtype=np.float32)


def official_missing() -> str:
    """What the official network lacks here; empty where nothing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"{', '.join(missing)} not installed: 'make setup' puts the official code where its command replaces none"


def network(preset: Preset) -> Any:
    """Our network (of either kind), with random weights that are the same in every process."""
    import torch

    from da3_ros.model.network import MonoNetwork, Network

    with torch.device("meta"):
        made = (Network if preset.any_view else MonoNetwork)(preset).eval()
    made.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, value in made.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("gamma"):  # of the residual branches: small, as trained ones are
            value.copy_(0.03 + 0.01 * noise)
        elif value.ndim == 1:
            value.copy_(float(name.endswith("weight")) + 0.1 * noise)
        elif name.endswith(("pos_embed", "cls_token", "camera_token")):
            value.copy_(0.03 * noise)
        else:
            value.copy_(noise * value[0].numel() ** -0.5)
    return made


def export(setting: Setting) -> None:
    """Write what the row of ONNX Runtime needs."""
    from da3_ros.engine import export as exporter
    from da3_ros.engine.graphs import OPSET_ATTENTION
    from da3_ros.engine.stages import stages
    from da3_ros.model.grid import Grid

    made, grid = network(setting.preset), Grid.of(setting.size[1], setting.size[0])
    for stage, module in stages(made, grid).items():
        path = setting.graphs / f"{stage}.onnx"
        exporter.export(stage, module, setting.preset, grid, path, opset=OPSET_ATTENTION)
    np.save(setting.graphs / _CAMERAS, made.backbone.camera_tokens(2).numpy())


def work(row: str, setting: Setting, pipe: Connection) -> None:
    """Predict the windows whose numbers come through the pipe; None ends it.

    Sends, per window: seconds, outputs, and bytes of resident memory so far (growth, and of the whole process).
    """
    predict = _OPENERS[row](setting)
    memory = Resident()
    while (number := pipe.recv()) is not None:
        start = time.perf_counter()
        out = predict(number)
        seconds = time.perf_counter() - start
        pipe.send((seconds, out, (memory.growth, memory.peak)))


def _official(setting: Setting) -> Predict:
    os.environ.setdefault("DA3_LOG_LEVEL", "ERROR")  # it prints a line per layer
    import depth_anything_3
    import torch
    from depth_anything_3.cfg import create_object, load_config

    from da3_ros.model.layout import ours

    torch.set_num_threads(setting.threads)
    folder = Path(next(iter(depth_anything_3.__path__)))
    made = create_object(load_config(str(folder / "configs" / f"{setting.preset.name}.yaml"))).eval()
    state = network(setting.preset).state_dict()
    names = {key: ours(key, setting.preset) for key in made.state_dict()}
    made.load_state_dict({key: state[name] for key, name in names.items() if name is not None}, strict=False)
    made.requires_grad_(False)
    del state
    seen: dict[str, Any] = {}  # the forward pass drops rays and camera codes before it returns
    made.head.register_forward_hook(lambda _, __, out: seen.update(rays=out.ray, ray_confidence=out.ray_conf))
    made.cam_dec.register_forward_hook(lambda _, __, out: seen.update(cameras=out))
    frames = torch.from_numpy(setting.pictures())

    def predict(number: int) -> Outputs:
        with torch.inference_mode():
            out = made(frames[None, number : number + setting.views])
        found = {"depth": out.depth[:, -1:], "confidence": out.depth_conf[:, -1:], **seen}
        return {name: value[0].numpy() for name, value in found.items()}

    return predict


def _whole(setting: Setting) -> Predict:
    import torch

    from da3_ros.model.reference import choose_reference

    torch.set_num_threads(setting.threads)
    made = network(setting.preset)
    frames = torch.from_numpy(setting.pictures())
    position = made.backbone.positions_at(setting.size[1] // 14, setting.size[0] // 14)
    # Chosen beforehand: the forward pass takes the reference as given.
    with torch.inference_mode():
        choosers = np.concatenate([made.backbone.encode(frame[None], position)[1].numpy() for frame in frames])

    def predict(number: int) -> Outputs:
        window = slice(number, number + setting.views)
        with torch.inference_mode():
            out = made(frames[window], choose_reference(choosers[window], "saddle_balanced"))
        return {
            "depth": out.depth[-1:].numpy(),
            "confidence": out.depth_confidence[-1:].numpy(),
            "rays": out.rays.numpy(),
            "ray_confidence": out.ray_confidence.numpy(),
            "cameras": out.cameras.numpy(),
        }

    return predict


def _torch(setting: Setting) -> Predict:
    import torch

    from da3_ros.engine.torch_runtime import TorchRuntime
    from da3_ros.model.grid import Grid

    torch.set_num_threads(setting.threads)
    made = network(setting.preset)
    runtime = TorchRuntime(made, Grid.of(setting.size[1], setting.size[0]))
    return _staged(setting, StagedNetwork(runtime, made.backbone.camera_tokens(2).numpy(), _CACHE))


def _onnx(setting: Setting) -> Predict:
    from da3_ros.engine.onnx_runtime import OnnxRuntime

    graphs = {path.stem: path for path in setting.graphs.glob("*.onnx")}
    runtime = OnnxRuntime(graphs, threads=setting.threads)
    return _staged(setting, StagedNetwork(runtime, np.load(setting.graphs / _CAMERAS), _CACHE))


def _staged(setting: Setting, staged: StagedNetwork) -> Predict:
    frames, views, newest = setting.pictures(), range(setting.views), setting.views - 1

    def predict(number: int) -> Outputs:
        keys = range(number, number + setting.views)
        images = [None if staged.knows(key) else frames[key : key + 1] for key in keys]
        out = staged.predict(keys, images, reference="saddle_balanced", depth_views=[newest], ray_views=views)
        depth, confidence = out.depth[newest]
        return {
            "depth": depth[None],
            "confidence": confidence[None],
            "rays": np.stack([out.rays[i][0] for i in views]),
            "ray_confidence": np.stack([out.rays[i][1] for i in views]),
            "cameras": out.cameras,
        }

    return predict


_OPENERS: Mapping[str, Callable[[Setting], Predict]] = {
    OFFICIAL: _official,
    WHOLE: _whole,
    TORCH: _torch,
    ONNX: _onnx,
}

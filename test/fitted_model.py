"""The tiny model with its last layers fitted to a world: what it says of that world is rough, and makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tiny_model import randomise, torch

from da3_ros.geometry import se3
from da3_ros.geometry.rays import make_rays
from da3_ros.model.checkpoint import write_checkpoint
from da3_ros.model.network import Network
from da3_ros.model.preprocess import Preprocessor
from da3_ros.model.presets import APACHE, Preset
from da3_ros.types import Frame

SIZE = (112, 84)  # at which it is fitted
_SURE = 2.0  # logit of every confidence
_VIEWS = 3  # of the windows that it is fitted to
_FAINT = 0.02
_RIDGE = 1e-4  # of the features' mean square


def fitted_model(folder: Path, frames: Sequence[Frame], seed: int = 0) -> Path:
    """Write one that knows the depth and the camera of these frames (with truth) roughly; returns the folder."""
    network = Network(Preset("da3-tiny", "", APACHE, 64, 7, 2, (3, 4, 5, 6), 2, 16, (16, 16, 16, 16))).eval()
    randomise(network, seed)
    with torch.no_grad():  # where a pixel lies tells more than what a random network makes of it
        network.rays.output_conv1[-1].weight.mul_(_FAINT)
        network.depth.output_conv1.weight.mul_(_FAINT)
    rays, depth = network.rays.out, network.depth.output_conv2[2]
    seen: dict[torch.nn.Module, list[torch.Tensor]] = {rays: [], depth: []}
    hooks = [layer.register_forward_pre_hook(lambda layer, x: seen[layer].append(x[0])) for layer in seen]
    wanted: dict[torch.nn.Module, list[np.ndarray]] = {rays: [], depth: []}
    prepare = Preprocessor(SIZE)
    for start in range(0, len(frames) - _VIEWS + 1, _VIEWS):
        window = frames[start : start + _VIEWS]
        with torch.no_grad():
            out = network(torch.from_numpy(np.stack([prepare.frame(frame.image) for frame in window])))
        for frame in window:
            T_window_cam = se3.inverse(window[0].truth.T_world_cam) @ frame.truth.T_world_cam
            wanted[rays].append(make_rays(T_window_cam, frame.camera, *out.rays.shape[1:3]))
            metres = cv2.resize(frame.truth.depth, SIZE, interpolation=cv2.INTER_NEAREST)
            wanted[depth].append(np.log(metres)[..., None])
    for hook in hooks:
        hook.remove()
    for layer, features in seen.items():
        _fit(layer, torch.cat(features), np.stack(wanted[layer]))
    write_checkpoint(folder, network)
    return folder


def _fit(layer: torch.nn.Conv2d, features: torch.Tensor, wanted: np.ndarray) -> None:
    """Ridge regression of a 1x1 convolution on (N, C, h, w); its last channel becomes the confidence."""
    x = features.movedim(1, -1).flatten(0, -2).double().numpy()
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = wanted.reshape(len(x), -1)
    known = np.isfinite(y).all(axis=1)
    x, y = x[known], y[known]
    gram = x.T @ x
    solution = np.linalg.solve(gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:-1, :, 0, 0] = torch.from_numpy(solution[:-1].T).float()
        layer.bias[:-1] = torch.from_numpy(solution[-1]).float()
        layer.bias[-1] = _SURE

"""A model small enough to be exported in seconds, in the released layout, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from da3_ros.model.checkpoint import write_checkpoint  # noqa: E402
from da3_ros.model.network import MonoNetwork, Network  # noqa: E402
from da3_ros.model.presets import APACHE, Preset  # noqa: E402


def tiny_model(folder: Path, *, mono: bool = False, seed: int = 0) -> Path:
    """Write one into a folder, which is returned; ``mono``: one that looks at one view at a time."""
    name, mixes_from = ("da3metric-tiny", None) if mono else ("da3-tiny", 2)
    preset = Preset(name, "", APACHE, 64, 7, 2, (3, 4, 5, 6), mixes_from, 16, (16, 16, 16, 16))
    network = (MonoNetwork if mono else Network)(preset)
    randomise(network, seed)
    write_checkpoint(folder, network)
    return folder


def randomise(network: torch.nn.Module, seed: int) -> None:
    """Weights with which every layer has a say, every output varies, and nothing is out of range."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("gamma"):
                p.copy_(0.1 + 0.03 * noise)
            elif p.ndim == 1:
                p.copy_((1.0 if name.endswith("weight") else 0.0) + 0.1 * noise)
            elif name.endswith(("pos_embed", "cls_token", "camera_token")):
                p.copy_(0.1 * noise)
            else:
                p.copy_(noise * p[0].numel() ** -0.5)
            if "fc_fov" in name:  # fields of view that a camera can have
                p.mul_(0.1).add_(1.0 if name.endswith("bias") else 0.0)

"""The official network as a yardstick, with random weights under which every detail shows.

Needs torch and the package depth-anything-3, installed without its dependencies; nothing outside the tests imports it.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
os.environ.setdefault("DA3_LOG_LEVEL", "ERROR")  # it prints a line per layer
pytest.importorskip(
    "depth_anything_3", reason="the official modules are not installed: pip install --no-deps depth-anything-3==0.1.1"
)
for needed in ("addict", "einops", "omegaconf"):
    pytest.importorskip(needed, reason=f"the official modules need {needed}")

from da3_ros.model import camera_code  # noqa: E402
from da3_ros.model.layout import ours  # noqa: E402
from da3_ros.model.network import MonoNetwork, Network  # noqa: E402
from da3_ros.model.presets import PRESETS  # noqa: E402
from da3_ros.model.reference import choose_reference  # noqa: E402

TOLERANCE = 1e-5  # of an output's standard deviation


def official(name: str, seed: int = 1) -> torch.nn.Module:
    """The official network with random weights, the giant without its Gaussian head."""
    import depth_anything_3
    from depth_anything_3.cfg import create_object, load_config

    config = load_config(str(Path(next(iter(depth_anything_3.__path__))) / "configs" / f"{name}.yaml"))
    for part in ("gs_head", "gs_adapter"):
        config.pop(part, None)
    unused = ("trunc_normal_", "kaiming_uniform_", "xavier_uniform_")  # seconds of drawing what is drawn again below
    with torch.random.fork_rng(), mock.patch.multiple(torch.nn.init, **dict.fromkeys(unused, lambda x, *_, **__: x)):
        network = create_object(config).eval()
    randomise(network, seed)
    return network


def randomise(network: torch.nn.Module, seed: int) -> None:
    """Weights under which no part can be forgotten: no norm is 1 and 0, and no branch drowns another.

    The stream between the blocks and what goes into the query and key norms is small, as their epsilons are told apart
    only there; fields of view lie within what a camera can have.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("gamma"):
                p.copy_(0.03 + 0.01 * normal(p.shape))
            elif p.ndim == 1:
                p.copy_((1.0 if name.endswith("weight") else 0.0) + 0.1 * normal(p.shape))
            elif name.endswith(("pos_embed", "cls_token", "camera_token")):
                p.copy_(0.03 * normal(p.shape))
            else:
                p.copy_(normal(p.shape) * p[0].numel() ** -0.5)
            if name.endswith("patch_embed.proj.weight"):
                p.mul_(0.03)
            if name.endswith("attn.qkv.weight") and "pretrained" in name:
                p[: 2 * p.shape[1]].mul_(0.1)
            if "fc_fov" in name:
                p.mul_(0.1).add_(1.0 if name.endswith("bias") else 0.0)


def same(network: torch.nn.Module, name: str) -> Network | MonoNetwork:
    """Our network with the weights of an official one, shared with it."""
    preset = PRESETS[name]
    with torch.device("meta"):
        mine = (Network if preset.any_view else MonoNetwork)(preset).eval()
    state = {ours(key, preset): value for key, value in network.state_dict().items()}
    state.pop(None, None)
    mine.load_state_dict(state, strict=True, assign=True)
    return mine.requires_grad_(False)


def images(views: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normalised images (N, 3, H, W) that differ from view to view, in colour, contrast and detail."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(views, 3, height, width, generator=generator)
    coarse = torch.nn.functional.interpolate(torch.randn(views, 3, 6, 8, generator=generator), (height, width))
    return coarse + torch.linspace(0.2, 0.8, views)[:, None, None, None] * noise


@torch.no_grad()
def official_window(network: torch.nn.Module, x: torch.Tensor, cameras: tuple | None = None) -> dict[str, np.ndarray]:
    """Outputs of the official network for a window (N, 3, H, W), with its own choice of the reference view.

    ``cameras`` are world-to-camera matrices (N, 4, 4) and intrinsics (N, 3, 3) in its own convention.
    """
    from depth_anything_3.model.utils.transform import pose_encoding_to_extri_intri

    height, width = x.shape[-2:]
    token = None if cameras is None else network.cam_enc(cameras[0][None], cameras[1][None], (height, width))
    features, _ = network.backbone(x[None], cam_token=token, export_feat_layers=[], ref_view_strategy="saddle_balanced")
    out = network._process_depth_head(features, height, width)
    if network.cam_dec is None:
        return {"depth": out.depth[0].numpy(), "sky": out.sky[0].numpy()}
    codes = network.cam_dec(features[-1][1])
    T, K = pose_encoding_to_extri_intri(codes, (height, width))
    return {
        "depth": out.depth[0].numpy(),
        "confidence": out.depth_conf[0].numpy(),
        "rays": out.ray[0].numpy(),
        "ray confidence": out.ray_conf[0].numpy(),
        "codes": codes[0].numpy(),
        "poses": T[0, :, :3].numpy(),
        # OpenCV puts the centre of the first pixel at 0, the official code at 0.5.
        "focal length, centre": K[0, :, [0, 1, 0, 1], [0, 1, 2, 2]].numpy() - np.array([0, 0, 0.5, 0.5]),
    }


@torch.no_grad()
def our_window(
    network: Network | MonoNetwork, x: torch.Tensor, reference: int | None = None, codes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The same of our network; ``codes`` are the numbers (N, 9) of known cameras."""
    height, width = x.shape[-2:]
    if isinstance(network, MonoNetwork):
        depth, sky = network(x)
        return {"depth": depth.numpy(), "sky": sky.numpy()}
    if reference is None:
        reference = 0 if codes is not None else reference_of(network, x)
    out = network(x, reference, None if codes is None else torch.from_numpy(codes).float())
    cameras = camera_code.decode(out.cameras.numpy(), width, height)
    return {
        "depth": out.depth.numpy(),
        "confidence": out.depth_confidence.numpy(),
        "rays": out.rays.numpy(),
        "ray confidence": out.ray_confidence.numpy(),
        "codes": out.cameras.numpy(),
        "poses": cameras.T_window_cam[:, :3],
        "focal length, centre": cameras.K[:, [0, 1, 0, 1], [0, 1, 2, 2]],
    }


@torch.no_grad()
def reference_of(network: Network, x: torch.Tensor) -> int:
    """Our choice of the reference view; below three there is nothing to choose by."""
    if len(x) < 3:
        return 0
    position = network.backbone.positions_at(x.shape[-2] // 14, x.shape[-1] // 14)
    return choose_reference(network.backbone.encode(x, position)[1].numpy(), "saddle_balanced")


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """Per output the largest difference by the standard deviation of ``a``; infinite where shapes differ."""
    assert a.keys() == b.keys()
    out = {}
    for name, value in a.items():
        assert np.isfinite(value).all(), name
        assert value.std() > 1e-3, f"{name} says nothing: it is the same everywhere"
        fits = value.shape == b[name].shape and np.isfinite(b[name]).all()
        out[name] = float(np.abs(value - b[name]).max() / value.std()) if fits else np.inf
    return out

"""Cameras in and out of the network by way of tokens; ``camera_code`` has what their nine numbers mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da3_ros.model.backbone import Block, Mlp
from da3_ros.model.dtypes import as_of

_ENCODER_HEADS = 16
_ENCODER_BLOCKS = 4


class CameraHead(nn.Module):
    """Camera feature to translation, quaternion and field of view."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_qvec = nn.Linear(dim, 4)
        self.fc_fov = nn.Sequential(nn.Linear(dim, 2), nn.ReLU())

    def forward(self, feature: Tensor) -> Tensor:
        """(S, C) -> (S, 9): centre, quaternion x y z w (not normalised), vertical and horizontal field of view, rad."""
        x = self.backbone(as_of(self.backbone[0], feature))
        return torch.cat([self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)], dim=-1)


class CameraEncoder(nn.Module):
    """Known cameras to the tokens that stand for them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pose_branch = Mlp(9, dim // 2, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.Sequential(
            *(Block(dim, _ENCODER_HEADS, normed=False, eps=1e-5) for _ in range(_ENCODER_BLOCKS))
        )
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(self, cameras: Tensor) -> Tensor:
        """(S, 9), as ``CameraHead`` gives them -> (S, C)."""
        return self.trunk_norm(self.trunk(self.token_norm(self.pose_branch(cameras))[None]))[0]

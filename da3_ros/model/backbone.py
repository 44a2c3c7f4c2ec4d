"""The transformer: DINOv2 within each view, then blocks that look within and across views in turn.

Arranged so that a sliding window computes no frame twice: ``encode`` looks at one image only, ``mix`` at the window.
Parameters keep the released names below ``backbone.pretrained``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da3_ros.model.positions import Positions
from da3_ros.model.presets import PATCH, Preset

_TRAINED_GRID = 37  # patches on either side of the position embedding


class Attention(nn.Module):
    """Multi-head attention, with normalised queries and keys where views are mixed."""

    def __init__(self, dim: int, heads: int, *, normed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if normed else nn.Identity()  # eps 1e-5, unlike the blocks' 1e-6
        self.k_norm = nn.LayerNorm(dim // heads) if normed else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, T, C) -> (B, T, C); ``rotation`` holds cos and sin (T, C / heads) of rotary positions."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (B, heads, T, D): the first half of D turns with the row, the other with the column."""
    a, b, c, d = x.chunk(4, dim=-1)
    return x * cos + torch.cat([-b, a, -d, c], dim=-1) * sin


class Mlp(nn.Module):
    """Two layers with GELU."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out)."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """Two layers with a gated SiLU (giant)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        hidden = (hidden * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(nn.functional.silu(gate) * value)


class Scale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each on a scaled residual branch."""

    def __init__(self, dim: int, heads: int, *, normed: bool, swiglu: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, normed=normed)
        self.ls1 = Scale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = SwiGlu(dim, 4 * dim) if swiglu else Mlp(dim, 4 * dim)
        self.ls2 = Scale(dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """One token per patch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, patches, dim)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Backbone(nn.Module):
    """Images to the features of four depths of the network."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        dim, alternate = preset.dim, preset.alternate_from
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED_GRID**2, dim))
        if alternate is not None:
            self.camera_token = nn.Parameter(torch.zeros(1, 2, dim))  # of the reference view; of all others
        self.patch_embed = PatchEmbed(dim)
        self.blocks = nn.ModuleList(
            Block(dim, preset.heads, normed=alternate is not None and i >= alternate, swiglu=preset.swiglu)
            for i in range(preset.depth)
        )
        self.norm = nn.LayerNorm(dim)  # eps 1e-5

    def positions_at(self, rows: int, columns: int) -> Tensor:
        """Position embedding (1, 1 + rows * columns, dim) for a grid of patches."""
        if rows == columns == _TRAINED_GRID:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, _TRAINED_GRID, _TRAINED_GRID, -1).permute(0, 3, 1, 2)
        # The released models were trained with this offset of a tenth of a patch in the factor.
        factors = ((rows + 0.1) / _TRAINED_GRID, (columns + 0.1) / _TRAINED_GRID)
        grid = nn.functional.interpolate(grid.float(), scale_factor=factors, mode="bicubic", antialias=False)
        assert grid.shape[-2:] == (rows, columns)
        patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)

    def encode(self, images: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Everything that depends on one image only.

        Args:
            images: (N, 3, H, W), normalised, sides multiples of 14.
            position: ``positions_at`` this size.

        Returns:
            (tokens (N, T, C), class tokens (N, C) one block earlier, from which the reference view is chosen)
        """
        patches = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + position
        first = self.preset.alternate_from
        assert first is not None, "only networks that mix views are split"
        for block in self.blocks[: first - 1]:
            x = block(x)
        chooser = x[:, 0]
        return self.blocks[first - 1](x), chooser

    def camera_tokens(self, views: int) -> Tensor:
        """Learned camera tokens (views, C): the reference view's, then the others'."""
        return torch.cat([self.camera_token[0, :1], self.camera_token[0, 1:].expand(views - 1, -1)])

    def enter(self, tokens: Tensor, camera: Tensor, positions: Positions) -> Tensor:
        """Give each view its part in the window; still within each view, so it can be kept per view and part.

        Args:
            tokens: (N, T, C) from ``encode``.
            camera: (N, C) camera tokens: learned ones, or encoded known cameras.
            positions: rotary tables of this size.

        Returns:
            (N, T, C) for ``mix``.
        """
        x = torch.cat([camera[:, None], tokens[:, 1:]], dim=1)
        first = self.preset.alternate_from
        assert first is not None, "this network does not mix views"
        return x if first % 2 else self.blocks[first](x, positions.within)

    def mix(self, entered: Tensor, positions: Positions) -> tuple[list[Tensor], Tensor]:
        """The blocks in which views look at each other.

        Args:
            entered: (S, T, C) of the window's views, the reference view first.
            positions: rotary tables of this size.

        Returns:
            (four features (S, T - 1, 2 C) for the dense heads, camera feature (S, 2 C))
        """
        first = self.preset.alternate_from
        assert first is not None, "this network does not mix views"
        x = within = entered
        features = []
        for i in range(first + 1 - first % 2, self.preset.depth):
            if i % 2:  # across views
                x = self.blocks[i](x.flatten(0, 1)[None], positions.across(x.shape[0]))[0].view_as(x)
            else:
                x = within = self.blocks[i](x, positions.within)
            if i in self.preset.out_layers:
                features.append(torch.cat([within[:, 1:], self.norm(x[:, 1:])], dim=-1))
        return features, torch.cat([within[:, 0], x[:, 0]], dim=-1)

    def look(self, images: Tensor, position: Tensor) -> list[Tensor]:
        """One view at a time (networks that do not mix): four features (N, T - 1, C)."""
        patches = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + position
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.preset.out_layers:
                features.append(self.norm(x)[:, 1:])
        return features

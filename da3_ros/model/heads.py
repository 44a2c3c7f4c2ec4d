"""The dense heads: features of four depths to depth, rays or sky (DPT, Ranftl et al. 2021, as DA3 uses it).

Parameters keep the released names below ``head``, less the levels of the ray head whose output nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from da3_ros.model.dtypes import as_of
from da3_ros.model.grid import Grid
from da3_ros.model.presets import Preset

_HIDDEN = 32


class Residual(nn.Module):
    """Two convolutions on a residual branch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, h, w) -> the same."""
        return x + self.conv2(nn.functional.relu(self.conv1(nn.functional.relu(x))))


class Fusion(nn.Module):
    """Adds a finer level to a coarser one and doubles the resolution."""

    def __init__(self, features: int, *, lateral: bool = True) -> None:
        super().__init__()
        self.resConfUnit1 = Residual(features) if lateral else None
        self.resConfUnit2 = Residual(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(N, features, h, w) and its finer level of the same size -> (N, features, *size)."""
        if self.resConfUnit1 is not None and finer is not None:
            x = x + self.resConfUnit1(finer)
        x = nn.functional.interpolate(self.resConfUnit2(x), size, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Pyramid(nn.Module):
    """Four fusions, coarse to fine; holds no parameters of its own, only those it is given by name."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.refinenet1 = Fusion(features)
        self.refinenet2 = Fusion(features)
        self.refinenet3 = Fusion(features)
        self.refinenet4 = Fusion(features, lateral=False)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Four levels, fine to coarse -> (N, features, 8 rows, 8 columns)."""
        one, two, three, four = levels
        x = self.refinenet4(four, None, three.shape[-2:])
        x = self.refinenet3(x, three, two.shape[-2:])
        x = self.refinenet2(x, two, one.shape[-2:])
        return self.refinenet1(x, one, (2 * one.shape[-2], 2 * one.shape[-1]))


class Neck(nn.Module):
    """Tokens of four depths to a pyramid of four resolutions; shared by depth and rays."""

    def __init__(self, dim: int, preset: Preset, *, embed: bool) -> None:
        super().__init__()
        channels, features = preset.out_channels, preset.features
        self.embed = embed
        self.norm = nn.LayerNorm(dim) if embed else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        self.layers = nn.ModuleList(nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels)

    def forward(self, features: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """Four (N, rows * columns, C) -> four levels (N, features, h, w), fine to coarse."""
        levels = []
        stages = zip(features, self.projects, self.resize_layers, self.layers, strict=True)
        for feature, project, resize, layer in stages:
            x = self.norm(feature).transpose(1, 2).unflatten(2, (grid.rows, grid.columns))
            # The two released heads differ in memory layout, which decides the order of the sums in convolutions.
            x = project(x if self.embed else x.contiguous())
            if self.embed:
                x = x + grid.embedding(x)
            levels.append(layer(resize(x)))
        return levels


class DepthHead(nn.Module):
    """Levels to depth and its confidence."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        features = preset.features
        self.pyramid = Pyramid(features)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, 2, 1)
        )

    def forward(self, levels: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
        """Four levels -> depth (N, H, W) in the window's units, confidence (N, H, W), 1 and above."""
        x = self.output_conv1(self.pyramid(levels))
        x = nn.functional.interpolate(x, grid.image, mode="bilinear", align_corners=True)
        x = self.output_conv2(as_of(self.output_conv2[0], x + grid.embedding(x)))
        return x[:, 0].exp(), x[:, 1].exp() + 1


class RayHead(nn.Module):
    """Levels to rays and their confidence, at 8/14 of the image."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        features, half = preset.features, preset.features // 2
        self.pyramid = Pyramid(features)
        # The released model has no activation between these.
        widths = [features, half, features, half, features, half]
        self.output_conv1 = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
        self.conv = nn.Conv2d(half, _HIDDEN, 3, padding=1)
        self.norm = nn.LayerNorm(_HIDDEN)
        self.out = nn.Conv2d(_HIDDEN, 7, 1)

    def forward(self, levels: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
        """Four levels -> rays (N, h, w, 6), direction then origin, and confidence (N, h, w), 1 and above."""
        x = self.output_conv1(self.pyramid(levels))
        x = self.conv(x + grid.embedding(x)).permute(0, 2, 3, 1)
        x = self.out(nn.functional.relu(self.norm(as_of(self.norm, x))).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x[..., :6], x[..., 6].exp() + 1


class MonoHead(nn.Module):
    """Levels to depth and sky, for networks that look at one view at a time."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        features = preset.features
        self.pyramid = Pyramid(features)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2, self.sky_output_conv2 = (
            nn.Sequential(nn.Conv2d(features // 2, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, 1, 1))
            for _ in range(2)
        )

    def forward(self, levels: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
        """Four levels -> depth (N, H, W) before scaling by the focal length, sky (N, H, W), 0 and above."""
        x = self.output_conv1(self.pyramid(levels))
        x = nn.functional.interpolate(x, grid.image, mode="bilinear", align_corners=True)
        x = as_of(self.output_conv2[0], x)
        return self.output_conv2(x)[:, 0].exp(), nn.functional.relu(self.sky_output_conv2(x)[:, 0])

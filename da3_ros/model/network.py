"""A whole network: backbone, dense heads, camera head; and what it says of a window."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from da3_ros.model.backbone import Backbone
from da3_ros.model.cameras import CameraEncoder, CameraHead
from da3_ros.model.grid import Grid
from da3_ros.model.heads import DepthHead, MonoHead, Neck, RayHead
from da3_ros.model.positions import positions
from da3_ros.model.presets import Preset
from da3_ros.model.reference import reference_first


@dataclass(frozen=True, slots=True, eq=False)
class WindowOutput:
    """What a network that mixes views says of a window, in the window's units and its reference view's frame."""

    depth: Tensor  # (S, H, W)
    depth_confidence: Tensor  # (S, H, W), 1 and above
    rays: Tensor  # (S, h, w, 6) direction then origin, h = 8/14 H
    ray_confidence: Tensor  # (S, h, w), 1 and above
    cameras: Tensor  # (S, 9), see CameraHead


class Network(nn.Module):
    """Depth Anything 3 for any number of views."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        assert preset.any_view, "use MonoNetwork"
        self.preset = preset
        self.backbone = Backbone(preset)
        self.neck = Neck(2 * preset.dim, preset, embed=True)
        self.depth = DepthHead(preset)
        self.rays = RayHead(preset)
        self.camera = CameraHead(2 * preset.dim)
        self.camera_encoder = CameraEncoder(preset.dim)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """Those that compute in single precision whatever the others do."""
        return self.depth.output_conv2, self.rays.norm, self.rays.out, self.camera

    def forward(self, images: Tensor, reference: int = 0, cameras: Tensor | None = None) -> WindowOutput:
        """Predict a window in one go.

        Args:
            images: (S, 3, H, W), normalised, sides multiples of 14.
            reference: the view whose frame the rays and cameras are in.
            cameras: (S, 9) known cameras of all views, as ``CameraHead`` gives them; the reference is then theirs.
        """
        grid = Grid.of(*images.shape[-2:])
        order = reference_first(len(images), reference)
        tokens, _ = self.backbone.encode(images, self.backbone.positions_at(grid.rows, grid.columns))
        table = positions(grid.rows, grid.columns, self.preset.dim // self.preset.heads, images.device)
        if cameras is None:
            tokens_of_cameras = self.backbone.camera_tokens(len(images))
        else:
            tokens_of_cameras = self.camera_encoder(cameras)[order]
        entered = self.backbone.enter(tokens[order], tokens_of_cameras, table)
        features, camera = self.backbone.mix(entered, table)
        back = sorted(range(len(order)), key=order.__getitem__)
        levels = self.neck([feature[back] for feature in features], grid)
        depth, depth_confidence = self.depth(levels, grid)
        rays, ray_confidence = self.rays(levels, grid)
        return WindowOutput(depth, depth_confidence, rays, ray_confidence, self.camera(camera[back]))


class MonoNetwork(nn.Module):
    """Depth and sky of one view at a time (da3metric-large, da3mono-large)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        assert not preset.any_view, "use Network"
        self.preset = preset
        self.backbone = Backbone(preset)
        self.neck = Neck(preset.dim, preset, embed=False)
        self.head = MonoHead(preset)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """Those that compute in single precision whatever the others do."""
        return self.head.output_conv2, self.head.sky_output_conv2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> depth (N, H, W), to be multiplied by focal length / 300 for metres, and sky (N, H, W)."""
        grid = Grid.of(*images.shape[-2:])
        features = self.backbone.look(images, self.backbone.positions_at(grid.rows, grid.columns))
        return self.head(self.neck(features, grid), grid)

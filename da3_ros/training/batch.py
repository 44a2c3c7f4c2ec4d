"""What one step learns from: windows of one number of views and one size, as tensors.

All lengths are in the unit of their window: the mean norm of its points in the reference view's frame (Depth
Anything 3, arXiv 2511.10647, section 3.2).  The reference view comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from da3_ros.geometry import rays, se3
from da3_ros.geometry.se3 import Array
from da3_ros.model.preprocess import normalised
from da3_ros.model.presets import PATCH
from da3_ros.training.augment import Look, drawn_cut, whole
from da3_ros.training.config import DataConfig
from da3_ros.training.curriculum import Difficulty
from da3_ros.training.matches import View, patch_matches, soft_targets
from da3_ros.training.windows import DrawnWindow, WindowSampler
from da3_ros.training.worlds import CachedWorld
from da3_ros.types import FloatArray, ImageArray

_RAYS_PER_PATCH = 8  # rays along a side of a patch
_UNIT_STRIDE = 3  # px


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B windows of S views with P patches each."""

    images: Tensor  # (B, S, 3, H, W), normalised
    depth: Tensor  # (B, S, H, W), 0 where invalid
    valid: Tensor  # (B, S, H, W) bool
    rays: Tensor  # (B, S, h, w, 6)
    cameras: Tensor  # (B, S, 9), as the camera head gives them
    attention: Tensor  # (B, S - 1, P, P) share of each patch of the reference view in the match of each patch
    displacement: Tensor  # (B, S - 1, P, 2) from a patch to its match, shares of width and height; 0 where hidden
    visible: Tensor  # (B, S - 1, P) bool

    @property
    def views(self) -> int:
        """Number of views of all windows."""
        return self.images.shape[0] * self.images.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """One window, as arrays with the fields of a batch."""

    images: FloatArray
    depth: FloatArray
    valid: Array
    rays: FloatArray
    cameras: FloatArray
    attention: FloatArray
    displacement: FloatArray
    visible: Array


class BatchMaker:
    """Draws and loads the batch of any step; the same seed and step give the same batch."""

    def __init__(self, worlds: Sequence[CachedWorld], data: DataConfig, seed: int) -> None:
        """Take the worlds to draw from."""
        self._worlds, self._data, self._seed = worlds, data, seed
        self._sampler = WindowSampler(worlds)

    def __call__(self, step: int, limits: Difficulty, views_per_step: int) -> Batch:
        """Load the batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        views = int(rng.integers(2, limits.most_views + 1))
        windows = max(1, views_per_step // views)
        drawn = [self._sampler.draw(rng, views, limits) for _ in range(windows)]
        return collate([self._load(window, rng, limits.size) for window in drawn])

    def _load(self, window: DrawnWindow, rng: np.random.Generator, size: tuple[int, int]) -> _Example:
        world = self._worlds[window.world]
        cut = drawn_cut(rng, world.camera, size, self._data.zoom)
        look = Look(rng, self._data.colour, self._data.noise)
        images = [look(cut.image(world.images[i])) for i in window.views]
        return example(images, [cut.view(world.view(i)) for i in window.views])


def plain_batch(world: CachedWorld, views: Sequence[int], size: tuple[int, int]) -> Batch:
    """One window as it is, for judging."""
    cut = whole(world.camera, size)
    return collate([example([cut.image(world.images[i]) for i in views], [cut.view(world.view(i)) for i in views])])


def example(images: Sequence[ImageArray], views: Sequence[View]) -> _Example:
    """The targets of one window whose first view is the reference."""
    T = se3.inverse(views[0].T_world_cam) @ np.stack([view.T_world_cam for view in views])
    depth = np.stack([view.depth for view in views])
    valid = np.isfinite(depth)
    depth = np.where(valid, depth, 0)
    unit = mean_norm(depth, valid, T, views)
    T[:, :3, 3] /= unit
    height, width = depth.shape[1:]
    rows, columns = height // PATCH, width // PATCH
    h, w = _RAYS_PER_PATCH * rows, _RAYS_PER_PATCH * columns
    ray_maps = [rays.make_rays(pose, view.camera, h, w) for pose, view in zip(T, views, strict=True)]
    attention, displacement, visible = [], [], []
    for view in views[1:]:
        matches = patch_matches(view, views[0], rows, columns)
        attention.append(soft_targets(matches, width, height, rows, columns))
        middles = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1).reshape(-1, 2)
        moved = (matches.pixels + 0.5) / (width, height) - middles / (columns, rows)
        displacement.append(np.where(matches.visible[:, None], moved, 0))
        visible.append(matches.visible)
    return _Example(
        np.stack([normalised(image) for image in images]),
        (depth / unit).astype(np.float32),
        valid,
        np.stack(ray_maps).astype(np.float32),
        camera_codes(T, views).astype(np.float32),
        np.stack(attention),
        np.stack(displacement).astype(np.float32),
        np.stack(visible),
    )


def mean_norm(depth: FloatArray, valid: Array, T_reference_cam: Array, views: Sequence[View]) -> float:
    """Mean distance of the points of all views from the reference camera; 1 where there is no point.

    Every third pixel of every third row stands for its neighbours.
    """
    total, count = 0.0, 0
    sample = slice(1, None, _UNIT_STRIDE)
    for d, good, T, view in zip(depth, valid, T_reference_cam, views, strict=True):
        kept = good[sample, sample]
        points = (view.camera.directions()[sample, sample] * d[sample, sample, None])[kept]
        total += float(np.linalg.norm(se3.transform(T, points), axis=1).sum())
        count += len(points)
    return total / count if total > 0 else 1.0


def camera_codes(T: Array, views: Sequence[View]) -> Array:
    """Centre, quaternion x y z w and vertical and horizontal field of view (S, 9), in the unit of ``T``."""
    quaternion = se3.quaternion_from_rotation(T[:, :3, :3])
    fov = [
        (2 * np.arctan(v.camera.height / 2 / v.camera.fy), 2 * np.arctan(v.camera.width / 2 / v.camera.fx))
        for v in views
    ]
    return np.concatenate([T[:, :3, 3], quaternion, np.array(fov)], axis=1)


def collate(examples: Sequence[_Example]) -> Batch:
    """Windows of one size as one batch."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(e, name) for e in examples]))

    return Batch(*(stacked(name) for name in Batch.__dataclass_fields__))

"""Where the middle of each patch of one view is seen in another, from true depth and poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray

_SAME_SURFACE = 0.05  # largest difference of depth, as a share, at which two views see one surface


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One view of a scene, with the truth about it."""

    depth: FloatArray  # (H, W) z-depth, NaN where nothing is
    T_world_cam: Array  # (4, 4)
    camera: Pinhole  # of the size of the depth


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Places in another view of the middles of a grid of patches, row by row."""

    pixels: Array  # (rows * columns, 2) column and row in the other view; NaN behind it or without depth
    visible: NDArray[np.bool_]  # (rows * columns,) inside the other view and not hidden there


def patch_matches(view: View, other: View, rows: int, columns: int) -> Matches:
    """Follow the middle of each patch of ``view``, split in rows x columns, into ``other``.

    A point is visible where the other view's own depth at that pixel agrees with the point's to 5 %.
    """
    height, width = view.depth.shape
    v = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    u = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    # Middles lie between pixels where patches have an even number of these; depth is that of the next one.
    middle_u, middle_v = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in ((columns, width), (rows, height)))
    pixels = np.stack(np.meshgrid(middle_u, middle_v), axis=-1).reshape(-1, 2)
    depth = view.depth[np.ix_(v, u)].reshape(-1).astype(float)
    points = view.camera.unproject(pixels, depth)
    there = se3.transform(se3.inverse(other.T_world_cam) @ view.T_world_cam, points)
    with np.errstate(invalid="ignore"):
        found = other.camera.project(there)
        near = np.rint(found)
        inside: NDArray[np.bool_] = np.logical_and.reduce(
            (near >= 0) & (near < (other.camera.width, other.camera.height)), axis=1
        )
        column, row = np.where(inside[:, None], near, 0).astype(int).T
        seen = other.depth[row, column]
        visible = inside & (np.abs(seen - there[:, 2]) < _SAME_SURFACE * there[:, 2])
    return Matches(found, visible)


def soft_targets(matches: Matches, width: int, height: int, rows: int, columns: int) -> FloatArray:
    """Shares (rows * columns, rows * columns) of the other view's patches in each match, bilinear; 0 where hidden.

    Between the middles of four patches each gets its bilinear weight, so that the mean place of the patches under
    these weights is the match itself; beyond the outermost middles the outermost patch gets all.
    """
    count = rows * columns
    out = np.zeros((count, count), np.float32)
    kept = np.flatnonzero(matches.visible)
    # Patch coordinates: 0 is the middle of the first patch.
    x = np.clip((matches.pixels[kept, 0] + 0.5) * columns / width - 0.5, 0, columns - 1)
    y = np.clip((matches.pixels[kept, 1] + 0.5) * rows / height - 0.5, 0, rows - 1)
    left, top = np.minimum(x.astype(int), columns - 2), np.minimum(y.astype(int), rows - 2)
    x, y = x - left, y - top
    for dy, wy in ((0, 1 - y), (1, y)):
        for dx, wx in ((0, 1 - x), (1, x)):
            out[kept, (top + dy) * columns + left + dx] = wx * wy
    return out

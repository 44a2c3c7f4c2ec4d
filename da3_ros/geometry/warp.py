"""A depth map as another camera pose sees it: points are carried over, never stretched between surfaces.

Each point goes to the nearest pixel of the other view, where the nearest surface wins.  Its depth there is that of the
ray through the pixel's centre, where it crosses the plane through the point and its neighbours: a slanted wall gets no
steps.  No value is made of two surfaces, and what only the other view could know is a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array

Map = NDArray[np.float32]
Index = NDArray[np.intp]

_EDGE = 0.1  # relative step of depth between neighbours from which on they are two surfaces
_MOST = 0.1  # relative change of depth within a pixel; more is a plane seen edge-on
_COLUMNS, _ROWS = 1, 0


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The depth of a view, with what does not depend on where it is seen from."""

    depth: Map  # (H, W) z-depth, NaN where unknown
    confidence: Map  # (H, W) in [0, 1)
    camera: Pinhole  # at this size
    normal: Map  # (3, H, W) of the plane through each point: normal . X = 1 for X in the camera

    @classmethod
    def of(cls, depth: Map, confidence: Map, camera: Pinhole) -> Surface:
        """Measure the planes; depth that is not positive is unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where((depth > 0) & (depth < np.inf), depth, np.float32(np.nan))
            inverse: Map = np.reciprocal(depth, dtype=np.float32)
            normal = np.empty((3, *depth.shape), np.float32)
            normal[0] = camera.fx * _slope(inverse, _COLUMNS)
            normal[1] = camera.fy * _slope(inverse, _ROWS)
            x, y = _grid(camera)
            normal[2] = inverse - x * normal[0] - y * normal[1]
        return cls(depth, confidence, camera, normal)

    def seen_from(self, T_here_there: Array) -> tuple[Map, Map]:
        """Depth and confidence (H, W) as the same camera sees them from another place.

        Confidence falls with the way between the views as a share of the depth, since errors show more and more.

        Args:
            T_here_there: (4, 4) pose of the other view in this one, in units of the depth.

        Returns:
            Depth, NaN where nothing is known, and confidence, 0 there.
        """
        width, height = self.camera.size
        T_there_here = se3.inverse(T_here_there)
        x, y = _grid(self.camera)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            there = _carried(self.depth, self.normal, x, y, self.camera, T_there_here)
            column, row = np.rint(there.u), np.rint(there.v)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (there.z > 0)  # no NaN is
            value = there.depth_at(column, row).ravel()
            row *= width
            row += column
            row[~inside] = width * height
            chosen, front = _nearest(row.ravel().astype(np.intp), there.z.ravel())
            crack = _close_cracks(chosen.reshape(height, width), front.reshape(height, width), self.depth, there.z)
            source = chosen[crack]
            column, row = source % width, source // width
            normal = self.normal.reshape(3, -1)[:, source]
            lines = _carried(self.depth.ravel()[source], normal, x[0, column], y[row, 0], self.camera, T_there_here)
        depth = value.take(chosen, mode="clip")  # holes read something, and lose it below
        depth[crack] = lines.depth_at(crack % width, crack // width)
        confidence = self.confidence.take(chosen, mode="clip")
        confidence *= depth / (depth + np.float32(np.linalg.norm(T_here_there[:3, 3])))
        hole = chosen < 0
        depth[hole], confidence[hole] = np.nan, 0
        return depth.reshape(height, width), confidence.reshape(height, width)


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """Points of the scene in another view, arrays of one shape."""

    u: Map  # px
    v: Map
    z: Map
    slope_u: Map  # of the inverse depth along the plane through the point, per px
    slope_v: Map

    def depth_at(self, column: NDArray[Any], row: NDArray[Any]) -> Map:
        """Depth of the plane at a pixel close by."""
        change = (column - self.u) * self.slope_u
        change += (row - self.v) * self.slope_v
        change *= self.z
        np.minimum(change, _MOST, out=change)
        np.maximum(change, -_MOST, out=change)
        change += 1
        found: Map = (self.z / change).astype(np.float32, copy=False)
        return found


def _carried(depth: Map, normal: Map, x: Map, y: Map, camera: Pinhole, T_there_here: Array) -> _Point:
    """Points on rays (x, y, 1) with planes (3, ...), in the camera of another view."""
    R, t = T_there_here[:3, :3].tolist(), T_there_here[:3, 3].tolist()
    there = []
    for (a, b, c), shift in zip(R, t, strict=True):
        out = a * x + (b * y + c)
        out *= depth
        out += shift
        there.append(out)
    u, v, z = there
    u /= z
    v /= z
    u *= camera.fx
    u += camera.cx
    v *= camera.fy
    v += camera.cy
    # n . X = 1 becomes (R n) . X = 1 + (R n) . t
    a, b, c = (T_there_here[:3, 3] @ T_there_here[:3, :3]).tolist()
    size = a * normal[0]
    size += b * normal[1]
    size += c * normal[2]
    size += 1
    np.maximum(size, 1e-3, out=size)  # a plane through the other camera is seen edge-on
    slopes = []
    for (a, b, c), focal in zip(R[:2], (camera.fx, camera.fy), strict=True):
        slope = (a / focal) * normal[0]
        slope += (b / focal) * normal[1]
        slope += (c / focal) * normal[2]
        slope /= size
        slopes.append(slope)
    return _Point(u, v, z, *slopes)


def _grid(camera: Pinhole) -> tuple[Map, Map]:
    """Rays (x, y, 1) through the pixels: x (1, W) and y (H, 1)."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    return x.astype(np.float32)[None], y.astype(np.float32)[:, None]


def _slope(inverse: Map, axis: int) -> Map:
    """Mean step (H, W) to the two neighbours along an axis, of those on the same surface; 0 where there is none."""
    before, after = _pair(inverse, axis, 1)
    step = after - before
    same = np.abs(step) < _EDGE * np.minimum(before, after)  # not so where one is unknown
    step[~same] = 0
    total, count = np.zeros_like(inverse), np.zeros(inverse.shape, np.uint8)
    for part, number in zip(_pair(total, axis, 1), _pair(count, axis, 1), strict=True):
        part += step
        number += same
    total[count == 2] *= 0.5
    return total


def _pair(values: NDArray[Any], axis: int, apart: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each value and the one so many further along an axis, as views."""
    return (values[:, :-apart], values[:, apart:]) if axis == _COLUMNS else (values[:-apart], values[apart:])


def _nearest(target: Index, z: Map) -> tuple[Index, Map]:
    """For each of N pixels the nearest of the points that come to lie there, and its z; -1 and infinity: none.

    Args:
        target: (N,) pixel of each point; N: none.
        z: (N,) of the points.
    """
    size = len(target)
    chosen, front = np.full(size + 1, -1, np.intp), np.full(size + 1, np.inf, np.float32)
    points: Index = np.arange(size)
    # Few points meet in a pixel.  Whoever comes last stays, and gives way to each that is nearer, until none is.
    while len(points):
        chosen[target], front[target] = points, z
        front[size] = -np.inf
        nearer = np.flatnonzero(z < front.take(target, mode="clip"))
        points, target, z = points[nearer], target[nearer], z[nearer]
    return chosen[:size], front[:size]


def _close_cracks(chosen: Index, front: Map, depth: Map, z: Map) -> Index:
    """Close lines of one pixel, empty or open to what lies behind, between two neighbours on one surface.

    Args:
        chosen: (H, W) the point that each pixel shows; cracks get the point to their left or above.
        front: (H, W) its z, infinity where there is none; likewise.
        depth: (H, W) of the points in their own view.
        z: (H, W) of the points in the other view.

    Returns:
        The cracks (C,) as indices into the flat map.
    """
    width, closed = chosen.shape[1], []
    for axis in (_COLUMNS, _ROWS, _COLUMNS, _ROWS):  # where cracks cross, one is closed before the other
        inner = (slice(None), slice(1, -1)) if axis == _COLUMNS else (slice(1, -1), slice(None))
        before, after = _pair(front, axis, 2)
        edge = np.maximum(before, after)
        edge *= 1 + _EDGE
        row, column = np.divmod(np.flatnonzero(front[inner] > edge), edge.shape[1])
        first, second = (side[row, column] for side in _pair(chosen, axis, 2))
        same = _close(first, second, depth)
        row, column, first = row[same], column[same], first[same]
        chosen[inner][row, column] = first
        front[inner][row, column] = z.ravel()[first]
        top, left = (0, 1) if axis == _COLUMNS else (1, 0)
        closed.append((row + top) * width + column + left)
    return np.concatenate(closed)


def _close(first: Index, second: Index, depth: Map) -> NDArray[np.bool_]:
    """Whether two points (N,) are at most two pixels apart in their own view, on one surface from one to the other."""
    width = depth.shape[1]
    rows = np.rint((second - first) / width).astype(np.intp)
    columns = second - first - rows * width
    near = (np.abs(rows) <= 2) & (np.abs(columns) <= 2)
    middle = first + rows // 2 * width + columns // 2
    start, middle, end = (depth.ravel().take(points, mode="clip") for points in (first, middle, second))
    for a, b in ((start, middle), (middle, end)):
        near &= np.abs(a - b) < _EDGE * np.minimum(a, b)
    return near

"""Rays against a triangle mesh: Open3D's ray caster behind plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import MissingDependencyError
from da3_ros.geometry.se3 import Array

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What N rays met first."""

    distance: FloatArray  # (N,) ray parameter: metres over the length of the direction; inf for nothing
    triangle: NDArray[np.uint32]  # (N,) index; 2**32 - 1 for nothing
    corner: FloatArray  # (N, 2) barycentric coordinates of the triangle's second and third corner
    normal: FloatArray  # (N, 3) of the triangle

    def __getitem__(self, part: slice) -> Hits:
        """Return a part of them, without copying."""
        return Hits(self.distance[part], self.triangle[part], self.corner[part], self.normal[part])


class Scene:
    """A mesh that rays can be cast at."""

    def __init__(self, vertices: Array, triangles: NDArray[np.uint32]) -> None:
        """Take vertices (V, 3) in metres and triangles (T, 3)."""
        try:
            open3d: Any = import_module("open3d")  # slow to import, hence not above; its own types refuse arrays
        except ImportError as error:
            raise MissingDependencyError(
                f"the synthetic world is rendered with Open3D ({error}): pip install open3d-cpu, or open3d"
            ) from error
        self._tensor = open3d.core.Tensor
        self._scene = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(self._tensor(vertices.astype(np.float32)), self._tensor(triangles))

    def cast(self, rays: FloatArray) -> Hits:
        """Cast rays (N, 6): origin, direction of any length."""
        hit = self._scene.cast_rays(self._tensor(rays))
        names = ("t_hit", "primitive_ids", "primitive_uvs", "primitive_normals")
        return Hits(*(hit[name].numpy() for name in names))

    def blocked(self, starts: Array, rays: Array, far: float) -> NDArray[np.bool_]:
        """Tell (N,) whether anything lies between points (N, 3) and ``far`` times vectors (N, 3) beyond them."""
        both = np.concatenate([starts, rays], axis=1).astype(np.float32)
        out: NDArray[np.bool_] = self._scene.test_occlusions(self._tensor(both), 0.0, far).numpy()
        return out

    def distance(self, points: Array) -> Array:
        """Distance (N,) of points (N, 3) to the nearest surface, m."""
        out: FloatArray = self._scene.compute_distance(self._tensor(points.astype(np.float32))).numpy()
        return out.astype(np.float64)

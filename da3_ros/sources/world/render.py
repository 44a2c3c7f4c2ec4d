"""Pictures and exact depth of a room, by ray casting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources.world import light
from da3_ros.sources.world.atlas import Atlas
from da3_ros.sources.world.noise import SIZE
from da3_ros.sources.world.room import Room
from da3_ros.sources.world.scene import Hits, Scene

FloatArray = NDArray[np.float32]

_BAND = 20480  # pixels shaded at a time: the intermediate arrays stay in the processor's cache
_OBLIQUE = 0.7  # mip levels gained per halving of the cosine of incidence: 0.5 aliases, 1 blurs
_EDGE_RAYS = ((-0.36, -0.14), (0.06, 0.38), (0.30, -0.24))  # px from the centre, which counts as the fourth
_SKY = np.array([(206, 222, 236), (112, 156, 212)], np.float32)  # at the horizon and 40 degrees above it


class Renderer:
    """Renders one room.  Holds no state that changes, so the same view gives the same bytes."""

    def __init__(self, room: Room, rng: np.random.Generator, *, lit: bool) -> None:
        """Build the ray-casting scene and bake the light; without ``lit`` all surfaces are equally bright."""
        mesh = room.mesh
        self._scene = Scene(mesh.vertices, mesh.triangles)
        self._atlas = Atlas(list(room.images))
        if lit:
            brightness = light.bake(self._scene, mesh, list(room.lamps), rng)
        else:
            brightness = np.full(len(mesh.vertices), 0.9, np.float32)
        # Per triangle: texture coordinates and brightness of the first corner and what the barycentric
        # coordinates of the other two add.  The last row stands for the sky.
        corners = np.concatenate([mesh.uv, brightness[:, None]], axis=1)[mesh.triangles.astype(np.intp)]
        # whole tiles do not matter, but large coordinates would cost digits
        corners[..., :2] -= np.floor(corners[:, :1, :2])
        table = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=1)
        column, row = self._atlas.places(mesh.texture)
        log_density = np.log2(SIZE / mesh.density)
        table = np.column_stack([table, log_density, column, row]).astype(np.float32)
        self._table = [np.append(values, np.float32(0)) for values in table.T]
        self._surface = np.append(mesh.surface, np.int32(-1))

    def clearance(self, points: Array) -> Array:
        """Distance (N,) of points (N, 3) to the nearest surface, m."""
        return self._scene.distance(points)

    def free_path(self, points: Array, directions: Array) -> Array:
        """Distance (N,) from points (N, 3) along unit directions (N, 3) to the first surface, m; inf for none."""
        rays = np.concatenate([points, directions], axis=1).astype(np.float32)
        return self._scene.cast(rays).distance.astype(float)

    def render(self, camera: Pinhole, T_world_cam: Array) -> tuple[FloatArray, FloatArray]:
        """Return the picture (H, W, 3), 0..255 before sensor effects, and z-depth (H, W) in metres, NaN for sky.

        One ray goes through each pixel centre.  Its direction has z = 1 in the camera, so the ray parameter is
        the z-depth.  Pixels on the outlines of surfaces are averaged over three more rays.
        """
        height, width = camera.height, camera.width
        x = (np.arange(width) - camera.cx) / camera.fx
        y = (np.arange(height) - camera.cy) / camera.fy
        grid = np.empty((height, width, 6), np.float32)
        for k in range(3):
            grid[..., k] = T_world_cam[k, 3]
            across, down, ahead = T_world_cam[k, :3]
            np.add((across * x)[None, :], (down * y + ahead)[:, None], out=grid[..., 3 + k], casting="same_kind")
        rays = grid.reshape(-1, 6)
        hits = self._scene.cast(rays)
        colour = self._shade(rays, hits, camera)
        self._smooth_outlines(colour, hits, rays, camera, T_world_cam[:3, :3].astype(np.float32))
        depth = np.where(np.isinf(hits.distance), np.float32(np.nan), hits.distance)
        return colour.reshape(height, width, 3), depth.reshape(height, width)

    def _shade(self, rays: FloatArray, hits: Hits, camera: Pinhole) -> FloatArray:
        """Colours (N, 3) of what rays (N, 6) hit."""
        colour = np.empty((len(rays), 3), np.float32)
        for start in range(0, len(rays), _BAND):
            part = slice(start, start + _BAND)
            self._shade_band(colour[part], rays[part], hits[part], camera)
        return colour

    def _shade_band(self, out: FloatArray, rays: FloatArray, hits: Hits, camera: Pinhole) -> None:
        row_of_table = self._row(hits)
        u, v, light, u_a, v_a, light_a, u_b, v_b, light_b, log_density, column, row = (
            values.take(row_of_table) for values in self._table
        )
        a, b = np.ascontiguousarray(hits.corner[:, 0]), np.ascontiguousarray(hits.corner[:, 1])
        u = u + a * u_a + b * u_b
        v = v + a * v_a + b * v_b
        brightness = light + a * light_a + b * light_b
        direction = rays[:, 3:]
        cosine = np.abs(np.einsum("ij,ij->i", hits.normal, direction)) / np.sqrt(
            np.einsum("ij,ij->i", direction, direction)
        )
        # a pixel covers depth / f metres across the ray, more along an oblique surface
        finite = np.minimum(hits.distance, np.float32(1e3))
        footprint = (
            finite / np.float32(np.sqrt(camera.fx * camera.fy)) * np.maximum(cosine, np.float32(0.03)) ** -_OBLIQUE
        )
        texels = np.log2(np.maximum(footprint, np.float32(1e-6))) + log_density
        np.multiply(self._atlas.sample(u, v, column, row, texels), brightness[:, None], out=out)
        missed = np.flatnonzero(np.isinf(hits.distance))
        if len(missed):
            d = direction[missed]
            elevation = d[:, 2] / np.sqrt((d * d).sum(axis=1))
            share = np.clip(elevation / np.float32(0.64), 0, 1)[:, None]
            out[missed] = (1 - share) * _SKY[0] + share * _SKY[1]

    def _row(self, hits: Hits) -> NDArray[np.intp]:
        """Rows (N,) of the triangles in the tables; the last one for rays that hit nothing."""
        return np.minimum(hits.triangle, np.uint32(len(self._surface) - 1)).astype(np.intp)

    def _smooth_outlines(
        self, colour: FloatArray, hits: Hits, rays: FloatArray, camera: Pinhole, rotation: FloatArray
    ) -> None:
        """Average four rays, three of them new, in the pixels beside which another surface begins."""
        surface = self._surface.take(self._row(hits)).reshape(camera.height, camera.width)
        edge = np.zeros(surface.shape, bool)
        across, down = surface[:, 1:] != surface[:, :-1], surface[1:] != surface[:-1]
        edge[:, 1:] |= across
        edge[:, :-1] |= across
        edge[1:] |= down
        edge[:-1] |= down
        pixels = np.flatnonzero(edge)
        if not len(pixels):
            return
        right, below = rotation[:, 0] / np.float32(camera.fx), rotation[:, 1] / np.float32(camera.fy)
        extra = np.repeat(rays[pixels][None], len(_EDGE_RAYS), axis=0)
        for k, (dx, dy) in enumerate(_EDGE_RAYS):
            extra[k, :, 3:] += np.float32(dx) * right + np.float32(dy) * below
        extra = extra.reshape(-1, 6)
        shades = self._shade(extra, self._scene.cast(extra), camera).reshape(len(_EDGE_RAYS), -1, 3)
        colour[pixels] = (colour[pixels] + shades.sum(axis=0)) / np.float32(1 + len(_EDGE_RAYS))

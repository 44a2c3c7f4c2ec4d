"""A triangle mesh made of textured patches: flat rectangles, boxes, cylinders, spheres.

World frame: metres, z up.  Every patch is a regular grid of vertices, fine enough to carry baked light.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.se3 import Array

FACES = ("front", "right", "back", "left", "top", "bottom")
_BOX_FACES: Mapping[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    # corner (in half sizes), image-right, image-up; right x up points out of the box
    "front": ((-1, -1, -1), (1, 0, 0), (0, 0, 1)),
    "right": ((1, -1, -1), (0, 1, 0), (0, 0, 1)),
    "back": ((1, 1, -1), (-1, 0, 0), (0, 0, 1)),
    "left": ((-1, 1, -1), (0, -1, 0), (0, 0, 1)),
    "top": ((-1, -1, 1), (1, 0, 0), (0, 1, 0)),
    "bottom": ((-1, 1, -1), (1, 0, 0), (0, -1, 0)),
}


@dataclass(frozen=True, slots=True)
class Skin:
    """What covers a patch: a texture and the part of it that is used."""

    texture: int  # index into the texture list
    tile: tuple[float, float] | None = None  # width, height of one repeat in metres; None: stretch ``part`` over it
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom, in shares of the tile
    offset: tuple[float, float] = (0.0, 0.0)  # shift of a repeating texture, in tiles
    glow: float = 0.0  # > 0: shines by itself with this brightness (1 = full)


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The finished mesh; V vertices, T triangles."""

    vertices: Array  # (V, 3) m
    normals: Array  # (V, 3) unit, out of the surface
    inset: Array  # (V, 3) m, vertices pulled a little into their patch: where light is measured
    glow: Array  # (V,) 0 = lit by lamps
    uv: Array  # (V, 2) texture coordinates in tiles, right and down
    triangles: NDArray[np.uint32]  # (T, 3)
    texture: NDArray[np.int32]  # (T,)
    surface: NDArray[np.int32]  # (T,) smooth surface that a triangle belongs to
    density: Array  # (T,) metres per tile, geometric mean of both axes


@dataclass(eq=False)
class MeshBuilder:
    """Collects patches, in a local frame that can be moved."""

    cell: float = 0.15  # longest edge of a patch cell in metres
    _parts: list[tuple[Array, Array, Array, Array, Array, NDArray[np.int64]]] = field(default_factory=list)
    _triangle_info: list[tuple[int, int, float, int]] = field(default_factory=list)
    _vertices: int = 0
    _rotation: Array = field(default_factory=lambda: np.eye(3))
    _origin: Array = field(default_factory=lambda: np.zeros(3))

    def move_to(self, origin: Array | tuple[float, float, float], x_axis: tuple[float, float] = (1.0, 0.0)) -> None:
        """Place the local frame: its origin in the world and the horizontal direction of its x axis."""
        x, y = np.asarray(x_axis, float) / np.hypot(*x_axis)
        self._origin = np.asarray(origin, float)
        self._rotation = np.array([[x, -y, 0], [y, x, 0], [0, 0, 1.0]])

    def rectangle(
        self,
        corner: Array | tuple[float, float, float],
        right: Array | tuple[float, float, float],
        up: Array | tuple[float, float, float],
        skin: Skin,
        cell: float | None = None,
    ) -> None:
        """Add a rectangle seen from the side where ``right`` x ``up`` points to; edges in metres."""
        corner, right, up = np.asarray(corner, float), np.asarray(right, float), np.asarray(up, float)
        width, height = float(np.linalg.norm(right)), float(np.linalg.norm(up))
        cell = self.cell if cell is None else cell
        s = np.linspace(0, 1, max(1, int(np.ceil(width / cell - 1e-9))) + 1)[None, :, None]
        t = np.linspace(0, 1, max(1, int(np.ceil(height / cell - 1e-9))) + 1)[:, None, None]
        points = corner + s * right + t * up
        normal = np.cross(right, up) / (width * height)
        pull = 0.02
        inset = corner + (pull + (1 - 2 * pull) * s) * right + (pull + (1 - 2 * pull) * t) * up
        self._patch(points, np.broadcast_to(normal, points.shape), inset, skin, width, height)

    def box(
        self,
        center: tuple[float, float, float],
        size: tuple[float, float, float],
        skins: Skin | Mapping[str, Skin],
        faces: tuple[str, ...] = FACES[:5],
    ) -> None:
        """Add the named faces of a box; ``size`` along local x, y, z; front looks to -y.

        A mapping gives faces their own skins; "other" covers those it does not name.
        """
        half = np.asarray(size, float) / 2
        for face in faces:
            corner, right, up = _BOX_FACES[face]
            skin = skins if isinstance(skins, Skin) else skins.get(face) or skins["other"]
            self.rectangle(np.asarray(center) + half * corner, 2 * half * right, 2 * half * up, skin)

    def cylinder(
        self,
        base: tuple[float, float, float],
        radius: float,
        height: float,
        skin: Skin,
        *,
        top_radius: float | None = None,
        lid: Skin | None = None,
        sides: int = 18,
    ) -> None:
        """Add an upright cylinder or cone frustum standing on ``base``; ``lid`` closes its top."""
        top_radius = radius if top_radius is None else top_radius
        rows = max(1, int(np.ceil(height / (2 * self.cell)))) + 1
        angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :]
        t = np.linspace(0, 1, rows)[:, None]
        r = radius + t * (top_radius - radius)
        points = np.stack(np.broadcast_arrays(r * np.cos(angle), r * np.sin(angle), t * height), axis=-1) + base
        slope = (radius - top_radius) / max(height, 1e-6)
        normals = np.stack(np.broadcast_arrays(np.cos(angle), np.sin(angle), slope + 0 * t), axis=-1)
        normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        self._patch(points, normals, points, skin, 2 * np.pi * max(radius, top_radius), height)
        if lid is not None:
            r = np.array([1e-3, top_radius])[::-1, None]
            points = np.stack(np.broadcast_arrays(r * np.cos(angle), r * np.sin(angle), height + 0 * r), axis=-1) + base
            up = np.broadcast_to((0.0, 0.0, 1.0), points.shape)
            self._patch(points, up, points, lid, 2 * np.pi * top_radius, top_radius)

    def sphere(self, center: tuple[float, float, float], radius: float, skin: Skin, *, squash: float = 1.0) -> None:
        """Add a sphere, ``squash`` times as high as wide."""
        angle = np.linspace(0, 2 * np.pi, 17)[None, :]
        polar = np.linspace(-np.pi / 2 * 0.999, np.pi / 2 * 0.999, 9)[:, None]
        unit = np.stack(
            np.broadcast_arrays(np.cos(polar) * np.cos(angle), np.cos(polar) * np.sin(angle), np.sin(polar)), axis=-1
        )
        points = unit * (radius, radius, radius * squash) + center
        normals = unit / (1, 1, squash)
        normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        self._patch(points, normals, points, skin, 2 * np.pi * radius, np.pi * radius * squash)

    def _patch(self, points: Array, normals: Array, inset: Array, skin: Skin, width: float, height: float) -> None:
        """Add a grid (rows, columns, 3); rows run up the texture, columns to its right."""
        rows, columns = points.shape[:2]
        s, t = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        if skin.tile is None:
            left, top, right, bottom = skin.part
            uv = np.stack([left + s * (right - left), bottom - t * (bottom - top)], axis=-1)
            metres = np.sqrt(width * height / max((right - left) * (bottom - top), 1e-9))
        else:
            uv = np.stack([skin.offset[0] + s * width / skin.tile[0], skin.offset[1] - t * height / skin.tile[1]], -1)
            metres = np.sqrt(skin.tile[0] * skin.tile[1])
        index = self._vertices + np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
        triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
        turn, origin = self._rotation.T, self._origin
        glow = np.full(rows * columns, skin.glow)
        self._parts.append(
            (
                points.reshape(-1, 3) @ turn + origin,
                normals.reshape(-1, 3) @ turn,
                inset.reshape(-1, 3) @ turn + origin,
                glow,
                uv.reshape(-1, 2),
                triangles,
            )
        )
        self._triangle_info.append((skin.texture, len(self._triangle_info), metres, len(triangles)))
        self._vertices += rows * columns

    def build(self) -> Mesh:
        """Join all patches."""
        vertices, normals, inset, glow, uv, triangles = (
            np.concatenate(part) for part in zip(*self._parts, strict=True)
        )
        texture, surface, metres, count = (np.array(column) for column in zip(*self._triangle_info, strict=True))
        return Mesh(
            vertices,
            normals,
            inset,
            glow,
            uv,
            triangles.astype(np.uint32),
            np.repeat(texture, count).astype(np.int32),
            np.repeat(surface, count).astype(np.int32),
            np.repeat(metres, count).astype(float),
        )

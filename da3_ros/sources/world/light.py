"""Light that stands still: lamps, sky and ambient, baked into the vertices of a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.sources.world.mesh import Mesh
from da3_ros.sources.world.scene import Scene

GAMMA = 2.2
_OFFSET = 0.012  # m in front of the surface where light is measured
_REACH = 0.7  # m within which other surfaces shade the ambient light
_AMBIENT_RAYS = 24
_LAMP_RAYS = 4
_TYPICAL = 0.52  # median brightness to which the camera is set
_BRIGHTEST = 1.6


@dataclass(frozen=True, slots=True)
class Lamp:
    """A round light source; its light falls to a half at ``half_distance``."""

    position: tuple[float, float, float]
    power: float
    radius: float = 0.12
    half_distance: float = 2.0


def bake(scene: Scene, mesh: Mesh, lamps: list[Lamp], rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness (V,) by which the colours of the vertices are multiplied; its median is about 0.74.

    Lambert's law with shadow rays for the lamps, ambient occlusion for the rest.  Colours are those of a camera
    (gamma-coded), so the brightness is coded in the same way: (a L)^(1/g) = a^(1/g) L^(1/g).
    """
    start = mesh.inset + _OFFSET * mesh.normals
    light = np.zeros(len(start))
    for lamp in lamps:
        jitter = rng.normal(size=(_LAMP_RAYS, 3))
        jitter *= lamp.radius / np.linalg.norm(jitter, axis=1, keepdims=True)
        for target in np.asarray(lamp.position) + jitter:
            ray = target - start
            squared = (ray**2).sum(axis=1)
            cosine = np.maximum((ray * mesh.normals).sum(axis=1), 0) / np.sqrt(squared)
            lit = np.flatnonzero(cosine > 0)
            seen = np.zeros(len(start), bool)
            seen[lit] = ~scene.blocked(start[lit], ray[lit], 0.999)
            light += seen * cosine * lamp.power / (_LAMP_RAYS * (1 + squared / lamp.half_distance**2))
    openness = np.zeros(len(start))
    for _ in range(_AMBIENT_RAYS):
        direction = rng.normal(size=(1, 3))
        direction = mesh.normals + direction / np.linalg.norm(direction)  # cosine-weighted about the normal
        norm = np.linalg.norm(direction, axis=1, keepdims=True)
        direction = np.where(norm > 0.05, direction / np.maximum(norm, 0.05), mesh.normals)
        openness += ~scene.blocked(start, _REACH * direction, 1.0)
    light += 0.34 * (0.15 + 0.85 * openness / _AMBIENT_RAYS)
    light *= _TYPICAL / np.median(light)
    brightness = np.where(mesh.glow > 0, mesh.glow, np.minimum(light, _BRIGHTEST))
    return (brightness ** (1 / GAMMA)).astype(np.float32)

"""Small worlds for the tests of training: views inside a box whose walls carry a smooth pattern, in closed form."""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.training.worlds import CachedWorld, world_of

CAMERA = Pinhole(112, 84, 90.0, 90.0, 55.0, 42.0)
HALF = np.array([2.0, 1.5, 2.5])  # m, half sizes of the box


def poses(count: int, seed: int) -> np.ndarray:
    """A smooth walk with small turns."""
    rng = np.random.default_rng(seed)
    turn = np.cumsum(rng.normal(0, 0.03, (count, 3)), axis=0)
    place = np.cumsum(rng.normal(0, 0.06, (count, 3)), axis=0)
    return se3.make(se3.exp_so3(turn), np.clip(place, -0.8, 0.8))


def seen(T: np.ndarray, camera: Pinhole = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Image and z-depth of the box from a pose."""
    directions = camera.directions() @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        far = np.where(directions > 0, HALF - T[:3, 3], -HALF - T[:3, 3]) / directions
    depth = far.min(axis=-1)
    points = T[:3, 3] + directions * depth[..., None]
    waves = np.stack([np.sin(points @ k) for k in ((7, 3, 5), (2, 9, -4), (-5, 4, 8))], axis=-1)
    return (128 + 100 * waves).astype(np.uint8), depth.astype(np.float32)


def world(seed: int, count: int = 12, scale: float = 1.0) -> CachedWorld:
    """A world; ``scale`` enlarges it and the motion in it."""
    T = poses(count, seed)
    images, depth = zip(*(seen(pose) for pose in T), strict=True)
    T[:, :3, 3] *= scale
    return world_of(seed, CAMERA, np.stack(images), np.stack(depth) * np.float32(scale), T)

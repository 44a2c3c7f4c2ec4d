"""The nine numbers by which the network takes and gives a camera, and what they mean.

Centre (3), quaternion x y z w (4), vertical and horizontal field of view (2), of ``T_window_cam`` with OpenCV axes.
The principal point is always the centre of the image.  On the host and in double precision: a few numbers per view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array

# Fields of view outside are no camera but a unit that says nothing (its activation cuts negative values to exactly 0,
# where the released code makes a focal length of 10^8 pixels of it).
_NARROWEST, _WIDEST = np.deg2rad((1.0, 175.0))
_SHORTEST = 1e-6  # of a quaternion
_LEAST_UNIT = 0.1  # of the input's unit, as in training


@dataclass(frozen=True, slots=True, eq=False)
class Cameras:
    """Cameras of a window."""

    T_window_cam: Array  # (S, 4, 4), NaN where invalid
    K: Array  # (S, 3, 3) in pixels, NaN where invalid
    valid: NDArray[np.bool_]  # (S,)
    size: tuple[int, int]  # width and height of the image of K

    def pinholes(self) -> tuple[Pinhole | None, ...]:
        """One camera per view; None where invalid."""
        width, height = self.size
        return tuple(
            Pinhole.from_matrix(K, width, height) if good else None for K, good in zip(self.K, self.valid, strict=True)
        )


def decode(codes: NDArray[Any], width: int, height: int) -> Cameras:
    """What the camera head's numbers (S, 9) mean for images of width x height pixels."""
    codes = np.asarray(codes, np.float64)
    fov = codes[:, 7:]
    length = np.linalg.norm(codes[:, 3:7], axis=1)
    with np.errstate(invalid="ignore"):
        seen = ((fov > _NARROWEST) & (fov < _WIDEST)).all(axis=1)
        valid = np.isfinite(codes).all(axis=1) & seen & (length > _SHORTEST)
    T, K = np.full((len(codes), 4, 4), np.nan), np.full((len(codes), 3, 3), np.nan)
    T[valid] = se3.from_quaternion(codes[valid, :3], codes[valid, 3:7])
    half = np.array([width, height]) / 2
    K[valid] = np.eye(3)
    K[valid, [[0], [1]], [[0], [1]]] = half[:, None] / np.tan(fov[valid, ::-1].T / 2)
    K[valid, :2, 2] = half - 0.5
    return Cameras(T, K, valid, (width, height))


def encode(T_world_cam: Array, K: Array, width: int, height: int) -> tuple[Array, float]:
    """Known cameras of all views as the camera encoder takes them.

    Args:
        T_world_cam: (S, 4, 4), the first is the reference.
        K: (S, 3, 3) in pixels of the processed image; its principal points are ignored, as in training.
        width: of the processed image.
        height: of the processed image.

    Returns:
        (codes (S, 9), input units per window unit: the median distance of a camera from the first)
    """
    relative = se3.inverse(T_world_cam[:1]) @ np.asarray(T_world_cam, float)
    unit = _unit(relative)
    fov = 2 * np.arctan2([height / 2, width / 2], np.asarray(K, float)[:, [1, 0], [1, 0]])
    quaternion = se3.quaternion_from_rotation(relative[:, :3, :3])
    return np.concatenate([relative[:, :3, 3] / unit, quaternion, fov], axis=1), unit


def scale_between(T_given: Array, T_window: Array) -> float | None:
    """Units of given poses (S, 4, 4) per unit of the window's poses of the same views, by distances from the first.

    Unlike an alignment of point sets this is defined for two views and for motion along a line.  None where fewer than
    two views are finite or one of the two does not move.
    """
    good = np.isfinite(T_given).all(axis=(1, 2)) & np.isfinite(T_window).all(axis=(1, 2))
    if good.sum() < 2:
        return None
    given, window = (np.linalg.norm(T[good, :3, 3] - T[good][0, :3, 3], axis=1) for T in (T_given, T_window))
    scale = given @ window / max(window @ window, np.finfo(float).tiny)
    return float(scale) if scale > 0 and np.isfinite(scale) else None


def _unit(relative: Array) -> float:
    """Median distance of the cameras from the first, as the released code takes it: the first counts, lower middle.

    With two views that would be 0, so there it is their distance.
    """
    distances = np.sort(np.linalg.norm(relative[:, :3, 3], axis=1))
    middle = distances[-1] if len(distances) == 2 else distances[(len(distances) - 1) // 2]
    return float(max(middle, _LEAST_UNIT))

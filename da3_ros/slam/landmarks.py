"""Points of the scene that the camera follows: where they are, and in which keyframes they were seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Landmarks in one image."""

    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) ascending
    pixels: Array = field(default_factory=lambda: np.zeros((0, 2)))  # (N, 2) of the shrunk image
    sharp: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # (N,) aligned; left out: none

    def __post_init__(self) -> None:
        """Fill in what was left out."""
        if len(self.sharp) != len(self.ids):
            object.__setattr__(self, "sharp", np.zeros(len(self.ids), bool))

    def taken(self, rows: NDArray[np.generic]) -> Seen:
        """Some of them."""
        return Seen(self.ids[rows], self.pixels[rows], self.sharp[rows])

    def shifted(self, ids: Ids, pixels: Array) -> Seen:
        """Those among ids (N,) ascending lie aside by pixels (N, 2)."""
        return replace(self, pixels=self.pixels + shifts(self.ids, ids, pixels))

    def joined(self, other: Seen) -> Seen:
        """Both; ``other`` has other landmarks."""
        both = Seen(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.sharp, other.sharp]),
        )
        return both.taken(np.argsort(both.ids))


def among(ids: Ids, others: Ids) -> NDArray[np.bool_]:
    """Which of ids (N,) are among others (M,) ascending."""
    if not len(others):
        return np.zeros(len(ids), bool)
    return np.asarray(others[np.minimum(np.searchsorted(others, ids), len(others) - 1)] == ids)


def shifts(of: Ids, ids: Ids, pixels: Array) -> Array:
    """Pixels (M, 2) of these (M,) where ids (N,) ascending have pixels (N, 2); 0 where they have none."""
    out, there = np.zeros((len(of), 2)), among(of, ids)
    out[there] = pixels[np.searchsorted(ids, of[there])]
    return out


class Landmarks:
    """All landmarks that are followed or were seen by a keyframe of the last few."""

    def __init__(self) -> None:
        """Start without any."""
        self.next_id = 0
        self.ids: Ids = np.zeros(0, np.int64)  # (L,) ascending
        self.points: Array = np.zeros((0, 3))  # (L, 3) in the chain's frame
        self.covariance: Array = np.zeros((0, 3, 3))  # (L, 3, 3) given the keyframes' poses
        self.texture: Array = np.zeros((0, 2, 2))  # (L, 2, 2) how well flow is fixed by direction, 1 where it is best
        self.views: dict[int, Seen] = {}  # by index of the keyframe

    def add(self, points: Array, covariance: Array, texture: Array) -> Ids:
        """New landmarks at points (N, 3) of the chain; returns their ids."""
        ids = np.arange(self.next_id, self.next_id + len(points))
        self.next_id += len(points)
        self.ids = np.concatenate([self.ids, ids])
        self.points = np.concatenate([self.points, points])
        self.covariance = np.concatenate([self.covariance, covariance])
        self.texture = np.concatenate([self.texture, texture])
        return ids

    def rows(self, ids: Ids) -> NDArray[np.intp]:
        """Row of each id; all of them must be known."""
        return np.searchsorted(self.ids, ids)

    def known(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of these are still there."""
        return among(ids, self.ids)

    def keep(self, keyframes: list[int], followed: Ids) -> None:
        """Forget what was seen by none of these keyframes and is not followed any more."""
        self.views = {index: seen for index, seen in self.views.items() if index in keyframes}
        used = np.zeros(len(self.ids), bool)
        for ids in (followed, *(seen.ids for seen in self.views.values())):
            used |= among(self.ids, ids)
        self._keep_rows(used)

    def remove(self, ids: Ids) -> None:
        """Forget these everywhere."""
        self._keep_rows(~among(self.ids, ids))
        for index, seen in self.views.items():
            self.views[index] = seen.taken(~among(seen.ids, ids))

    def clear(self) -> None:
        """Forget all; ids go on."""
        self._keep_rows(np.zeros(len(self.ids), bool))
        self.views = {}

    def _keep_rows(self, kept: NDArray[np.bool_]) -> None:
        self.ids, self.points = self.ids[kept], self.points[kept]
        self.covariance, self.texture = self.covariance[kept], self.texture[kept]


def in_camera(T_cam_chain: Array, points: Array, covariance: Array) -> tuple[Array, Array]:
    """Points (N, 3) and covariances (N, 3, 3) of the chain in a camera's frame."""
    rotation = T_cam_chain[:3, :3]
    return se3.transform(T_cam_chain, points), rotation @ covariance @ rotation.T

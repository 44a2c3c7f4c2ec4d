"""Refinement: what the last keyframes saw of the same landmarks decides on their poses and on the scale of their depth.

The poses of a window are as good as the network's; landmarks that were followed over several keyframes see parallax to
a fraction of a pixel.  A fixed lag of keyframes is adjusted whenever one is placed.  The oldest ones of the lag, whose
depth is in the map already, hold still.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam import corners
from da3_ros.slam.bundle import Adjusted, Bundle, Observations, adjust
from da3_ros.slam.keyframe import Keyframe
from da3_ros.slam.landmarks import Ids, Landmarks, Seen
from da3_ros.slam.repeats import Repeats
from da3_ros.types import ImageArray

_OUTLIER = 6.0  # sigma of reprojection
_GRID = (6, 8)  # depth errors are alike within a cell of about this grid
_MOST = 500  # landmarks that are adjusted; more cost time and tell little
_UNKNOWN_SCALE = 0.5  # 1-sigma of the log scale of depth behind a weak link
_FEWEST = 12  # observations of a new keyframe; with fewer there is nothing to refine it by


class Refinement:
    """Landmarks, and the adjustment of the last keyframes to them."""

    def __init__(self, config: Config, *, enabled: bool) -> None:
        """Start without landmarks; they are kept for the tracker where nothing is to be adjusted."""
        self._config, self.enabled = config, enabled
        self.landmarks = Landmarks()
        self.repeats = Repeats(config.refine)

    def clear(self) -> None:
        """Forget everything (the chain was cut)."""
        self.landmarks.clear()
        self.repeats.clear()

    def observe(self, keyframe: Keyframe, seen: Seen) -> None:
        """A keyframe was placed and saw these landmarks."""
        known = self.landmarks.known(seen.ids)
        self.landmarks.views[keyframe.index] = Seen(seen.ids[known], seen.pixels[known])

    def measure(self, keyframes: Sequence[Keyframe], T_win_cam: Sequence[Array], scale: float) -> None:
        """A window says how keyframes lie to each other, N times (4, 4); ``scale`` is chain units per its units."""
        medians = [float(np.nanmedian(k.depth.log)) for k in keyframes if k.depth is not None and k.depth.any()]
        if len(keyframes) > 1 and medians:
            self.repeats.add([k.index for k in keyframes], np.stack(T_win_cam), scale, float(np.exp(np.mean(medians))))

    def adjust(self, keyframes: Sequence[Keyframe], camera: Pinhole) -> bool:
        """Move the keyframes that still have their depth, their depth's scale, and the landmarks they see.

        Args:
            keyframes: the lag, oldest first.
            camera: of the shrunk images.

        Returns:
            Whether there was enough to go by.
        """
        if not self.enabled:
            return False
        lag = [k for k in keyframes if k.index in self.landmarks.views]
        used = _shared_ids([self.landmarks.views[k.index] for k in lag])
        views = [_among(self.landmarks.views[k.index], used) for k in lag]
        if len(lag) < 2 or len(views[-1].ids) < _FEWEST:
            return False
        before = np.stack([se3.inverse(k.T_chain_cam) for k in lag])
        free = np.array([k.depth is not None for k in lag])
        if free.all():
            free[0] = False  # something has to hold still
        scale_sigma = [_UNKNOWN_SCALE if k.weak else self._config.refine.depth_scale_sigma for k in lag]
        bundle = Bundle(
            before,
            free,
            np.where(free, scale_sigma, 1e-4),
            self.landmarks.points[self.landmarks.rows(used)],
            self._observations(lag, views, used, camera),
            self.repeats.between([k.index for k in lag]),
            np.array([k.depth_correction if k.depth is not None else 0.0 for k in lag]),
        )
        found = adjust(bundle)
        self._apply(found, lag, views, used, before)
        return True

    def restart(self, keyframe: Keyframe) -> None:
        """Nothing was adjusted: no landmark is known better than by this keyframe's own depth, which comes next."""
        self.landmarks.clear()
        self.landmarks.views[keyframe.index] = Seen()

    def extend(self, keyframe: Keyframe, gray: ImageArray, camera: Pinhole) -> Seen:
        """Find new landmarks in a placed keyframe; they are seen by it and where its depth says."""
        assert keyframe.depth is not None
        cfg, seen = self._config, self.landmarks.views[keyframe.index]
        pixels, log_z = corners.find(gray, keyframe.depth, seen.pixels, cfg.tracker, cfg.seam)
        points = camera.unproject(pixels, np.exp(log_z))
        new = Seen(self.landmarks.add(*self._placed(points, keyframe, camera)), pixels)
        self.landmarks.views[keyframe.index] = seen.joined(new)
        return new

    def forget(self, keyframes: Sequence[Keyframe], followed: Ids) -> None:
        """Drop what neither these keyframes see nor the tracker follows."""
        kept = [k.index for k in keyframes]
        self.landmarks.keep(kept, followed)
        self.repeats.keep(kept)

    def _placed(self, points: Array, keyframe: Keyframe, camera: Pinhole) -> tuple[Array, Array]:
        """Points (N, 3) of a keyframe's depth on the chain, with covariances (N, 3, 3)."""
        cfg, T = self._config.refine, keyframe.T_chain_cam
        covariance = _of_depth(points, cfg.depth_sigma, cfg.pixel_sigma / camera.fx)
        return se3.transform(T, points), T[:3, :3] @ covariance @ T[:3, :3].T

    def _observations(self, lag: Sequence[Keyframe], views: Sequence[Seen], used: Ids, camera: Pinhole) -> Observations:
        cfg = self._config.refine
        depths, sigmas = [], []
        for keyframe, seen in zip(lag, views, strict=True):
            log_z = np.full(len(seen.ids), np.nan)
            if keyframe.depth is not None:
                log_z = corners.sample(keyframe.depth, seen.pixels, camera.size) - keyframe.depth_correction
            depths.append(log_z)
            sigmas.append(cfg.depth_sigma * np.sqrt(_alike(seen.pixels, camera)))
        pixels = np.concatenate([seen.pixels for seen in views])
        count = len(pixels)
        return Observations(
            np.repeat(np.arange(len(lag)), [len(seen.ids) for seen in views]),
            np.searchsorted(used, np.concatenate([seen.ids for seen in views])),
            camera.unproject(pixels, np.ones(count))[:, :2],
            np.full(count, cfg.pixel_sigma / np.sqrt(camera.fx * camera.fy)),
            np.concatenate(depths),
            np.concatenate(sigmas),
        )

    def _apply(self, found: Adjusted, lag: Sequence[Keyframe], views: Sequence[Seen], used: Ids, before: Array) -> None:
        landmarks = self.landmarks
        T_chain_cam = se3.inverse(found.T_cam_chain)
        # Landmarks that one keyframe alone sees go where it goes.
        for i, keyframe in enumerate(lag):
            own = landmarks.views[keyframe.index].ids
            rows = landmarks.rows(own[~np.isin(own, used)])
            correction = float(found.log_scale[i]) - keyframe.depth_correction if keyframe.depth is not None else 0.0
            in_camera = se3.transform(before[i], landmarks.points[rows]) * np.exp(correction)
            landmarks.points[rows] = se3.transform(T_chain_cam[i], in_camera)
            if keyframe.depth is not None:
                keyframe.T_chain_cam = T_chain_cam[i]
                keyframe.depth = keyframe.depth.scaled(correction)
                keyframe.depth_correction += correction
        rows = landmarks.rows(used)
        landmarks.points[rows], landmarks.covariance[rows] = found.points, found.point_covariance
        wrong = found.direction_error > _OUTLIER
        landmarks.remove(np.unique(np.concatenate([seen.ids for seen in views])[wrong]))


def _shared_ids(views: Sequence[Seen]) -> Ids:
    """Landmarks (L,) that at least two of these views see, ascending; where they are many, the most seen."""
    if not views:
        return np.zeros(0, np.int64)
    ids, count = np.unique(np.concatenate([seen.ids for seen in views]), return_counts=True)
    ids, count = ids[count > 1], count[count > 1]
    return np.sort(ids[np.argsort(-count, kind="stable")[:_MOST]])


def _among(seen: Seen, ids: Ids) -> Seen:
    keep = np.isin(seen.ids, ids)
    return Seen(seen.ids[keep], seen.pixels[keep])


def _alike(pixels: Array, camera: Pinhole) -> Array:
    """How many of these pixels (N, 2) lie in the same cell as each, so that their depth errors are one."""
    if not len(pixels):
        return np.zeros(0)
    rows, columns = _GRID
    cell = (pixels[:, 1] * rows / camera.height).astype(int) * columns + (pixels[:, 0] * columns / camera.width).astype(
        int
    )
    _, inverse, count = np.unique(cell, return_inverse=True, return_counts=True)
    return count[inverse].astype(float)


def _of_depth(points: Array, sigma: float, angle: float) -> Array:
    """Covariances (N, 3, 3) of points (N, 3) in a camera whose log depth has this sigma and whose rays this angle."""
    z = points[:, 2]
    along = points[:, :, None] * points[:, None, :]
    return sigma**2 * along + (angle * z)[:, None, None] ** 2 * np.diag([1.0, 1.0, 0.0])

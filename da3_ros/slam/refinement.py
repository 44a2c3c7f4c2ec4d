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
from da3_ros.geometry.depth_alignment import cells_of
from da3_ros.geometry.se3 import Array
from da3_ros.slam import corners
from da3_ros.slam.alignment import Drawings
from da3_ros.slam.bundle import Adjusted, Between, Bundle, Observations, adjusting
from da3_ros.slam.keyframe import Keyframe, Step, typical_depth
from da3_ros.slam.landmarks import Ids, Landmarks, Seen, among
from da3_ros.slam.repeats import Repeats
from da3_ros.slam.schedule import Kind, Request
from da3_ros.slam.steps import Steps
from da3_ros.types import ImageArray

_OUTLIER = 6.0  # sigma of reprojection
_MOST = 300  # landmarks that are adjusted; more cost time and tell little
_UNKNOWN_SCALE = 0.5  # 1-sigma of the log scale of depth behind a weak link
_EXPECTED = 0.7  # usual length of a pair's residual (of 6), sigma
_MOST_DOUBT = 30.0
_FADING = 0.8  # of doubt, with each keyframe that nothing is known of
_PRECISE = 3.0  # factor on the sigmas of windows; those that differ more cannot overrule landmarks
_FEWEST = 12  # observations of a new keyframe; with fewer there is nothing to refine it by
# Of an adjustment: a keyframe takes part in several, and twelve worlds are as good with two as with five.  Where a
# start is coarse, three are not enough.
_ROUNDS, _ENOUGH = 5, 3


class Refinement:
    """Landmarks, and the adjustment of the last keyframes to them."""

    def __init__(self, config: Config, *, enabled: bool) -> None:
        """Start without landmarks; they are kept for the tracker where nothing is to be adjusted."""
        self._config, self.enabled = config, enabled
        self.landmarks = Landmarks()
        self.doubt = 1.0  # factor on the sigma of landmarks
        self._images: dict[int, ImageArray] = {}  # of the keyframes of the lag, by index
        self.repeats = Repeats(config.refine)
        self.step: Step | None = None  # how well the way to the newest keyframe is known; None: by its window alone

    def clear(self) -> None:
        """Forget all places (the chain was cut); what was learned of windows and of the calibration stays."""
        self._images = {}
        self.landmarks.clear()
        self.repeats.clear()

    def observe(
        self, keyframe: Keyframe, seen: Seen, gray: ImageArray, camera: Pinhole, lag: Sequence[Keyframe]
    ) -> Seen:
        """A keyframe was placed and saw these landmarks; returns them where they are found to be.

        Each is aligned with the oldest keyframe of the lag (oldest first, without this one) that saw it.
        """
        seen = seen.taken(self.landmarks.known(seen.ids))
        if self.enabled:
            seen = self._aligned(keyframe, seen, gray, camera, [k for k in lag if k.index in self._images])
            self._images[keyframe.index] = gray
        self.landmarks.views[keyframe.index] = seen
        return seen

    def _aligned(
        self, keyframe: Keyframe, seen: Seen, gray: ImageArray, camera: Pinhole, lag: Sequence[Keyframe]
    ) -> Seen:
        assert keyframe.depth is not None, "it was just placed"
        count = len(seen.ids)
        first, there = np.full(count, -1), np.zeros((count, 2))  # the oldest that saw each, and where
        for i, old in enumerate(lag):
            view = self.landmarks.views.get(old.index, Seen())
            rows = np.flatnonzero((first < 0) & among(seen.ids, view.ids))
            first[rows], there[rows] = i, view.pixels[np.searchsorted(view.ids, seen.ids[rows])]
        old_ones, rows = np.unique(first[first >= 0]), np.flatnonzero(first >= 0)
        pixels, sharp = seen.pixels.copy(), np.zeros(count, bool)
        if len(rows):
            images = [self._images[lag[i].index] for i in old_ones]
            T_old_new = [se3.inverse(lag[i].T_chain_cam) @ keyframe.T_chain_cam for i in old_ones]
            drawings = Drawings(images, np.stack(T_old_new), keyframe.depth, camera)
            which = np.searchsorted(old_ones, first[rows])
            pixels[rows], sharp[rows] = drawings.find(gray, which, there[rows], pixels[rows])
        return Seen(seen.ids, pixels, sharp)

    def measure(self, keyframes: Sequence[Keyframe], T_win_cam: Sequence[Array], scale: float) -> None:
        """A window says how keyframes lie to each other, N times (4, 4); ``scale`` is chain units per its units."""
        depth = typical_depth(keyframes)
        if len(keyframes) > 1 and depth is not None:
            poses = np.stack([k.T_chain_cam for k in keyframes])
            self.repeats.add([k.index for k in keyframes], np.stack(T_win_cam), scale, poses, depth)

    def weigh(
        self,
        request: Request,
        shared: Sequence[Keyframe],
        T_chain_cam: Array,
        depth: float,
        gyro: Sequence[tuple[Array, float] | None],
    ) -> Array:
        """Where new frames are, given where they were tracked and where a window says, each weighed by its variance.

        Args:
            request: the window, with the new frames as tracked.
            shared: the keyframes that tie it to the chain; the last one is the tracker's reference.
            T_chain_cam: (N, 4, 4) where the window says that the new frames are.
            depth: typical depth, chain units.
            gyro: N turns (3, 3) from the reference, each with its 1-sigma per axis, rad; None where it is unknown.

        Returns:
            (N, 4, 4).
        """
        known = [k.T_chain_cam for k in shared]
        poses = np.stack([*known, *(tracked.T_chain_cam for tracked in request.new)])
        sigma = np.sqrt(1 + 1 / len(known)) * np.array(self.repeats.sigmas(poses, depth))
        out = []
        for tracked, there, measured in zip(request.new, T_chain_cam, gyro, strict=True):
            T = tracked.T_chain_cam
            turn, move = se3.log_so3(T[:3, :3].T @ there[:3, :3]), there[:3, 3] - T[:3, 3]
            if request.kind is not Kind.LIVE and np.isfinite(tracked.sigma[0]):
                motion = se3.inverse(known[-1]) @ T
                turned, moved = float(se3.rotation_angle(motion[:3, :3])), float(np.linalg.norm(motion[:3, 3]))
                sizes = float(np.linalg.norm(turn)), turned, float(np.linalg.norm(move)), moved
                self.repeats.surprise(*sizes, poses, depth)
            share = 1 / (1 + (sigma / (self.doubt * np.array(tracked.sigma))) ** 2)
            rotation = T[:3, :3] @ se3.exp_so3(share[0] * turn)
            if measured is not None:
                variance = share[0] * sigma[0] ** 2
                off = se3.log_so3(rotation.T @ known[-1][:3, :3] @ measured[0])
                rotation = rotation @ se3.exp_so3(variance / (variance + measured[1] ** 2) * off)
            out.append(se3.make(rotation, T[:3, 3] + share[1] * move))
        return np.stack(out)

    def adjust(self, keyframes: Sequence[Keyframe], camera: Pinhole, turns: Between) -> Steps[bool]:
        """Move the keyframes that still have their depth, their depth's scale, and the landmarks they see.

        Args:
            keyframes: the lag, oldest first.
            camera: of the shrunk images.
            turns: of these keyframes to each other, by a gyro.

        Returns:
            Whether there was enough to go by.
        """
        self.step = None
        if not self.enabled:
            return False
        rows = [i for i, k in enumerate(keyframes) if k.index in self.landmarks.views]
        lag = [keyframes[i] for i in rows]
        used = _shared_ids([self.landmarks.views[k.index] for k in lag])
        views = [seen.taken(among(seen.ids, used)) for seen in (self.landmarks.views[k.index] for k in lag)]
        if len(lag) < 2 or len(views[-1].ids) < _FEWEST:
            self.doubt = max(1.0, _FADING * self.doubt)
            return False
        before = np.stack([se3.inverse(k.T_chain_cam) for k in lag])
        free = np.array([k.depth is not None for k in lag])
        if free.all():
            free[0] = False  # something has to hold still
        scale_sigma = [_UNKNOWN_SCALE if k.weak else self._config.refine.depth_scale_sigma for k in lag]
        seen = self.repeats.between([k.index for k in lag])
        bundle = Bundle(
            before,
            free,
            np.where(free, scale_sigma, 1e-4),
            self.landmarks.points[self.landmarks.rows(used)],
            self.landmarks.texture[self.landmarks.rows(used)],
            self._observations(lag, views, used, camera),
            seen.joined(turns.among(rows)),
            np.array([k.depth_correction if k.depth is not None else 0.0 for k in lag]),
        )
        found = yield from adjusting(bundle, _ROUNDS, _ENOUGH)
        self.step = _step(found)
        yield "adjust"
        self._apply(found, lag, views, used, before)
        self._compare(found.between_error[: len(seen.first)])
        return True

    def _compare(self, window_error: Array) -> None:
        """Believe landmarks less where windows agree with each other and not with these.

        A calibration that belongs to another camera does that: on 7-Scenes, whose calibration is that of the depth
        camera, the colour camera's focal length is 10 % shorter.
        """
        if max(self.repeats.doubt) > _PRECISE:
            self.doubt = 1.0
        elif len(window_error):
            contradiction = float(np.median(window_error)) / _EXPECTED
            self.doubt = float(np.clip(self.doubt * np.sqrt(contradiction), 1.0, _MOST_DOUBT))

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
        new = Seen(
            self.landmarks.add(*self._placed(points, keyframe, camera), corners.textures(gray, pixels)),
            pixels,
            np.ones(len(pixels), bool),
        )
        self.landmarks.views[keyframe.index] = seen.joined(new)
        return new

    def forget(self, keyframes: Sequence[Keyframe], followed: Ids) -> None:
        """Drop what neither these keyframes see nor the tracker follows."""
        kept = [k.index for k in keyframes]
        self.landmarks.keep(kept, followed)
        self._images = {index: image for index, image in self._images.items() if index in kept}
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
        sigma = np.where(np.concatenate([seen.sharp for seen in views]), cfg.aligned_sigma, cfg.pixel_sigma)
        ids = np.concatenate([seen.ids for seen in views])
        count = len(pixels)
        return Observations(
            np.repeat(np.arange(len(lag)), [len(seen.ids) for seen in views]),
            np.searchsorted(used, ids),
            camera.unproject(pixels, np.ones(count))[:, :2],
            self.doubt * sigma / np.sqrt(camera.fx * camera.fy),
            np.concatenate(depths),
            np.concatenate(sigmas),
        )

    def _apply(self, found: Adjusted, lag: Sequence[Keyframe], views: Sequence[Seen], used: Ids, before: Array) -> None:
        landmarks = self.landmarks
        T_chain_cam = se3.inverse(found.T_cam_chain)
        # The other landmarks go where the newest keyframe goes that sees them.
        gone = used
        for i, keyframe in reversed(list(enumerate(lag))):
            own = landmarks.views[keyframe.index].ids
            rows = landmarks.rows(own[~among(own, gone)])
            gone = np.union1d(gone, own)
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


def _step(found: Adjusted) -> Step:
    """How well the pose of the newest keyframe in the one before is known, and its scale."""
    T = found.T_cam_chain[-1] @ se3.inverse(found.T_cam_chain[-2])
    own, before = found.covariance[-1, :, -1], found.covariance[-2, :6, -2, :6]
    move, common = se3.adjoint(T), found.covariance[-1, :6, -2, :6]
    pose = own[:6, :6] + move @ before @ move.T - common @ move.T - move @ common.T
    rotation, translation = (float(np.sqrt(np.trace(pose[i : i + 3, i : i + 3]) / 3)) for i in (0, 3))
    return Step(rotation, translation, float(np.sqrt(own[6, 6])))


def _shared_ids(views: Sequence[Seen]) -> Ids:
    """Landmarks (L,) that at least two of these views see, ascending; where they are many, the most seen."""
    if not views:
        return np.zeros(0, np.int64)
    ids, count = np.unique(np.concatenate([seen.ids for seen in views]), return_counts=True)
    ids, count = ids[count > 1], count[count > 1]
    return np.sort(ids[np.argsort(-count, kind="stable")[:_MOST]])


def _alike(pixels: Array, camera: Pinhole) -> Array:
    """How many of these pixels (N, 2) lie in the same cell as each, so that their depth errors are one."""
    _, inverse, count = np.unique(cells_of(pixels, camera.size), return_inverse=True, return_counts=True)
    return count[inverse].astype(float)


def _of_depth(points: Array, sigma: float, angle: float) -> Array:
    """Covariances (N, 3, 3) of points (N, 3) in a camera whose log depth has this sigma and whose rays this angle."""
    z = points[:, 2]
    along = points[:, :, None] * points[:, None, :]
    return sigma**2 * along + (angle * z)[:, None, None] ** 2 * np.diag([1.0, 1.0, 0.0])

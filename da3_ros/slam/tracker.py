"""Camera-rate tracking of landmarks.

Features are followed from frame to frame (pyramidal Lucas-Kanade, forward and backward) for as long as they are seen;
the pose is the robust minimum of their reprojection error, each weighed by how well its landmark is known, started
from the motion so far, turned by the gyro where there is one.  Poses are relative to the latest placed keyframe, the
reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from da3_ros.config import TrackerConfig
from da3_ros.geometry import robust, se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.landmarks import Ids, Seen, among, shifts
from da3_ros.slam.momentum import Momentum
from da3_ros.types import ImageArray

_LK = {"winSize": (15, 15), "maxLevel": 3, "criteria": (3, 20, 0.03)}
_MIN_SIGMA_PX = 0.3  # flow is not better than this, however small the residuals look
_LEAST_FLOW_PX = 0.08  # from one frame to the next; 0.05 px was measured, and errors have tails
_OF_MISFIT = 0.7
_PATCHES = 15  # of landmarks whose depths are wrong alike
_INDEPENDENT = 100  # depth errors are patch-correlated: more points than this add no information
_MOST_MISSES = 5  # frames in a row in which a feature does not fit
_FEWEST = 6  # features that fix a pose
_SETTLED = 1e-5  # rad and chain units: far less than flow is off
_NEARLY = 1e-3  # a last round that moves more has not come to its end
_ROUNDS_BEFORE = 6  # of Gauss-Newton, from a start that is mostly off by little
_UNTOLD = 0.1  # sigma of a pose that nothing tells, rad and chain units
_NEAR = 1e-6  # a point nearer than this is behind the camera
_MAX_SURPRISE_DEG = 45.0  # against the motion so far; more is a wrong minimum


@dataclass(frozen=True, slots=True)
class Sigma:
    """1-sigma per axis of rotations, rad, and translations, chain units."""

    rotation: float = _UNTOLD
    translation: float = _UNTOLD
    step_rotation: float = _UNTOLD  # since the frame before: errors of landmarks are the same in both
    step_translation: float = _UNTOLD


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """How one frame relates to the reference keyframe."""

    T_ref_cam: Array  # (4, 4) chain units
    step: Array  # (4, 4) motion since the frame before, chain units
    inliers: int
    tracked: float  # share of the features at the reference that are inliers
    parallax: float  # rotation-compensated median displacement, share of the image width
    rotation_deg: float
    sigma: Sigma
    seen: Seen  # the inliers


@dataclass(slots=True, eq=False)
class Features:
    """What is followed: landmarks in the reference camera, and where they were last seen."""

    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) ascending
    points: Array = field(default_factory=lambda: np.zeros((0, 3)))  # (N, 3) in the reference camera, chain units
    covariance: Array = field(default_factory=lambda: np.zeros((0, 3, 3)))  # (N, 3, 3) of the points
    texture: Array = field(default_factory=lambda: np.zeros((0, 2, 2)))  # (N, 2, 2) see corners.textures
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))  # (N, 2) in the image before
    alive: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (N,) not lost so far
    misses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) frames since an inlier

    def __len__(self) -> int:
        """How many, lost ones included."""
        return len(self.ids)

    def taken(self, rows: np.ndarray) -> Features:
        """Some of them."""
        return Features(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def joined(self, other: Features) -> Features:
        """Both; ``other`` has other landmarks."""
        names = self.__dataclass_fields__
        both = Features(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))
        return both.taken(np.argsort(both.ids))


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    weight: Array  # (N,)
    inlier: np.ndarray  # (N,)
    sigma: float  # px


class _Reprojection:
    """Residuals of features in a camera, and their derivatives."""

    def __init__(self, camera: Pinhole, features: Features, T_cam_ref: Array) -> None:
        moved = se3.transform(T_cam_ref, features.points)
        f, c = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
        self.rotation = T_cam_ref[:3, :3]
        self.z = moved[:, 2]
        z = np.maximum(self.z, _NEAR)
        xy = moved[:, :2] / z[:, None]
        residual = xy * f + c - features.pixels
        self.residual = (features.texture @ residual[:, :, None])[:, :, 0]  # (N, 2) px, less where flow is worse
        self.norm = np.linalg.norm(self.residual, axis=1)
        self.norm[self.z <= _NEAR] = np.inf
        self.d_point = np.zeros((len(z), 2, 3))  # of the pixel with respect to the point in the camera
        self.d_point[:, 0, 0] = f[0] / z
        self.d_point[:, 1, 1] = f[1] / z
        self.d_point[:, :, 2] = -(xy * f) / z[:, None]
        self.d_point = features.texture @ self.d_point
        # (N, 2, 6) of the pixel with respect to a left twist (rotation, translation).
        self.jacobian = np.concatenate([self.d_point @ se3.hat(-moved), self.d_point], axis=2)


class Tracker:
    """Follows landmarks; whoever places keyframes says where they are and adds new ones."""

    def __init__(self, config: TrackerConfig) -> None:
        """Start without landmarks."""
        self._config = config
        self._camera: Pinhole | None = None  # of the shrunk image
        self._features = Features()
        self._previous: ImageArray | None = None
        self._T_ref_cam = np.eye(4)
        self._momentum = Momentum()
        self._stamp_ns: int | None = None  # of the frame before; None: a step would not be the motion of one interval

    def shrink(self, image: ImageArray) -> ImageArray:
        """Grey image (h, w) at the tracker's width."""
        height, width = image.shape[:2]
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # first: one channel shrinks in a third of the time
        if width > self._config.width:
            size = (self._config.width, max(1, round(height * self._config.width / width)))
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        return np.asarray(gray, np.uint8)

    @property
    def followed(self) -> Ids:
        """Landmarks that are not lost."""
        return self._features.ids[self._features.alive]

    @property
    def tried(self) -> Ids:
        """Landmarks that were followed since the last reference was taken, lost ones included."""
        return self._features.ids

    def refer(
        self, camera: Pinhole, T_ref_cam: Array, ids: Ids, points: Array, covariance: Array, texture: Array
    ) -> None:
        """Take a new reference, and what is known now of the landmarks that are followed.

        Args:
            camera: of the shrunk image.
            T_ref_cam: (4, 4) pose of the latest frame relative to the new reference.
            ids: (N,) ascending; landmarks that are not among them are not followed any more.
            points: (N, 3) in the camera of the new reference, chain units.
            covariance: (N, 3, 3) of the points.
            texture: (N, 2, 2) of their patches.
        """
        self._camera, self._T_ref_cam = camera, T_ref_cam
        kept = self._features.taken(self._features.alive & among(self._features.ids, ids))
        rows = np.searchsorted(ids, kept.ids)
        self._features = replace(kept, points=points[rows], covariance=covariance[rows], texture=texture[rows])

    def add(self, gray: ImageArray, new: Features) -> None:
        """Follow new landmarks, whose pixels are those in ``gray``, an image that may lie a little back."""
        if self._previous is None:
            self._previous = gray
        elif gray is not self._previous:
            new.pixels, new.alive = self.flow(gray, self._previous, new.pixels, self._expected(new, self._T_ref_cam))
        self._features = self._features.joined(new)

    def shift(self, ids: Ids, pixels: Array) -> None:
        """Landmarks (N,) ascending, not all of them followed, were found to lie aside by pixels (N, 2) of late."""
        moved = shifts(self._features.ids, ids, pixels)
        self._features.pixels = self._features.pixels + moved.astype(np.float32)

    def flow(
        self, before: ImageArray, after: ImageArray, pixels: np.ndarray, expected: Array
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where pixels (N, 2) of one image are in another, about where expected (NaN: unknown), and which are good."""
        if not len(pixels):
            return np.zeros((0, 2), np.float32), np.zeros(0, bool)
        old = np.ascontiguousarray(pixels, np.float32).reshape(-1, 1, 2)
        outside = ~np.isfinite(expected.sum(axis=1))
        start = np.where(outside[:, None], old[:, 0], expected).astype(np.float32).reshape(-1, 1, 2)
        new, found, _ = cv2.calcOpticalFlowPyrLK(
            before, after, old, start.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_LK
        )
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            after, before, new, old.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_LK
        )
        error = np.linalg.norm((back - old)[:, 0], axis=1)
        good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (error < self._config.forward_backward_px)
        height, width = after.shape
        xy = new[:, 0]
        good &= (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        return xy, good

    def forget(self) -> None:
        """Drop landmarks and motion (time gap)."""
        self._features = Features()
        self._previous, self._stamp_ns = None, None
        self._momentum.stop()

    def track(self, gray: ImageArray, stamp_ns: int, turn: Array | None = None, *, sure: bool = False) -> Track:
        """Pose of a frame relative to the reference; with too few features, the motion so far continued.

        Args:
            gray: (h, w) image.
            stamp_ns: its time.
            turn: (3, 3) ``R_before_now`` since the frame before, where a gyro has measured it.
            sure: the gyro is known to be right; it is asked first and not only where the motion so far does not do.
        """
        interval_s = 0.0 if self._stamp_ns is None else 1e-9 * (stamp_ns - self._stamp_ns)
        guesses = [se3.normalized(self._T_ref_cam @ self._momentum.expected(interval_s))]
        if turn is not None:
            guesses.insert(0 if sure else 1, self._T_ref_cam @ self._momentum.expected(interval_s, turn))
        pixels_before = self._features.pixels
        T_ref_cam, inlier, sigma = self._find_from(gray, guesses)
        features, count = self._features, int(inlier.sum())
        if count:
            # What moves with the camera, a bumper or a reflection, is followed well and never fits.
            features.misses = np.where(inlier, 0, features.misses + 1)
            features.alive = features.alive & (features.misses < _MOST_MISSES)
        T_ref_before = self._T_ref_cam
        covariance = np.eye(6) * _UNTOLD**2
        if count:
            T_ref_before, covariance = self._before(features.taken(inlier), pixels_before[inlier], T_ref_cam)
        step = se3.inverse(T_ref_before) @ T_ref_cam
        if self._stamp_ns is not None:
            step, covariance = self._momentum.fused(step, covariance, interval_s, turn if sure else None)
        if not count:
            self._momentum.slow()
        else:
            sigma = Sigma(sigma.rotation, sigma.translation, *_axes(covariance))
        self._T_ref_cam = T_ref_cam
        self._previous, self._stamp_ns = gray, stamp_ns
        return Track(
            T_ref_cam,
            step,
            count,
            count / max(len(features), 1),
            self._parallax(inlier, T_ref_cam),
            float(np.rad2deg(se3.rotation_angle(T_ref_cam[:3, :3]))),
            sigma,
            Seen(features.ids[inlier], features.pixels[inlier].astype(float)),
        )

    def _find_from(self, gray: ImageArray, guesses: Sequence[Array]) -> tuple[Array, np.ndarray, Sigma]:
        """What is found from the first of several guesses of the pose that does, else from the one that finds most."""
        before = self._features
        best = self._find(gray, guesses[0])
        for guess in guesses[1:]:
            if best[1].sum() >= self._config.min_inliers or not before.alive.any():
                break
            followed, self._features = self._features, before
            other = self._find(gray, guess)
            if other[1].sum() > best[1].sum():
                best = other
            else:
                self._features = followed
        return best

    def _find(self, gray: ImageArray, guess: Array) -> tuple[Array, np.ndarray, Sigma]:
        """Follow the features from a guess (4, 4) of the pose; returns the pose, the inliers (N,) and the sigma.

        Where too little is seen, the pose is the guess and nothing is an inlier.
        """
        self._follow(gray, guess)
        features = self._features
        nothing = guess, np.zeros(len(features), bool), Sigma()
        if features.alive.sum() < _FEWEST or self._camera is None:
            return nothing
        T_cam_ref, inlier_alive, sigma = self._solve(features.taken(features.alive), se3.inverse(guess))
        T_ref_cam = se3.inverse(se3.normalized(T_cam_ref))
        surprise_deg = np.rad2deg(se3.rotation_angle(guess[:3, :3].T @ T_ref_cam[:3, :3]))
        if inlier_alive.sum() < _FEWEST or surprise_deg > _MAX_SURPRISE_DEG:
            return nothing
        inlier = np.zeros(len(features), bool)
        inlier[np.flatnonzero(features.alive)[inlier_alive]] = True
        return T_ref_cam, inlier, sigma

    def _follow(self, gray: ImageArray, guess: Array) -> None:
        """Move the pixels of the features that are alive into this image; some are lost."""
        features = self._features
        if self._previous is None or self._camera is None or not features.alive.any():
            self._features = replace(features, alive=np.zeros(len(features), bool))
            return
        alive = features.alive
        live = features.taken(alive)
        pixels, alive_pixels = features.pixels.copy(), alive.copy()
        pixels[alive], alive_pixels[alive] = self.flow(self._previous, gray, live.pixels, self._expected(live, guess))
        self._features = replace(features, pixels=pixels, alive=alive_pixels)

    def _expected(self, features: Features, T_ref_cam: Array) -> Array:
        """Pixels (N, 2) at which a pose lets expect them; NaN behind the camera."""
        assert self._camera is not None
        return self._camera.project(se3.transform(se3.inverse(T_ref_cam), features.points))

    def _solve(self, features: Features, T_cam_ref: Array, iterations: int = 10) -> tuple[Array, np.ndarray, Sigma]:
        """Robust Gauss-Newton on the reprojection error; falls back to RANSAC when the start was poor."""
        solved = self._gauss_newton(features, T_cam_ref, iterations)
        if solved[1].sum() < 0.5 * len(features):
            assert self._camera is not None
            ok, rvec, tvec, _ = cv2.solvePnPRansac(
                features.points, features.pixels.astype(float), self._camera.matrix, None, iterationsCount=100,
                reprojectionError=3.0, flags=cv2.SOLVEPNP_EPNP,
            )  # fmt: skip
            if ok:
                start = se3.make(se3.exp_so3(rvec.ravel()), tvec.ravel())
                other = self._gauss_newton(features, start, iterations)
                if other[1].sum() > solved[1].sum():
                    return other
        return solved

    def _before(self, features: Features, pixels: np.ndarray, T_ref_cam: Array) -> tuple[Array, Array]:
        """Pose (4, 4) in the reference of the frame before, by the landmarks that place this frame, weighted alike.

        What these landmarks are wrong by moves both frames, and not the step between them; the pose that was found for
        that frame, by other landmarks with other weights, would differ by more than flow is off.

        Args:
            features: (N) the inliers.
            pixels: (N, 2) where they were in the frame before.
            T_ref_cam: (4, 4) this frame.

        Returns:
            The pose, and the covariance (6, 6) of the step's twist: flow is off, by a share of what landmarks do not
            fit by, and so are landmarks, which are seen from two places and wrong alike within a patch.
        """
        assert self._camera is not None
        now = _Reprojection(self._camera, features, se3.inverse(T_ref_cam))
        weight = self._judge(features, now).weight
        before, T_cam_ref = replace(features, pixels=pixels), se3.inverse(self._T_ref_cam)
        for _ in range(_ROUNDS_BEFORE):
            at = _Reprojection(self._camera, before, T_cam_ref)
            step, hessian = _minimised(at, weight * (at.z > _NEAR))
            T_cam_ref = se3.exp(step) @ T_cam_ref
            if np.abs(step).max() < _SETTLED:
                break
        if not np.abs(step).max() < _NEARLY or not weight.any():  # these landmarks do not tell
            return self._T_ref_cam, np.eye(6) * _UNTOLD**2
        apart = now.d_point @ now.rotation - at.d_point @ at.rotation
        pull = np.swapaxes(at.jacobian * weight[:, None, None], 1, 2) @ apart  # (N, 6, 3)
        alike = max(len(features) / _PATCHES, 1.0)
        vague = alike * np.einsum("nij,njk,nlk->il", pull, features.covariance, pull)
        flow = max(_LEAST_FLOW_PX, _OF_MISFIT * float(np.median(now.norm)))
        rows = (at.jacobian * weight[:, None, None]).reshape(-1, 6)
        back = np.linalg.pinv(hessian)
        return se3.inverse(se3.normalized(T_cam_ref)), back @ (flow**2 * rows.T @ rows + vague) @ back

    def _gauss_newton(self, features: Features, T: Array, iterations: int) -> tuple[Array, np.ndarray, Sigma]:
        assert self._camera is not None
        for _ in range(iterations):
            at = _Reprojection(self._camera, features, T)
            judged = self._judge(features, at)
            step, hessian = _minimised(at, judged.weight)
            T = se3.exp(step) @ T
            if np.abs(step).max() < _SETTLED:
                break
        inlier = judged.inlier
        count = max(float(inlier.sum()), 1.0)
        covariance = np.linalg.pinv(hessian) * judged.sigma**2 * max(count / _INDEPENDENT, 1.0)
        return T, inlier, Sigma(*_axes(covariance))

    def _judge(self, features: Features, at: _Reprojection) -> _Judged:
        """Weights by how far features are off, and by how well their landmarks are known."""
        # What the landmark's own uncertainty does to its pixel, against the noise of the flow.
        spread = at.d_point @ at.rotation
        vague = 0.5 * np.einsum("nij,njk,nik->n", spread, features.covariance, spread) / _MIN_SIGMA_PX**2
        vague = np.maximum(vague, 0)
        scaled = at.norm / np.sqrt(1 + vague)
        sigma, finite = _MIN_SIGMA_PX, np.isfinite(scaled)
        if finite.any():
            sigma = max(sigma, robust.MAD_TO_SIGMA * float(np.median(scaled[finite])))
        weight = robust.tukey_weights(np.where(finite, scaled, 1e9), sigma) / (1 + vague)
        return _Judged(weight, scaled < self._config.inlier_px, sigma)

    def _parallax(self, inlier: np.ndarray, T_ref_cam: Array) -> float:
        if self._camera is None or not inlier.any():
            return 0.0
        turned = self._camera.project(self._features.points[inlier] @ T_ref_cam[:3, :3])
        shift = np.linalg.norm(turned - self._features.pixels[inlier], axis=1)
        shift = shift[np.isfinite(shift)]
        return float(np.median(shift)) / self._camera.width if len(shift) else 0.0


def _minimised(at: _Reprojection, weight: Array) -> tuple[Array, Array]:
    """The twist (6,) to the minimum of weighted squares, and the Hessian (6, 6)."""
    weighted = (at.jacobian * weight[:, None, None]).reshape(-1, 6).T
    hessian = weighted @ at.jacobian.reshape(-1, 6)
    damped = hessian + (1e-9 * np.trace(hessian) + 1e-12) * np.eye(6)
    return np.linalg.solve(damped, -(weighted @ at.residual.ravel())), hessian


def _axes(covariance: np.ndarray) -> tuple[float, float]:
    """1-sigma per axis of rotation and translation from a covariance (6, 6) of a twist."""
    diagonal = np.maximum(np.diag(covariance), 0)
    return float(np.sqrt(diagonal[:3].mean())), float(np.sqrt(diagonal[3:].mean()))

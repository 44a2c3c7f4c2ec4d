"""Camera-rate tracking against the latest placed keyframe.

Features with depth are followed from frame to frame (pyramidal Lucas-Kanade, forward and backward); the pose is the
robust minimum of their reprojection error, started from the motion so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from da3_ros.config import TrackerConfig
from da3_ros.geometry import robust, se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import ImageArray

_LK = {"winSize": (15, 15), "maxLevel": 3, "criteria": (3, 20, 0.03)}
_MIN_SIGMA_PX = 0.3  # flow is not better than this, however small the residuals look
_INDEPENDENT = 100  # depth errors are patch-correlated: more points than this add no information
_MAX_SURPRISE_DEG = 45.0  # against the motion so far; more is a wrong minimum


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """How one frame relates to the reference keyframe."""

    T_ref_cam: Array  # (4, 4) chain units
    step: Array  # (4, 4) motion since the frame before, chain units
    inliers: int
    tracked: float  # share of the reference's features that are inliers
    parallax: float  # rotation-compensated median displacement, share of the image width
    rotation_deg: float
    sigma_rotation: float  # rad, 1-sigma per axis
    sigma_translation: float  # chain units, 1-sigma per axis


class Tracker:
    """Follows the features of one reference at a time."""

    def __init__(self, config: TrackerConfig) -> None:
        """Start without a reference."""
        self._config = config
        self._camera: Pinhole | None = None  # of the shrunk image
        self._points: Array = np.zeros((0, 3))  # in the reference camera, chain units
        self._reference_px: Array = np.zeros((0, 2))
        self._pixels: np.ndarray = np.zeros((0, 2), np.float32)  # in the image they were last seen in
        self._alive: np.ndarray = np.zeros(0, bool)
        self._previous: ImageArray | None = None
        self._T_ref_cam = np.eye(4)
        self._velocity = np.eye(4)  # motion over the last frame interval
        self._moving = False  # the frame before was tracked too: a step is the motion of one interval

    def shrink(self, image: ImageArray) -> ImageArray:
        """Grey image (h, w) at the tracker's width."""
        height, width = image.shape[:2]
        if width > self._config.width:
            size = (self._config.width, max(1, round(height * self._config.width / width)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)

    def set_reference(
        self, gray: ImageArray, camera: Pinhole, log_depth: np.ndarray, usable: np.ndarray, T_ref_cam: Array
    ) -> None:
        """Follow a new keyframe.

        Args:
            gray: (h, w) its shrunk image.
            camera: its camera, at any size.
            log_depth: (h', w') log z-depth in chain units.
            usable: (h', w') pixels whose depth may carry a feature.
            T_ref_cam: pose of the latest frame relative to this keyframe.
        """
        height, width = gray.shape
        mask = cv2.resize(usable.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) * 255
        spacing = max(3.0, 0.5 * np.sqrt(width * height / self._config.features))
        corners = cv2.goodFeaturesToTrack(gray, self._config.features, 0.003, spacing, mask=mask)
        pixels = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        self._camera = camera.resized(width, height)
        sx, sy = log_depth.shape[1] / width, log_depth.shape[0] / height
        at = (pixels + 0.5) * np.array([sx, sy], np.float32) - np.float32(0.5)
        # Bilinear in the logarithm; a NaN neighbour makes the sample NaN and drops the feature.
        log_z = _sample(log_depth, at)
        keep = np.isfinite(log_z)
        self._reference_px = pixels[keep].astype(float)
        self._points = self._camera.unproject(self._reference_px, np.exp(log_z[keep].astype(float)))
        self._pixels = pixels[keep].astype(np.float32)
        self._alive = np.ones(len(self._points), bool)
        self._previous = gray
        self._T_ref_cam = T_ref_cam

    def forget(self) -> None:
        """Drop reference and motion (time gap)."""
        self._points, self._reference_px = np.zeros((0, 3)), np.zeros((0, 2))
        self._pixels, self._alive = np.zeros((0, 2), np.float32), np.zeros(0, bool)
        self._previous, self._velocity, self._moving = None, np.eye(4), False

    def track(self, gray: ImageArray) -> Track:
        """Pose of a frame relative to the reference; with too few features, the motion so far continued."""
        guess = se3.normalized(self._T_ref_cam @ self._velocity)
        alive = self._follow(gray, guess)
        T_ref_cam, inlier, sigma = guess, np.zeros(len(self._points), bool), (0.1, 0.1)
        if alive.sum() >= 6 and self._camera is not None:
            T_cam_ref, inlier_alive, sigma = self._solve(self._pixels[alive].astype(float), alive, se3.inverse(guess))
            inlier[np.flatnonzero(alive)[inlier_alive]] = True
            T_ref_cam = se3.inverse(se3.normalized(T_cam_ref))
        count = int(inlier.sum())
        surprise_deg = np.rad2deg(se3.rotation_angle(guess[:3, :3].T @ T_ref_cam[:3, :3]))
        if count < 6 or surprise_deg > _MAX_SURPRISE_DEG:
            T_ref_cam, count = guess, 0
        step = se3.inverse(self._T_ref_cam) @ T_ref_cam
        self._velocity = step if self._moving else np.eye(4)
        self._moving = True
        if count < self._config.min_inliers:
            self._velocity = se3.interpolate(np.eye(4), self._velocity, 0.5)  # do not run away when blind
        self._T_ref_cam = T_ref_cam
        self._alive = alive
        self._previous = gray
        return Track(
            T_ref_cam,
            step,
            count,
            count / max(len(self._points), 1),
            self._parallax(inlier, T_ref_cam),
            float(np.rad2deg(se3.rotation_angle(T_ref_cam[:3, :3]))),
            *sigma,
        )

    def _follow(self, gray: ImageArray, guess: Array) -> np.ndarray:
        """Move ``_pixels`` into this image; returns which features survive."""
        if self._previous is None or self._camera is None or not self._alive.any():
            return np.zeros(len(self._points), bool)
        alive = self._alive
        old = np.ascontiguousarray(self._pixels[alive]).reshape(-1, 1, 2)
        expected = self._camera.project(se3.transform(se3.inverse(guess), self._points[alive]))
        outside = ~np.isfinite(expected.sum(axis=1))
        start = np.where(outside[:, None], old[:, 0], expected).astype(np.float32).reshape(-1, 1, 2)
        new, found, _ = cv2.calcOpticalFlowPyrLK(
            self._previous, gray, old, start.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_LK
        )
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            gray, self._previous, new, old.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_LK
        )
        error = np.linalg.norm((back - old)[:, 0], axis=1)
        good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (error < self._config.forward_backward_px)
        height, width = gray.shape
        xy = new[:, 0]
        good &= (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        pixels = self._pixels.copy()
        pixels[alive] = xy
        self._pixels = pixels
        survived = alive.copy()
        survived[alive] = good
        return survived

    def _solve(
        self, pixels: Array, alive: np.ndarray, T_cam_ref: Array, iterations: int = 10
    ) -> tuple[Array, np.ndarray, tuple[float, float]]:
        """Robust Gauss-Newton on the reprojection error; falls back to RANSAC when the start was poor."""
        points = self._points[alive]
        solved = self._gauss_newton(points, pixels, T_cam_ref, iterations)
        if solved[1].sum() < 0.5 * len(points):
            assert self._camera is not None
            ok, rvec, tvec, _ = cv2.solvePnPRansac(
                points, pixels, self._camera.matrix, None, iterationsCount=100, reprojectionError=3.0,
                flags=cv2.SOLVEPNP_EPNP,
            )  # fmt: skip
            if ok:
                start = se3.make(se3.exp_so3(rvec.ravel()), tvec.ravel())
                other = self._gauss_newton(points, pixels, start, iterations)
                if other[1].sum() > solved[1].sum():
                    return other
        return solved

    def _gauss_newton(
        self, points: Array, pixels: Array, T: Array, iterations: int
    ) -> tuple[Array, np.ndarray, tuple[float, float]]:
        assert self._camera is not None
        f = np.array([self._camera.fx, self._camera.fy])
        c = np.array([self._camera.cx, self._camera.cy])
        hessian = np.eye(6)
        sigma = _MIN_SIGMA_PX
        inlier = np.zeros(len(points), bool)
        for _ in range(iterations):
            moved = se3.transform(T, points)
            z = np.maximum(moved[:, 2], 1e-6)
            xy = moved[:, :2] / z[:, None]
            residual = xy * f + c - pixels
            norm = np.linalg.norm(residual, axis=1)
            norm[moved[:, 2] <= 1e-6] = np.inf
            inlier = norm < self._config.inlier_px
            sigma = max(_MIN_SIGMA_PX, robust.MAD_TO_SIGMA * float(np.median(norm)))
            weight = robust.tukey_weights(np.where(np.isfinite(norm), norm, 1e9), sigma)
            # Jacobian of the pixel with respect to a left twist (rotation, translation).
            jacobian = np.zeros((len(points), 2, 6))
            jacobian[:, 0, 3] = f[0] / z
            jacobian[:, 1, 4] = f[1] / z
            jacobian[:, :, 5] = -(xy * f) / z[:, None]
            jacobian[:, :, :3] = jacobian[:, :, 3:] @ se3.hat(-moved)
            weighted = (jacobian * weight[:, None, None]).reshape(-1, 6).T
            hessian = weighted @ jacobian.reshape(-1, 6)
            gradient = weighted @ residual.ravel()
            step = np.linalg.solve(hessian + 1e-9 * np.eye(6) * np.trace(hessian) + 1e-12 * np.eye(6), -gradient)
            T = se3.exp(step) @ T
            if np.abs(step).max() < 1e-6:
                break
        count = max(float(inlier.sum()), 1.0)
        covariance = np.linalg.pinv(hessian) * sigma**2 * max(count / _INDEPENDENT, 1.0)
        diagonal = np.maximum(np.diag(covariance), 0)
        return T, inlier, (float(np.sqrt(diagonal[:3].mean())), float(np.sqrt(diagonal[3:].mean())))

    def _parallax(self, inlier: np.ndarray, T_ref_cam: Array) -> float:
        if self._camera is None or not inlier.any():
            return 0.0
        turned = self._camera.project(self._points[inlier] @ T_ref_cam[:3, :3])
        shift = np.linalg.norm(turned - self._pixels[inlier], axis=1)
        shift = shift[np.isfinite(shift)]
        return float(np.median(shift)) / self._camera.width if len(shift) else 0.0


def _sample(values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear samples (N,) of an (h, w) array at pixels (N, 2)."""
    if len(pixels) == 0:
        return np.zeros(0, np.float32)
    grid = np.ascontiguousarray(pixels.reshape(-1, 1, 2), np.float32)
    return np.asarray(cv2.remap(values, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)).ravel()

"""A predictor that knows the truth and errs like a network: the error model of the simulation.

Everything after the network is tested against it.  Randomness depends on the seed and on the stamps of the views
alone, so the same window gives the same bytes in any run, in any order, on any thread.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.random import Generator

from da3_ros.config import SimulatedConfig
from da3_ros.errors import PredictorError
from da3_ros.geometry import rays as ray_geometry
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, Frame, Prediction, Rays, Window

_GRID = (6, 8)  # rows, columns of the patch-correlated depth error
_RAY_STRIDE = 8  # one ray per 8x8 pixels of the depth
_APART_S = 3.0  # views with a longer gap between them are of two visits
_WRONG_TURN_DEG, _WRONG_SHIFT = 15.0, 0.3  # 1-sigma of a wrong loop per axis; the shift as a share of the median depth
_MISTAKES = 1  # their draws have a generator of their own, so that they change no other
_BAD_ROTATION_DEG, _BAD_TRANSLATION, _BAD_DEPTH = 30.0, 0.5, 0.5


class SimulatedPredictor:
    """Ground-truth depth and poses, perturbed."""

    name = "simulated"
    needs_truth = True

    def __init__(self, config: SimulatedConfig, seed: int) -> None:
        """Keep the error model; ``seed`` fixes every draw."""
        self._config = config
        self._seed = seed

    def prepare(self, width: int, height: int) -> None:
        """Nothing depends on the size."""

    def predict(self, window: Window) -> Prediction:
        """Render the window's truth and perturb it; see the base protocol."""
        started = time.monotonic()
        cfg = self._config
        depths, poses = self._mistaken(window, *zip(*map(_truth, window.frames), strict=True))
        rng = np.random.default_rng([self._seed, *(frame.stamp_ns for frame in window.frames)])
        bad = window.number in cfg.bad_windows
        log_scale = self._log_scale(window, rng)
        T_win_cam = self._poses(np.stack(poses), np.exp(log_scale), bad, rng)
        focal = 1.0 + cfg.focal * rng.standard_normal()
        patch_sigma = cfg.depth_patch * rng.uniform(0.6, 1.6) + (_BAD_DEPTH if bad else 0.0)
        view_seeds = rng.integers(0, 2**63, len(poses))

        width, height = self._size(window.frames[0])
        depth = np.full((len(poses), height, width), np.nan, np.float32)
        confidence = np.zeros_like(depth)
        for i in window.depth_views:
            view_rng = np.random.default_rng(view_seeds[i])
            depth[i], confidence[i] = self._depth(depths[i], (width, height), patch_sigma, view_rng)
        depth *= np.float32(np.exp(log_scale))

        h, w = max(height // _RAY_STRIDE, 4), max(width // _RAY_STRIDE, 4)
        maps = [
            ray_geometry.make_rays(T, _with_focal(_camera(frame), focal), h, w)
            for T, frame in zip(T_win_cam, window.frames, strict=True)
        ]
        rays = Rays(np.stack(maps).astype(np.float32), np.full((len(maps), h, w), 0.9, np.float32))
        left = cfg.delay_s - (time.monotonic() - started)
        if left > 0:
            time.sleep(left)
        sigma = max(cfg.window_log_scale, 1e-6) if cfg.metric else None
        return Prediction(window, depth, confidence, rays=rays, scale_sigma=sigma)

    def close(self) -> None:
        """Nothing is held."""

    def _size(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.image.shape[:2]
        out = min(self._config.width, width)
        return out, max(1, round(out * height / width))

    def _mistaken(
        self, window: Window, depths: tuple[FloatArray, ...], poses: tuple[Array, ...]
    ) -> tuple[tuple[FloatArray, ...], tuple[Array, ...]]:
        """What the predictor takes for depths and poses, now and then wrong: a frozen frame, a wrong loop."""
        cfg, stamps = self._config, [frame.stamp_ns for frame in window.frames]
        rng = np.random.default_rng([self._seed, *stamps, _MISTAKES])
        frozen, wrong = rng.random(2) < (cfg.frozen_probability, cfg.wrong_loop_probability)
        turn, shift = np.deg2rad(_WRONG_TURN_DEG) * rng.standard_normal(3), _WRONG_SHIFT * rng.standard_normal(3)
        if frozen and len(poses) > 1:
            depths, poses = (*depths[:-1], depths[-2]), (*poses[:-1], poses[-2])
        gaps = np.diff(stamps) * 1e-9
        if wrong and len(gaps) and gaps.max() > _APART_S:
            # All views of the later visit together, about the first of them: each visit is sound in itself.
            first = int(np.argmax(gaps)) + 1
            T_moved_cam = se3.make(se3.exp_so3(turn), shift * float(np.nanmedian(depths[first])))
            T = poses[first] @ T_moved_cam @ se3.inverse(poses[first])
            poses = (*poses[:first], *(T @ pose for pose in poses[first:]))
        return depths, poses

    def _log_scale(self, window: Window, rng: Generator) -> float:
        cfg = self._config
        value = cfg.log_scale_bias + cfg.window_log_scale * rng.standard_normal()
        breaks = int(rng.random() < cfg.break_probability)
        if cfg.break_lasting:
            breaks += sum(window.number >= n for n in cfg.break_windows)
        else:
            breaks += int(window.number in cfg.break_windows)
        return float(value + breaks * np.log(cfg.break_factor))

    def _poses(self, T_world_cam: Array, scale: float, bad: bool, rng: Generator) -> Array:
        """Relative to the reference view, each with its own error, in a random gauge."""
        cfg = self._config
        T = se3.inverse(T_world_cam[0]) @ T_world_cam
        baseline = np.linalg.norm(T[:, :3, 3], axis=1, keepdims=True)
        rotation_deg = cfg.rotation_deg + (_BAD_ROTATION_DEG if bad else 0.0)
        translation = cfg.translation + (_BAD_TRANSLATION if bad else 0.0)
        # sigma is that of the whole angle and of the whole displacement, hence 1/sqrt(3) per axis.
        wobble = np.deg2rad(rotation_deg) / np.sqrt(3) * rng.standard_normal((len(T), 3))
        shift = translation * baseline / np.sqrt(3) * rng.standard_normal((len(T), 3))
        rotations = T[:, :3, :3] @ se3.exp_so3(wobble)
        T = se3.make(rotations, scale * (T[:, :3, 3] + shift))
        # Drawn in any case: switching one term off leaves the others as they are.
        gauge = se3.make(se3.exp_so3(rng.standard_normal(3)), rng.standard_normal(3))
        return gauge @ T if cfg.random_gauge else T

    def _depth(
        self, truth: FloatArray, size: tuple[int, int], patch_sigma: float, rng: Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Perturbed depth and a confidence that falls with the error, both (h, w) float32."""
        cfg = self._config
        width, height = size
        # INTER_NEAREST_EXACT picks the true pixel centre; interpolation would invent depth across edges.
        depth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST_EXACT)
        valid = np.isfinite(depth) & (depth > 0)
        log_depth = np.log(np.where(valid, depth, 1.0)).astype(np.float32)
        error = np.zeros_like(log_depth)
        patches = rng.standard_normal(_GRID, np.float32) * np.float32(patch_sigma)
        if patch_sigma > 0:
            error += cv2.resize(patches, size, interpolation=cv2.INTER_CUBIC)
        if cfg.edge_bleed > 0 and valid.any():
            filled = np.where(valid, log_depth, np.float32(np.median(log_depth[valid])))
            blurred = cv2.blur(filled, (5, 5))
            edge = (cv2.dilate(filled, np.ones((3, 3))) - cv2.erode(filled, np.ones((3, 3)))) > 0.1
            error += np.where(edge, np.float32(cfg.edge_bleed) * (blurred - filled), np.float32(0))
        confidence = 0.95 * np.exp(-np.abs(error) / 0.15)
        if cfg.depth_pixel > 0:
            error += np.float32(cfg.depth_pixel) * rng.standard_normal((height, width), np.float32)
        out = np.where(valid, np.exp(log_depth + error), np.nan) if error.any() else np.where(valid, depth, np.nan)
        return out.astype(np.float32), np.where(valid, confidence, 0).astype(np.float32)


def _truth(frame: Frame) -> tuple[FloatArray, Array]:
    if frame.truth is None or frame.truth.depth is None or frame.truth.T_world_cam is None:
        raise PredictorError(
            f"the simulated predictor needs ground-truth depth and pose, and frame {frame.id} has none; "
            "use a source that has both, or another --predictor"
        )
    return frame.truth.depth, frame.truth.T_world_cam


def _camera(frame: Frame) -> Pinhole:
    if frame.camera is None:
        raise PredictorError("the simulated predictor needs the camera's intrinsics, and the source has none")
    return frame.camera


def _with_focal(camera: Pinhole, factor: float) -> Pinhole:
    return Pinhole(camera.width, camera.height, camera.fx * factor, camera.fy * factor, camera.cx, camera.cy)

"""A keyframe, and the rule that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from da3_ros.config import KeyframeConfig
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.gravity import Gravity
from da3_ros.slam.tracker import Track
from da3_ros.types import FloatArray, Frame, FusedKeyframe

_SAMPLE, _ENOUGH = 3, 100  # a median needs no more pixels
_LEAST_WEIGHT = np.float32(1e-20)  # that can be divided by


@dataclass(slots=True, eq=False)
class Depth:
    """Depth of a keyframe in chain units, averaged in the logarithm over repeated predictions."""

    log: FloatArray  # (h, w) log z-depth, NaN invalid
    confidence: FloatArray  # (h, w) in [0, 1), mean of the predictions
    camera: Pinhole  # at this size
    weight: FloatArray  # (h, w) sum of confidences
    middle: float | None = None  # median of the logarithm, once somebody has asked for it

    @classmethod
    def first(cls, depth: FloatArray, confidence: FloatArray, camera: Pinhole) -> Depth:
        """Start from one prediction scaled to chain units."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.log(depth, dtype=np.float32)
        valid = np.isfinite(log)
        log[~valid] = np.nan
        confidence = np.where(valid, confidence, 0).astype(np.float32)
        return cls(log, confidence, camera, confidence)

    def add(self, other: Depth) -> Depth:
        """Average with another prediction of the same view; invalid pixels do not count."""
        total = self.weight + other.weight
        share = other.weight / np.maximum(total, _LEAST_WEIGHT)
        mean = self.log + share * (other.log - self.log)
        np.copyto(mean, other.log, where=np.isnan(self.log))
        np.copyto(mean, self.log, where=np.isnan(other.log))
        return Depth(mean, self.confidence + share * (other.confidence - self.confidence), self.camera, total)

    def any(self) -> bool:
        """Some pixel is valid."""
        return bool(np.isfinite(self.log).any())

    def median(self) -> float:
        """Of the valid pixels, every third in both axes where these are enough; there must be some."""
        if self.middle is None:
            some = self.log[::_SAMPLE, ::_SAMPLE]
            some = some[np.isfinite(some)]
            self.middle = float(np.median(some) if len(some) > _ENOUGH else np.nanmedian(self.log))
        return float(np.exp(self.middle))

    def scaled(self, log_scale: float) -> Depth:
        """The same depth in other units."""
        middle = None if self.middle is None else self.middle + log_scale
        return Depth(self.log + np.float32(log_scale), self.confidence, self.camera, self.weight, middle)

    def edges(self, ratio: float) -> np.ndarray:
        """Mark pixels (h, w) whose 3x3 neighbourhood spans more than ``ratio`` in relative depth, or has a hole."""
        filled = cv2.patchNaNs(self.log.copy(), 1e3)
        return np.asarray(cv2.morphologyEx(filled, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > ratio)


@dataclass(frozen=True, slots=True)
class Step:
    """How well the way from the keyframe before is known: 1-sigma per axis."""

    rotation: float  # rad
    translation: float  # chain units
    log_scale: float

    def measured(self, off: float, sigma: float) -> Step:
        """The same where a gyro with this 1-sigma per axis has the turn off by an angle, both rad.

        A gyro that knows less of it, as long as its bias is unknown, cannot tell.
        """
        return replace(self, rotation=float(np.hypot(sigma, off / np.sqrt(3)))) if sigma < self.rotation else self


@dataclass(slots=True, eq=False)
class Keyframe:
    """A placed keyframe; mutable, owned by Slam."""

    index: int  # counts up within a session
    frame: Frame | None  # released when the keyframe leaves the window
    frame_id: int
    stamp_ns: int
    T_chain_cam: Array  # (4, 4) in chain units: seams chained without any correction of scale
    T_map_cam: Array  # (4, 4) in map units
    depth: Depth | None  # chain units; released with the frame
    submap: int
    scale: float  # map units per chain unit, as filtered when it was placed
    scale_row: int  # its window's row in the chain of scales
    weak: bool = False  # the link to the keyframe before is weak
    depth_correction: float = 0.0  # log; what refinement has added to the depth so far
    step: Step = Step(1e-3, 1e-3, 1e-3)
    gravity: Gravity | None = None  # by an IMU
    up_sigma: float = np.inf  # rad, 1-sigma per axis of what of it the keyframes before did not say

    def average(self, other: Depth | None, log_scale: float) -> None:
        """Average another prediction of this view, in window units, into the depth."""
        if other is not None and self.depth is not None:
            before = float(self.depth.weight.sum())
            self.depth = self.depth.add(other.scaled(log_scale))
            # Only what was there is corrected.
            self.depth_correction *= before / max(float(self.depth.weight.sum()), 1e-9)

    def fused(self, T_submap_cam: Array, size: float = 1.0) -> FusedKeyframe:
        """What the map needs of this keyframe; ``size`` is the factor on its submap's."""
        assert self.frame is not None, "the keyframe was released"
        assert self.depth is not None
        height, width = self.depth.log.shape
        image = cv2.resize(self.frame.image, (width, height), interpolation=cv2.INTER_AREA)
        depth = np.exp(self.depth.log) * np.float32(self.scale / size)
        return FusedKeyframe(
            self.frame_id,
            self.stamp_ns,
            self.submap,
            T_submap_cam,
            self.depth.camera,
            depth,
            self.depth.confidence,
            np.asarray(image, np.uint8),
            self.weak,
        )


def typical_depth(keyframes: Sequence[Keyframe]) -> float | None:
    """Geometric mean of the keyframes' median depths, chain units; None where none has depth."""
    medians = [k.depth.median() for k in keyframes if k.depth is not None and k.depth.any()]
    return float(np.exp(np.log(medians).mean())) if medians else None


def is_due(config: KeyframeConfig, since_s: float, track: Track, min_inliers: int) -> bool:
    """Decide whether a tracked frame becomes a keyframe.

    Args:
        config: thresholds.
        since_s: time since the last keyframe, s.
        track: how the frame was tracked against the last placed keyframe.
        min_inliers: below this tracking is weak, and a new keyframe is the remedy.
    """
    if since_s < config.min_interval_s:
        return False
    if track.inliers < min_inliers or track.tracked < config.min_tracked:
        return True
    if track.parallax < config.still_parallax and track.rotation_deg < config.still_rotation_deg:
        return False
    return (
        track.parallax > config.min_parallax
        or track.rotation_deg > config.max_rotation_deg
        or since_s > config.max_interval_s
    )

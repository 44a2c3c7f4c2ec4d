"""Depth for frames that were not predicted: what the nearest prediction shows from where they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.config import DepthConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.warp import Surface
from da3_ros.slam.keyframe import Depth, Keyframe
from da3_ros.slam.schedule import Tracked
from da3_ros.types import DepthMap

_SPARSE = 8  # every so many rows and columns are enough for a median


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One frame and the prediction that shows most of it; nothing of it changes, so that it can be drawn later."""

    frame_id: int
    stamp_ns: int
    predicted_ns: int  # stamp of the frame whose depth it is
    depth: Depth  # chain units
    T_there_here: Array  # (4, 4) pose of the frame in the predicted one, chain units
    scale: float  # map units per chain unit

    @property
    def apart(self) -> float:
        """How much else the two see: the turn in rad, and the way as a share of the depth."""
        log = self.depth.log[::_SPARSE, ::_SPARSE]
        typical = np.exp(np.median(log[np.isfinite(log)])) if np.isfinite(log).any() else np.inf
        way = np.linalg.norm(self.T_there_here[:3, 3])
        return float(se3.rotation_angle(self.T_there_here[:3, :3]) + way / typical)

    def depth_map(self) -> DepthMap:
        """The depth, warped to the frame: some milliseconds of work."""
        surface = Surface.of(np.exp(self.depth.log), self.depth.confidence, self.depth.camera)
        depth, confidence = surface.seen_from(self.T_there_here)
        depth *= np.float32(self.scale)
        return DepthMap(self.frame_id, self.stamp_ns, depth, confidence, self.depth.camera)


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """A predicted frame between keyframes; it moves with the one that it was placed by."""

    stamp_ns: int
    depth: Depth
    reference: Keyframe
    T_ref_cam: Array  # (4, 4) chain units


class Sights:
    """The newest predictions, and which of them shows a frame best."""

    def __init__(self, config: DepthConfig) -> None:
        """Start with none."""
        self._config = config
        self._live: _Live | None = None

    def add_live(self, stamp_ns: int, depth: Depth, reference: Keyframe, T_ref_cam: Array) -> None:
        """Remember the depth of a live frame, and its pose (4, 4) relative to a keyframe, both in chain units."""
        self._live = _Live(stamp_ns, depth, reference, T_ref_cam)

    def of(self, tracked: Tracked, newest: Keyframe) -> Sight | None:
        """What shows a frame: the newest keyframe or the newest live frame, whichever is nearer; None: too old."""
        poses = [(newest.stamp_ns, newest.depth, newest.T_chain_cam)]
        live = self._live
        if live is not None and live.reference.depth is not None:  # else the chain was cut, or has moved on
            poses.append((live.stamp_ns, live.depth, live.reference.T_chain_cam @ live.T_ref_cam))
        frame, found = tracked.frame, []
        for stamp_ns, depth, T_chain_there in sorted(poses, key=lambda pose: -pose[0]):
            age_s = (frame.stamp_ns - stamp_ns) * 1e-9
            if depth is None or (self._config.max_age_s and age_s > self._config.max_age_s):
                continue
            T_there_here = se3.inverse(T_chain_there) @ tracked.T_chain_cam
            found.append(Sight(frame.id, frame.stamp_ns, stamp_ns, depth, T_there_here, newest.scale))
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=lambda sight: sight.apart)  # the newest of equals

"""The chain of keyframes: windows joined end to end, with the scale that turns chain units into map units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.keyframe import Depth, Keyframe
from da3_ros.slam.poselog import scaled
from da3_ros.slam.scale import ScaleChain
from da3_ros.slam.schedule import Tracked
from da3_ros.slam.submaps import Submaps
from da3_ros.types import FusedKeyframe


class Chain:
    """Placed keyframes; the newest ``window.overlap`` of them are active: they keep image and depth."""

    def __init__(self, config: Config) -> None:
        """Start empty."""
        self._overlap = config.window.overlap
        self._smooth = config.scale.smooth
        self.keyframes: list[Keyframe] = []
        self.active: list[Keyframe] = []
        self.scale = ScaleChain()
        self.submaps = Submaps(config.map)

    @property
    def newest(self) -> Keyframe | None:
        """The reference of the tracker; None before the first prediction and after a cut."""
        return self.active[-1] if self.active else None

    def place(
        self, new: Sequence[Tracked], T_chain_cam: Array, depths: Sequence[Depth], scale: float, *, weak: bool
    ) -> list[FusedKeyframe]:
        """Append keyframes with poses (N, 4, 4) and depths in chain units; returns those that leave the window."""
        for tracked, T, depth in zip(new, T_chain_cam, depths, strict=True):
            index = len(self.keyframes)
            T_map_cam = self.map_pose(T, scale)
            submap = self.submaps.add(index, T_map_cam, force_new=weak)
            weak = False  # only the first keyframe behind a weak link opens a submap for it
            frame = tracked.frame
            keyframe = Keyframe(
                index, frame, frame.id, frame.stamp_ns, T, T_map_cam, depth, submap, scale, len(self.scale) - 1
            )
            self.keyframes.append(keyframe)
            self.active.append(keyframe)
        return self._retire(self.active[: -self._overlap])

    def retire_all(self) -> list[FusedKeyframe]:
        """Release the active keyframes (a cut, or the end)."""
        return self._retire(list(self.active))

    def final(self) -> tuple[Array, Array]:
        """Poses ``T_map_cam`` (K, 4, 4) and map units per chain unit (K,), with the scales smoothed if asked for."""
        count = len(self.keyframes)
        rows = np.array([k.scale_row for k in self.keyframes], int)
        values = self.scale.smoothed() if self._smooth else self.scale.values()
        scale = np.exp(values[rows]) if count else np.zeros(0)
        T = np.zeros((count, 4, 4))
        for k in self.keyframes:
            if k.index == 0:
                T[0] = k.T_map_cam
            else:
                before = self.keyframes[k.index - 1]
                relative = se3.inverse(before.T_chain_cam) @ k.T_chain_cam
                T[k.index] = T[k.index - 1] @ scaled(relative, scale[k.index])
        return T, scale

    def final_anchors(self) -> tuple[dict[int, Array], dict[int, float]]:
        """Submap anchors ``T_map_submap`` on the final trajectory, and the factor on each submap's size."""
        T_map_kf, scale = self.final()
        firsts = self.submaps.first_keyframes()
        factors = {submap: float(scale[k] / self.keyframes[k].scale) for submap, k in firsts.items()}
        return {submap: T_map_kf[k] for submap, k in firsts.items()}, factors

    def map_pose(self, T_chain_cam: Array, scale: float | None = None) -> Array:
        """Continue the last keyframe's map pose by the chain's increment at a scale; the past keeps its size."""
        if not self.keyframes:
            return T_chain_cam
        before = self.keyframes[-1]
        scale = before.scale if scale is None else scale
        return before.T_map_cam @ scaled(se3.inverse(before.T_chain_cam) @ T_chain_cam, scale)

    def _retire(self, leaving: Sequence[Keyframe]) -> list[FusedKeyframe]:
        fused = [k.fused(self.submaps.local(k.submap, k.T_map_cam)) for k in leaving]
        for keyframe in leaving:
            keyframe.frame = keyframe.depth = None
        self.active = self.active[len(leaving) :]
        return fused

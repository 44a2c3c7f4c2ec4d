"""The chain of keyframes: windows joined end to end, with the scale that turns chain units into map units."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.certainty import Certainty, step_of_seam, step_of_weak
from da3_ros.slam.graph import Nodes, PoseGraph, Solution
from da3_ros.slam.keyframe import Depth, Keyframe, Step
from da3_ros.slam.levelling import Levelling
from da3_ros.slam.places import Places
from da3_ros.slam.scale import ScaleChain
from da3_ros.slam.schedule import Tracked
from da3_ros.slam.seam import Seam
from da3_ros.slam.submaps import Submaps
from da3_ros.slam.ways import scaled
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
        self.graph = PoseGraph()
        self.certainty = Certainty()
        self.certain: Keyframe | None = None  # of which it speaks
        self.levelling = Levelling()
        self.places: Places | None = None  # where views of keyframes that leave the window are kept
        self.revision = 0  # increments when loops have moved the keyframes

    @property
    def newest(self) -> Keyframe | None:
        """The reference of the tracker; None before the first prediction and after a cut."""
        return self.active[-1] if self.active else None

    def place(
        self, new: Sequence[Tracked], T_chain_cam: Array, depths: Sequence[Depth], scale: float, *, weak: bool
    ) -> Sequence[Keyframe]:
        """Append keyframes with poses (N, 4, 4) and depths in chain units; returns them."""
        for tracked, T, depth in zip(new, T_chain_cam, depths, strict=True):
            index = len(self.keyframes)
            T_map_cam = self.map_pose(T, scale)
            submap = self.submaps.add(index, T_map_cam, force_new=weak)
            frame = tracked.frame
            keyframe = Keyframe(
                index, frame, frame.id, frame.stamp_ns, T, T_map_cam, depth, submap, scale, len(self.scale) - 1, weak
            )
            keyframe.gravity = tracked.gravity
            if weak:
                keyframe.step = step_of_weak(keyframe)
            weak = False  # only the first keyframe lies behind the weak link
            self.keyframes.append(keyframe)
            self.active.append(keyframe)
        return self.keyframes[-len(new) :]

    def settle(self, new: Sequence[Keyframe], seam: Seam, refined: Step | None) -> None:
        """Keyframes that were just placed, over this seam, are where they are to be: how well are the steps known?

        ``refined`` is what landmarks know of the way to the last one, where there were enough.
        """
        for i, k in enumerate(new):
            k.step = step_of_seam(k, seam, first=i == 0)
            if refined is not None and k is new[-1] and not k.weak:
                k.step = Step(refined.rotation, refined.translation, k.step.log_scale)

    def moved(self, T_before: Sequence[Array]) -> None:
        """The active keyframes have moved on the chain, from poses (4, 4), oldest first: they move in the map too.

        What changed is added to the steps that the map has: loops may have made these different from the chain's.
        """
        chain = {k.index: T for k, T in zip(self.active, T_before, strict=True)}
        placed = {k.index: k.T_map_cam for k in self.active}
        for k in self.active:
            if k.index:
                last = self.keyframes[k.index - 1]
                step_before = se3.inverse(chain.get(last.index, last.T_chain_cam)) @ chain[k.index]
                change = se3.inverse(step_before) @ se3.inverse(last.T_chain_cam) @ k.T_chain_cam
                in_map = se3.inverse(placed.get(last.index, last.T_map_cam)) @ placed[k.index]
                k.T_map_cam = se3.normalized(last.T_map_cam @ in_map @ scaled(change, k.scale))
                self.submaps.move(k.submap, k.index, k.T_map_cam)

    def level(self, keyframe: Keyframe) -> None:
        """Turn the newest keyframe in the map, on the spot, as gravity asks for; the chain stays as it is."""
        if keyframe.index == 0:
            self.certainty.start(self.scale.sigma)
        else:
            T_before_new = se3.inverse(self.keyframes[keyframe.index - 1].T_chain_cam) @ keyframe.T_chain_cam
            self.certainty.step(T_before_new, keyframe.step, self.scale.sigma)
        self.certain = keyframe
        turn, left = self.levelling.hear(keyframe)
        if keyframe.gravity is not None:
            self.certainty.level(keyframe.gravity.up, left)
        T = keyframe.T_map_cam
        keyframe.T_map_cam = se3.normalized(se3.make(turn @ T[:3, :3], T[:3, 3]))
        self.submaps.move(keyframe.submap, keyframe.index, keyframe.T_map_cam)

    def nodes(self) -> Nodes:
        """All keyframes as the pose graph sees them."""
        keyframes = self.keyframes
        rows = np.array([k.scale_row for k in keyframes])
        first = np.diff(rows, prepend=-1) > 0  # a row's claims count once
        return Nodes(
            np.stack([k.T_chain_cam for k in keyframes]),
            np.array([(k.step.rotation, k.step.translation, k.step.log_scale) for k in keyframes]),
            np.array([k.weak for k in keyframes]),
            self.scale.claimed()[rows] * first[:, None],
            np.stack([k.T_map_cam for k in keyframes]),
            np.array([k.scale for k in keyframes]),
            self.levelling.vertical(keyframes),
        )

    def correct(self, solution: Solution) -> None:
        """Move all keyframes and submaps to where the pose graph has them."""
        change = np.log(solution.scale / np.array([k.scale for k in self.keyframes]))
        factors = self._per_submap(change)
        for k, T, scale in zip(self.keyframes, solution.T_map_cam, solution.scale, strict=True):
            k.T_map_cam, k.scale = T, float(scale)
        self.submaps.correct(solution.T_map_cam, factors)
        self.scale.correct(float(np.log(solution.scale[-1])))
        self.certainty.replace(solution.covariance)
        self.revision += 1

    def retire(self) -> list[FusedKeyframe]:
        """Release the keyframes that have left the window."""
        return self._retire(self.active[: -self._overlap])

    def retire_all(self) -> list[FusedKeyframe]:
        """Release the active keyframes (a cut, or the end)."""
        return self._retire(list(self.active))

    def filtered(self) -> tuple[Array, Array]:
        """Poses ``T_map_cam`` (K, 4, 4) and map units per chain unit (K,), as placed in the live map."""
        if not self.keyframes:
            return np.zeros((0, 4, 4)), np.zeros(0)
        return np.array([k.T_map_cam for k in self.keyframes]), np.array([k.scale for k in self.keyframes])

    def final(self) -> tuple[Array, Array]:
        """The same with the scales smoothed, if asked for."""
        T, scale = self.filtered()
        if not self._smooth or not len(T):
            return T, scale
        if self.graph.loops or (self.levelling.up is not None and find_spec("gtsam") is not None):
            solution = self.graph.solve(self.nodes())
            return solution.T_map_cam, solution.scale
        chain = np.stack([k.T_chain_cam for k in self.keyframes])
        scale = np.exp(self.scale.smoothed()[[k.scale_row for k in self.keyframes]])
        # A step keeps its direction as seen from where it begins, which gravity may have turned in the map, and takes
        # its keyframe's scale.
        in_camera = se3.inverse(chain[:-1]) @ chain[1:]
        steps = (T[:-1, :3, :3] @ in_camera[:, :3, 3:])[:, :, 0] * scale[1:, None]
        T[:, :3, 3] = T[0, :3, 3] + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
        return T, scale

    def final_anchors(self) -> tuple[dict[int, Array], dict[int, float]]:
        """Submap anchors ``T_map_submap`` on the final trajectory, and the factor on each submap's size.

        The factor is the mean of its keyframes': within a submap the scale may still have been settling.
        """
        T_map_kf, scale = self.final()
        firsts, sizes = self.submaps.first_keyframes(), self.submaps.sizes()
        factors = self._per_submap(np.log([scale[k.index] / k.scale for k in self.keyframes]))
        return {submap: T_map_kf[k] for submap, k in firsts.items()}, {
            submap: sizes[submap] * factor for submap, factor in factors.items()
        }

    def map_pose(self, T_chain_cam: Array, scale: float | None = None) -> Array:
        """Continue the last keyframe's map pose by the chain's increment at a scale; the past keeps its size."""
        if not self.keyframes:
            return T_chain_cam
        before = self.keyframes[-1]
        scale = before.scale if scale is None else scale
        return before.T_map_cam @ scaled(se3.inverse(before.T_chain_cam) @ T_chain_cam, scale)

    def _per_submap(self, change: Array) -> dict[int, float]:
        """Factor on each submap's size from the change of log scale (K,) of its keyframes: their mean."""
        values: dict[int, list[float]] = {}
        for k, value in zip(self.keyframes, change, strict=True):
            values.setdefault(k.submap, []).append(float(value))
        return {submap: float(np.exp(np.mean(found))) for submap, found in values.items()}

    def _retire(self, leaving: Sequence[Keyframe]) -> list[FusedKeyframe]:
        sizes = self.submaps.sizes()
        fused = [k.fused(self.submaps.local(k.submap, k.T_map_cam), sizes[k.submap]) for k in leaving]
        for keyframe in leaving:
            if self.places is not None:
                self.places.keep(keyframe)
            keyframe.frame = keyframe.depth = None
            keyframe.T_chain_cam = keyframe.T_chain_cam.copy()  # a view holds the poses of its whole window
        self.active = self.active[len(leaving) :]
        return fused

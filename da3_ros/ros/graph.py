"""The pose graph as a message: the keyframes that left the window, how each was placed, and loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from std_msgs.msg import Header

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.msg import PoseGraph, PoseGraphEdge
from da3_ros.ros.messages import header, pose, to_stamp
from da3_ros.slam.ways import scaled
from da3_ros.types import FusedKeyframe, LoopEdge


class GraphLog:
    """Keyframes of one session, in order of capture, each tied to the one before, and the loops among them."""

    def __init__(self, session: int) -> None:
        self.session = session
        self._keyframes: list[tuple[int, int, int, Array, bool]] = []  # id, stamp, submap, T_submap_cam, weak
        self.loops: tuple[LoopEdge, ...] = ()

    def add(self, fused: tuple[FusedKeyframe, ...]) -> None:
        """Append keyframes; their images and depths are not kept."""
        self._keyframes += [(kf.frame_id, kf.stamp_ns, kf.submap, kf.T_submap_cam, kf.weak) for kf in fused]

    def __len__(self) -> int:
        """Number of keyframes."""
        return len(self._keyframes)

    def message(
        self,
        map_frame: str,
        anchors: dict[int, Array],
        revision: int,
        *,
        metric: bool,
        sizes: dict[int, float] | None = None,
    ) -> PoseGraph:
        """The graph with submaps at ``anchors`` (``T_map_submap`` in ROS axes), grown by ``sizes``.

        Sigmas of seams are not known here: NaN.  A loop whose newer end is still in the window comes a little later.
        """
        sizes = sizes or {}
        poses = [
            anchors[submap] @ scaled(T_submap_cam, sizes.get(submap, 1.0))
            for _, _, submap, T_submap_cam, _ in self._keyframes
        ]
        stamp = self._keyframes[-1][1] if self._keyframes else 0
        head = header(stamp, map_frame)
        out = PoseGraph(
            header=head,
            session_id=self.session,
            revision=revision,
            metric=metric,
            keyframe_ids=[kf[0] for kf in self._keyframes],
            keyframe_submap_ids=[kf[2] for kf in self._keyframes],
            keyframe_stamps=[to_stamp(kf[1]) for kf in self._keyframes],
            keyframe_poses=[pose(T) for T in poses],
        )
        out.edges = [
            PoseGraphEdge(
                header=head,
                type=PoseGraphEdge.TYPE_WEAK if b[4] else PoseGraphEdge.TYPE_SEAM,
                from_keyframe_id=a[0],
                to_keyframe_id=b[0],
                t_from_to=pose(se3.inverse(T_a) @ T_b),
                log_scale=0.0,
                log_scale_sigma=float(np.nan),
                rotation_sigma_rad=float(np.nan),
                translation_sigma_m=float(np.nan),
                residual=float(np.nan),
            )
            for (a, T_a), (b, T_b) in pairwise(zip(self._keyframes, poses, strict=True))
        ]
        known = set(out.keyframe_ids)
        out.edges += [_loop(head, loop) for loop in self.loops if {loop.from_id, loop.to_id} <= known]
        return out


def _loop(head: Header, loop: LoopEdge) -> PoseGraphEdge:
    return PoseGraphEdge(
        header=head,
        type=PoseGraphEdge.TYPE_LOOP,
        from_keyframe_id=loop.from_id,
        to_keyframe_id=loop.to_id,
        t_from_to=pose(loop.T_from_to),
        log_scale=loop.log_scale,
        log_scale_sigma=loop.log_scale_sigma,
        rotation_sigma_rad=loop.rotation_sigma,
        translation_sigma_m=loop.translation_sigma,
        residual=loop.residual,
    )

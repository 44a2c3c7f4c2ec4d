"""A tree of recorded transforms, to find where the camera was."""

from __future__ import annotations

import numpy as np

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources.pose_track import PoseTrack


class TfTree:
    """Edges from /tf_static (constant) and of poses over time."""

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[str, Array]] = {}  # child -> parent, T_parent_child
        self._moving: dict[str, tuple[str, PoseTrack]] = {}

    def fix(self, parent: str, child: str, T_parent_child: Array) -> None:
        """Add a constant edge."""
        self._fixed[child] = (parent, T_parent_child)

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: Array) -> None:
        """Add the pose of an edge at one time."""
        if child not in self._moving or self._moving[child][0] != parent:
            self._moving[child] = (parent, PoseTrack())
        self._moving[child][1].add(stamp_ns, T_parent_child)

    def forget_before(self, stamp_ns: int) -> None:
        """Drop poses that are no longer needed."""
        for _, track in self._moving.values():
            track.forget_before(stamp_ns)

    def settled(self, frame: str, stamp_ns: int) -> bool:
        """Tell whether no later message can change the pose of ``frame`` at this stamp."""
        return (
            frame in self._moving
            and self.pose(frame, stamp_ns) is not None
            and all(track.reaches(stamp_ns) for _, track in self._moving.values())
        )

    def pose(self, frame: str, stamp_ns: int) -> Array | None:
        """T_root_frame at a stamp; None where an edge is unknown then, or the frame is not in the tree."""
        T, visited = np.eye(4), set[str]()
        while frame not in visited and (frame in self._fixed or frame in self._moving):
            visited.add(frame)
            if frame in self._moving:
                parent, track = self._moving[frame]
                edge = track.at(stamp_ns)
                if edge is None:
                    return None
            else:
                parent, edge = self._fixed[frame]
            T, frame = edge @ T, parent
        return T if visited else None

    def between(self, parent: str, child: str) -> Array | None:
        """T_parent_child over constant edges only; None where they do not connect the two."""
        T = {name: self._to_root(name) for name in (parent, child)}
        if T[parent][0] != T[child][0]:
            return None
        return se3.inverse(T[parent][1]) @ T[child][1]

    def _to_root(self, frame: str) -> tuple[str, Array]:
        T, visited = np.eye(4), set[str]()
        while frame in self._fixed and frame not in visited:
            visited.add(frame)
            frame, edge = self._fixed[frame][0], self._fixed[frame][1]
            T = edge @ T
        return frame, T

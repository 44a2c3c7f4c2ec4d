"""Measured depth and odometry, joined to frames by their stamps, whichever comes first.

No frame waits: what is known goes along with it, what comes later is sent after it.  Only keyframes are compared with
priors, when their prediction is there, so that a prior may come as late as that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from da3_ros.geometry.se3 import Array
from da3_ros.sources.pose_track import PoseTrack
from da3_ros.types import DepthPoints, Priors

Measure = Callable[[], DepthPoints | None]  # decodes a message; None where it cannot be used

_DEPTHS = 10  # messages kept; they are large
_FRAMES = 64  # frames that may still get something
_POSES_NS = 5_000_000_000
_JUMP_NS = 1_000_000_000


@dataclass(slots=True)
class _Sent:
    id: int
    stamp_ns: int
    depth_ns: int | None = None  # by how much the stamp of its depth differs
    posed: bool = False


class PriorPairing:
    """Depth goes to the frame whose stamp is nearest; poses are interpolated between those around it."""

    def __init__(self, tolerance_s: float) -> None:
        """``tolerance_s``: stamps of a frame and its depth differ at most by so much."""
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._depths: OrderedDict[int, Measure] = OrderedDict()
        self._poses = PoseTrack()
        self._frames: deque[_Sent] = deque(maxlen=_FRAMES)

    def add_frame(self, frame_id: int, stamp_ns: int) -> Priors | None:
        """A frame is on its way; returns what is known of it already."""
        sent = _Sent(frame_id, stamp_ns)
        self._frames.append(sent)
        nearest = min(self._depths, key=lambda s: abs(s - stamp_ns), default=None)
        depth = None if nearest is None else self._match(sent, nearest, self._depths[nearest])
        pose = self._pose(sent)
        return None if depth is None and pose is None else Priors(depth, pose)

    def add_depth(self, stamp_ns: int, measure: Measure) -> list[tuple[int, Priors]]:
        """Measured depth has come; returns what is to be sent after frames, by their ids."""
        self._depths[stamp_ns] = measure
        while len(self._depths) > _DEPTHS:
            self._depths.popitem(last=False)
        found = [(sent.id, self._match(sent, stamp_ns, measure)) for sent in self._frames]
        return [(frame_id, Priors(depth)) for frame_id, depth in found if depth is not None]

    def add_pose(self, stamp_ns: int, T_odom_cam: Array) -> list[tuple[int, Priors]]:
        """Odometry has come; returns what is to be sent after frames, by their ids."""
        if self._poses.reaches(stamp_ns + _JUMP_NS):
            self._poses = PoseTrack()  # time jumped back: these are of another drive
        self._poses.add(stamp_ns, T_odom_cam)
        self._poses.forget_before(stamp_ns - _POSES_NS)
        found = [(sent.id, self._pose(sent)) for sent in self._frames]
        return [(frame_id, Priors(T_odom_cam=T)) for frame_id, T in found if T is not None]

    def forget_frames(self) -> None:
        """Numbers of frames start anew."""
        self._frames.clear()

    def forget(self) -> None:
        """Forget everything: time jumped, or the input is closed."""
        self._frames.clear()
        self._depths.clear()
        self._poses = PoseTrack()

    def _match(self, sent: _Sent, stamp_ns: int, measure: Measure) -> DepthPoints | None:
        away = abs(stamp_ns - sent.stamp_ns)
        if away > self._tolerance_ns or (sent.depth_ns is not None and sent.depth_ns <= away):
            return None
        depth = measure()
        if depth is not None:
            sent.depth_ns = away
        return depth

    def _pose(self, sent: _Sent) -> Array | None:
        if sent.posed or not self._poses.reaches(sent.stamp_ns):
            return None
        T = self._poses.at(sent.stamp_ns)
        sent.posed = True
        return T

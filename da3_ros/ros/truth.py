"""Depth and pose of a simulator, joined to images of exactly the same stamp.

A predictor that renders from ground truth needs them (``Predictor.needs_truth``); they arrive on topics of their own
(``truth/depth``, ``truth/pose``), before or after the image.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, Frame, Truth

WAIT_S = 0.3
_KEPT = 32


@dataclass(slots=True)
class _Waiting:
    frame: Frame
    arrived: float  # monotonic, s
    deadline: float


class TruthPairing:
    """Frames wait for their truth, in order, for at most 0.3 s."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._depths: OrderedDict[int, FloatArray] = OrderedDict()
        self._poses: OrderedDict[int, Array] = OrderedDict()
        self._waiting: deque[_Waiting] = deque()
        self._used = False  # truth has been found for a frame before

    def add_depth(self, stamp_ns: int, depth: FloatArray) -> None:
        """Remember a depth (H, W) in metres; the oldest is forgotten."""
        _remember(self._depths, stamp_ns, depth)

    def add_pose(self, stamp_ns: int, T_world_cam: Array) -> None:
        """Remember a camera pose (4, 4), OpenCV axes; the oldest is forgotten."""
        _remember(self._poses, stamp_ns, T_world_cam)

    def add_frame(self, frame: Frame, arrived: float) -> None:
        """Have a frame wait; ``arrived`` is the monotonic time of its message."""
        self._waiting.append(_Waiting(frame, arrived, time.monotonic() + self._wait_s))

    def ready(self) -> Iterator[tuple[Frame, float] | None]:
        """Yield, in order, each frame that has its truth (with its arrival), and None for each that waited too long."""
        while self._waiting:
            head = self._waiting[0]
            stamp = head.frame.stamp_ns
            depth, pose = self._depths.get(stamp), self._poses.get(stamp)
            if depth is not None and pose is not None and depth.shape == head.frame.image.shape[:2]:
                self._waiting.popleft()
                del self._depths[stamp], self._poses[stamp]
                self._used = True
                yield replace(head.frame, truth=Truth(depth, pose)), head.arrived
            elif time.monotonic() > head.deadline:
                self._waiting.popleft()
                yield None
            else:
                return

    def explain(self) -> str:
        """What is missing, for the last frames that had to go without."""
        if not self._depths and not self._used:
            return "no truth/depth has arrived"
        if not self._poses and not self._used:
            return "no truth/pose has arrived"
        if not self._depths or not self._poses:
            return "truth/depth or truth/pose does not come with every image"
        return "the stamps or the size of truth/depth and truth/pose do not equal those of the images"

    def forget_frames(self) -> int:
        """Let go of the frames that wait, not of truth, which may be that of the next frame; returns how many."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def __len__(self) -> int:
        """Number of frames that wait."""
        return len(self._waiting)


def _remember(store: OrderedDict[int, Any], stamp_ns: int, value: Any) -> None:
    store[stamp_ns] = value
    while len(store) > _KEPT:
        store.popitem(last=False)

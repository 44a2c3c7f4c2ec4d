"""When which depth goes out: one for each stamp, in order, and never before the odometry of a frame that waits.

A frame's depth is warped from the latest prediction and goes out right after its pose.  Its own prediction is better,
but hundreds of milliseconds later, when what listens (voxel layers, nvblox, depth_image_proc) has gone on to newer
stamps: it goes out where nothing of that stamp or a newer one has gone out before, and otherwise shows in the frames
that follow.  That is so for the first prediction, and where tracking is weak, so that nothing is warped.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from da3_ros.config import Config
from da3_ros.ros.body import Body
from da3_ros.ros.counters import Stopwatch
from da3_ros.slam.sight import Sight
from da3_ros.types import DepthMap


class DepthOutputs(Protocol):
    """Where depth goes out; called on the tracker's thread."""

    def wants_depth(self) -> bool:
        """Whether somebody listens to depth or what comes with it."""
        ...

    def depth(self, body: Body, depth: DepthMap) -> None:
        """Publish depth, its camera_info, confidence and preview."""
        ...


class DepthDesk:
    """Sights that wait to be warped, the oldest first, and the stamp of what went out last."""

    def __init__(self, config: Config, outputs: DepthOutputs, stopwatch: Stopwatch) -> None:
        """Start with nothing to do."""
        self._every_frame = config.depth.every_frame
        self._outputs, self._stopwatch = outputs, stopwatch
        self._sights: deque[tuple[Body, Sight]] = deque(maxlen=config.node.mailbox)
        self._last_ns = -1

    @property
    def wanted(self) -> bool:
        """Whether sights are worth adding."""
        return self._every_frame and self._outputs.wants_depth()

    @property
    def waiting(self) -> bool:
        """Whether there is work."""
        return bool(self._sights)

    @property
    def full(self) -> bool:
        """The next to be added makes the oldest give way."""
        return len(self._sights) == self._sights.maxlen

    def add(self, body: Body, sight: Sight | None) -> None:
        """Have depth warped to a frame; when too many wait the oldest gives way."""
        if sight is not None:
            self._sights.append((body, sight))

    def work(self) -> None:
        """Warp the oldest and let it go out."""
        body, sight = self._sights.popleft()
        if sight.stamp_ns <= self._last_ns:
            return
        begin = time.monotonic()
        depth = sight.depth_map()
        self._stopwatch.add("warp", time.monotonic() - begin)
        self._publish(body, depth)

    def predicted(self, body: Body, depth: DepthMap) -> None:
        """Let a prediction go out, after what is older, unless something as new went out before."""
        while self._sights and self._sights[0][1].stamp_ns < depth.stamp_ns:
            self.work()
        if depth.stamp_ns > self._last_ns:
            self._publish(body, depth)

    def restart(self) -> None:
        """Stamps may begin anew; what waits is dropped."""
        self._sights.clear()
        self._last_ns = -1

    def _publish(self, body: Body, depth: DepthMap) -> None:
        self._last_ns = depth.stamp_ns
        begin = time.monotonic()
        self._outputs.depth(body, depth)
        self._stopwatch.add("depth", time.monotonic() - begin)

"""Resident memory and time over a long run: after the start neither must grow with the number of frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.mapping.map import Map
from da3_ros.predictors import open_predictor
from da3_ros.slam.slam import Slam
from da3_ros.sources import open_source

SPEC = "world:1?frames={frames}&size=160x120"
WARM_UP = 2000  # frames until caches, the first submaps and the allocator have settled
# Old views are kept up to a budget, which counts the truth that simulated views carry; they fill this one early.
BUDGET_MB = 16
EVERY = 250


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident memory over a run."""

    frames: list[int]
    rss_mb: list[float]
    frame_ms: list[float]  # CPU time per frame since the sample before, rendering left out

    @property
    def percent(self) -> float:
        """From the end of the warm-up to the end, each taken as the largest of three samples."""
        start, end = (max(self.rss_mb[:3]), max(self.rss_mb[-3:]))
        return 100 * (end / start - 1)

    @property
    def time_percent(self) -> float:
        """Of time per frame, from the median of the first third to that of the last."""
        third = max(len(self.frame_ms) // 3, 1)
        return 100 * float(np.median(self.frame_ms[-third:]) / np.median(self.frame_ms[:third]) - 1)


def run(frames: int, say: Callable[[str], None]) -> Growth:
    """Measure the path of a recording: source, predictor, SLAM and map in one process."""
    config = configuration.updated(Config(), {"simulated.width": 160, "loops.memory_mb": BUDGET_MB})
    predictor, slam, world_map = open_predictor(config), Slam(config), Map(config.map)
    growth, process, busy = Growth([], [], []), psutil.Process(), 0.0
    for count, frame in enumerate(open_source(SPEC.format(frames=frames)), 1):
        begin = time.process_time()
        _, integrations = slam.process(frame, predictor)
        for integration in integrations:
            for keyframe in integration.fused:
                world_map.insert(keyframe)
            world_map.move(integration.anchors)
        busy += time.process_time() - begin
        if count >= WARM_UP and count % EVERY == 0:
            growth.frames.append(count)
            growth.rss_mb.append(process.memory_info().rss / 2**20)
            growth.frame_ms.append(1e3 * busy / (EVERY if growth.frame_ms else count))
            busy = 0.0
            used = f"{growth.rss_mb[-1]:>9.1f} MB  {growth.frame_ms[-1]:>6.1f} ms per frame"
            say(f"{count:>7} frames {used}  {len(world_map):>9,} map points")
    slope = float(np.polyfit(growth.frames, growth.rss_mb, 1)[0]) if len(growth.frames) > 1 else 0.0
    memory = f"{growth.percent:.2f} % ({1e3 * slope:.2f} MB per 1,000 frames)"
    say(f"growth after {WARM_UP} frames: memory {memory}, time per frame {growth.time_percent:.1f} %")
    return growth

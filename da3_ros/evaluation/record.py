"""Everything a report needs of one run, offline or live."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from da3_ros.evaluation.depths import DepthCheck
from da3_ros.evaluation.latency import Histogram
from da3_ros.evaluation.map_poses import PoseCheck
from da3_ros.evaluation.steps import StepCheck
from da3_ros.types import FloatArray, ImageArray, Trajectory, WindowRecord


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One frame to look at."""

    frame_id: int
    stamp_ns: int
    image: ImageArray  # (H, W, 3) RGB
    depth: FloatArray  # (h, w) z-depth in map units, NaN invalid
    confidence: FloatArray  # (h, w) in [0, 1)
    truth_depth: FloatArray | None = None  # (H', W') z-depth in metres, NaN invalid


@dataclass(slots=True, eq=False)
class Record:
    """What a run did.  Trajectories hold ``T_map_cam``; the ground truth holds camera poses in metres."""

    title: str
    source: str
    predictor: str
    method: str
    mode: Literal["offline", "live"]
    trajectory: Trajectory  # final: with all corrections
    causal: Trajectory  # as known right after each frame
    truth: Trajectory | None = None
    windows: list[WindowRecord] = field(default_factory=list)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)  # Latency.summary()
    latency_histograms: dict[str, Histogram] = field(default_factory=dict)  # Latency.histograms(), optional
    drops: dict[str, int] = field(default_factory=dict)  # cause -> number
    counts: dict[str, int] = field(default_factory=dict)
    """frames, keyframes, submaps, windows, breaks_detected, breaks_repaired, segments, loops, map_points"""
    samples: list[Sample] = field(default_factory=list)
    depth: dict[str, list[DepthCheck]] = field(default_factory=dict)  # warped, predicted; where the truth is known
    steps: list[StepCheck] = field(default_factory=list)  # of odometry, where the truth is known
    poses: list[PoseCheck] = field(default_factory=list)  # in the map, where the truth is known
    map_points: FloatArray = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # (N, 3) map frame
    map_colors: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))  # (N, 3) RGB
    metric: bool = True  # map units are metres
    config_text: str = ""
    notes: list[str] = field(default_factory=list)

"""Pose averaging: windows are joined by the mean of their shared keyframes' poses, and nothing else.

As AMB3R does it between chunks: one scale from the depth of the shared views, then the mean of the rigid transforms
that bring each shared view to its place, weighted by confidence.  No outlier rejection, no prior on the scale, no
graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.config import SeamConfig
from da3_ros.geometry import robust, se3
from da3_ros.geometry.sim3 import Sim3
from da3_ros.slam.seam import Seam, Shared


def join(shared: Sequence[Shared], config: SeamConfig) -> Seam:
    """Align by poses; same inputs and same output as ``slam.seam.join``."""
    ratios, weights = [], []
    for s in shared:
        if s.keyframe.depth is None or s.depth is None:
            continue
        weight = s.keyframe.depth.confidence * s.depth.confidence
        difference = s.keyframe.depth.log - s.depth.log
        keep = np.isfinite(difference) & (weight > config.min_confidence**2)
        ratios.append(difference[keep].astype(float))
        weights.append(weight[keep].astype(float))
    if not ratios:
        return Seam(np.nan, np.nan, np.nan, Sim3.identity(), np.inf, np.inf)
    log_scale = robust.weighted_median(np.concatenate(ratios), np.concatenate(weights))
    scale = float(np.exp(log_scale))
    ours = np.stack([s.keyframe.T_chain_cam for s in shared])
    theirs = np.stack([s.T_win_cam for s in shared])
    theirs[:, :3, 3] *= scale
    moves = ours @ se3.inverse(theirs)
    confidence = np.array([1.0 if s.depth is None else max(float(s.depth.confidence.mean()), 1e-6) for s in shared])
    rotation = se3.chordal_mean(moves[:, :3, :3], confidence)
    translation = confidence @ moves[:, :3, 3] / confidence.sum()
    return Seam(log_scale, 0.01, 0.0, Sim3(scale, rotation, translation), 0.0, 0.0)

"""Free Sim3 chaining: every window is aligned by Umeyama's method on the shared keyframes' point maps.

What chunked feed-forward systems do between chunks, without their later loop closure: scale, rotation and translation
from one least-squares fit of confidence-weighted points, no prior on the scale, no check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.config import SeamConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import umeyama
from da3_ros.slam.keyframe import Depth
from da3_ros.slam.seam import Seam, Shared

_SAMPLE = 2  # every second pixel in both axes, as our seam


def join(shared: Sequence[Shared], config: SeamConfig) -> Seam:
    """Align by points; same inputs and same output as ``slam.seam.join``."""
    ours, theirs, weights = [], [], []
    for s in shared:
        if s.keyframe.depth is None or s.depth is None:
            continue
        weight = s.keyframe.depth.confidence * s.depth.confidence
        keep = np.zeros(weight.shape, bool)
        keep[::_SAMPLE, ::_SAMPLE] = True
        keep &= (s.keyframe.depth.confidence >= config.min_confidence) & (s.depth.confidence >= config.min_confidence)
        ours.append(points_of(s.keyframe.depth, s.keyframe.T_chain_cam, keep))
        theirs.append(points_of(s.depth, s.T_win_cam, keep))
        weights.append(weight[keep].astype(float))
    S = umeyama(np.concatenate(theirs), np.concatenate(ours), weights=np.concatenate(weights))
    return Seam(float(np.log(S.scale)), 0.01, 0.0, S, 0.0, 0.0)


def points_of(depth: Depth, T_frame_cam: Array, keep: np.ndarray) -> Array:
    """Points (N, 3) of the pixels of a view that are kept, (h, w), in the frame of its pose."""
    v, u = np.nonzero(keep)
    pixels = np.stack([u, v], axis=1).astype(float)
    return se3.transform(T_frame_cam, depth.camera.unproject(pixels, np.exp(depth.log[keep].astype(float))))

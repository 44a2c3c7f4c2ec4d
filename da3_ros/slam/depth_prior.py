"""What measured depth says of the chain's unit: one claim per keyframe that has any."""

from __future__ import annotations

import numpy as np

from da3_ros.config import Config
from da3_ros.geometry.depth_alignment import DepthScale, align, at_pixels, cells_of
from da3_ros.slam.keyframe import Depth
from da3_ros.types import DepthPoints


def measure(points: DepthPoints, size: tuple[int, int], depth: Depth, config: Config) -> DepthScale:
    """log(metres per chain unit) by one keyframe.

    The same pixels count as in a seam: confident ones that lie off depth edges.

    Args:
        points: what was measured.
        size: width and height of the image that their pixels are in.
        depth: predicted, in chain units.
        config: which pixels count, and the least sigma.

    Raises:
        ValueError: the points say nothing of it; one clause.
    """
    if not len(points.depth):
        raise ValueError("it has no valid depth between 0.1 and 200 m (metres, or millimetres as 16UC1)")
    rows, columns = at_pixels(points.pixels, size, depth.log.shape)
    log = depth.log[rows, columns]
    kept = np.isfinite(log) & (depth.confidence[rows, columns] >= config.seam.min_confidence)
    kept &= ~depth.edges(config.seam.edge_ratio)[rows, columns]
    cells = cells_of(points.pixels[kept], size)
    found = align(np.exp(log[kept]), points.depth[kept], cells, shift=config.prior.depth_shift)
    sigma = float(np.hypot(found.sigma, config.prior.depth_sigma))
    return DepthScale(found.log_scale, sigma, found.points, found.cells)

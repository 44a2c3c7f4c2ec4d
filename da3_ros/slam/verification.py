"""Whether two views show the same place, and how they lie to each other.

A joint prediction of views of both sides is asked three things that a wrong one does not answer alike: whether the
depths of the two views agree where one is seen from the other, whether either side fits what the chain knows of it, and
whether features matched between the two images, with depth from the map, give the same pose on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from da3_ros.config import LoopConfig, SeamConfig
from da3_ros.geometry import robust, se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3
from da3_ros.slam.graph import Loop
from da3_ros.slam.keyframe import Depth
from da3_ros.slam.seam import Seam, Shared, join
from da3_ros.types import ImageArray

_SAME_DEPTH = 0.1  # log ratio of depths that agree
_HALF = 0.5  # of what is seen from the other view must agree
_FEATURES = {"nfeatures": 1000, "scaleFactor": 1.2, "nlevels": 6, "fastThreshold": 10}  # of ORB
_UNIQUE = 0.8  # a match must be so much closer than the second best (Lowe, 2004)
_REPROJECTION_PX = 3.0
_TURN_DEG = 5.0  # between the pose that is predicted and that of the features
_SHIFT = 0.15  # likewise, share of the median depth
# 1-sigma of how a predicted window puts two views to each other, at least.
_LEAST_TURN = np.deg2rad(0.15)
_LEAST_SHIFT = 0.006  # share of the distance, and half of it of the median depth
_LEAST_STRETCH = 0.01  # log scale


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The views of one side, which lie close together on the chain; depths are thinned."""

    shared: Sequence[Shared]
    chosen: int  # which of them is compared with the other side
    gray: ImageArray  # (h, w) image of that one
    camera: Pinhole  # at the size of the image


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a comparison found."""

    loop: Loop | None  # where it holds
    reason: str  # why it does not; empty where it does


def compare(old: Side, new: Side, loops: LoopConfig, seam: SeamConfig, break_log: float) -> Finding:
    """Verify that two sides show the same place, and measure how they lie to each other."""
    seams = [join(side.shared, seam) for side in (old, new)]
    for found, who in zip(seams, ("old", "new"), strict=True):
        if not (np.isfinite(found.log_scale) and found.sane and found.spread < break_log):
            return Finding(None, f"the {who} views do not lie as they do on the chain")
    a, b = old.shared[old.chosen], new.shared[new.chosen]
    assert a.depth is not None
    assert b.depth is not None
    reach = min(a.depth.median(), b.depth.median())
    distance = float(np.linalg.norm(a.T_win_cam[:3, 3] - b.T_win_cam[:3, 3])) / reach
    if distance > loops.max_distance:
        return Finding(None, f"the views are {distance:.2f} of the median depth apart")
    T_a_b = se3.inverse(a.T_win_cam) @ b.T_win_cam
    share = max(_agreement(a.depth, b.depth, se3.inverse(T_a_b)), _agreement(b.depth, a.depth, T_a_b))
    if share < loops.min_agreement:
        return Finding(None, f"{100 * share:.0f} % of the depths agree")
    S_a_b = relative(old, new, seams[0], seams[1])
    inliers, T_matched = match(old, new, loops.min_inliers)
    if inliers < loops.min_inliers:
        return Finding(None, f"{inliers} features fit")
    turn = np.rad2deg(se3.rotation_angle(T_matched[:3, :3].T @ S_a_b.rotation))
    assert a.keyframe.depth is not None
    shift = float(np.linalg.norm(T_matched[:3, 3] - S_a_b.translation)) / a.keyframe.depth.median()
    if turn > _TURN_DEG or shift > _SHIFT:
        return Finding(None, f"features say otherwise by {turn:.1f} deg and {shift:.2f} of the median depth")
    return Finding(Loop(a.keyframe.index, b.keyframe.index, S_a_b, _sigma(old, new, seams, S_a_b)), "")


def relative(old: Side, new: Side, S_old_win: Seam, S_new_win: Seam) -> Sim3:
    """``S_a_b`` of the two chosen views in chain units of either side, over all views of the sides."""
    T_a, T_b = (side.shared[side.chosen].keyframe.T_chain_cam for side in (old, new))
    across = S_old_win.S_chain_win @ S_new_win.S_chain_win.inverse()
    return Sim3.from_rigid(se3.inverse(T_a)) @ across @ Sim3.from_rigid(T_b)


def match(old: Side, new: Side, fewest: int) -> tuple[int, Array]:
    """Pose ``T_a_b`` (4, 4) in chain units of the old side by matched features, and how many fit it.

    ORB finds as many as SIFT on views that lie so close together, in a tenth of the time.
    """
    keyframe = old.shared[old.chosen].keyframe
    assert keyframe.depth is not None
    detector, matcher = cv2.ORB_create(**_FEATURES), cv2.BFMatcher(cv2.NORM_HAMMING)
    (points_a, described_a), (points_b, described_b) = (detector.detectAndCompute(s.gray, None) for s in (old, new))
    if min(len(points_a), len(points_b)) < 2:
        return 0, np.eye(4)
    pairs = [m for m in matcher.knnMatch(described_a, described_b, k=2) if len(m) == 2]
    good = [m for m, second in pairs if m.distance < _UNIQUE * second.distance]
    pixels_a = np.array([points_a[m.queryIdx].pt for m in good]).reshape(-1, 2)
    pixels_b = np.array([points_b[m.trainIdx].pt for m in good]).reshape(-1, 2)
    log_z = _sampled(keyframe.depth, pixels_a, old.camera)
    known = np.isfinite(log_z)
    if known.sum() < fewest:
        return 0, np.eye(4)
    points = old.camera.unproject(pixels_a[known], np.exp(log_z[known]))
    try:
        ok, turn, shift, inliers = cv2.solvePnPRansac(
            points, pixels_b[known], new.camera.matrix, None, iterationsCount=200,
            reprojectionError=_REPROJECTION_PX, flags=cv2.SOLVEPNP_EPNP,
        )  # fmt: skip
    except cv2.error:  # points that span no space
        return 0, np.eye(4)
    if not ok or inliers is None:
        return 0, np.eye(4)
    return len(inliers), se3.inverse(se3.make(se3.exp_so3(turn.ravel()), shift.ravel()))


def _agreement(depth: Depth, other: Depth, T_other_cam: Array) -> float:
    """Share of the confident pixels of one view that the other sees at the same depth; 0 where much disagrees."""
    v, u = np.nonzero((depth.confidence > _confident(depth)) & np.isfinite(depth.log))
    if not len(u):
        return 0.0
    pixels = np.stack([u, v], axis=1).astype(float)
    points = se3.transform(T_other_cam, depth.camera.unproject(pixels, np.exp(depth.log[v, u].astype(float))))
    seen = _sampled(other, other.camera.project(points), other.camera)
    with np.errstate(invalid="ignore", divide="ignore"):
        fits = np.abs(np.log(points[:, 2]) - seen) < _SAME_DEPTH
    inside = np.isfinite(seen)
    return float(fits.mean()) if fits.sum() > _HALF * inside.sum() else 0.0


def _confident(depth: Depth) -> float:
    """Pixels as confident as half of them."""
    valid = depth.confidence[np.isfinite(depth.log)]
    return 0.999 * float(np.median(valid)) if valid.size else 1.0


def _sampled(depth: Depth, pixels: Array, camera: Pinhole) -> Array:
    """Log depth (N,) at the nearest pixel; NaN outside, behind the camera or where unknown.

    Args:
        depth: of one view.
        pixels: (N, 2) at the size of ``camera``, NaN behind it.
        camera: of the pixels; shows what the depth shows.
    """
    height, width = depth.log.shape
    with np.errstate(invalid="ignore"):
        x = (pixels[:, 0] - camera.cx) * (depth.camera.fx / camera.fx) + depth.camera.cx
        y = (pixels[:, 1] - camera.cy) * (depth.camera.fy / camera.fy) + depth.camera.cy
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    out = np.full(len(pixels), np.nan)
    column, row = np.rint(x[inside]).astype(int), np.rint(y[inside]).astype(int)
    out[inside] = depth.log[row, column]
    return out


def _sigma(old: Side, new: Side, seams: Sequence[Seam], S_a_b: Sim3) -> Array:
    """1-sigma of the measurement: rotation (rad per axis), translation (units of the new side), log scale."""
    count = min(len(old.shared), len(new.shared))
    depth = new.shared[new.chosen].keyframe.depth
    assert depth is not None
    reach, away = depth.median(), float(np.linalg.norm(S_a_b.translation)) / S_a_b.scale
    turn, shift, stretch = np.linalg.norm([(s.rotation_deg, s.centre, s.sigma) for s in seams], axis=0)
    each = robust.MEDIAN_LENGTH * np.sqrt(count)  # the views of a side are off one by one, and their mean less
    turn, shift = np.deg2rad(turn) / each, shift * reach / each
    least = _LEAST_SHIFT * (away + 0.5 * reach)
    return np.hypot([turn, shift, stretch], [_LEAST_TURN, least, _LEAST_STRETCH])

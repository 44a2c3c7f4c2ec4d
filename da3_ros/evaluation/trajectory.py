"""Absolute and relative trajectory errors after Sim3 and SE3 alignment, the scale and its drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import EvaluationError
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3, umeyama
from da3_ros.types import Trajectory

Indices = NDArray[np.int64]

MAX_DIFFERENCE_NS = 20_000_000  # pairs farther apart in time are no pairs (TUM RGB-D tools: 0.02 s)
MIN_POSES = 3  # a similarity needs three points
STANDING_M = 1e-3  # RMS spread of the true positions below which the camera stood and scale has no meaning
PIECE = 0.1  # share of the path over which the local scale is measured
MAX_PIECES = 200


@dataclass(frozen=True, slots=True)
class TrajectoryMetrics:
    """Errors of one trajectory against ground truth; NaN where a quantity is not defined for this run."""

    frames_matched: int
    coverage: float  # share of the ground-truth poses that have an estimate, 0..1
    path_length_m: float  # of the whole ground truth
    ate_sim3_m: float  # RMSE of the positions after Sim3 alignment
    ate_se3_m: float  # RMSE of the positions after SE3 alignment: scale errors count
    ate_max_m: float  # largest position error after Sim3 alignment
    ate_rot_deg: float  # RMSE of the orientations after the best constant rotation
    scale: float  # estimated size / true size: 1 = metric, 1.02 = estimated 2 % too large; NaN: stood still
    scale_drift: float  # largest |local scale / median local scale - 1| over pieces of 10 % of the path
    rpe_trans_m: float  # RMSE of the frame-to-frame translation, estimate scaled by the Sim3 alignment
    rpe_rot_deg: float  # RMSE of the frame-to-frame rotation
    rpe_trans_per_m: float  # RMSE of the translation over 1 m of path, percent of that path; NaN below 1 m


@dataclass(frozen=True, slots=True, eq=False)
class TrajectoryEvaluation:
    """The metrics and the per-frame series they come from; N matched frames in time order."""

    metrics: TrajectoryMetrics
    S_truth_est: Sim3  # the alignment behind ate_sim3_m; scale 1 for a standing camera
    stamps_ns: NDArray[np.int64]  # (N,) of the estimate
    positions: Array  # (N, 3) estimated camera centres in the truth's frame, metres
    truth_positions: Array  # (N, 3) metres
    errors_m: Array  # (N,) position errors after Sim3 alignment
    errors_se3_m: Array  # (N,) position errors after SE3 alignment
    errors_rot_deg: Array  # (N,) orientation errors
    index_estimate: Indices  # (N,) into the estimate
    index_truth: Indices  # (N,) into the truth
    local_scale_ns: NDArray[np.int64]  # (M,) middle of each piece
    local_scale: Array  # (M,) estimated size / true size of the piece; empty for a standing camera


def as_trajectory(poses: Sequence[tuple[int, Array]]) -> Trajectory | None:
    """Poses (4, 4) by stamp, ns, in time order, as a trajectory; None where there are none."""
    if not poses:
        return None
    stamps, T = zip(*poses, strict=True)
    return Trajectory(np.array(stamps, np.int64), np.stack(T))


def associate(
    estimate: Trajectory, truth: Trajectory, max_difference_ns: int = MAX_DIFFERENCE_NS
) -> tuple[Indices, Indices]:
    """Pair poses that are each other's nearest in time and at most ``max_difference_ns`` apart.

    Mutual nearest neighbours are one-to-one and keep the order of time, also where a stamp occurs twice (its
    first pose is taken).  Of two poses equally near, the truth before the estimate wins.

    Returns:
        Indices (N,) into the estimate and (N,) into the truth, both increasing.
    """
    est, ref = estimate.stamps_ns, truth.stamps_ns
    if len(est) == 0 or len(ref) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    to_truth = _nearest(est, ref, earlier_on_tie=True)
    to_estimate = _nearest(ref, est, earlier_on_tie=False)
    index = np.arange(len(est))
    mutual = to_estimate[to_truth] == index
    near = np.abs(est - ref[to_truth]) <= max_difference_ns
    keep = index[mutual & near]
    return keep, to_truth[keep]


def evaluate(
    estimate: Trajectory, truth: Trajectory, max_difference_ns: int = MAX_DIFFERENCE_NS
) -> TrajectoryEvaluation:
    """Compare camera poses with ground-truth camera poses (metres) of the same moments.

    The ground truth is expected at the stamps of the frames; coverage counts its distinct stamps.  Alignment
    is Umeyama's over all matched positions (Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems,
    IROS 2012).  For a standing camera (true positions spread less than 1 mm) the size is not observable: scale
    and its drift are NaN and both ATE are taken after SE3 alignment.

    Raises:
        EvaluationError: a pose is not finite, stamps run backwards, the two do not overlap in time, or fewer
            than three poses match.
    """
    _check(estimate, "the estimated trajectory")
    _check(truth, "the ground truth")
    index_est, index_ref = associate(estimate, truth, max_difference_ns)
    _check_overlap(estimate, truth, len(index_est), max_difference_ns)
    T_est, T_ref = estimate.T_map_cam[index_est], truth.T_map_cam[index_ref]
    p_est, p_ref = T_est[:, :3, 3], T_ref[:, :3, 3]
    stamps = estimate.stamps_ns[index_est]

    rigid = umeyama(p_est, p_ref, with_scale=False)
    standing = _spread(p_ref) < STANDING_M
    S_truth_est = rigid if standing else umeyama(p_est, p_ref)
    aligned = S_truth_est.act(p_est)
    errors = np.linalg.norm(aligned - p_ref, axis=1)
    errors_se3 = np.linalg.norm(rigid.act(p_est) - p_ref, axis=1)
    errors_rot = _rotation_errors_deg(T_est, T_ref)

    path = path_lengths(p_ref)
    middles, local = (np.zeros(0, int), np.zeros(0)) if standing else _local_scales(p_est, p_ref, path)
    scaled = T_est.copy()
    scaled[:, :3, 3] *= S_truth_est.scale
    steps = _steps(stamps)
    rpe_trans, rpe_rot = _relative_errors(scaled, T_ref, steps, steps + 1)
    per_metre = _errors_per_metre(scaled, T_ref, path)
    metrics = TrajectoryMetrics(
        frames_matched=len(stamps),
        coverage=len(stamps) / len(np.unique(truth.stamps_ns)),
        path_length_m=float(path_lengths(truth.T_map_cam[:, :3, 3])[-1]),
        ate_sim3_m=_rms(errors),
        ate_se3_m=_rms(errors_se3),
        ate_max_m=float(errors.max()),
        ate_rot_deg=_rms(errors_rot),
        scale=float("nan") if standing else _scale(S_truth_est, p_est),
        scale_drift=float(np.abs(local / np.median(local) - 1).max()) if len(local) else float("nan"),
        rpe_trans_m=_rms(rpe_trans),
        rpe_rot_deg=_rms(rpe_rot),
        rpe_trans_per_m=_rms(per_metre),
    )
    return TrajectoryEvaluation(
        metrics,
        S_truth_est,
        stamps,
        aligned,
        p_ref,
        errors,
        errors_se3,
        errors_rot,
        index_est,
        index_ref,
        stamps[middles],
        local,
    )


def path_lengths(positions: Array) -> Array:
    """Length of path (N,) travelled up to each of the positions (N, 3); the first is 0."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])


def _nearest(queries: NDArray[np.int64], sorted_values: NDArray[np.int64], earlier_on_tie: bool) -> Indices:
    after = np.searchsorted(sorted_values, queries)
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(sorted_values) - 1)
    to_before, to_after = np.abs(queries - sorted_values[before]), np.abs(sorted_values[after] - queries)
    choose_before = to_before <= to_after if earlier_on_tie else to_before < to_after
    return np.where(choose_before, before, after)


def _check(trajectory: Trajectory, name: str) -> None:
    stamps, poses = trajectory.stamps_ns, trajectory.T_map_cam
    if len(stamps) == 0:
        raise EvaluationError(f"{name} is empty; there is nothing to compare")
    if poses.shape != (len(stamps), 4, 4):
        raise EvaluationError(f"{name} has {len(stamps)} stamps but poses of shape {poses.shape}")
    bad = np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2)))
    if len(bad):
        raise EvaluationError(
            f"{name} has {len(bad)} poses that are not finite, the first at index {bad[0]}; remove them"
        )
    back = np.flatnonzero(np.diff(stamps) < 0)
    if len(back):
        raise EvaluationError(f"the stamps of {name} run backwards after index {back[0]}; sort it by time")


def _check_overlap(estimate: Trajectory, truth: Trajectory, matched: int, max_difference_ns: int) -> None:
    if matched >= MIN_POSES:
        return
    if matched > 0:
        raise EvaluationError(
            f"only {matched} estimated poses match the ground truth in time and {MIN_POSES} are needed; use more frames"
        )
    gap = max(truth.stamps_ns[0] - estimate.stamps_ns[-1], estimate.stamps_ns[0] - truth.stamps_ns[-1])
    where = f"lie {gap / 1e9:.3f} s apart" if gap > 0 else "interleave without meeting"
    raise EvaluationError(
        f"no estimated pose is within {max_difference_ns / 1e6:g} ms of the ground truth, the two {where}; "
        "check that both use the same clock"
    )


def _spread(points: Array) -> float:
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _scale(S_truth_est: Sim3, p_est: Array) -> float:
    if _spread(p_est) <= 1e-15:  # umeyama leaves the scale of a single point at 1
        return 0.0
    return 1.0 / S_truth_est.scale if S_truth_est.scale > 0 else float("nan")


def _rotation_errors_deg(T_est: Array, T_ref: Array) -> Array:
    """Angles after the constant rotation that fits the orientations best.

    The rotation of the position alignment is not used: on a straight path it is free about one axis.
    """
    R_truth_est = se3.chordal_mean(T_ref[:, :3, :3] @ np.swapaxes(T_est[:, :3, :3], 1, 2))
    residual = np.swapaxes(T_ref[:, :3, :3], 1, 2) @ R_truth_est @ T_est[:, :3, :3]
    return np.rad2deg(se3.rotation_angle(residual))


def _local_scales(p_est: Array, p_ref: Array, path: Array) -> tuple[Indices, Array]:
    """Scale of each sliding piece and the index of its middle.

    The piece of the truth is aligned to the piece of the estimate, because a regression on the noise-free side
    is the unbiased one.  Pieces that hardly leave the spot (less than a quarter of the median spread) are left
    out.
    """
    starts = np.flatnonzero(path <= (1 - PIECE) * path[-1])
    starts = starts[np.unique(np.linspace(0, len(starts) - 1, MAX_PIECES).astype(int))]
    ends = np.searchsorted(path, path[starts] + PIECE * path[-1])
    ends = np.minimum(np.maximum(ends, starts + 4), len(path) - 1)  # five poses at least
    spreads = np.array([_spread(p_ref[a : b + 1]) for a, b in zip(starts, ends, strict=True)])
    keep = (spreads >= 0.25 * np.median(spreads)) & (spreads > 0)
    pieces = [(a, b) for a, b, good in zip(starts, ends, keep, strict=True) if good]
    scales = [umeyama(p_ref[a : b + 1], p_est[a : b + 1]).scale for a, b in pieces]
    middles = [(a + b) // 2 for a, b in pieces]
    local = np.array(scales, float)
    positive = local > 0
    return np.array(middles, int)[positive], local[positive]


def _steps(stamps_ns: NDArray[np.int64]) -> Indices:
    """First frames of neighbouring pairs; steps over a gap (more than twice the median step) do not count."""
    step = np.diff(stamps_ns)
    return np.flatnonzero(step <= 2 * np.median(step))


def _relative_errors(T_est: Array, T_ref: Array, first: Indices, second: Indices) -> tuple[Array, Array]:
    """Translation and rotation (degrees) by which the motions first -> second differ."""
    motion_est = se3.inverse(T_est[first]) @ T_est[second]
    motion_ref = se3.inverse(T_ref[first]) @ T_ref[second]
    error = se3.inverse(motion_ref) @ motion_est
    return np.linalg.norm(error[:, :3, 3], axis=1), np.rad2deg(se3.rotation_angle(error[:, :3, :3]))


def _errors_per_metre(T_est: Array, T_ref: Array, path: Array) -> Array:
    first = np.flatnonzero(path <= path[-1] - 1.0)
    if len(first) == 0:
        return np.zeros(0)
    second = np.minimum(np.searchsorted(path, path[first] + 1.0), len(path) - 1)
    translation, _ = _relative_errors(T_est, T_ref, first, second)
    return 100.0 * translation / (path[second] - path[first])


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")

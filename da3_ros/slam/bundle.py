"""Bundle adjustment with predicted depth as a prior.

Unknown are the poses of a few keyframes, the points they see and one log scale per keyframe's depth.  Residuals, each
divided by its sigma:

    reprojection       pi(T_cam_chain X) - x                    Cauchy
    depth              log z - log D(x) - lambda_k              Cauchy
    scale of depth     lambda_k
    relative pose      log((T_cam_i_chain T_chain_cam_j) T_i_j^-1)       Cauchy

Levenberg-Marquardt; the points are eliminated (Schur complement), so that what is solved has seven rows per keyframe
(Triggs et al., Bundle Adjustment - A Modern Synthesis, 2000, section 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array

_TWIST = np.arange(6)
_POSE = 7  # unknowns per keyframe: twist (rotation, translation) of T_cam_chain from the left, then lambda
_CAUCHY = 2.0  # sigma; follows an outlier less the farther it lies off
_NEAR = 0.02  # a point nearer than this share of the scene's size, or behind the camera, is not believed
_WRONG = 1e3  # sigma, where a point is not in front of the camera
_FIRST_DAMPING, _MOST_DAMPING = 1e-4, 1e4
_DONE = 1e-3  # relative decrease of the cost that is not worth another round

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Where keyframes see points; M of them, ordered by keyframe."""

    keyframe: Index  # (M,)
    point: Index  # (M,)
    direction: Array  # (M, 2) x/z, y/z
    direction_sigma: Array  # (M,)
    log_depth: Array  # (M,) predicted log z, NaN where there is none
    depth_sigma: Array  # (M,)


@dataclass(frozen=True, slots=True, eq=False)
class Between:
    """Measured poses of keyframes in other keyframes; P of them."""

    first: Index  # (P,)
    second: Index  # (P,)
    T_first_second: Array  # (P, 4, 4)
    sigma: Array  # (P, 6) of rotation, rad, and translation, chain units

    @classmethod
    def none(cls) -> Between:
        """Nothing measured."""
        return cls(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros((0, 4, 4)), np.zeros((0, 6)))

    def among(self, rows: Sequence[int]) -> Between:
        """Those between some of the keyframes, which are numbered anew."""
        place = {row: i for i, row in enumerate(rows)}
        kept = np.array([a in place and b in place for a, b in zip(self.first, self.second, strict=True)], bool)
        first, second = (np.array([place[i] for i in ends[kept]], np.intp) for ends in (self.first, self.second))
        return Between(first, second, self.T_first_second[kept], self.sigma[kept])

    def joined(self, other: Between) -> Between:
        """Both, these first."""
        names = self.__dataclass_fields__
        return Between(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The unknowns, and all that was measured of them."""

    T_cam_chain: Array  # (K, 4, 4)
    free: NDArray[np.bool_]  # (K,) whose pose may move; the others hold position, direction and scale
    scale_sigma: Array  # (K,) of lambda
    points: Array  # (L, 3) in the chain's frame
    seen: Observations
    between: Between
    log_scale: Array  # (K,) lambda


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """The minimum."""

    T_cam_chain: Array  # (K, 4, 4)
    log_scale: Array  # (K,) what is to be added to the log depth of each keyframe
    points: Array  # (L, 3)
    point_covariance: Array  # (L, 3, 3) given the poses
    direction_error: Array  # (M,) reprojection error in sigma
    between_error: Array  # (P,) error of the measured relative poses in sigma, root of the mean square of six


@dataclass(frozen=True, slots=True, eq=False)
class _Reduced:
    """Normal equations S x = -b of what is left when the points are eliminated, and what brings the points back."""

    S: Array  # (7 K, 7 K)
    b: Array  # (7 K,)
    W: Array  # (7 K, 3 L)
    inverse: Array  # (L, 3, 3)
    g_point: Array  # (L, 3)


def adjust(bundle: Bundle, rounds: int = 5) -> Adjusted:
    """Minimise; every point needs an observation."""
    near = _NEAR * float(np.median(np.linalg.norm(bundle.points - bundle.points.mean(axis=0), axis=1)))
    linear = _Linear(bundle, near)
    damping = _FIRST_DAMPING
    for _ in range(rounds):
        tried = linear.stepped(damping)
        gain = linear.cost - tried.cost if tried is not None else -1.0
        if tried is not None and gain >= 0:
            linear = tried
            damping *= 0.1
            if gain < _DONE * linear.cost:
                break
        else:
            damping *= 10
            if damping > _MOST_DAMPING:
                break
    state = linear.state
    return Adjusted(
        state.T_cam_chain,
        state.log_scale,
        state.points,
        np.asarray(np.linalg.inv(linear.point_information(0.0)), float),
        linear.direction_error,
        linear.between_error,
    )


class _Linear:
    """Residuals of one state, and their linearisation when a step is asked for."""

    def __init__(self, state: Bundle, near: float) -> None:
        self.state, self._near, seen = state, near, state.seen
        T = state.T_cam_chain[seen.keyframe]
        self._in_camera = np.einsum("mij,mj->mi", T[:, :3, :3], state.points[seen.point]) + T[:, :3, 3]
        in_front = self._in_camera[:, 2] > near
        self._z = z = np.maximum(self._in_camera[:, 2], near)
        self._direction = self._in_camera[:, :2] / z[:, None]
        error = (self._direction - seen.direction) / seen.direction_sigma[:, None]
        error[~in_front] = _WRONG
        self.direction_error = np.linalg.norm(error, axis=1)
        depth_error = np.log(z) - seen.log_depth - state.log_scale[seen.keyframe]
        has_depth = np.isfinite(depth_error) & in_front
        depth = np.where(has_depth, depth_error, 0) / seen.depth_sigma
        self._residual = np.concatenate([error, depth[:, None]], axis=1)
        seen_weight = np.where(in_front, 1 / (1 + (self.direction_error / _CAUCHY) ** 2), 0.0)
        depth_weight = np.where(has_depth, 1 / (1 + (depth / _CAUCHY) ** 2), 0.0)
        self._weight = np.stack([seen_weight, seen_weight, depth_weight], axis=1)
        self._between = _between_residuals(state.T_cam_chain, state.between)
        self.between_error = np.sqrt((self._between[0] ** 2).mean(axis=1))
        doubt = (self.between_error / _CAUCHY) ** 2
        self._between_weight = 1 / (1 + doubt)
        self.cost = float(
            _CAUCHY**2 * np.log1p((self.direction_error / _CAUCHY) ** 2).sum()
            + _CAUCHY**2 * np.log1p((depth[has_depth] / _CAUCHY) ** 2).sum()
            + ((state.log_scale / state.scale_sigma) ** 2).sum()
            + 6 * _CAUCHY**2 * np.log1p(doubt).sum()
        )

    def _jacobians(self) -> tuple[Array, Array]:
        """Of the residuals (M, 3) with respect to keyframes (M, 3, 7) and points (M, 3, 3)."""
        seen, z = self.state.seen, self._z
        d_camera = np.zeros((len(z), 3, 3))  # with respect to the point in the camera's frame
        inverse = 1 / (z * seen.direction_sigma)
        d_camera[:, 0, 0] = d_camera[:, 1, 1] = inverse
        d_camera[:, :2, 2] = -self._direction * inverse[:, None]
        d_camera[:, 2, 2] = 1 / (z * seen.depth_sigma)
        pose = np.zeros((len(z), 3, _POSE))
        pose[:, :, :3] = -d_camera @ se3.hat(self._in_camera)
        pose[:, :, 3:6] = d_camera
        pose[:, 2, 6] = -1 / seen.depth_sigma
        return pose, d_camera @ self.state.T_cam_chain[seen.keyframe, :3, :3]

    def point_information(self, damping: float) -> Array:
        """Information (L, 3, 3) of the points given the poses."""
        _, d_point = self._jacobians()
        return self._points_of(d_point, np.swapaxes(d_point * self._weight[:, :, None], 1, 2), damping)

    def _points_of(self, d_point: Array, weighted_t: Array, damping: float) -> Array:
        information = _summed(weighted_t @ d_point, self.state.seen.point, len(self.state.points))
        diagonal = np.arange(3)
        trace = np.trace(information, axis1=1, axis2=2)
        information[:, diagonal, diagonal] *= 1 + damping
        information[:, diagonal, diagonal] += (1e-9 * trace + 1e-12)[:, None]
        return information

    def _moving(self) -> Index:
        """Rows of the unknowns that may change: free poses, and all scales of depth."""
        moving = np.repeat(self.state.free[:, None], _POSE, axis=1)
        moving[:, 6] = True
        return np.flatnonzero(moving.ravel())

    def _reduced(self, damping: float) -> _Reduced:
        """The damped normal equations of the keyframes, the points eliminated."""
        state, seen = self.state, self.state.seen
        count, points = len(state.T_cam_chain), len(state.points)
        d_pose, d_point = self._jacobians()
        weight = self._weight[:, :, None]
        pose_t, point_t = np.swapaxes(d_pose * weight, 1, 2), np.swapaxes(d_point * weight, 1, 2)
        H = np.zeros((count, _POSE, count, _POSE))
        diagonal = np.arange(count)
        H[diagonal, :, diagonal, :] = _summed(pose_t @ d_pose, seen.keyframe, count)
        g_pose = _summed((pose_t @ self._residual[:, :, None])[:, :, 0], seen.keyframe, count)
        g_point = _summed((point_t @ self._residual[:, :, None])[:, :, 0], seen.point, points)
        self._add_priors(H, g_pose)
        inverse = np.asarray(np.linalg.inv(self._points_of(d_point, point_t, damping)), float)
        W = np.zeros((count, points, _POSE, 3))
        W[seen.keyframe, seen.point] = pose_t @ d_point  # a keyframe sees a point once
        W_inverse = W @ inverse
        W_rows = W.transpose(0, 2, 1, 3).reshape(count * _POSE, points * 3)
        W_inverse_rows = W_inverse.transpose(0, 2, 1, 3).reshape(count * _POSE, points * 3)
        S = H.reshape(count * _POSE, count * _POSE) - W_inverse_rows @ W_rows.T
        S[np.diag_indices_from(S)] += damping * np.diag(H.reshape(S.shape)) + 1e-9
        return _Reduced(S, g_pose.ravel() - W_inverse_rows @ g_point.ravel(), W_rows, inverse, g_point)

    def stepped(self, damping: float) -> _Linear | None:
        """The state after one damped step; None where there is no such step."""
        state, rows = self.state, self._moving()
        try:
            reduced = self._reduced(damping)
            step = np.zeros(len(reduced.b))
            step[rows] = np.linalg.solve(reduced.S[np.ix_(rows, rows)], -reduced.b[rows])
        except np.linalg.LinAlgError:
            return None
        by_keyframe = step.reshape(-1, _POSE)
        back = reduced.g_point + (reduced.W.T @ step).reshape(-1, 3)
        d_points = -(reduced.inverse @ back[:, :, None])[:, :, 0]
        if not (np.isfinite(step).all() and np.isfinite(d_points).all()):
            return None
        moved = replace(
            state,
            T_cam_chain=se3.normalized(se3.exp(by_keyframe[:, :6]) @ state.T_cam_chain),
            points=state.points + d_points,
            log_scale=state.log_scale + by_keyframe[:, 6],
        )
        return _Linear(moved, self._near)

    def _add_priors(self, H: Array, gradient: Array) -> None:
        state = self.state
        every = np.arange(len(state.T_cam_chain))
        H[every, 6, every, 6] += 1 / state.scale_sigma**2
        gradient[:, 6] += state.log_scale / state.scale_sigma**2
        (residual, d_first, d_second), weight = self._between, self._between_weight
        ends = ((state.between.first, d_first), (state.between.second, d_second))
        for a, d_a in ends:
            np.add.at(gradient[:, :6], a, np.einsum("pij,pi,p->pj", d_a, residual, weight))
            for b, d_b in ends:
                at = (a[:, None, None], _TWIST[:, None], b[:, None, None], _TWIST)
                np.add.at(H, at, np.swapaxes(d_a, 1, 2) @ (weight[:, None, None] * d_b))


def _between_residuals(T_cam_chain: Array, between: Between) -> tuple[Array, Array, Array]:
    """Residuals (P, 6) of relative poses in sigma, and their Jacobians (P, 6, 6) at both ends."""
    T = T_cam_chain[between.first] @ se3.inverse(T_cam_chain[between.second])
    residual = se3.log(T @ se3.inverse(between.T_first_second)) / between.sigma
    adjoint = np.zeros((len(T), 6, 6))
    adjoint[:, :3, :3] = adjoint[:, 3:, 3:] = T[:, :3, :3]
    adjoint[:, 3:, :3] = se3.hat(T[:, :3, 3]) @ T[:, :3, :3]
    weight = 1 / between.sigma[:, :, None]
    return residual, weight * np.eye(6), -adjoint * weight


def _summed(values: Array, index: Index, count: int) -> Array:
    """Sums (count, ...) of values (M, ...) by index."""
    flat = values.reshape(len(values), -1)
    out = np.zeros((count, flat.shape[1]))
    if len(index):
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        out[ordered[starts]] = np.add.reduceat(flat[order], starts, axis=0)
    return out.reshape(count, *values.shape[1:])

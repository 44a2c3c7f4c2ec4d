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
from da3_ros.slam.steps import Steps, completed

_POSE = 7  # unknowns per keyframe: twist (rotation, translation) of T_cam_chain from the left, then lambda
_CAUCHY = 2.0  # sigma; follows an outlier less the farther it lies off
_NEAR = 0.02  # a point nearer than this share of the scene's size, or behind the camera, is not believed
_WRONG = 1e3  # sigma, where a point is not in front of the camera
_FIRST_DAMPING, _MOST_DAMPING = 1e-4, 1e4
_DONE = 1e-3  # relative decrease of the cost that is not worth another round
_MUCH = 0.1  # and one that is, although there were enough

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
    texture: Array  # (L, 2, 2) factor on the error of their directions: how well flow is fixed, by direction
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
    covariance: Array  # (K, 7, K, 7) of twists (rotation, translation) of T_cam_chain from the left, and of log_scale


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The observations as tables of keyframes by points, which makes every sum over either a product of matrices.

    Most points are seen by more than half of the keyframes: gaps cost less than lists of indices do.
    """

    seen: NDArray[np.bool_]  # (K, L)
    direction: Array  # (K, 2, L)
    per_direction: Array  # (K, L) 1 / sigma
    texture: Array  # (2, 2, L)
    log_depth: Array  # (K, L)
    per_depth: Array  # (K, L) 1 / sigma; 0 where there is no depth

    @classmethod
    def of(cls, bundle: Bundle) -> _Table:
        """Fill it in."""
        seen = bundle.seen
        at, shape = (seen.keyframe, seen.point), (len(bundle.T_cam_chain), len(bundle.points))
        depth = np.isfinite(seen.log_depth)
        texture = np.ascontiguousarray(np.moveaxis(bundle.texture, 0, -1))
        table = cls(
            np.zeros(shape, bool),
            np.zeros((shape[0], 2, shape[1])),
            np.zeros(shape),
            texture,
            np.zeros(shape),
            np.zeros(shape),
        )
        table.seen[at] = True
        table.direction[seen.keyframe, :, seen.point] = seen.direction
        table.per_direction[at] = 1 / seen.direction_sigma
        table.log_depth[at] = np.where(depth, seen.log_depth, 0.0)
        table.per_depth[at] = np.where(depth, 1 / seen.depth_sigma, 0.0)
        return table


@dataclass(frozen=True, slots=True, eq=False)
class _Reduced:
    """Normal equations S x = -b of what is left when the points are eliminated, and what brings the points back."""

    S: Array  # (7 F, 7 F) of the F keyframes that may move
    b: Array  # (7 F,)
    W: Array  # (7 F, 3 L)
    inverse: Array  # (3, 3, L)
    g_point: Array  # (3, L)


def adjust(bundle: Bundle, rounds: int) -> Adjusted:
    """Minimise; every point needs an observation."""
    return completed(adjusting(bundle, rounds))


def adjusting(bundle: Bundle, rounds: int, enough: int | None = None) -> Steps[Adjusted]:
    """The same round by round; after ``enough`` of them only as long as one gains much."""
    near = _NEAR * float(np.median(np.linalg.norm(bundle.points - bundle.points.mean(axis=0), axis=1)))
    table = _Table.of(bundle)
    linear = _Linear(bundle, table, near)
    damping = _FIRST_DAMPING
    for done in range(1, rounds + 1):
        yield "adjust"
        tried = linear.stepped(damping)
        gain = linear.cost - tried.cost if tried is not None else -1.0
        if tried is not None and gain >= 0:
            linear = tried
            damping *= 0.1
            if gain < (_DONE if enough is None or done < enough else _MUCH) * linear.cost:
                break
        else:
            damping *= 10
            if damping > _MOST_DAMPING or (enough is not None and done >= enough):
                break
    yield "adjust"
    state, reduced = linear.state, linear.reduced(0.0)
    return Adjusted(
        state.T_cam_chain,
        state.log_scale,
        state.points,
        np.moveaxis(reduced.inverse, -1, 0),
        linear.direction_error[state.seen.keyframe, state.seen.point],
        linear.between_error,
        _covariance(state.free, reduced.S),
    )


class _Linear:
    """Residuals of one state, and their linearisation when a step is asked for."""

    def __init__(self, state: Bundle, table: _Table, near: float) -> None:
        self.state, self._table, self._near = state, table, near
        self._free = np.flatnonzero(state.free)
        in_camera = state.T_cam_chain[:, :3, :3] @ state.points.T + state.T_cam_chain[:, :3, 3:]
        in_front = in_camera[:, 2] > near
        self._z = z = np.maximum(in_camera[:, 2], near)
        self._direction = in_camera[:, :2] / z[:, None]  # (K, 2, L)
        error = _by_texture(table.texture, (self._direction - table.direction) * table.per_direction[:, None])
        np.copyto(error, _WRONG, where=(table.seen & ~in_front)[:, None])
        self.direction_error = np.hypot(error[:, 0], error[:, 1])
        usable = table.seen & in_front
        depth = (np.log(z) - table.log_depth - state.log_scale[:, None]) * (usable * table.per_depth)
        self._residual = np.concatenate([error, depth[:, None]], axis=1)  # (K, 3, L)
        square, depth_square = (self.direction_error / _CAUCHY) ** 2, (depth / _CAUCHY) ** 2
        # Roots of the weights of Cauchy's kernel.
        self._root = np.empty_like(self._residual)
        self._root[:, :2] = np.sqrt(usable / (1 + square))[:, None]
        self._root[:, 2] = np.sqrt(usable / (1 + depth_square))
        sigma = (table.per_direction, table.per_direction, table.per_depth)
        self._factors = np.moveaxis(self._root, 1, 0) * np.stack(sigma)  # (3, K, L)
        self._between = _between_residuals(state.T_cam_chain, state.between)
        self.between_error = np.sqrt((self._between[0] ** 2).mean(axis=1))
        doubt = (self.between_error / _CAUCHY) ** 2
        self._between_weight = 1 / (1 + doubt)
        self.cost = float(
            _CAUCHY**2 * (np.log1p(square).sum() + np.log1p(depth_square).sum())
            + ((state.log_scale / state.scale_sigma) ** 2).sum()
            + 6 * _CAUCHY**2 * np.log1p(doubt).sum()
        )

    def _to_points(self) -> Array:
        """Jacobians (K, 3, 3, L) of the weighted residuals with respect to the coordinates of the points.

        Here as below the root of the weight is in both residuals and Jacobians.
        """
        rotation_t = np.swapaxes(self.state.T_cam_chain[:, :3, :3], 1, 2)
        moved = self._to_translations()
        return np.asarray((rotation_t @ moved.reshape(len(moved), 3, -1)).reshape(moved.shape), float)

    def _to_translations(self) -> Array:
        """The same (K, 3, 3, L) with respect to the translations of the keyframes."""
        (a, b, c), (u, v) = self._factors, np.moveaxis(self._direction, 1, 0)
        out = np.zeros((len(u), 3, 3, u.shape[1]))
        a, b, out[:, 2, 2] = a / self._z, b / self._z, c / self._z
        out[:, 0, 0], out[:, 2, 0] = a, -a * u
        out[:, 1, 1], out[:, 2, 1] = b, -b * v
        out[:, :, :2] = _by_texture(self._table.texture, out[:, :, :2])
        return out

    def _to_keyframes(self) -> Array:
        """The same (F, 8, 3, L) with respect to the seven unknowns of free keyframes; behind them the residuals."""
        free = self._free
        (a, b, c), (u, v) = self._factors[:, free], np.moveaxis(self._direction[free], 1, 0)
        out = np.zeros((len(free), _POSE + 1, 3, u.shape[1]))
        out[:, 0, 0], out[:, 1, 0], out[:, 2, 0] = -a * u * v, a * (1 + u * u), -a * v
        out[:, 0, 1], out[:, 1, 1], out[:, 2, 1] = -b * (1 + v * v), b * u * v, b * u
        out[:, 0, 2], out[:, 1, 2] = c * v, -c * u
        out[:, :3, :2] = _by_texture(self._table.texture, out[:, :3, :2])
        out[:, 3:6] = self._to_translations()[free]
        out[:, 6, 2] = -c
        out[:, _POSE] = self._root[free] * self._residual[free]
        return out

    def reduced(self, damping: float) -> _Reduced:
        """The damped normal equations of the free keyframes, the points eliminated."""
        pose, point = self._to_keyframes(), self._to_points()
        count, points = len(pose), pose.shape[-1]
        rows = pose.reshape(count, _POSE + 1, 3 * points)
        gram = rows @ np.swapaxes(rows, 1, 2)
        blocks, each, size = np.zeros((count, _POSE, count, _POSE)), np.arange(count), count * _POSE
        blocks[each, :, each, :] = gram[:, :_POSE, :_POSE]
        H, g_pose = blocks.reshape(size, size), gram[:, :_POSE, _POSE].ravel()
        self._add_priors(H, g_pose)
        weighted = self._root * self._residual
        g_point = _products(weighted[:, None], point).sum(axis=0)[0]
        inverse = _inverted(_regular(_products(point, point).sum(axis=0), damping))
        mixed = _products(pose[:, :_POSE], point[self._free]).reshape(size, 3, points)
        W, W_inverse = (rows.reshape(size, 3 * points) for rows in (mixed, _contracted(mixed, inverse)))
        S = H - W_inverse @ W.T
        S[np.diag_indices_from(S)] += damping * np.diag(H) + 1e-9
        return _Reduced(S, g_pose - W_inverse @ g_point.ravel(), W, inverse, g_point)

    def stepped(self, damping: float) -> _Linear | None:
        """The state after one damped step; None where there is no such step."""
        state, reduced = self.state, self.reduced(damping)
        try:
            step = np.linalg.solve(reduced.S, -reduced.b)
        except np.linalg.LinAlgError:
            return None
        back = reduced.g_point + (step @ reduced.W).reshape(3, -1)
        d_points = -_contracted(back[None], reduced.inverse)[0].T
        if not (np.isfinite(step).all() and np.isfinite(d_points).all()):
            return None
        by_keyframe = np.zeros((len(state.free), _POSE))
        by_keyframe[self._free] = step.reshape(-1, _POSE)
        moved = replace(
            state,
            T_cam_chain=se3.normalized(se3.exp(by_keyframe[:, :6]) @ state.T_cam_chain),
            points=state.points + d_points,
            log_scale=state.log_scale + by_keyframe[:, 6],
        )
        return _Linear(moved, self._table, self._near)

    def _add_priors(self, H: Array, gradient: Array) -> None:
        """Add the scales of depth and the relative poses to H (7 F, 7 F) and the gradient (7 F,)."""
        state, free = self.state, self._free
        scales = np.arange(len(free)) * _POSE + 6
        H[scales, scales] += 1 / state.scale_sigma[free] ** 2
        gradient[scales] += state.log_scale[free] / state.scale_sigma[free] ** 2
        residual, d_first, d_second = self._between
        root, each = np.sqrt(self._between_weight)[:, None, None], np.arange(len(residual))
        jacobian = np.zeros((len(residual), 6, len(state.free), _POSE))
        jacobian[each, :, state.between.first, :6] = root * d_first
        jacobian[each, :, state.between.second, :6] = root * d_second
        rows = jacobian[:, :, free].reshape(6 * len(residual), len(gradient))
        H += rows.T @ rows
        gradient += (root[:, 0] * residual).ravel() @ rows


def _covariance(free: NDArray[np.bool_], S: Array) -> Array:
    """Of the keyframes (K, 7, K, 7), whatever the points, of normal equations S; 0 where they hold still."""
    count, rows = len(free), np.flatnonzero(np.repeat(free, _POSE))
    out = np.zeros((count * _POSE, count * _POSE))
    out[np.ix_(rows, rows)] = np.linalg.pinv(S, hermitian=True)
    return out.reshape(count, _POSE, count, _POSE)


def _by_texture(texture: Array, errors: Array) -> Array:
    """Errors of directions, or their derivatives (..., 2, L), times matrices (2, 2, L)."""
    return np.stack([texture[i, 0] * errors[..., 0, :] + texture[i, 1] * errors[..., 1, :] for i in (0, 1)], axis=-2)


def _products(left: Array, point: Array) -> Array:
    """Sums (K, A, 3, L) over the residuals of what is (K, A, 3, L) times Jacobians (K, 3, 3, L) of the points."""
    out = left[:, :, None, 0] * point[:, None, :, 0]
    for residual in (1, 2):
        out += left[:, :, None, residual] * point[:, None, :, residual]
    return out


def _contracted(rows: Array, matrices: Array) -> Array:
    """Rows (A, 3, L) times matrices (3, 3, L), for each of L."""
    out = rows[:, 0, None] * matrices[0]
    for i in (1, 2):
        out += rows[:, i, None] * matrices[i]
    return out


def _regular(information: Array, damping: float) -> Array:
    """Information (3, 3, L), damped, that has an inverse."""
    diagonal = np.arange(3)
    trace = information[diagonal, diagonal].sum(axis=0)
    information[diagonal, diagonal] *= 1 + damping
    information[diagonal, diagonal] += 1e-9 * trace + 1e-12
    return information


def _inverted(matrices: Array) -> Array:
    """Inverses of symmetric matrices (3, 3, L), by their cofactors."""
    (a, b, c), (_, d, e), (_, _, f) = matrices
    out = np.empty_like(matrices)
    out[0, 0], out[1, 1], out[2, 2] = d * f - e * e, a * f - c * c, a * d - b * b
    out[0, 1] = out[1, 0] = c * e - b * f
    out[0, 2] = out[2, 0] = b * e - c * d
    out[1, 2] = out[2, 1] = b * c - a * e
    out /= a * out[0, 0] + b * out[0, 1] + c * out[0, 2]
    return out


def _between_residuals(T_cam_chain: Array, between: Between) -> tuple[Array, Array, Array]:
    """Residuals (P, 6) of relative poses in sigma, and their Jacobians (P, 6, 6) at both ends."""
    T = T_cam_chain[between.first] @ se3.inverse(T_cam_chain[between.second])
    residual = se3.log(T @ se3.inverse(between.T_first_second)) / between.sigma
    weight = 1 / between.sigma[:, :, None]
    return residual, weight * np.eye(6), -se3.adjoint(T) * weight

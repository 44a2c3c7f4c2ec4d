"""The pose graph: how keyframes were placed one after another, and the loops that say otherwise.

A node is a similarity ``S_map_kf`` that takes the camera's coordinates in chain units to the map: its scale is map
units per chain unit.  Consecutive keyframes are tied by the way between them on the chain, at equal scale up to the
seam's sigma; claims of metres observe the scale; gravity observes roll and pitch; loops tie keyframes far apart.  Chain
and claims alone have the smoothed chain as their solution (``scale.py``), so a graph of nothing else is never solved.

Runs of keyframes between two *supports* are one edge, composed of theirs, and what lies between moves by its
conditional mean afterwards (exact to first order); so the time is bounded however long the chain is.  GTSAM solves the
rest (Levenberg-Marquardt; Cauchy's kernel on loops) and is imported when the first loop is tried.

GTSAM's ``Similarity3(R, t, s)`` acts as ``s (R x + t)``; its tangent vectors are ordered rotation, translation, log
scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3, adjoint

_SUPPORTS = 40  # nodes that are solved for, beside the ends of loops and weak links
_KERNEL = 3.0  # whitened norm at which Cauchy's kernel halves the weight of a loop; seven errors have a norm of 2.6
_STILL = 1e-4  # sigma of what holds the first keyframe
_LOOSE = 1e4  # sigma of what a claim of metres says nothing about


@dataclass(frozen=True, slots=True, eq=False)
class Vertical:
    """The direction opposite to gravity, by unit vectors."""

    in_map: Array  # (3,)
    in_camera: Array  # (K, 3) of each keyframe; zeros where it is unknown
    sigma: Array  # (K,) 1-sigma per axis, rad, of what each keyframe says by itself; infinity where it is unknown


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """The chain as the graph sees it: one row per keyframe."""

    T_chain_cam: Array  # (K, 4, 4) chain units
    sigma: Array  # (K, 3) of the step into each: rotation (rad per axis), translation (chain units), log scale
    weak: NDArray[np.bool_]  # (K,) the step into it is weak
    claims: Array  # (K, 2) sum of 1 / sigma^2 and of z / sigma^2 over claims of log(metres per chain unit)
    T_map_cam: Array  # (K, 4, 4) where they are now
    scale: Array  # (K,) map units per chain unit now
    vertical: Vertical | None = None

    def __len__(self) -> int:
        """Number of keyframes."""
        return len(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """A place seen again: where keyframe ``b`` is as seen from keyframe ``a`` < ``b``."""

    a: int
    b: int
    S_a_b: Sim3  # camera b in its chain units -> camera a in its chain units
    sigma: Array  # (3,) rotation (rad per axis), translation (chain units of b), log scale


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the keyframes are, given everything."""

    T_map_cam: Array  # (K, 4, 4)
    scale: Array  # (K,) map units per chain unit
    distances: Array  # (L,) of each loop from the solution, in sigma (Mahalanobis)
    cost: float  # half the sum of squared whitened residuals
    marginal: Callable[[], Array]  # computes ``covariance``

    @cached_property
    def covariance(self) -> Array:
        """(7, 7) of the newest keyframe, ``S_map_kf exp(xi)``: rotation, translation (chain units), log scale."""
        return self.marginal()


class PoseGraph:
    """The loops of a chain, and the solution with them."""

    def __init__(self) -> None:
        """Start without loops."""
        self.loops: list[Loop] = []

    def connected(self, nodes: Nodes, a: int, b: int) -> bool:
        """Whether two keyframes are tied by something better than a weak link."""
        part = self.parts(nodes.weak)
        return bool(part[a] == part[b])

    def surprise(self, nodes: Nodes, loops: Sequence[Loop]) -> float:
        """How much loops contradict all the rest: what they add to the sum of squared whitened residuals.

        To first order this is their squared Mahalanobis distance under the graph's own uncertainty.
        """
        before = self._optimised(nodes, self.loops, ())
        return 2 * (self._optimised(nodes, self.loops, loops).cost - before.cost)

    def solve(self, nodes: Nodes, *, furthest: float = np.inf) -> Solution:
        """Move every keyframe; loops further off than ``furthest`` sigma are taken out, the worst first."""
        solution = self._optimised(nodes, self.loops, ())
        while self.loops and solution.distances.max() > furthest:
            del self.loops[int(solution.distances.argmax())]
            solution = self._optimised(nodes, self.loops, ())
        return solution

    def thin(self, most: int) -> None:
        """Give up loops beyond ``most``, first those whose neighbours are closest."""
        while len(self.loops) > most:
            self.loops.sort(key=lambda loop: (loop.b, loop.a))
            b = np.array([loop.b for loop in self.loops])
            del self.loops[1 + int(np.argmin(b[2:] - b[:-2]))]

    def parts(self, weak: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Number of the part (K,) that each keyframe belongs to; loops join parts that weak links divide."""
        part = np.cumsum(weak)
        for loop in self.loops:
            a, b = part[loop.a], part[loop.b]
            part[part == max(a, b)] = min(a, b)
        return np.asarray(part, np.int64)

    def _optimised(self, nodes: Nodes, robust: Sequence[Loop], plain: Sequence[Loop]) -> Solution:
        import gtsam

        supports = _supports(nodes, [*robust, *plain])
        chain = _Segments.along(nodes, supports)
        factors, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        for i, k in enumerate(supports):
            values.insert(i, _similarity(nodes.T_map_cam[k], nodes.scale[k]))
        _add_claims(factors, nodes, supports)
        _add_gravity(factors, nodes, supports)
        for i in range(len(supports) - 1):
            noise = gtsam.noiseModel.Gaussian.Covariance(chain.covariance[i])
            factors.add(gtsam.BetweenFactorSimilarity3(i, i + 1, _similarity(chain.T[i], 1.0), noise))
        node = {int(k): i for i, k in enumerate(supports)}
        kernel = gtsam.noiseModel.mEstimator.Cauchy.Create(_KERNEL)
        ties = []
        for loop in [*robust, *plain]:
            noise = gtsam.noiseModel.Diagonal.Sigmas(np.repeat(loop.sigma, (3, 3, 1)))
            measured = _similarity(se3.make(loop.S_a_b.rotation, loop.S_a_b.translation), loop.S_a_b.scale)
            ends = node[loop.a], node[loop.b]
            ties.append(gtsam.BetweenFactorSimilarity3(*ends, measured, noise))
            weighted = gtsam.noiseModel.Robust.Create(kernel, noise) if len(ties) <= len(robust) else noise
            factors.add(gtsam.BetweenFactorSimilarity3(*ends, measured, weighted))
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setMaxIterations(15)
        parameters.setRelativeErrorTol(1e-4)
        found = gtsam.LevenbergMarquardtOptimizer(factors, values, parameters).optimize()
        at = [found.atSimilarity3(i) for i in range(len(supports))]
        T_map, scale = chain.spread(nodes, supports, at)
        distances = np.sqrt([2 * tie.error(found) for tie in ties])
        marginal = partial(_covariance, factors, found, len(at) - 1)
        return Solution(T_map, scale, distances, float(factors.error(found)), marginal)


def drift(nodes: Nodes, a: int, b: int) -> tuple[float, float]:
    """1-sigma of the way from ``a`` to ``b`` along the chain alone: rotation (rad), translation (chain units)."""
    covariance = _Segments.along(nodes, np.array([a, b])).covariance[0]
    return float(np.sqrt(np.trace(covariance[:3, :3]) / 3)), float(np.sqrt(np.trace(covariance[3:6, 3:6]) / 3))


def gap(nodes: Nodes, first: Loop, second: Loop) -> float:
    """How far two loops disagree, in sigma: around ``a1 -> b1 -> b2 -> a2 -> a1``, over the chain on either side."""
    (T_a, cov_a), (T_b, cov_b) = (_between(nodes, *ends) for ends in ((second.a, first.a), (first.b, second.b)))
    around = Sim3.from_rigid(T_a) @ first.S_a_b @ Sim3.from_rigid(T_b) @ second.S_a_b.inverse()
    error = np.concatenate([se3.log_so3(around.rotation), around.translation, [np.log(around.scale)]])
    # Both loops and both ways may be wrong; turned into one place, a turn moves what lies at its lever's end.
    lever = float(np.linalg.norm(second.S_a_b.translation))
    turn = [*(loop.sigma[0] ** 2 for loop in (first, second)), *(np.trace(c[:3, :3]) / 3 for c in (cov_a, cov_b))]
    shift = [*(loop.sigma[1] ** 2 for loop in (first, second)), *(np.trace(c[3:6, 3:6]) / 3 for c in (cov_a, cov_b))]
    stretch = [*(loop.sigma[2] ** 2 for loop in (first, second)), cov_a[6, 6], cov_b[6, 6]]
    variance = [sum(turn)] * 3 + [sum(shift) + lever**2 * (sum(turn) + sum(stretch))] * 3 + [sum(stretch)]
    return float(np.sqrt((error**2 / np.array(variance)).sum()))


def _between(nodes: Nodes, a: int, b: int) -> tuple[Array, Array]:
    """``T_a_b`` on the chain and its covariance (7, 7)."""
    T = se3.inverse(nodes.T_chain_cam[a]) @ nodes.T_chain_cam[b]
    if a == b:
        return T, np.zeros((7, 7))
    return T, _Segments.along(nodes, np.array([min(a, b), max(a, b)])).covariance[0]


def _supports(nodes: Nodes, loops: Iterable[Loop]) -> NDArray[np.int64]:
    """Keyframes that are solved for, ascending."""
    count = len(nodes)
    weak = np.flatnonzero(nodes.weak)
    ends = [k for loop in loops for k in (loop.a, loop.b)]
    evenly = np.arange(0, count, max(1, -(-count // _SUPPORTS)))
    chosen = np.concatenate([evenly, weak, weak - 1, [count - 1], np.array(ends, np.int64)])
    return np.unique(chosen[chosen >= 0].astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """The chain between supports, each run as one edge."""

    T: Array  # (S - 1, 4, 4) from each support to the next, chain units
    covariance: Array  # (S - 1, 7, 7) of it
    ahead: Array  # (K', 7, 7) per keyframe after the first support: covariance of the way to it, at its segment's end
    segment: NDArray[np.int64]  # (K',) which segment it lies in

    @classmethod
    def along(cls, nodes: Nodes, supports: NDArray[np.int64]) -> _Segments:
        """Compose the steps from the first support to the last."""
        T, first, last = nodes.T_chain_cam, supports[0], supports[-1]
        members = np.arange(first + 1, last + 1)
        segment = np.searchsorted(supports, members) - 1
        lift = adjoint(se3.inverse(T[supports[segment + 1]]) @ T[members])
        steps = np.repeat(nodes.sigma[members] ** 2, (3, 3, 1), axis=1)
        covariance = (lift * steps[:, None, :]) @ np.swapaxes(lift, -1, -2)
        total = np.cumsum(covariance, axis=0)
        ends = supports[1:] - first - 1
        before = np.concatenate([np.zeros((1, 7, 7)), total[ends[:-1]]])
        # What a segment's first step starts from is the sum up to the end of the segment before.
        ahead = total - before[segment]
        return cls(se3.inverse(T[supports[:-1]]) @ T[supports[1:]], ahead[ends], ahead, segment)

    def spread(self, nodes: Nodes, supports: NDArray[np.int64], solved: Sequence[Any]) -> tuple[Array, Array]:
        """Poses (K, 4, 4) and scales (K,) of all keyframes from those of the supports."""
        import gtsam

        T_map, scale = np.empty((len(nodes), 4, 4)), np.empty(len(nodes))
        ends_scale = np.array([s.scale() for s in solved])
        centres = ends_scale[:, None] * np.stack([s.translation() for s in solved])
        ends_T = se3.make(np.stack([s.rotation().matrix() for s in solved]), centres)
        T_map[supports], scale[supports] = ends_T, ends_scale
        inner = np.flatnonzero(~np.isin(np.arange(1, len(nodes)), supports))
        if not len(inner):
            return T_map, scale
        error = np.stack(
            [
                gtsam.Similarity3.Logmap(_similarity(T, 1.0).between(a.between(b)))
                for T, a, b in zip(self.T, solved[:-1], solved[1:], strict=True)
            ]
        )
        # Given that a segment as a whole is off by an error, so much of it has come about on the way to a keyframe.
        weighed = np.linalg.solve(self.covariance, error[..., None])
        k, segment, T = inner + 1, self.segment[inner], nodes.T_chain_cam
        at_end = (self.ahead[inner] @ weighed[segment])[..., 0]
        own = (adjoint(se3.inverse(T[k]) @ T[supports[segment + 1]]) @ at_end[..., None])[..., 0]
        way = se3.inverse(T[supports[segment]]) @ T[k]
        turned = se3.make(way[:, :3, :3] @ se3.exp_so3(own[:, :3]), way[:, :3, 3])
        turned[:, :3, 3] += np.einsum("nij,nj->ni", way[:, :3, :3], own[:, 3:6] * np.exp(own[:, 6:]))
        start, size = ends_T[segment], ends_scale[segment]
        T_map[k, :3, :3] = start[:, :3, :3] @ turned[:, :3, :3]
        T_map[k, :3, 3] = start[:, :3, 3] + size[:, None] * np.einsum("nij,nj->ni", start[:, :3, :3], turned[:, :3, 3])
        T_map[k, 3] = (0, 0, 0, 1)
        scale[k] = size * np.exp(own[:, 6])
        return T_map, scale


def _covariance(factors: Any, found: Any, node: int) -> Array:
    """Of a node (7, 7); NaN where the graph has no solution, which shows in the poses too."""
    import gtsam

    try:
        return np.asarray(gtsam.Marginals(factors, found).marginalCovariance(node), float)
    except RuntimeError:
        return np.full((7, 7), np.nan)


def _add_claims(factors: Any, nodes: Nodes, supports: NDArray[np.int64]) -> None:
    """Hold the first keyframe, and what claims say of scale; a run's claims count at its end."""
    import gtsam

    known = nodes.claims[:, 0].sum() > 0
    hold = np.array([_STILL] * 6 + [_LOOSE if known else _STILL])
    first = _similarity(nodes.T_map_cam[0], nodes.scale[0])
    factors.add(gtsam.PriorFactorSimilarity3(0, first, gtsam.noiseModel.Diagonal.Sigmas(hold)))
    into = np.searchsorted(supports, np.arange(len(nodes)))
    totals = np.zeros((len(supports), 2))
    np.add.at(totals, into, nodes.claims)
    for i, (information, weighted) in enumerate(totals):
        if information > 0:
            # At the node's own pose, of which it says nothing, the logarithm is well behaved.
            claim = _similarity(nodes.T_map_cam[supports[i]], float(np.exp(weighted / information)))
            sigma = np.array([_LOOSE] * 6 + [information**-0.5])
            factors.add(gtsam.PriorFactorSimilarity3(i, claim, gtsam.noiseModel.Diagonal.Sigmas(sigma)))


def _add_gravity(factors: Any, nodes: Nodes, supports: NDArray[np.int64]) -> None:
    """What gravity says of roll and pitch; a run's keyframes count at its end, brought there along the chain.

    GTSAM's ``Pose3AttitudeFactor`` for similarities: a prior at the node's own pose, turned by the least that makes it
    level, of which only the two axes across the vertical count.  A turn about the vertical is one about ``up`` in the
    camera's axes, of which it says nothing, however large.
    """
    import gtsam

    vertical = nodes.vertical
    if vertical is None:
        return
    into = np.searchsorted(supports, np.arange(len(nodes)))
    ends = supports[into]
    R_end_k = np.swapaxes(nodes.T_chain_cam[ends, :3, :3], 1, 2) @ nodes.T_chain_cam[:, :3, :3]
    information = vertical.sigma**-2
    sums, totals = np.zeros((len(supports), 3)), np.zeros(len(supports))
    np.add.at(sums, into, information[:, None] * np.einsum("kij,kj->ki", R_end_k, vertical.in_camera))
    np.add.at(totals, into, information)
    for i in np.flatnonzero(totals > 0):
        up, T = sums[i] / np.linalg.norm(sums[i]), nodes.T_map_cam[supports[i]]
        level = se3.make(se3.exp_so3(se3.turning(T[:3, :3] @ up, vertical.in_map)) @ T[:3, :3], T[:3, 3])
        along = np.outer(up, up)
        root = np.eye(7) / _LOOSE
        root[:3, :3] = np.sqrt(totals[i]) * (np.eye(3) - along) + along / _LOOSE
        noise = gtsam.noiseModel.Gaussian.SqrtInformation(root)
        factors.add(gtsam.PriorFactorSimilarity3(int(i), _similarity(level, nodes.scale[supports[i]]), noise))


def _similarity(T_a_b: Array, scale: float) -> Any:
    """GTSAM's similarity that scales, turns and then moves to the translation of ``T_a_b`` (4, 4)."""
    import gtsam

    return gtsam.Similarity3(gtsam.Rot3(T_a_b[:3, :3]), T_a_b[:3, 3] / scale, float(scale))

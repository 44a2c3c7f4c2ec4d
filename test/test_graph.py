"""The pose graph: a chain that drifts is bent to where loops say it is, and wrong loops bend nothing."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3, adjoint
from da3_ros.slam import graph as graphs
from da3_ros.slam.graph import Loop, Nodes, PoseGraph

SIGMA = np.array([0.003, 0.002, 0.005])  # of a step: rotation, translation, log scale
LOOP_SIGMA = np.array([0.003, 0.004, 0.005])
ROUND = 100  # keyframes of a lap


class Drive:
    """Laps on a circle of 1.6 m: the truth, and a chain whose rotation, way and unit drift."""

    def __init__(self, count: int, seed: int = 0, *, metric: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        step = se3.make(se3.exp_so3(np.array([0, 2 * np.pi / ROUND, 0])), np.array([0, 0, 0.1]))
        noise = self.rng.standard_normal((count, 7)) * np.repeat(SIGMA, (3, 3, 1))
        self.scale = np.exp(np.cumsum(noise[:, 6]) - noise[0, 6])  # metres per chain unit
        truth, chain = [np.eye(4)], [np.eye(4)]
        for k in range(1, count):
            truth.append(truth[-1] @ step)
            way = (step[:3, 3] + noise[k, 3:6]) / self.scale[k]
            chain.append(chain[-1] @ se3.make(step[:3, :3] @ se3.exp_so3(noise[k, :3]), way))
        self.truth, T = np.stack(truth), np.stack(chain)
        claims = np.zeros((count, 2))
        if metric:
            claims[:, 0] = 0.1**-2
            claims[:, 1] = 0.1**-2 * (np.log(self.scale) + 0.1 * self.rng.standard_normal(count))
        sigma = np.tile(SIGMA, (count, 1))
        self.nodes = Nodes(T, sigma, np.zeros(count, bool), claims, T.copy(), np.ones(count))

    def loop(self, a: int, b: int) -> Loop:
        T = se3.inverse(self.truth[a]) @ self.truth[b]
        turn, shift, stretch = (s * self.rng.standard_normal(n) for s, n in zip(LOOP_SIGMA, (3, 3, 1), strict=True))
        scale = float(self.scale[b] / self.scale[a] * np.exp(stretch[0]))
        return Loop(a, b, Sim3(scale, T[:3, :3] @ se3.exp_so3(turn), T[:3, 3] / self.scale[a] + shift), LOOP_SIGMA)

    def wrong_loop(self) -> Loop:
        """Any two keyframes are said to lie side by side."""
        a, b = sorted(int(k) for k in self.rng.choice(len(self.nodes), 2, replace=False))
        turn, shift = 0.3 * self.rng.standard_normal(3), 0.5 * self.rng.standard_normal(3)
        return Loop(a, b, Sim3(1.0, se3.exp_so3(turn), shift), LOOP_SIGMA)

    def error(self, T: Array) -> float:
        return float(np.sqrt(((T[:, :3, 3] - self.truth[:, :3, 3]) ** 2).sum(axis=1).mean()))


def ends(drive: Drive) -> list[Loop]:
    return [drive.loop(k - ROUND, k) for k in range(ROUND + 5, len(drive.nodes), 12)]


def test_similarities_are_those_of_gtsam():
    import gtsam

    rng = np.random.default_rng(0)
    T = se3.exp(0.5 * rng.standard_normal((2, 6)))
    a, b = Sim3.from_rigid(T[0], 1.3), Sim3.from_rigid(T[1], 0.7)
    ours = a.inverse() @ b
    theirs = graphs._similarity(T[0], 1.3).between(graphs._similarity(T[1], 0.7))
    assert np.isclose(ours.scale, theirs.scale())
    assert np.allclose(ours.rotation, theirs.rotation().matrix())
    assert np.allclose(ours.translation, ours.scale * theirs.translation())
    point = rng.standard_normal(3)
    assert np.allclose(a.act(point), graphs._similarity(T[0], 1.3).transformFrom(point))
    assert np.allclose(adjoint(T[0]), gtsam.Similarity3(T[0]).AdjointMap())


@pytest.mark.parametrize("metric", [False, True])
def test_loops_take_the_drift_out(metric):
    drive = Drive(2 * ROUND, metric=metric)
    graph = PoseGraph()
    graph.loops += ends(drive)
    solution = graph.solve(drive.nodes)
    assert drive.error(solution.T_map_cam) < 0.4 * drive.error(drive.nodes.T_map_cam)
    assert solution.distances.max() < 4.5
    assert np.abs(np.log(solution.scale / drive.scale)).max() < (0.1 if metric else 0.05)


def test_without_loops_the_solution_is_the_smoothed_chain():
    drive = Drive(60, metric=True)
    solution = PoseGraph().solve(drive.nodes)
    information, weighted = drive.nodes.claims.T
    link = np.full(59, SIGMA[2] ** -2.0)
    normal = np.diag(information) + np.diag([*link, 0]) + np.diag([0, *link]) - np.diag(link, 1) - np.diag(link, -1)
    smoothed = np.linalg.solve(normal, weighted)
    # To the tolerance of the solver; the step's way couples a little with its scale.
    assert np.allclose(np.log(solution.scale), smoothed, atol=2e-3)


def test_what_lies_between_the_supports_is_where_the_whole_graph_has_it(monkeypatch):
    drive = Drive(3 * ROUND)
    graph = PoseGraph()
    graph.loops += ends(drive)
    some = graph.solve(drive.nodes)
    monkeypatch.setattr(graphs, "_SUPPORTS", 10**6)
    every = graph.solve(drive.nodes)
    moved = np.abs(every.T_map_cam - drive.nodes.T_map_cam)[:, :3, 3].max()
    assert moved > 0.1
    assert np.abs(some.T_map_cam - every.T_map_cam)[:, :3, 3].max() < 0.01 * moved
    assert np.abs(np.log(some.scale / every.scale)).max() < 1e-3


def test_ten_wrong_loops_change_nothing():
    """Each is a surprise; forced into the graph they are taken out again."""
    grown = []
    for seed in range(10):
        drive = Drive(150, seed)
        graph = PoseGraph()
        graph.loops += ends(drive)
        right = list(graph.loops)
        before = drive.error(graph.solve(drive.nodes).T_map_cam)
        wrong = [drive.wrong_loop() for _ in range(10)]
        assert min(graph.surprise(drive.nodes, [loop]) for loop in wrong) > 4.5**2
        graph.loops += wrong
        after = drive.error(graph.solve(drive.nodes, furthest=5).T_map_cam)
        assert not set(map(id, wrong)) & set(map(id, graph.loops))
        assert len(graph.loops) >= len(right) - 1
        grown.append(after / before)
    assert np.mean(grown) < 1.05


def test_right_loops_are_no_surprise():
    drive = Drive(150, 3)
    graph = PoseGraph()
    for loop in ends(drive):
        assert graph.surprise(drive.nodes, [loop]) < 4.5**2
        graph.loops.append(loop)


def test_loops_that_agree_are_told_from_those_that_do_not():
    drive = Drive(150, 4)
    first, second = drive.loop(3, 103), drive.loop(6, 109)
    assert graphs.gap(drive.nodes, first, second) < 3.5
    assert graphs.gap(drive.nodes, second, first) < 3.5
    turned = replace(second, S_a_b=replace(second.S_a_b, rotation=second.S_a_b.rotation @ se3.exp_so3(np.full(3, 0.1))))
    assert graphs.gap(drive.nodes, first, turned) > 3.5
    assert graphs.gap(drive.nodes, first, drive.wrong_loop()) > 3.5


def test_loops_join_what_a_weak_link_divides():
    drive = Drive(2 * ROUND, 5)
    weak = np.arange(2 * ROUND) == ROUND + 20
    sigma = drive.nodes.sigma.copy()
    sigma[weak] = (0.8, 2.0, 0.5)
    T = drive.nodes.T_chain_cam.copy()
    T[ROUND + 20 :] = se3.exp(np.array([0.2, 0.6, 0.1, 1.0, 0.2, -0.8])) @ T[ROUND + 20 :]
    nodes = replace(drive.nodes, weak=weak, sigma=sigma, T_chain_cam=T, T_map_cam=T.copy())
    graph = PoseGraph()
    loops = [drive.loop(30, 130), drive.loop(36, 136)]
    assert not graph.connected(nodes, 30, 130)
    assert graph.connected(nodes, 130, 136)
    graph.loops += loops
    assert graph.connected(nodes, 30, 130)
    solution = graph.solve(nodes, furthest=5)
    assert len(graph.loops) == 2
    assert drive.error(solution.T_map_cam) < 0.2 < 0.5 < drive.error(T)


def test_a_thousand_keyframes_are_solved_in_bounded_time():
    drive = Drive(1000, 6)
    graph = PoseGraph()
    graph.loops += [drive.loop(k - ROUND, k) for k in range(ROUND, 1000, 90)]
    graph.solve(drive.nodes)
    spent = []
    for _ in range(3):
        begin = time.thread_time()
        graph.solve(drive.nodes)
        spent.append(time.thread_time() - begin)
    assert min(spent) < 0.1  # s of this thread; a quiet core needs a fifth of that


def test_the_same_graph_gives_the_same_bytes():
    drive = Drive(150, 7)
    found = []
    for _ in range(2):
        graph = PoseGraph()
        graph.loops += ends(Drive(150, 7))
        found.append(graph.solve(drive.nodes).T_map_cam.tobytes())
    assert found[0] == found[1]

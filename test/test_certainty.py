"""Covariance of the pose in the map: against many random chains, and what claims, gravity and loops make of it."""

from __future__ import annotations

import numpy as np
import pytest

from da3_ros.config import Config
from da3_ros.evaluation import map_poses, steps
from da3_ros.evaluation.map_poses import PoseCheck
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.geometry import se3
from da3_ros.geometry.sim3 import Sim3
from da3_ros.predictors import open_predictor
from da3_ros.slam.certainty import Certainty
from da3_ros.slam.graph import Loop, Nodes, PoseGraph
from da3_ros.slam.keyframe import Step
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource

STEP = Step(np.deg2rad(0.3), 0.01, 0.005)
T_STEP = se3.make(se3.exp_so3(np.array([0.0, 0.15, 0.02])), np.array([0.1, 0.0, 0.3]))


def chain(count: int) -> Certainty:
    certainty = Certainty()
    certainty.start(np.inf)
    for _ in range(count):
        certainty.step(T_STEP, STEP, np.inf)
    return certainty


def here(certainty: Certainty) -> np.ndarray:
    return certainty.at(np.eye(4), 1.0, 0.0, 0.0)


def test_errors_of_many_chains_are_as_large_as_it_says():
    rng, count = np.random.default_rng(1), 25
    P, true = here(chain(count)), np.linalg.matrix_power(T_STEP, count)
    found = []
    for _ in range(300):
        S = Sim3.identity()
        for _ in range(count):
            off = rng.standard_normal(6) * np.repeat([STEP.rotation, STEP.translation], 3)
            S = (
                S
                @ Sim3.from_rigid(T_STEP @ se3.exp(off))
                @ Sim3(float(np.exp(STEP.log_scale * rng.standard_normal())), np.eye(3), np.zeros(3))
            )
        found.append(PoseCheck(se3.make(S.rotation, S.translation), true, P))
    for name, value in map_poses.figures(found, 1.0).items():
        assert value == pytest.approx(1, abs=0.15), name


def test_a_claim_of_metres_makes_the_scale_better_known_and_not_the_place():
    certainty = Certainty()
    certainty.start(0.1)
    certainty.step(T_STEP, STEP, 0.1)
    before = here(certainty)
    far = se3.make(np.eye(3), np.array([0.0, 0.0, 5.0]))
    vague = certainty.at(far, 1.0, 0.0, 0.0)
    assert vague[5, 5] > before[5, 5] + (5 * 0.09) ** 2  # five units on, a tenth of them unknown
    still = Step(0.0, 0.0, 0.0)
    certainty.step(np.eye(4), still, 0.01)
    assert np.allclose(here(certainty), before)
    assert certainty.at(far, 1.0, 0.0, 0.0)[5, 5] < vague[5, 5] / 3


def test_gravity_makes_tilt_better_known_and_not_heading():
    certainty, up = chain(20), np.array([0.0, -1.0, 0.0])
    before = here(certainty)
    certainty.level(up, 0.04)
    after = here(certainty)
    for axis, left in ((0, 0.04), (1, 1.0), (2, 0.04)):
        assert after[axis, axis] == pytest.approx(left * before[axis, axis], rel=0.3)
    assert np.linalg.eigvalsh(after).min() > 0


def test_a_loop_makes_the_newest_place_better_known():
    count = 30
    T = np.stack([np.linalg.matrix_power(T_STEP, i) for i in range(count)])
    sigma = np.tile([STEP.rotation, STEP.translation, STEP.log_scale], (count, 1))
    nodes = Nodes(T, sigma, np.zeros(count, bool), np.zeros((count, 2)), T, np.ones(count))
    graph, tight = PoseGraph(), np.array([1e-3, 2e-3, 1e-3])
    alone = graph.solve(nodes).covariance
    assert np.allclose(np.diag(alone)[:6], np.diag(here(chain(count - 1))), rtol=0.05)
    graph.loops.append(Loop(0, count - 1, Sim3.from_rigid(se3.inverse(T[0]) @ T[-1]), tight))
    tied = graph.solve(nodes).covariance
    assert np.sqrt(np.diag(tied)) == pytest.approx(np.repeat(tight, (3, 3, 1)), rel=0.1)


def test_sigmas_of_odometry_and_of_the_map_are_those_of_their_errors():
    """Over whole runs; neighbouring poses are wrong alike, so that few runs lie far from 1 either way."""
    found = []
    for seed in (1, 2, 3):
        source = HeldSource(list(open_source(f"world:{seed}?frames=60&size=320x240")))
        record, _ = OfflineRun(source, open_predictor(Config()), Config()).run()
        of_steps, of_map = steps.figures(record.steps, 1.0), map_poses.figures(record.poses, 1.0)
        found.append([of_steps["anees_rotation"], of_steps["anees_translation"], of_map["anees"]])
    mean = np.mean(found, axis=0)
    assert (mean > 0.2).all()
    assert (mean < 2.5).all()

"""Trajectory metrics and latencies against fabricated trajectories whose errors are known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.errors import EvaluationError
from da3_ros.evaluation.latency import Latency
from da3_ros.evaluation.steps import StepChecks, figures
from da3_ros.evaluation.trajectory import associate, evaluate, path_lengths
from da3_ros.geometry import se3
from da3_ros.geometry.sim3 import Sim3
from da3_ros.types import Estimate, State, Trajectory

STEP_NS = 33_333_333
START_NS = 1_700_000_000_123_456_789

seeds = st.integers(0, 2**32 - 1)


def walk(seed: int = 0, frames: int = 120, step_m: float = 0.03) -> Trajectory:
    """A smooth random walk with smooth random rotation at 30 Hz."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(15) / np.hanning(15).sum()

    def smooth(columns: int) -> np.ndarray:
        noise = rng.normal(size=(frames + 14, columns))
        return np.stack([np.convolve(noise[:, c], kernel, "valid") for c in range(columns)], axis=1)

    positions = np.cumsum(3 * step_m * smooth(3), axis=0)
    turns = 0.05 * smooth(3)
    rotations = [se3.exp_so3(rng.normal(size=3))]
    for turn in turns[1:]:
        rotations.append(rotations[-1] @ se3.exp_so3(turn))
    stamps = START_NS + STEP_NS * np.arange(frames, dtype=np.int64)
    return Trajectory(stamps, se3.make(np.stack(rotations), positions))


def similarity(seed: int, scale: float) -> Sim3:
    rng = np.random.default_rng(seed)
    return Sim3(scale, se3.exp_so3(rng.normal(size=3)), rng.normal(size=3) * 5)


def moved(trajectory: Trajectory, S: Sim3) -> Trajectory:
    return Trajectory(trajectory.stamps_ns, S.act_pose(trajectory.T_map_cam))


def picked(trajectory: Trajectory, index) -> Trajectory:
    return Trajectory(trajectory.stamps_ns[index], trajectory.T_map_cam[index])


def with_positions(trajectory: Trajectory, positions: np.ndarray) -> Trajectory:
    return Trajectory(trajectory.stamps_ns, se3.make(trajectory.T_map_cam[:, :3, :3], positions))


def straight(lengths: np.ndarray) -> Trajectory:
    """Along x, at these path lengths, looking ahead."""
    positions = np.zeros((len(lengths), 3))
    positions[:, 0] = lengths
    stamps = START_NS + STEP_NS * np.arange(len(lengths), dtype=np.int64)
    return Trajectory(stamps, se3.make(np.eye(3), positions))


class TestKnownErrors:
    @settings(max_examples=25, deadline=None)
    @given(seeds)
    def test_identical_is_zero(self, seed):
        truth = walk(seed)
        m = evaluate(truth, truth).metrics
        assert m.frames_matched == 120
        assert m.coverage == 1.0
        assert m.path_length_m == pytest.approx(path_lengths(truth.T_map_cam[:, :3, 3])[-1])
        for error in (m.ate_sim3_m, m.ate_se3_m, m.ate_max_m, m.rpe_trans_m, m.scale_drift):
            assert error < 1e-12
        assert m.ate_rot_deg < 1e-5
        assert m.rpe_rot_deg < 1e-5
        assert m.scale == pytest.approx(1, abs=1e-12)

    @settings(max_examples=40, deadline=None)
    @given(seeds, st.floats(0.05, 20))
    def test_a_similarity_is_recovered(self, seed, scale):
        truth = walk(seed)
        S_est_truth = similarity(seed + 1, scale)
        result = evaluate(moved(truth, S_est_truth), truth)
        m = result.metrics
        assert m.scale == pytest.approx(scale, rel=1e-9)
        assert m.ate_sim3_m < 1e-9
        assert m.ate_rot_deg < 1e-4
        assert m.rpe_trans_m < 1e-9
        assert m.scale_drift < 1e-9
        np.testing.assert_allclose(result.positions, result.truth_positions, atol=1e-9)
        composed = result.S_truth_est @ S_est_truth
        np.testing.assert_allclose(composed.rotation, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(composed.translation, 0, atol=1e-8)

    @settings(max_examples=25, deadline=None)
    @given(seeds, st.floats(0.5, 2))
    def test_se3_alignment_charges_the_scale(self, seed, scale):
        truth = walk(seed)
        p = truth.T_map_cam[:, :3, 3]
        spread = np.sqrt(((p - p.mean(axis=0)) ** 2).sum(axis=1).mean())
        m = evaluate(moved(truth, similarity(seed, scale)), truth).metrics
        assert m.ate_se3_m == pytest.approx(abs(scale - 1) * spread, abs=1e-9)

    @settings(max_examples=25, deadline=None)
    @given(seeds)
    def test_metrics_do_not_depend_on_the_frames_of_reference(self, seed):
        truth = walk(seed)
        rng = np.random.default_rng(seed)
        noisy = with_positions(truth, truth.T_map_cam[:, :3, 3] + 0.02 * rng.normal(size=(120, 3)))
        here = dataclasses.asdict(evaluate(noisy, truth).metrics)
        there = dataclasses.asdict(
            evaluate(moved(noisy, similarity(seed + 1, 1)), moved(truth, similarity(seed + 2, 1))).metrics
        )
        for name, value in here.items():
            assert there[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name

    def test_white_noise_is_measured_as_it_is(self):
        truth = walk(3, frames=3000)
        sigma = 0.01
        noise = sigma * np.random.default_rng(0).normal(size=(3000, 3))
        m = evaluate(with_positions(truth, truth.T_map_cam[:, :3, 3] + noise), truth).metrics
        assert m.ate_sim3_m == pytest.approx(np.sqrt(3) * sigma, rel=0.03)
        assert m.rpe_trans_m == pytest.approx(np.sqrt(6) * sigma, rel=0.03)
        assert m.ate_max_m > m.ate_sim3_m

    def test_rotation_noise_and_constant_rotation_speed_error(self):
        truth = walk(4, frames=2000)
        rng = np.random.default_rng(1)
        wobble = se3.make(se3.exp_so3(np.deg2rad(0.5) * rng.normal(size=(2000, 3))), np.zeros(3))
        m = evaluate(Trajectory(truth.stamps_ns, truth.T_map_cam @ wobble), truth).metrics
        assert m.ate_rot_deg == pytest.approx(0.5 * np.sqrt(3), rel=0.05)
        assert m.rpe_rot_deg == pytest.approx(0.5 * np.sqrt(6), rel=0.05)
        turning = straight(np.arange(10.0))
        extra = se3.make(se3.exp_so3(np.outer(np.arange(10.0), [0, np.deg2rad(0.25), 0])), np.zeros(3))
        m = evaluate(Trajectory(turning.stamps_ns, turning.T_map_cam @ extra), turning).metrics
        assert m.rpe_rot_deg == pytest.approx(0.25, rel=1e-6)

    def test_error_over_one_metre(self):
        truth = straight(np.linspace(0, 20, 401))
        sideways = truth.T_map_cam[:, :3, 3].copy()
        sideways[:, 1] = 0.03 * sideways[:, 0]  # 3 % sideways, which no scale explains
        m = evaluate(with_positions(truth, sideways), truth).metrics
        assert m.rpe_trans_per_m == pytest.approx(3.0, rel=0.01)
        assert np.isnan(evaluate(*[straight(np.linspace(0, 0.9, 50))] * 2).metrics.rpe_trans_per_m)

    def test_scale_drift_of_a_run_that_grows(self):
        s = np.linspace(0, 10, 1001)
        truth = straight(s)
        grown = straight(s + 0.01 * s**2 / 2)  # local scale 1 + 0.01 s: 1.00 .. 1.10
        result = evaluate(grown, truth)
        # pieces of 1 m have scales 1.005 .. 1.095 about a median of 1.05
        assert result.metrics.scale_drift == pytest.approx(0.045 / 1.05, rel=0.02)
        assert (np.diff(result.local_scale) > 0).all()
        assert result.local_scale_ns[0] < result.local_scale_ns[-1]

    def test_scale_drift_sees_a_break_but_not_noise(self):
        s = np.linspace(0, 10, 1001)
        broken = straight(np.where(s < 6, s, 6 + 2 * (s - 6)))
        assert evaluate(broken, straight(s)).metrics.scale_drift == pytest.approx(1.0, rel=0.01)
        truth = walk(5, frames=1500)
        noise = 0.003 * np.random.default_rng(2).normal(size=(1500, 3))
        noisy = with_positions(truth, truth.T_map_cam[:, :3, 3] + noise)
        assert evaluate(noisy, truth).metrics.scale_drift < 0.02


class TestTime:
    @settings(max_examples=25, deadline=None)
    @given(seeds)
    def test_jittered_stamps_still_match_their_frames(self, seed):
        truth = walk(seed)
        jitter = np.random.default_rng(seed).integers(-15_000_000, 15_000_000, 120)
        result = evaluate(Trajectory(truth.stamps_ns + jitter, truth.T_map_cam), truth)
        assert result.metrics.coverage == 1.0
        np.testing.assert_array_equal(result.index_truth, np.arange(120))
        assert result.metrics.ate_sim3_m < 1e-12

    @settings(max_examples=50, deadline=None)
    @given(seeds, st.integers(0, 40), st.integers(0, 40))
    def test_pairs_are_one_to_one_ordered_and_near(self, seed, n, m):
        rng = np.random.default_rng(seed)
        a, b = np.sort(rng.integers(0, 10**9, n)), np.sort(rng.integers(0, 10**9, m))
        poses = np.eye(4)
        i, j = associate(Trajectory(a, np.tile(poses, (n, 1, 1))), Trajectory(b, np.tile(poses, (m, 1, 1))), 10_000_000)
        assert (np.diff(i) > 0).all()
        assert (np.diff(j) > 0).all()
        assert (np.abs(a[i] - b[j]) <= 10_000_000).all()
        # nobody who is unmatched has an unmatched partner that is the nearest of all to him and he to it
        for index in set(range(n)) - set(i.tolist()):
            if m == 0:
                continue
            near = int(np.argmin(np.abs(b - a[index])))
            gap = abs(b[near] - a[index])
            assert gap > 10_000_000 or np.abs(a - b[near]).min() <= gap

    def test_the_limit_is_inclusive_and_can_be_chosen(self):
        truth = walk(0)
        late = Trajectory(truth.stamps_ns + 10_000_000, truth.T_map_cam)
        assert len(associate(late, truth, 10_000_000)[0]) == 120
        assert len(associate(late, truth, 9_999_999)[0]) == 0

    def test_exact_half_steps_match_as_a_chain(self):
        truth = walk(0)
        i, j = associate(Trajectory(truth.stamps_ns + STEP_NS // 2, truth.T_map_cam), truth)
        assert len(i) == 120
        np.testing.assert_array_equal(i, j)

    def test_partial_coverage(self):
        truth = walk(1)
        m = evaluate(picked(truth, slice(30, 90)), truth).metrics
        assert m.coverage == 0.5
        assert m.frames_matched == 60
        assert m.path_length_m == pytest.approx(path_lengths(truth.T_map_cam[:, :3, 3])[-1])

    def test_rpe_does_not_span_gaps(self):
        truth = straight(np.arange(100) * 0.05)
        wrong = truth.T_map_cam[:, :3, 3].copy()
        wrong[50:, 1] += 1.0  # a jump while nothing was estimated
        index = np.r_[0:45, 55:100]
        m = evaluate(picked(with_positions(truth, wrong), index), truth).metrics
        assert m.ate_sim3_m > 0.05
        assert m.rpe_trans_m < 0.02

    def test_truth_at_a_higher_rate(self):
        truth = walk(2, frames=500)
        result = evaluate(picked(truth, slice(0, 500, 10)), truth)
        assert result.metrics.frames_matched == 50
        np.testing.assert_array_equal(result.index_truth, np.arange(0, 500, 10))

    @pytest.mark.parametrize("side", ["estimate", "truth"])
    def test_duplicated_stamps_count_once(self, side):
        truth = walk(6)
        twice = picked(truth, np.sort(np.r_[0:120, 10, 11, 12]))
        result = evaluate(*((twice, truth) if side == "estimate" else (truth, twice)))
        assert result.metrics.frames_matched == 120
        assert result.metrics.coverage == 1.0
        assert result.metrics.ate_sim3_m < 1e-12


class TestDegenerate:
    def test_standing_camera(self):
        truth = straight(np.zeros(50))
        noise = 0.01 * np.random.default_rng(0).normal(size=(50, 3))
        m = evaluate(with_positions(truth, noise), truth).metrics
        assert np.isnan(m.scale)
        assert np.isnan(m.scale_drift)
        spread = np.sqrt(((noise - noise.mean(axis=0)) ** 2).sum(axis=1).mean())
        assert m.ate_sim3_m == m.ate_se3_m == pytest.approx(spread, rel=1e-6)
        assert m.rpe_trans_m == pytest.approx(np.sqrt(6) * 0.01, rel=0.2)

    def test_an_estimate_that_never_moved(self):
        truth = walk(7)
        m = evaluate(with_positions(truth, np.zeros((120, 3))), truth).metrics
        p = truth.T_map_cam[:, :3, 3]
        assert m.scale == 0.0
        assert m.ate_sim3_m == pytest.approx(np.sqrt(((p - p.mean(axis=0)) ** 2).sum(axis=1).mean()))

    def test_straight_path_keeps_its_orientation_error(self):
        truth = straight(np.linspace(0, 5, 100))
        m = evaluate(moved(truth, similarity(3, 2.0)), truth).metrics
        assert m.ate_sim3_m < 1e-9
        assert m.ate_rot_deg < 1e-4

    def test_turning_on_the_spot_has_a_rotation_error(self):
        turn = se3.make(se3.exp_so3(np.outer(np.linspace(0, 3, 60), [0, 1.0, 0])), np.zeros(3))
        truth = Trajectory(START_NS + STEP_NS * np.arange(60, dtype=np.int64), turn)
        slow = se3.make(se3.exp_so3(np.outer(np.linspace(0, 2.7, 60), [0, 1.0, 0])), np.zeros(3))
        m = evaluate(Trajectory(truth.stamps_ns, slow), truth).metrics
        assert m.rpe_rot_deg == pytest.approx(np.rad2deg(0.3 / 59), rel=1e-6)
        assert m.ate_rot_deg > 3

    @pytest.mark.parametrize("frames", [3, 4, 5])
    def test_very_short_runs(self, frames):
        truth = walk(8, frames=frames)
        m = evaluate(moved(truth, similarity(1, 3.0)), truth).metrics
        assert m.ate_sim3_m < 1e-9
        assert m.scale == pytest.approx(3.0)


class TestRefusals:
    def test_empty(self):
        with pytest.raises(EvaluationError, match=r"estimated trajectory is empty"):
            evaluate(picked(walk(), slice(0, 0)), walk())
        with pytest.raises(EvaluationError, match=r"ground truth is empty"):
            evaluate(walk(), picked(walk(), slice(0, 0)))

    def test_too_few(self):
        with pytest.raises(EvaluationError, match=r"only 2 estimated poses match"):
            evaluate(picked(walk(), slice(0, 2)), walk())

    def test_other_clock(self):
        later = Trajectory(walk().stamps_ns + 10**10, walk().T_map_cam)
        with pytest.raises(EvaluationError, match=r"lie 6\.033 s apart; check that both use the same clock"):
            evaluate(later, walk())
        between = picked(walk(), slice(0, 120, 2))
        shifted = Trajectory(between.stamps_ns + STEP_NS, between.T_map_cam)
        with pytest.raises(EvaluationError, match="interleave"):
            evaluate(shifted, between)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("name", ["estimate", "truth"])
    def test_poses_that_are_not_finite(self, value, name):
        good, poses = walk(), walk().T_map_cam.copy()
        poses[17, 0, 3] = value
        bad = Trajectory(good.stamps_ns, poses)
        with pytest.raises(EvaluationError, match=r"1 poses that are not finite, the first at index 17"):
            evaluate(*((bad, good) if name == "estimate" else (good, bad)))

    def test_stamps_that_run_backwards(self):
        with pytest.raises(EvaluationError, match="run backwards after index 118"):
            evaluate(picked(walk(), np.r_[0:119, 5]), walk())

    def test_shapes(self):
        with pytest.raises(EvaluationError, match="poses of shape"):
            evaluate(Trajectory(walk().stamps_ns, walk().T_map_cam[:5]), walk())


class TestLatency:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.floats(1e-6, 900), min_size=1, max_size=300))
    def test_percentiles_are_exact_to_half_a_percent(self, seconds):
        latency = Latency()
        for value in seconds:
            latency.add("track", value)
        (stage,) = latency.summary().values()
        for key, fraction in (("p50", 0.5), ("p95", 0.95)):
            exact = 1e3 * np.percentile(seconds, 100 * fraction, method="inverted_cdf")
            assert stage[key] == pytest.approx(exact, rel=0.0051)
        assert stage["max"] == 1e3 * max(seconds)
        assert stage["count"] == len(seconds)
        assert stage["p50"] <= stage["p95"] <= stage["max"]

    def test_stages_keep_their_order_and_their_values(self):
        latency = Latency()
        latency.add("decode", 0.001)
        latency.add("predict", 0.1)
        latency.add("decode", 0.002)
        summary = latency.summary()
        assert list(summary) == ["decode", "predict"]
        assert summary["decode"]["count"] == 2
        assert summary["predict"]["p95"] == pytest.approx(100, rel=0.005)

    def test_extremes_are_counted(self):
        latency = Latency()
        for value in (-1.0, 0.0, 1e-9, 1e9):
            latency.add("x", value)
        stage = latency.summary()["x"]
        assert stage["count"] == 4
        assert stage["max"] == 1e12
        assert stage["p50"] == pytest.approx(0.001, rel=0.006)  # the lowest bucket
        with pytest.raises(ValueError, match="not a duration"):
            latency.add("x", float("nan"))

    def test_histogram_holds_every_sample(self):
        latency = Latency()
        rng = np.random.default_rng(0)
        seconds = rng.lognormal(-4, 0.3, 5000)
        for value in seconds:
            latency.add("x", value)
        edges, counts = latency.histograms()["x"]
        assert counts.sum() == 5000
        assert len(edges) == len(counts) + 1
        expected, _ = np.histogram(1e3 * seconds, edges)
        assert np.abs(counts - expected).max() <= 1

    def test_empty(self):
        assert Latency().summary() == {}
        assert Latency().histograms() == {}


def test_sigmas_of_steps_that_are_right_have_an_anees_of_one():
    """Map units are half a metre; a lost frame and a cut leave out the steps that they touch."""
    rng, truth = np.random.default_rng(5), walk(5, 600).T_map_cam
    checks, T_odom_cam = StepChecks(), np.eye(4)
    for i, T in enumerate(truth):
        if i:
            noise = se3.make(se3.exp_so3(0.002 * rng.standard_normal(3)), np.zeros(3))
            step = se3.inverse(truth[i - 1]) @ T @ noise
            step[:3, 3] = 2 * (step[:3, 3] + 0.005 * rng.standard_normal(3))
            T_odom_cam = T_odom_cam @ step
        state = State.LOST if i == 100 else State.TRACKING
        estimate = Estimate(i, i * STEP_NS, np.eye(4), T_odom_cam, 0.002, 0.01, None, state, False, False, int(i > 300))
        checks.add(estimate, None if i == 200 else T)
    assert len(checks.found) == 599 - 2 - 2 - 1
    found = figures(checks.found, 0.5)
    assert found["anees_rotation"] == pytest.approx(1, abs=0.15)
    assert found["anees_translation"] == pytest.approx(1, abs=0.15)
    assert figures(checks.found, None) == figures([], 1.0) == {}

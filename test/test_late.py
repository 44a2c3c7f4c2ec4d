"""Predictions that come late, as a robot's do: several frames after they were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.evaluation.trajectory import as_trajectory, evaluate
from da3_ros.geometry import se3
from da3_ros.predictors import open_predictor
from da3_ros.slam.momentum import Momentum
from da3_ros.slam.slam import Slam
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource
from da3_ros.types import Estimate, Frame, State, Trajectory


@lru_cache
def world(seed: int) -> HeldSource:
    return HeldSource(list(open_source(f"world:{seed}?frames=80&size=320x240")))


def driven(slam: Slam, frames: list[Frame], delay: int) -> Iterator[tuple[Estimate, bool]]:
    """Every prediction is there so many frames after its window was asked for; whether one was there is told."""
    predictor, out, due = open_predictor(slam._config), None, 0
    for i, frame in enumerate(frames):
        estimate = slam.track(frame)
        there = out is not None and i >= due
        if there:
            slam.integrate(predictor.predict(out))
            out = None
        yield estimate, there
        if out is None:
            out, due = slam.request(), i + delay


def run(frames: list[Frame], delay: int, **values: object) -> tuple[Slam, list[Estimate]]:
    slam = Slam(configuration.updated(Config(), {k.replace("__", "."): v for k, v in values.items()}))
    return slam, [estimate for estimate, _ in driven(slam, frames, delay)]


def truth(frames: list[Frame]) -> Trajectory:
    return as_trajectory([(frame.stamp_ns, frame.truth.T_world_cam) for frame in frames])


def errors_mm(found: Trajectory, frames: list[Frame]) -> float:
    return 1e3 * evaluate(found, truth(frames)).metrics.ate_sim3_m


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_a_trajectory_knows_in_the_end_what_came_late(seed):
    """Frames between keyframes are as good as these, however far from them the tracker had to go."""
    frames = list(world(seed))
    slam, estimates = run(frames, 5)
    causal, final = slam.causal_trajectory(), slam.trajectory()
    assert len(final) == len(frames)
    assert [e.state for e in estimates].count(State.INIT) == 6
    assert errors_mm(final, frames) < min(20.0, 0.6 * errors_mm(causal, frames))


def test_nothing_shows_in_a_path_where_a_keyframe_was_placed():
    """A frame moves on as the landmarks say, whether or not a keyframe lies between it and the one before."""
    frames = list(world(2))
    slam, _ = run(frames, 3)
    found, true = slam.trajectory(), truth(frames)
    steps, true_steps = (se3.inverse(T[:-1]) @ T[1:] for T in (found.T_map_cam, true.T_map_cam))
    off = 1e3 * np.linalg.norm(steps[:, :3, 3] - true_steps[:, :3, 3], axis=1)
    behind = np.flatnonzero(found.keyframe)[1:-1]  # the step that follows a keyframe
    assert off[4:].max() < 15
    assert np.median(off[behind]) < 2 * np.median(off[4:])


@pytest.mark.parametrize("delay", [2, 6])
def test_the_path_ends_where_the_camera_is(delay):
    frames = list(world(1))
    for end in (30, 31, 32, 33):
        slam, estimates = run(frames[:end], delay)
        there = slam.status().T_map_odom @ estimates[-1].T_odom_cam
        assert np.allclose(slam.path().T_map_cam[-1], there, atol=1e-9)


def test_what_the_camera_did_before_the_first_prediction_is_no_step_of_odometry():
    frames = list(world(4))
    slam, estimates = run(frames, 6)
    first = next(i for i, e in enumerate(estimates) if e.state is not State.INIT)
    assert first == 7
    T = np.stack([frame.truth.T_world_cam for frame in frames])
    way = np.linalg.norm(T[first, :3, 3] - T[0, :3, 3])
    step = se3.inverse(estimates[first - 1].T_odom_cam) @ estimates[first].T_odom_cam
    true_step = se3.inverse(T[first - 1]) @ T[first]
    assert way > 0.15
    assert np.linalg.norm(step[:3, 3] - true_step[:3, 3]) < 0.3 * way
    # In the map the camera is where it is, at once and after the next prediction.
    for i in range(first, first + 8):
        relative, true = (se3.inverse(a) @ b for a, b in ((np.eye(4), estimates[i].T_map_cam), (T[0], T[i])))
        assert np.linalg.norm(relative[:3, 3] - true[:3, 3]) < 0.1 * way + 0.3 * np.linalg.norm(true[:3, 3])
    # The trajectory knows the way there in the end.
    found = slam.trajectory().T_map_cam
    off = (se3.inverse(found[0]) @ found)[: first + 1, :3, 3] - (se3.inverse(T[0]) @ T)[: first + 1, :3, 3]
    assert np.linalg.norm(off, axis=1).max() < 0.2 * way


# --- the motion so far


def step(x: float, turn: float = 0.0) -> np.ndarray:
    return se3.exp(np.array([0, turn, 0, x, 0, 0]))


def covariance(rotation: float, translation: float) -> np.ndarray:
    return np.diag(np.repeat([rotation**2, translation**2], 3))


def walked(count: int = 40) -> Momentum:
    """A camera that changes its step by 1 mm and 1 mrad, well seen."""
    momentum, rng = Momentum(), np.random.default_rng(3)
    x, turn = 0.05, 0.01
    for _ in range(count):
        x, turn = x + rng.normal(0, 1e-3), turn + rng.normal(0, 1e-3)
        momentum.fused(step(x, turn), covariance(1e-4, 1e-4), 0.1)
    momentum.fused(step(0.05, 0.01), covariance(1e-4, 1e-4), 0.1)
    return momentum


def test_a_step_that_landmarks_fix_is_as_they_say():
    found, sigma = walked().fused(step(0.06, 0.02), covariance(1e-4, 1e-4), 0.1)
    assert np.allclose(found, step(0.06, 0.02), atol=5e-4)
    assert np.sqrt(np.diag(sigma)).max() <= 1e-4


def test_a_step_that_hardly_anything_shows_is_much_like_the_one_before():
    found, sigma = walked().fused(step(0.15, 0.05), covariance(0.05, 0.1), 0.1)
    assert np.linalg.norm(found[:3, 3] - step(0.05)[:3, 3]) < 0.01
    assert np.sqrt(np.diag(sigma)).max() < 0.01


def test_over_twice_the_time_the_camera_goes_twice_as_far():
    expected = walked().expected(0.2)
    assert expected[0, 3] == pytest.approx(0.1, rel=0.05)
    assert se3.rotation_angle(expected[:3, :3]) == pytest.approx(0.02, rel=0.05)


def test_a_camera_that_is_pushed_is_believed():
    pushed = step(0.5, 0.3)
    found, _ = walked().fused(pushed, covariance(3e-3, 5e-3), 0.1)
    assert np.linalg.norm(found[:3, 3] - pushed[:3, 3]) < 0.02


def test_unseen_steps_do_not_teach_that_motion_never_changes():
    momentum = walked()
    for _ in range(60):
        momentum.fused(step(0.05, 0.01), covariance(0.5, 0.5), 0.1)
    found, _ = momentum.fused(step(0.055, 0.012), covariance(3e-4, 3e-4), 0.1)
    assert found[0, 3] == pytest.approx(0.055, abs=1e-3)


# --- what a review found


def test_frames_stamped_in_pairs_are_tracked_as_well():
    """A driver that stamps on arrival delivers two frames at nearly the same time now and then."""
    frames = list(world(2))
    for i in range(5, len(frames) - 1, 5):
        late_by = round(0.98 * (frames[i + 1].stamp_ns - frames[i].stamp_ns))
        frames[i] = replace(frames[i], stamp_ns=frames[i].stamp_ns + late_by)
    slam, estimates = run(frames, 0)
    assert {e.state for e in estimates[3:]} == {State.TRACKING}
    assert errors_mm(slam.trajectory(), frames) < 20


def test_the_path_does_not_step_where_a_segment_ends():
    frames = list(world(1))[:45]
    slam, estimates = run(frames, 0)
    for end in (lambda: slam.cut("gap"), slam.finish):
        end()
        there = slam.status().T_map_odom @ estimates[-1].T_odom_cam
        assert np.allclose(slam.path().T_map_cam[-1], there, atol=1e-9)


def test_a_frame_between_the_steps_of_the_first_live_window_counts_once():
    frames = list(world(1))
    config = Config()
    slam, predictor = Slam(config), open_predictor(config)
    slam.track(frames[0])
    first = slam.request()
    for frame in frames[1:7]:
        slam.track(frame)
    slam.integrate(predictor.predict(first))
    live = predictor.predict(slam.request())
    steps = slam.integrating(live)
    estimate = None
    while True:
        try:
            next(steps)
        except StopIteration:
            break
        if estimate is None:
            estimate = slam.track(frames[7])
    estimate = slam.track(frames[8 if estimate else 7])
    T = np.stack([frame.truth.T_world_cam for frame in frames])
    true = (se3.inverse(T[0]) @ T[estimate.frame_id])[:3, 3]
    found = estimate.T_map_cam[:3, 3]
    assert np.linalg.norm(found * np.linalg.norm(true) / np.linalg.norm(found) - true) < 0.05
    assert np.linalg.norm(found) < 1.4 * np.linalg.norm(true)


def test_a_covariance_that_says_nothing_is_not_weighed():
    momentum = walked()
    for covariance in (np.full((6, 6), np.nan), 1e20 * np.ones((6, 6)), np.diag([np.inf] * 6)):
        found, _ = momentum.fused(step(0.05), covariance, 0.1)
        assert np.array_equal(found, step(0.05))


@pytest.mark.parametrize(("seed", "hold"), [(1, 2), (2, 3), (4, 1)])
def test_frames_between_the_steps_of_a_window_are_as_good_as_others(seed, hold):
    """The node tracks frames while a window is joined: ``hold`` steps after each, where it is one go elsewhere."""
    frames = list(open_source(f"world:{seed}?frames=60&size=320x240&rate=15"))
    slam, predictor = Slam(Config()), open_predictor(Config())
    out, due, steps = None, 0, None
    sigmas, between, shifted = [], [], []
    follow = slam._tracker.shift
    slam._tracker.shift = lambda ids, pixels: (shifted.append(np.abs(pixels).max(initial=0)), follow(ids, pixels))
    for i, frame in enumerate(frames):
        estimate = slam.track(frame)
        if estimate.covariance is not None:
            sigmas.append(float(np.sqrt(np.trace(estimate.covariance[3:, 3:]))))
            between.append(steps is not None)
        if steps is None and out is not None and i >= due:
            steps = slam.integrating(predictor.predict(out))
        try:
            for _ in range(hold if steps is not None else 0):
                next(steps)
        except StopIteration:
            steps = out = None
        if out is None:
            out, due = slam.request(), i + 4
    assert sum(between) > 10
    assert max(shifted) < 10  # px: landmarks are found next to where flow had them
    assert errors_mm(slam.trajectory(), frames) < 30
    # Nothing becomes better known halfway: only what is told with the last step may shrink the covariance at once.
    inside = [b / a for a, b, x, y in zip(sigmas, sigmas[1:], between, between[1:], strict=False) if x and y]
    assert min(inside) > 0.7


def test_keyframes_that_wait_see_what_any_keyframe_of_the_window_found():
    """Two keyframes come back together while others wait: these get the new landmarks of both."""
    slam = Slam(Config())
    extend, found, shared = slam._placing._refinement.extend, [], []

    def told(*arguments):
        new = extend(*arguments)
        found.append(new.ids)
        return new

    slam._placing._refinement.extend = told
    for _, joined in driven(slam, list(world(1))[:50], 5):
        if joined and len(found) > 1:
            shared += [[int(np.isin(ids, t.seen.ids).sum()) for ids in found] for t in slam._schedule.pending]
        found.clear()
    assert len(shared) > 3
    assert np.median(shared, axis=0).min() > 10

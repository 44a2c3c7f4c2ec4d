"""The chain of windows against ground truth: exact where it must be, honest where it cannot be."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from conftest import EXACT

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import TrajectoryMetrics, evaluate
from da3_ros.geometry import se3
from da3_ros.predictors import open_predictor
from da3_ros.slam.slam import Slam
from da3_ros.slam.stamps import StampGate
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource
from da3_ros.types import Frame, Prediction, State, Truth, Window


@lru_cache
def world(seed: int = 1, frames: int = 60) -> HeldSource:
    return HeldSource(list(open_source(f"world:{seed}?frames={frames}&size=320x240")))


def run(source: HeldSource, predictor=None, **values: object) -> Record:
    config = configuration.updated(Config(), {k.replace("__", "."): v for k, v in values.items()})
    record, failure = OfflineRun(source, predictor or open_predictor(config), config).run()
    assert failure is None
    return record


def metrics(record: Record) -> TrajectoryMetrics:
    assert record.truth is not None
    return evaluate(record.trajectory, record.truth).metrics


def exact(**values: object) -> dict[str, object]:
    """Predictions without noise."""
    return {**{k.replace(".", "__"): v for k, v in EXACT.items()}, **values}


def test_exact_predictions_with_random_scale_and_gauge_chain_without_error():
    record = run(world(), **exact(simulated__window_log_scale=0.5, simulated__metric=False))
    m = metrics(record)
    assert m.coverage == 1.0
    assert m.ate_sim3_m < 1e-6 * m.path_length_m
    causal = evaluate(record.causal, record.truth).metrics
    assert causal.ate_sim3_m < 1e-6 * m.path_length_m
    assert not record.metric


def test_exact_predictions_at_a_stride_with_larger_steps():
    source = HeldSource(world().frames[:58])  # frame 58 is a keyframe that would wait for a second one in vain
    record = run(
        source, **exact(simulated__window_log_scale=0.5, simulated__metric=False, window__stride=2, window__size=9)
    )
    m = metrics(record)
    assert m.ate_sim3_m < 1e-6 * m.path_length_m


def test_all_noise_off_is_metric():
    m = metrics(run(world(), **exact(simulated__window_log_scale=0.0)))
    assert m.ate_se3_m < 1e-6 * m.path_length_m
    assert abs(m.scale - 1) < 1e-6


def test_default_noise_stays_within_bounds():
    m = metrics(run(world()))
    assert m.coverage == 1.0
    assert m.ate_sim3_m < 0.02 * m.path_length_m
    assert abs(m.scale - 1) < 0.1


def test_the_same_input_gives_the_same_bytes():
    a, b = run(world()), run(world())
    assert a.trajectory.T_map_cam.tobytes() == b.trajectory.T_map_cam.tobytes()
    assert a.causal.T_map_cam.tobytes() == b.causal.T_map_cam.tobytes()
    assert a.map_points.tobytes() == b.map_points.tobytes()
    c = run(world(), seed=1)
    assert a.trajectory.T_map_cam.tobytes() != c.trajectory.T_map_cam.tobytes()


def test_refinement_makes_chained_windows_better():
    values = {"window__live": False, "simulated__metric": False}
    chained, refined = (metrics(run(world(), refine__enabled=on, **values)) for on in (False, True))
    assert refined.coverage == 1.0
    assert refined.ate_sim3_m < chained.ate_sim3_m


def test_coarse_poses_cost_little_where_landmarks_are_followed():
    """Ten times the error in poses: 2 degrees and a tenth of the baseline, as small networks have."""
    values = {"simulated__rotation_deg": 2.0, "simulated__translation": 0.1, "simulated__metric": False}
    chained, refined = (metrics(run(world(), refine__enabled=on, **values)) for on in (False, True))
    assert refined.ate_sim3_m < 0.5 * chained.ate_sim3_m


def test_precise_windows_hold_where_the_calibration_is_wrong():
    """The tracker is told a focal length that is 10 % too long; predictions are made with the right one."""

    class Right:
        name, needs_truth = "right", True

        def __init__(self) -> None:
            self.inner = open_predictor(Config())

        def prepare(self, width: int, height: int) -> None:
            self.inner.prepare(width, height)

        def predict(self, window: Window) -> Prediction:
            frames = [dataclasses.replace(f, camera=right) for f in window.frames]
            prediction = self.inner.predict(dataclasses.replace(window, frames=tuple(frames)))
            return dataclasses.replace(prediction, window=window)

    right = world().frames[0].camera
    wrong = dataclasses.replace(right, fx=1.1 * right.fx, fy=1.1 * right.fy)
    source = HeldSource([dataclasses.replace(f, camera=wrong) for f in world().frames])
    m = metrics(run(source, Right()))
    assert m.coverage == 1.0
    assert m.ate_sim3_m < 0.02 * m.path_length_m


def test_refinement_does_little_harm_to_predictions_without_noise():
    record = run(world(), **exact(simulated__metric=False, refine__enabled=True))
    assert metrics(record).ate_sim3_m < 0.005


def test_an_invalid_new_view_is_refused_and_the_next_windows_go_on():
    """Also where it is not the newest view, and where depth without any confidence is averaged."""

    class Holes:
        name, needs_truth = "holes", True

        def __init__(self) -> None:
            self.inner = open_predictor(Config())

        def prepare(self, width: int, height: int) -> None:
            pass

        def predict(self, window: Window) -> Prediction:
            found = self.inner.predict(window)
            depth, confidence = found.depth.copy(), found.confidence.copy()
            if window.number % 7 == 3:
                depth[-2:] = np.nan
            if 10 < window.number < 20:
                confidence[:] = 0
            return replace(found, depth=depth, confidence=confidence)

        def close(self) -> None:
            self.inner.close()

    for values in ({}, {"window__stride": 2, "window__live": False}):
        record = run(world(), Holes(), refine__enabled=True, **values)
        assert np.isfinite(record.causal.T_map_cam).all()
        assert len(record.trajectory) == 60


def test_a_scale_break_is_detected_and_repaired():
    clean, broken = run(world()), run(world(), simulated__break_windows=[20, 40])
    # An honest window may claim a scale beyond three sigma: it gets a second look, as a broken one does.
    assert clean.counts["breaks_detected"] <= 1
    assert {w.number for w in broken.windows if w.outcome == "refused"} >= {20, 40}
    assert metrics(broken).ate_sim3_m < 1.5 * metrics(clean).ate_sim3_m + 0.01


def test_a_broken_keyframe_window_is_predicted_again():
    # Without live windows every window after the first places a keyframe.
    record = run(world(), window__live=False, simulated__break_windows=[5])
    assert [w.outcome for w in record.windows if w.number in (5, 6)] == ["refused", "repaired"]
    assert record.counts["breaks_repaired"] == 1


def test_a_lasting_break_opens_a_submap_behind_a_weak_link_and_keeps_the_scale():
    record = run(world(), window__live=False, simulated__break_windows=[5], simulated__break_lasting=True)
    outcomes = [w.outcome for w in record.windows]
    assert outcomes[4:6] == ["refused", "weak"]
    assert set(outcomes[6:]) == {"joined"}
    # What was before and after differ by two claims of metres, each uncertain by 10 %; without the new
    # submap they would differ by the factor of 2 that broke.
    assert metrics(record).scale_drift < 0.3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_break_in_the_first_window_gives_way_to_the_claims_after_it(seed):
    m = metrics(run(world(), seed=seed, simulated__break_windows=[1]))
    assert abs(m.scale - 1) < 0.1
    assert m.coverage == 1.0


def test_a_useless_window_is_not_believed():
    record = run(world(), window__live=False, simulated__bad_windows=[6])
    assert next(w for w in record.windows if w.number == 6).outcome == "refused"
    assert metrics(record).ate_sim3_m < 0.02 * metrics(record).path_length_m


def test_without_claims_of_metres_nothing_is_called_metric():
    record = run(world(), simulated__metric=False)
    assert not record.metric
    assert metrics(record).ate_sim3_m < 0.03 * metrics(record).path_length_m


def test_a_gap_starts_a_segment_and_the_pose_goes_on_from_there():
    frames = world().frames
    late = [dataclasses.replace(f, stamp_ns=f.stamp_ns + 5_000_000_000) for f in frames[30:]]
    record = run(HeldSource(frames[:30] + late))
    assert record.counts["segments"] == 2
    steps = np.linalg.norm(np.diff(record.trajectory.T_map_cam[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.3
    assert [w.outcome for w in record.windows].count("weak") == 1


def test_frames_out_of_order_are_dropped_and_counted():
    frames = list(world().frames)
    frames[10] = dataclasses.replace(frames[10], stamp_ns=frames[9].stamp_ns)
    record = run(HeldSource(frames))
    assert record.drops == {"stamp_not_increasing": 1}
    assert len(record.trajectory) == len(frames) - 1


def test_stamps_that_jump_back_leave_a_trajectory_in_time_order():
    frames = world().frames
    again = [dataclasses.replace(f, stamp_ns=f.stamp_ns + 5) for f in frames[10:30]]
    record = run(HeldSource([*frames[:30], *again]), node__on_time_jump="continue")
    stamps = record.trajectory.stamps_ns
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] == again[-1].stamp_ns
    assert set(stamps.tolist()) == {f.stamp_ns for f in [*frames[:10], *again]} | {frames[10].stamp_ns}
    assert len(record.causal) == len(record.trajectory)


def test_odometry_is_continuous_while_the_map_is_corrected():
    config = Config()
    slam, predictor = Slam(config), open_predictor(config)
    odometry, corrections = [], [np.eye(4)]
    for frame in world():
        estimate, _ = slam.process(frame, predictor)
        np.testing.assert_allclose(corrections[-1] @ estimate.T_odom_cam, estimate.T_map_cam, atol=1e-9)
        odometry.append(estimate.T_odom_cam[:3, 3])
        corrections.append(slam.status().T_map_odom)
    true = np.stack([f.truth.T_world_cam[:3, 3] for f in world()])
    steps, true_steps = (np.linalg.norm(np.diff(x, axis=0), axis=1) for x in (np.stack(odometry), true))
    assert np.abs(steps - true_steps)[3:].max() < 0.05
    assert np.ptp(np.stack(corrections)[:, :3, 3], axis=0).max() > 1e-4


def covered(frames: list[Frame], begin: int, end: int) -> list[Frame]:
    """A hand before the lens."""
    dark = np.full_like(frames[0].image, 3)
    return [replace(f, image=dark) if begin <= i < end else f for i, f in enumerate(frames)]


def late(frames: list[Frame], begin: int, seconds: float) -> list[Frame]:
    """A camera that sends nothing for a while."""
    return [replace(f, stamp_ns=f.stamp_ns + round(1e9 * seconds)) if i >= begin else f for i, f in enumerate(frames)]


@pytest.mark.parametrize(
    ("values", "harm"),
    [
        ({"simulated.break_windows": [20, 40]}, None),
        ({"simulated.bad_windows": [20, 40]}, None),
        ({}, lambda frames: covered(frames, 20, 42)),  # 1.5 s
        ({}, lambda frames: late(frames, 30, 5.0)),
    ],
    ids=["scale breaks", "useless windows", "covered lens", "gap"],
)
def test_odometry_does_not_jump_where_something_goes_wrong(values, harm):
    """No step is further off than its own sigma says, in any state."""
    frames = list(world().frames)
    config = configuration.updated(Config(), values)
    slam, predictor, gate = Slam(config), open_predictor(config), StampGate(config.node)
    before, far = None, []
    for true, frame in zip(frames, harm(frames) if harm else frames, strict=True):
        if cut := gate.judge(frame.stamp_ns, 0).cut:
            slam.cut(cut)
        estimate, _ = slam.process(frame, predictor)
        T = true.truth.T_world_cam
        if before is not None and State.INIT not in (estimate.state, before[0].state):
            step = se3.inverse(before[0].T_odom_cam) @ estimate.T_odom_cam
            off = se3.log(se3.inverse(se3.inverse(before[1]) @ T) @ step)
            sigma = np.repeat([estimate.sigma_rotation, estimate.sigma_translation], 3)
            far.append(float(np.sqrt(((off / sigma) ** 2).mean())))
        before = estimate, T
    assert len(far) >= 55
    assert max(far) < 3


def test_a_predictor_that_fails_costs_its_windows_only():
    config = Config()
    inner = open_predictor(config)

    class Flaky:
        name, needs_truth, calls = "flaky", True, 0

        def predict(self, window: Window) -> Prediction:
            self.calls += 1
            if self.calls % 3 == 0:
                raise PredictorError("no luck")
            return inner.predict(window)

        def close(self) -> None:
            pass

    record = run(world(), Flaky())
    assert metrics(record).coverage == 1.0
    assert metrics(record).ate_sim3_m < 0.03 * metrics(record).path_length_m
    assert sum(w.outcome == "refused" for w in record.windows) > 5


@pytest.mark.parametrize("field", ["depth", "poses", "nothing", "shape"])
def test_unusable_predictions_are_refused_in_a_sentence(field):
    config = Config()
    slam, predictor = Slam(config), open_predictor(config)
    slam.track(world().frames[0])
    window = slam.request()
    good = predictor.predict(window)
    bad = {
        "depth": dataclasses.replace(good, depth=np.full_like(good.depth, np.nan)),
        "poses": dataclasses.replace(good, rays=None, T_window_cam=np.full((1, 4, 4), np.nan)),
        "nothing": dataclasses.replace(good, rays=None),
        "shape": dataclasses.replace(good, confidence=good.confidence[:, :5]),
    }[field]
    with pytest.raises(PredictorError) as info:
        slam.integrate(bad)
    slam.refuse(info.value)
    assert slam.status().reason == str(info.value)
    slam.track(world().frames[1])
    slam.integrate(predictor.predict(slam.request()))  # goes on with the next frame
    assert slam.status().keyframes == 1


def test_poses_instead_of_rays_fit_the_same_seam():
    config = configuration.updated(Config(), {"simulated.window_log_scale": 0.0})
    inner = open_predictor(config)

    class Posed:
        """Depth with noise, poses without."""

        name, needs_truth = "posed", True

        def predict(self, window: Window) -> Prediction:
            T = np.stack([f.truth.T_world_cam for f in window.frames])
            return dataclasses.replace(inner.predict(window), rays=None, T_window_cam=T)

        def close(self) -> None:
            pass

    assert metrics(run(world(), Posed())).ate_sim3_m < 0.02


def test_an_uncalibrated_camera_is_learnt_from_the_rays():
    config = configuration.updated(Config(), {**EXACT, "window.live": False})
    inner = open_predictor(config)
    calibrated = {f.id: f for f in world()}

    class Blind:
        """Predicts from calibrated frames what the system asks of uncalibrated ones."""

        name, needs_truth = "blind", True

        def predict(self, window: Window) -> Prediction:
            known = dataclasses.replace(window, frames=tuple(calibrated[f.id] for f in window.frames))
            return dataclasses.replace(inner.predict(known), window=window)

        def close(self) -> None:
            pass

    bare = HeldSource([dataclasses.replace(f, camera=None) for f in world()])
    record, _ = OfflineRun(bare, Blind(), config).run()
    assert evaluate(record.trajectory, record.truth).metrics.ate_sim3_m < 0.03


def test_live_and_keyframe_windows_follow_the_configuration():
    config = configuration.updated(Config(), {"window.size": 5, "window.overlap": 3, "seam.depth_views": 2})
    slam, predictor = Slam(config), open_predictor(config)
    sizes, kinds = set(), []
    for frame in itertools.islice(world(), 40):
        estimate = slam.track(frame)
        while (window := slam.request()) is not None:
            sizes.add(len(window.frames))
            kinds.append(estimate.keyframe)
            assert window.frames[-1] is frame
            assert len(window.depth_views) <= 3
            assert slam.request() is None  # one window is out at a time
            slam.integrate(predictor.predict(window))
    assert sizes == {1, 2, 3, 4}
    assert 1 < sum(kinds) < len(kinds)


def test_blind_frames_are_weak_then_lost_and_sight_recovers():
    frames = list(world().frames)
    black = np.zeros_like(frames[0].image)
    config = configuration.updated(Config(), {"window.live": False, "tracker.lost_after_s": 0.5})
    predictor, slam = open_predictor(config), Slam(config)
    states = []
    for i, frame in enumerate(frames):
        covered = 20 <= i < 36
        if covered:
            frame = dataclasses.replace(frame, image=black, truth=Truth())
        estimate, _ = slam.process(frame, predictor)
        states.append(estimate.state)
    assert State.WEAK in states[20:30]
    assert states[35] is State.LOST
    assert states[-1] is State.TRACKING


def test_the_first_window_is_made_of_the_newest_frame_however_long_the_predictor_loads():
    config = configuration.updated(Config(), {**EXACT, "simulated.window_log_scale": 0.0})
    slam, predictor = Slam(config), open_predictor(config)
    frames = list(world().frames)
    for frame in frames[:30]:
        assert slam.track(frame).state is State.INIT
    window = slam.request()
    assert [frame.id for frame in window.frames] == [frames[29].id]
    for frame in frames[30:33]:  # while a window is out, its frame stays the first
        slam.track(frame)
    slam.integrate(predictor.predict(window))
    status = slam.status()
    assert (status.keyframes, status.windows, status.reason) == (1, 1, "")
    while (window := slam.request()) is not None:
        assert window.frames[0].id == frames[29].id
        slam.integrate(predictor.predict(window))
    for frame in frames[33:]:
        slam.process(frame, predictor)
    found, truth = slam.trajectory(), np.array([frame.truth.T_world_cam for frame in frames])
    keyframes = np.flatnonzero(found.keyframe)
    assert keyframes[0] == 29
    relative = np.linalg.inv(truth[29]) @ truth[keyframes[-1]]
    assert np.allclose(np.linalg.inv(found.T_map_cam[29]) @ found.T_map_cam[keyframes[-1]], relative, atol=1e-6)


def test_after_a_cut_the_newest_frame_begins_the_segment():
    config = configuration.updated(Config(), {**EXACT, "simulated.window_log_scale": 0.0})
    slam, predictor = Slam(config), open_predictor(config)
    frames = list(world().frames)
    for frame in frames[:10]:
        slam.process(frame, predictor)
    slam.cut("a gap")
    for frame in frames[20:30]:
        slam.track(frame)
    window = slam.request()
    assert [frame.id for frame in window.frames] == [frames[29].id]
    slam.integrate(predictor.predict(window))
    assert slam.track(frames[30]).state is State.TRACKING

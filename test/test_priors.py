"""Metres from other sensors: the scale they give, and what becomes of those that lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_bag import Recorder

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import ConfigError
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import TrajectoryMetrics, evaluate
from da3_ros.geometry import se3
from da3_ros.geometry.depth_alignment import GRID, align
from da3_ros.predictors import open_predictor
from da3_ros.slam.slam import Slam
from da3_ros.sources import open_source
from da3_ros.sources.depth_points import points_of_cloud, points_of_image
from da3_ros.sources.held import HeldSource
from da3_ros.sources.simulated_depth import SimulatedDepthCamera
from da3_ros.sources.tum import write_tum
from da3_ros.types import DepthPoints, Frame, Metre, Priors, Trajectory

UNKNOWN_UNIT = {"simulated.metric": False, "simulated.log_scale_bias": 0.7}  # a unit is half a metre, more or less


def run(frames: Sequence[Frame], **values: object) -> Record:
    record, failure = OfflineRun(HeldSource(frames), open_predictor(configured(values)), configured(values)).run()
    assert failure is None
    return record


def configured(values: dict[str, object]) -> Config:
    # Keyframes come often in such a short walk.
    base = {"keyframe.max_interval_s": 0.3, "keyframe.min_parallax": 0.03, "tracker.width": 160, "window.live": False}
    return configuration.updated(Config(), {**base, **{k.replace("__", "."): v for k, v in values.items()}})


def metrics(record: Record, *, causal: bool = False) -> TrajectoryMetrics:
    return evaluate(record.causal if causal else record.trajectory, record.truth).metrics


def told(frames: Sequence[Frame], say: Callable[[Frame], Priors | None]) -> list[Frame]:
    """The frames with what a sensor says of each."""
    return [replace(frame, priors=say(frame)) for frame in frames]


def longer(walk: Sequence[Frame]) -> list[Frame]:
    """There, back and there again."""
    way = [*walk, *walk[-2::-1], *walk[1:]]
    return [replace(frame, id=i, stamp_ns=walk[0].stamp_ns + i * 66_666_667) for i, frame in enumerate(way)]


def depth_times(factor: float) -> Callable[[Frame], Priors]:
    """A depth camera whose metre is another."""
    camera = SimulatedDepthCamera(0)

    def say(frame: Frame) -> Priors:
        measured = camera.measure(frame.truth.depth, frame.stamp_ns) * np.float32(factor)
        return Priors(points_of_image(measured, (160, 120)))

    return say


def pose_times(factor: Callable[[Frame], float]) -> Callable[[Frame], Priors]:
    """Odometry that takes each step for another length."""
    where, before = np.zeros(3), [None]

    def say(frame: Frame) -> Priors:
        T = frame.truth.T_world_cam
        if before[0] is not None:
            where[:] += factor(frame) * (T[:3, 3] - before[0])
        before[0] = T[:3, 3]
        return Priors(T_odom_cam=se3.make(T[:3, :3], where.copy()))

    return say


# ------------------------------------------------------------ the metres that they give


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("key", ["prior.depth", "prior.odometry"])
def test_any_one_prior_gives_metres_to_windows_without(walk, key, seed):
    record = run(walk, seed=seed, **UNKNOWN_UNIT, **{key: "always"})
    final = metrics(record)
    assert record.metric
    assert record.notes == []
    # Four seconds of small images: 1.8 % rms over eight seeds.  With large ones it is 3 % at most (da3 bench priors).
    assert abs(final.scale - 1) < 0.04
    # What 2 % of scale make of half a metre; with large images it is 1.5 times the error without scale at most.
    assert final.ate_se3_m < max(1.5 * final.ate_sim3_m, 0.01 * final.path_length_m)


def test_measured_depth_gives_metres_from_the_first_window_on(walk):
    causal = metrics(run(walk, **UNKNOWN_UNIT, prior__depth="always"), causal=True)
    assert abs(causal.scale - 1) < 0.03
    assert causal.ate_se3_m < 1.5 * causal.ate_sim3_m


def test_priors_are_heard_where_they_are_asked_for_only(walk):
    frames = told(walk, depth_times(1.0))
    plain, asked = run(walk, **UNKNOWN_UNIT), run(frames, **UNKNOWN_UNIT, prior__depth="always")
    for record in (run(frames, **UNKNOWN_UNIT), run(frames, **UNKNOWN_UNIT, prior__depth="never")):
        assert record.trajectory.T_map_cam.tobytes() == plain.trajectory.T_map_cam.tobytes()
        assert not record.metric
    assert asked.metric
    again = run(frames, **UNKNOWN_UNIT, prior__depth="always")
    assert again.trajectory.T_map_cam.tobytes() == asked.trajectory.T_map_cam.tobytes()


def test_a_few_hundred_points_of_a_laser_will_do(walk):
    rng = np.random.default_rng(0)

    def scan(frame: Frame) -> Priors:
        height, width = frame.truth.depth.shape
        rows = np.linspace(8, height - 8, 12).astype(int).repeat(25)  # lines
        columns = rng.integers(0, width, len(rows))
        depth = frame.truth.depth[rows, columns].astype(float)
        points = frame.camera.unproject(np.stack([columns, rows], 1).astype(float), depth)
        wrong = rng.random(len(points)) < 0.2  # what the laser sees past the edge of something
        points[wrong] *= rng.uniform(1.3, 3, (wrong.sum(), 1))
        T_laser_cam = se3.exp(np.array([0.1, -0.2, 0.3, 0.2, 1.0, 0.1]))
        cloud = se3.transform(T_laser_cam, points)
        return Priors(points_of_cloud(cloud, se3.inverse(T_laser_cam), frame.camera))

    final = metrics(run(told(walk, scan), **UNKNOWN_UNIT, prior__depth="always"))
    assert abs(final.scale - 1) < 0.03


def odometry_file(frames: Sequence[Frame], path: Path, T_body_cam: np.ndarray, offset_ns: int, rate_hz: float) -> None:
    """Poses of the body at another rate, by a clock that is off; each step's length is off by 2 %."""
    rng = np.random.default_rng(0)
    step = round(1e9 / rate_hz)
    stamps = np.arange(frames[0].stamp_ns, frames[-1].stamp_ns, step)
    known = [f.stamp_ns for f in frames]
    bodies = np.stack([f.truth.T_world_cam @ se3.inverse(T_body_cam) for f in frames])
    poses = []
    for stamp in stamps:
        i = min(np.searchsorted(known, stamp, side="right") - 1, len(known) - 2)
        poses.append(se3.interpolate(bodies[i], bodies[i + 1], (stamp - known[i]) / (known[i + 1] - known[i])))
    T = np.stack(poses)
    steps = np.diff(T[:, :3, 3], axis=0) * rng.normal(1, 0.02, (len(T) - 1, 1))
    T[1:, :3, 3] = T[0, :3, 3] + np.cumsum(steps, axis=0)
    write_tum(path, Trajectory(stamps + offset_ns, T))


@pytest.mark.parametrize("offset_ms", [0, 40])
def test_odometry_from_a_file_of_a_body_that_carries_the_camera(walk, tmp_path, offset_ms):
    """At another rate than the camera's, with a lever arm, and by a clock that is off."""
    mount = se3.from_quaternion(np.array([0.5, -0.2, 0.8]), np.array([0.5, -0.5, 0.5, -0.5]))
    odometry_file(walk, tmp_path / "wheels.tum", mount, offset_ms * 1_000_000, rate_hz=21.0)
    values = {**UNKNOWN_UNIT, "prior.odometry_file": str(tmp_path / "wheels.tum")}
    mounted = run(walk, **values, prior__odometry_mount="0.5 -0.2 0.8 0.5 -0.5 0.5 -0.5")
    assert mounted.notes == []
    assert abs(metrics(mounted).scale - 1) < 0.03
    elsewhere = run(walk, **values)  # as if the camera sat where the body is
    assert elsewhere.trajectory.T_map_cam.tobytes() != mounted.trajectory.T_map_cam.tobytes()


@pytest.mark.parametrize("kind", ["image", "cloud", "odometry"])
def test_a_bag_brings_what_other_sensors_measured(walk, tmp_path, kind):
    """Each at its own stamps; the depth camera sees as the camera does, the others are mounted elsewhere."""
    mount = se3.from_quaternion(np.array([0.3, -0.2, 0.5]), np.array([0.5, -0.5, 0.5, -0.5]))
    camera, body = SimulatedDepthCamera(0), se3.inverse(mount)
    with Recorder(tmp_path / "bag") as recorder:
        recorder.tf(walk[0].stamp_ns, [("base", "cam", mount)], topic="/tf_static")
        for frame in walk:
            t = frame.stamp_ns
            measured = camera.measure(frame.truth.depth, t)
            if kind == "image":
                millimetres = np.nan_to_num(measured * 1000).astype(np.uint16)
                recorder.image(t + 5_000_000, millimetres, topic="/depth_prior", encoding="16UC1")
            elif kind == "cloud":
                points = frame.camera.directions()[::4, ::4] * measured[::4, ::4, None]
                recorder.cloud(t - 20_000_000, se3.transform(mount, points.reshape(-1, 3)))
            else:
                recorder.odometry(t + 9_000_000, frame.truth.T_world_cam @ body, "base", topic="/wheels")
            recorder.image(t, frame.image)
            recorder.info(t, frame.camera.matrix, (160, 120))
            recorder.image(t, frame.truth.depth, topic="/truth/depth", encoding="32FC1")
            recorder.pose(t, frame.truth.T_world_cam)
    source = open_source(f"{tmp_path / 'bag'}?odom_prior={'/wheels' if kind == 'odometry' else ''}")
    found = next(iter(source)).priors
    assert (found.depth is None, found.T_odom_cam is None) == (kind == "odometry", kind != "odometry")
    record = run(
        list(source),
        **UNKNOWN_UNIT,
        prior__depth="always" if kind != "odometry" else "never",
        prior__odometry="always" if kind == "odometry" else "never",
    )
    assert record.notes == []
    assert abs(metrics(record).scale - 1) < 0.03


def test_a_mount_that_is_no_pose(walk, tmp_path):
    odometry_file(walk, tmp_path / "wheels.tum", np.eye(4), 0, rate_hz=21.0)
    values = {"prior.odometry_file": str(tmp_path / "wheels.tum"), "prior.odometry_mount": "1 2 3"}
    with pytest.raises(ConfigError, match=r"prior.odometry_mount '1 2 3' is no pose.*has 3 numbers"):
        run(walk, **values)


def test_what_the_source_lacks_is_noted(walk):
    bare = [replace(f, truth=replace(f.truth, depth=None)) for f in walk[:1]]
    record, _ = OfflineRun(HeldSource(bare), open_predictor(Config()), configured({"prior.depth": "always"})).run()
    assert "prior.depth was asked for, and memory has none" in record.notes


# ------------------------------------------------------------ who is believed


def test_depth_in_millimetres_is_not_used_and_says_so(walk):
    record = run(told(walk, depth_times(1000.0)), **UNKNOWN_UNIT, prior__depth="always")
    assert not record.metric
    assert len(record.notes) == 1
    assert "depth_prior is not used: it has no valid depth" in record.notes[0]
    assert "millimetres" in record.notes[0]


@pytest.mark.parametrize("factor", [5.0, 0.2])
def test_depth_in_another_unit_does_not_outvote_a_predictor_of_metres(walk, factor):
    alone = run(walk)
    record = run(told(walk, depth_times(factor)), prior__depth="always")
    assert len(record.notes) == 1
    assert "depth_prior is not used: its metre is" in record.notes[0]
    assert ("short" if factor > 1 else "long") in record.notes[0]
    assert record.trajectory.T_map_cam.tobytes() == alone.trajectory.T_map_cam.tobytes()


def test_a_sensor_corrects_a_predictor_whose_metre_is_off(walk):
    """The first windows of the predictor are believed, then what three keyframes in a row say."""
    values = {"simulated.log_scale_bias": 0.45, "simulated.window_log_scale": 0.05}
    assert abs(metrics(run(walk, **values)).scale - 1) > 0.3
    record = run(told(walk, depth_times(1.0)), **values, prior__depth="always")
    assert record.notes == []
    assert abs(metrics(record).scale - 1) < 0.03


def test_the_first_claims_of_a_sensor_give_way_to_three_that_agree(walk):
    wrong, right = depth_times(1.6), depth_times(1.0)
    frames = told(walk, lambda frame: (wrong if frame.id < 5 else right)(frame))
    record = run(frames, **UNKNOWN_UNIT, prior__depth="always")
    assert record.notes == []
    assert abs(metrics(record).scale - 1) < 0.03


def test_a_predictor_of_metres_and_a_sensor_agree(walk):
    both = run(told(walk, depth_times(1.0)), prior__depth="always")
    assert both.notes == []
    assert abs(metrics(both).scale - 1) < 0.02


def test_wheels_that_slip_are_not_used_and_say_so(walk):
    slipping = pose_times(lambda frame: 1.0 if frame.id < 90 else 2.5)
    record = run(told(longer(walk), slipping), **UNKNOWN_UNIT, prior__odometry="always")
    assert abs(metrics(record).scale - 1) < 0.05
    assert len(record.notes) == 1
    assert "odom_prior is not used: its metre is 2." in record.notes[0]
    assert "what it said before" in record.notes[0]


def test_wheels_of_another_robot_do_not_outvote_measured_depth(walk):
    depth, wheels = depth_times(1.0), pose_times(lambda frame: 1.8)

    def say(frame: Frame) -> Priors:
        return Priors(depth(frame).depth, wheels(frame).T_odom_cam)

    record = run(told(longer(walk), say), **UNKNOWN_UNIT, prior__depth="always", prior__odometry="always")
    assert abs(metrics(record).scale - 1) < 0.03
    assert len(record.notes) == 1
    assert "odom_prior is not used" in record.notes[0]
    assert "that of depth_prior" in record.notes[0]


def test_depth_of_another_camera_is_not_used_and_says_so(walk):
    rng = np.random.default_rng(0)

    def say(frame: Frame) -> Priors:
        return Priors(DepthPoints(rng.uniform(0, 119, (500, 2)).astype("f4"), rng.uniform(0.2, 9, 500).astype("f4")))

    record = run(told(walk, say), **UNKNOWN_UNIT, prior__depth="always")
    assert not record.metric
    assert "of the points agree on one scale" in record.notes[0]


def test_a_break_of_a_window_is_seen_against_measured_depth(walk):
    """Without claims of its own a window off by a constant is absorbed by its seam, whoever else knows metres."""
    record = run(walk, **UNKNOWN_UNIT, prior__depth="always", simulated__break_windows=[4, 9])
    assert record.notes == []
    assert abs(metrics(record).scale - 1) < 0.03


def test_a_predictor_that_breaks_is_repaired_beside_measured_depth(walk):
    record = run(walk, prior__depth="always", simulated__break_windows=[1, 6])
    assert abs(metrics(record).scale - 1) < 0.03


# ------------------------------------------------------------ late, and who it is


def test_what_comes_after_its_frame_counts_as_much(walk):
    config, carried, late = configured(UNKNOWN_UNIT), [], []
    predictor = open_predictor(config)
    for delay, out in ((0, carried), (3, late)):
        slam, waiting = Slam(config), []
        for frame in told(walk, depth_times(1.0)):
            waiting.append((frame.id, frame.priors))
            if len(waiting) > delay:
                slam.inform(*waiting.pop(0))
            slam.process(replace(frame, priors=None), predictor)
        out.append(slam.status())
        out.append(slam.trajectory())
    assert carried[0].scale_source is late[0].scale_source is Metre.DEPTH
    assert carried[0].scale_sigma < 0.03
    size = [np.linalg.norm(np.ptp(t.T_map_cam[:, :3, 3], axis=0)) for _, t in (carried, late)]
    assert abs(size[0] / size[1] - 1) < 0.02


@pytest.mark.parametrize(("key", "prior"), [("depth_sigma", "depth"), ("odometry_sigma", "odometry")])
def test_how_sure_a_sensor_is_at_most(walk, key, prior):
    """What is known of a sensor beside its scatter: the scale is no surer than that lets it be."""
    sigmas = []
    for least in (0.0, 0.3):
        config = configured({**UNKNOWN_UNIT, f"prior.{key}": least})
        slam, predictor = Slam(config), open_predictor(config)
        say = depth_times(1.0) if prior == "depth" else pose_times(lambda frame: 1.0)
        for frame in told(walk[:12] if prior == "depth" else walk, say):
            slam.process(frame, predictor)
        sigmas.append(slam.status().scale_sigma)
    assert sigmas[0] < 0.03 < sigmas[1]


def test_who_says_what_a_metre_is(walk):
    config = configured({})
    slam, predictor = Slam(config), open_predictor(config)
    assert slam.status().scale_source is None
    for frame in told(walk[:20], depth_times(1.0)):
        slam.process(replace(frame, priors=None), predictor)
    assert slam.status().scale_source is Metre.PREDICTOR
    for frame in told(walk[20:], depth_times(1.0)):
        slam.process(frame, predictor)
    assert slam.status().scale_source is Metre.DEPTH


# ------------------------------------------------------------ alignment


def pairs(count: int, scale: float, shift: float, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted, measured and cells; the error of the prediction is one per cell."""
    cells = rng.integers(0, GRID[0] * GRID[1], count)
    truth = rng.uniform(1, 5, count)
    error = np.exp(0.05 * rng.standard_normal(GRID[0] * GRID[1]))[cells]
    return (truth - shift) / scale * error, truth, cells


def test_the_sigma_of_a_scale_is_that_of_its_errors():
    """Over many draws: errors come one per cell, however many pixels there are."""
    rng = np.random.default_rng(0)
    for count in (300, 3000):
        found = [align(*pairs(count, 0.5, 0.0, rng)) for _ in range(200)]
        errors = np.array([f.log_scale - np.log(0.5) for f in found])
        normalized = errors / np.array([f.sigma for f in found])
        assert np.abs(errors).max() < 0.04
        assert 0.7 < normalized.std() < 1.5


def test_four_wrong_points_in_ten_are_left_out():
    rng = np.random.default_rng(0)
    predicted, measured, cells = pairs(1000, 0.5, 0.0, rng)
    measured[:400] = 2.0  # a speck on the lens
    found = align(predicted, measured, cells)
    assert abs(found.log_scale - np.log(0.5)) < 0.03
    assert found.points < 750


def test_a_shift_is_fitted_where_asked_for(walk):
    rng = np.random.default_rng(0)
    predicted, measured, cells = pairs(1000, 0.5, 0.8, rng)
    assert abs(align(predicted, measured, cells, shift=True).log_scale - np.log(0.5)) < 0.1
    assert abs(align(predicted, measured, cells).log_scale - np.log(0.5)) > 0.2
    frames = told(walk, depth_times(1.0))
    without, fitted = (
        run(frames, prior__depth="always", prior__depth_shift=on, **UNKNOWN_UNIT) for on in (False, True)
    )
    assert without.trajectory.T_map_cam.tobytes() != fitted.trajectory.T_map_cam.tobytes()


@pytest.mark.parametrize(
    ("points", "cells", "words"),
    [(29, 29, "29 points can be compared"), (100, 11, "in one part of the image")],
)
def test_too_little_to_align_by(points, cells, words):
    with pytest.raises(ValueError, match=words):
        align(np.ones(points), np.ones(points), np.arange(points) % cells)


# ------------------------------------------------------------ the simulated sensors err


def test_a_simulated_depth_camera_is_a_camera(walk):
    exact, camera = walk[0].truth.depth, SimulatedDepthCamera(3)
    measured = camera.measure(exact, 1)
    there = np.isfinite(measured)
    assert 0.3 < there.mean() < 0.97  # holes
    assert np.array_equal(measured, camera.measure(exact, 1), equal_nan=True)
    assert not np.array_equal(measured, camera.measure(exact, 2), equal_nan=True)
    flat = np.full((120, 160), 3.0, np.float32)
    seen = camera.measure(flat, 1)
    assert 0.008 < np.nanstd(seen) < 0.03  # 13 mm of noise at 3 m and steps of 26 mm
    assert len(np.unique(seen[np.isfinite(seen)])) < 12
    assert np.isnan(camera.measure(flat * 3, 1)).all()  # out of range

"""An IMU: what is made of its samples, and what it gives to odometry, map and graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_bag import Recorder
from test_graph import Drive

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import SourceError
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.record import Record
from da3_ros.geometry import se3
from da3_ros.predictors import open_predictor
from da3_ros.slam.graph import PoseGraph, Vertical
from da3_ros.slam.gravity import GRAVITY, Gravity, GravityFilter
from da3_ros.slam.imu import Imu, Motion
from da3_ros.slam.keyframe import Keyframe, Step
from da3_ros.slam.levelling import Levelling
from da3_ros.slam.slam import Slam
from da3_ros.sources import open_source
from da3_ros.sources.bag_writer import write_bag
from da3_ros.sources.held import HeldSource
from da3_ros.sources.imu_track import ImuTrack
from da3_ros.sources.tum import write_tum
from da3_ros.types import Frame, Inertial, State, Trajectory

WORLD = "world:3?frames=60&size=160x120&rate=15&imu=200"
UP = np.array([0.0, 0.0, 1.0])
MOUNT = se3.from_quaternion(np.array([0.3, -0.2, 0.5]), np.array([0.5, -0.5, 0.5, -0.5]))  # of the camera in a base


def configured(**values: object) -> Config:
    base = {"keyframe.max_interval_s": 0.3, "keyframe.min_parallax": 0.03, "tracker.width": 160, "window.live": False}
    return configuration.updated(Config(), {**base, **{k.replace("__", "."): v for k, v in values.items()}})


def run(frames: Sequence[Frame], imu: str = "always", **values: object) -> Record:
    config = configured(prior__imu=imu, **values)
    record, failure = OfflineRun(HeldSource(frames), open_predictor(config), config).run()
    assert failure is None
    return record


def tilts_deg(trajectory: Trajectory, frames: Sequence[Frame]) -> np.ndarray:
    """By how much roll and pitch have drifted since the first frame (N,)."""
    truth = {f.stamp_ns: f.truth.T_world_cam for f in frames}
    stamps = trajectory.stamps_ns.tolist()
    up = np.stack([T[:3, :3] @ truth[s][:3, :3].T @ UP for s, T in zip(stamps, trajectory.T_map_cam, strict=True)])
    return np.degrees(np.arccos(np.clip(up @ up[0], -1, 1)))


def turned_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(se3.rotation_angle(a[:3, :3].T @ b[:3, :3])))


def spun(seconds: float, rate: float, axis: int = 1, omega: float = 0.5, stamp_ns: int = 0) -> Inertial:
    """A level camera that turns about one of its axes at a constant rate."""
    stamps = stamp_ns + np.round(np.arange(0, seconds, 1 / rate) * 1e9).astype(np.int64)
    gyro = np.zeros((len(stamps), 3))
    gyro[:, axis] = omega
    angle = -omega * (stamps - stamp_ns) * 1e-9
    turns = se3.exp_so3(np.eye(3)[axis] * angle[:, None])
    return Inertial(stamps, gyro, turns @ (GRAVITY * np.array([0.0, -1.0, 0.0])))


@pytest.fixture(scope="module")
def felt() -> tuple[Frame, ...]:
    """The walk of the other tests, with an IMU."""
    return tuple(open_source(WORLD))


@pytest.fixture(scope="module")
def rounds() -> tuple[Frame, ...]:
    """A camera that turns all the time, by three quarters of a circle in six seconds."""
    return tuple(open_source("world:5?frames=90&size=160x120&rate=15&laps=0.75&imu=200"))


# ------------------------------------------------------------ between frames


@pytest.mark.parametrize("first_ms", [0, 33, 101])
def test_a_constant_rate_is_integrated_whatever_the_stamps_of_the_frames(first_ms):
    imu = Imu()
    imu.add(spun(1.0, 100.0, axis=2, omega=2.0))
    motion = imu.between(first_ms * 10**6, (first_ms + 250) * 10**6, np.zeros(3))
    assert se3.log_so3(motion.rotation) == pytest.approx([0, 0, 0.5], abs=1e-9)
    down = se3.exp_so3(np.array([0, 0, -2e-3 * (first_ms + 250)])) @ [0, -GRAVITY, 0]
    assert motion.force == pytest.approx(down, abs=1e-2)  # constant in the world: turned into one and the same camera


def test_the_bias_is_taken_off():
    imu = Imu()
    imu.add(spun(1.0, 100.0))
    assert turned_deg(imu.between(0, 10**9, np.array([0, 0.5, 0])).rotation, np.eye(3)) < 1e-6


def test_samples_come_again_and_in_parts():
    parts, whole = Imu(), Imu()
    said = spun(1.0, 100.0)
    whole.add(said)
    for begin in range(0, 100, 10):
        rows = slice(max(begin - 25, 0), begin + 10)
        parts.add(Inertial(said.stamps_ns[rows], said.gyro[rows], said.force[rows]))
    a, b = (imu.between(10**8, 9 * 10**8, np.zeros(3)) for imu in (parts, whole))
    assert a.rotation.tobytes() == b.rotation.tobytes()


def test_a_frame_does_not_wait_for_the_last_samples():
    imu = Imu()
    imu.add(spun(1.0, 100.0, omega=1.0))
    assert turned_deg(imu.between(0, 1_030_000_000, np.zeros(3)).rotation, np.eye(3)) == pytest.approx(
        np.degrees(1.03), abs=0.01
    )
    assert imu.between(0, 1_200_000_000, np.zeros(3)) is None


def test_missing_samples_are_no_turn_of_zero():
    imu, said = Imu(), spun(1.0, 100.0)
    rows = np.r_[0:30, 50:100]
    imu.add(Inertial(said.stamps_ns[rows], said.gyro[rows], said.force[rows]))
    assert imu.between(2 * 10**8, 6 * 10**8, np.zeros(3)) is None
    assert imu.between(6 * 10**8, 9 * 10**8, np.zeros(3)) is not None


def test_time_that_jumps_back_begins_anew():
    imu = Imu()
    imu.add(spun(1.0, 100.0, stamp_ns=50 * 10**9))
    imu.add(spun(1.0, 100.0, stamp_ns=10 * 10**9))
    assert imu.between(10 * 10**9, 11 * 10**9, np.zeros(3)) is not None


# ------------------------------------------------------------ which way is up


def steady(force: np.ndarray, count: int, seconds: float = 0.05) -> GravityFilter:
    found = GravityFilter(np.radians(0.5))
    for _ in range(count):
        found.advance(Motion(seconds, np.eye(3), force), 1e-3)
    return found


def test_a_sensor_at_rest_knows_up_the_better_the_longer():
    force = GRAVITY * np.array([0.6, -0.8, 0.0])
    sigmas = [steady(force, count).gravity.sigma for count in (1, 20, 400)]
    assert steady(force, 20).gravity.up == pytest.approx([0.6, -0.8, 0.0], abs=1e-9)
    assert sigmas[0] > sigmas[1] > sigmas[2]


def test_a_blow_does_not_turn_up():
    found = steady(np.array([0, -GRAVITY, 0]), 100)
    found.advance(Motion(0.05, np.eye(3), np.array([30.0, -5.0, 0.0])), 1e-3)
    assert found.gravity.up == pytest.approx([0, -1, 0], abs=1e-9)


def test_what_varies_is_believed_less():
    rng, rest, shaken = np.random.default_rng(0), steady(np.array([0, -GRAVITY, 0]), 1), None
    shaken = steady(np.array([0, -GRAVITY, 0]), 1)
    for _ in range(200):
        rest.advance(Motion(0.05, np.eye(3), np.array([0, -GRAVITY, 0])), 1e-3)
        shaken.advance(Motion(0.05, np.eye(3), np.array([0, -GRAVITY, 0]) + rng.standard_normal(3)), 1e-3)
    assert shaken.gravity.sigma > 1.5 * rest.gravity.sigma
    assert np.degrees(np.arccos(-shaken.gravity.up[1])) < 2


@pytest.mark.parametrize("spec", [WORLD, "world:7?size=32x24&imu=100", "world:1?laps=2&size=32x24&imu=400"])
def test_up_is_known_as_well_as_it_says_while_the_camera_walks_about(spec):
    source = open_source(spec)
    imu, found, errors = Imu(), GravityFilter(np.radians(0.5)), []
    frames = [source.frame(i) for i in range(min(len(source), 150))]
    for last, frame in itertools.pairwise(frames):
        imu.add(frame.priors.imu)
        found.advance(imu.between(last.stamp_ns, frame.stamp_ns, np.zeros(3)), 0.01)
        up = frame.truth.T_world_cam[:3, :3].T @ UP
        errors.append(se3.turning(found.gravity.up, up) / found.gravity.sigma)
    assert np.sqrt((np.array(errors) ** 2).sum(axis=1).mean() / 2) < 1.5


def test_the_imu_of_a_world_measures_its_motion():
    source = open_source(WORLD)
    imu = Imu()
    for i in range(len(source)):
        imu.add(source.frame(i).priors.imu)
    first, last = 1_000_000_000, 2_000_000_000
    turn = source.poses[0][:3, :3].T @ source.poses[15][:3, :3]
    assert turned_deg(imu.between(first, last, np.zeros(3)).rotation, turn) < 3  # a bias of some 0.6 deg/s
    assert source.frame(5).priors.imu.stamps_ns[-1] <= source.frame(5).stamp_ns
    assert open_source(WORLD.replace("&imu=200", "")).frame(5).priors is None


# ------------------------------------------------------------ the map is kept level


def drive(rng: np.random.Generator, noise: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """A camera that turns on the spot, for 400 keyframes, each step off by ``noise``; gravity off by ``sigma``, rad.

    Returns:
        Its tilt at each keyframe (400,) in deg, on the chain and where the map has it.
    """
    levelling, tilts = Levelling(), []
    R_true, R_chain, R_map = np.eye(3), np.eye(3), np.eye(3)
    for i in range(400):
        keyframe = Keyframe(i, None, i, (i + 1) * 5 * 10**8, np.eye(4), se3.make(R_map, np.zeros(3)), None, 0, 1.0, 0)
        keyframe.step = Step(noise, 1e-3, 1e-3)
        up = se3.exp_so3(sigma * rng.standard_normal(3)) @ R_true.T @ UP
        keyframe.gravity = Gravity(up, sigma, 0.0)
        R_map = levelling.hear(keyframe)[0] @ R_map
        tilts.append([np.degrees(np.arccos(min((R @ R_true.T @ UP)[2], 1.0))) for R in (R_chain, R_map)])
        turn = se3.exp_so3(np.array([0, 0, 0.05]))
        seen = turn @ se3.exp_so3(noise * rng.standard_normal(3))
        R_true, R_chain, R_map = R_true @ turn, R_chain @ seen, R_map @ seen
    return np.array(tilts).T


def test_the_drift_of_roll_and_pitch_is_bounded():
    """A walk of 0.2 deg per keyframe, against gravity that is off by 2 deg: the best there is keeps to some 0.6 deg."""
    chain, kept = np.stack([drive(np.random.default_rng(i), *np.radians([0.2, 2.0])) for i in range(10)]).transpose(
        1, 0, 2
    )
    last = slice(-100, None)
    assert np.sqrt((chain[:, last] ** 2).mean()) > 4
    assert np.sqrt((kept[:, last] ** 2).mean()) < 1.2


def test_gravity_levels_the_graph_and_leaves_its_heading():
    circle, up = Drive(120, seed=1), np.array([0, -1.0, 0])  # of its first camera
    in_camera = np.einsum("kji,j->ki", circle.truth[:, :3, :3], up)
    vertical = Vertical(up, in_camera, np.full(120, np.radians(1.0)))
    off, headings = [], []
    for nodes in (circle.nodes, replace(circle.nodes, vertical=vertical)):
        R = PoseGraph().solve(nodes).T_map_cam[:, :3, :3]
        there = np.einsum("kij,kj->ki", R, in_camera)
        off.append(np.degrees(np.arccos(np.clip(there @ up, -1, 1))).max())
        headings.append(np.arctan2(R[-1, 0, 2], R[-1, 2, 2]))
    assert off[1] < 0.5 * off[0]
    assert np.degrees(abs(headings[1] - headings[0])) < 0.2


# ------------------------------------------------------------ what it gives to a run


def test_without_being_asked_for_it_is_not_heard(felt):
    bare = [replace(frame, priors=None) for frame in felt]
    runs = [run(frames, imu) for frames, imu in ((felt, "auto"), (felt, "never"), (bare, "never"))]
    assert len({r.trajectory.T_map_cam.tobytes() for r in runs}) == 1
    assert "prior.imu was asked for, and memory has none" in run(bare).notes
    assert run(felt).trajectory.T_map_cam.tobytes() != runs[0].trajectory.T_map_cam.tobytes()


def test_the_same_input_gives_the_same_bytes(felt):
    assert run(felt).trajectory.T_map_cam.tobytes() == run(felt).trajectory.T_map_cam.tobytes()


def test_what_an_accelerometer_is_off_at_best_is_a_parameter(felt):
    one, other = (run(felt, prior__imu_tilt_deg=tilt) for tilt in (0.5, 5.0))
    assert one.trajectory.T_map_cam.tobytes() != other.trajectory.T_map_cam.tobytes()


def test_odometry_has_no_jumps_while_the_map_is_kept_level(rounds):
    """With poses so coarse that there is much to correct: all of it goes into map -> odom."""
    config = configured(simulated__rotation_deg=2.0, refine__enabled=False, loops__enabled=False)
    slam, predictor, poses, corrections = Slam(config), open_predictor(config), [], []
    for frame in rounds:
        estimate, _ = slam.process(frame, predictor)
        poses.append(estimate.T_odom_cam)
        corrections.append(slam.status().T_map_odom)
    truth = [frame.truth.T_world_cam for frame in rounds]
    ways = [[se3.inverse(a) @ b for a, b in itertools.pairwise(T)] for T in (poses[2:], truth[2:])]
    assert max(turned_deg(a, b) for a, b in zip(*ways, strict=True)) < 2.0
    assert turned_deg(corrections[3], corrections[-1]) > 0.5


def covered(frames: Sequence[Frame], begin: int, end: int) -> list[Frame]:
    """Somebody holds a hand before the lens for a while."""
    return [replace(f, image=np.full_like(f.image, 20)) if begin <= f.id < end else f for f in frames]


def test_a_covered_lens_goes_on_turning(felt):
    frames, errors = covered(felt, 40, 55), {}
    for imu in ("never", "always"):
        slam, predictor = Slam(configured()), open_predictor(configured())
        for frame in frames[:55]:
            estimate, _ = slam.process(frame if imu == "always" else replace(frame, priors=None), predictor)
            if frame.id == 39:
                before = estimate.T_odom_cam
        assert estimate.state is not State.TRACKING
        way = se3.inverse(frames[39].truth.T_world_cam) @ frames[54].truth.T_world_cam
        errors[imu] = turned_deg(se3.inverse(before) @ estimate.T_odom_cam, way)
    assert errors["always"] < 2.5
    assert errors["always"] < 0.3 * errors["never"]


def whirl(path: Path) -> None:
    """A camera that hardly turns for two seconds, then by 50 deg within a third of one."""
    times = np.arange(0, 3.0, 1 / 30)
    yaw = np.radians(np.interp(times, [0, 2.0, 2.0 + 1 / 3, 3.0], [0, 20, 70, 72]))
    forward = np.stack([np.sin(yaw), np.cos(yaw), np.full_like(yaw, -0.1)], axis=1)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.stack([np.cos(yaw), -np.sin(yaw), np.zeros_like(yaw)], axis=1)
    centre = np.stack([0.25 * times, 0.1 * np.sin(times), np.full_like(times, 1.4)], axis=1)
    R = np.stack([right, np.cross(forward, right), forward], axis=2)
    write_tum(path, Trajectory(np.round(times * 1e9).astype(np.int64), se3.make(R, centre)))


def test_a_turn_that_is_too_fast_for_flow_alone(tmp_path):
    """By 70 pixels from frame to frame, of a sudden: without a gyro features are looked for where they were."""
    whirl(tmp_path / "whirl.tum")
    source = open_source(f"world:4?motion={tmp_path / 'whirl.tum'}&frames=38&size=480x360&rate=15&imu=200")
    frames, errors = [source.frame(i) for i in range(18, 38)], {}
    way = se3.inverse(frames[8].truth.T_world_cam) @ frames[-1].truth.T_world_cam
    for imu in (False, True):
        config = configured(tracker__width=480)
        slam, predictor, poses = Slam(config), open_predictor(config), []
        for frame in frames:
            estimate, _ = slam.process(frame if imu else replace(frame, priors=None), predictor)
            poses.append(estimate.T_odom_cam)
        errors[imu] = turned_deg(se3.inverse(poses[8]) @ poses[-1], way)
    assert errors[True] < 2
    assert errors[False] > 10


def felt_as(frames: Sequence[Frame], turn: np.ndarray, factor: float = 1.0) -> list[Frame]:
    """By an IMU that is mounted otherwise, or whose rates have another unit."""
    out = []
    for frame in frames:
        imu = frame.priors.imu
        wrong = Inertial(imu.stamps_ns, factor * imu.gyro @ turn.T, imu.force @ turn.T)
        out.append(replace(frame, priors=replace(frame.priors, imu=wrong)))
    return out


@pytest.mark.parametrize(
    ("turn", "factor"),
    [(se3.exp_so3(np.array([0, 0, np.pi / 2])), 1.0), (np.eye(3), 180 / np.pi)],
    ids=["mounted otherwise", "degrees"],
)
def test_one_that_contradicts_what_is_seen_is_not_used_and_says_so(rounds, turn, factor):
    record, alone = run(felt_as(rounds, turn, factor)), run(rounds, "never")
    (note,) = record.notes
    assert "imu is not used: its turns differ from those seen by" in note
    assert len(record.trajectory) == len(alone.trajectory)
    way = [r.trajectory.T_map_cam for r in (record, alone)]
    ends = [se3.inverse(T[0]) @ T[-1] for T in way]
    assert turned_deg(*ends) < 6


def test_an_honest_one_is_used(rounds):
    record = run(rounds)
    assert record.notes == []
    assert tilts_deg(record.causal, rounds).max() < 1.5


# ------------------------------------------------------------ where it comes from


def test_a_bag_brings_it_back(felt, tmp_path):
    write_bag(HeldSource(felt), tmp_path / "bag")
    source = open_source(str(tmp_path / "bag"))
    for was, came in zip(felt, source, strict=True):
        rows = np.isin(came.priors.imu.stamps_ns, was.priors.imu.stamps_ns)
        assert rows.sum() == len(was.priors.imu.stamps_ns)
        assert came.priors.imu.gyro[rows] == pytest.approx(was.priors.imu.gyro, abs=1e-12)
        assert came.priors.imu.force[rows] == pytest.approx(was.priors.imu.force, abs=1e-12)
    assert run(list(source)).notes == []
    assert next(iter(open_source(f"{tmp_path / 'bag'}?imu="))).priors is None


def recorded(path: Path, felt: Sequence[Frame], *, frame_id: str = "imu_link", topic: str = "/imu", scale=1.0) -> None:
    """A bag of somebody else's, whose IMU sits in another frame."""
    with Recorder(path) as recorder:
        recorder.tf(felt[0].stamp_ns, [("imu_link", "cam", MOUNT)], topic="/tf_static")
        sent = -1
        for frame in felt:
            imu = frame.priors.imu
            for stamp, gyro, force in zip(imu.stamps_ns.tolist(), imu.gyro, imu.force, strict=True):
                if stamp > sent:
                    sent = stamp
                    recorder.imu(stamp, MOUNT[:3, :3] @ gyro, scale * MOUNT[:3, :3] @ force, frame_id, topic)
            recorder.image(frame.stamp_ns, frame.image)
            recorder.info(frame.stamp_ns, frame.camera.matrix, (160, 120))


def test_a_bag_says_how_it_is_mounted(felt, tmp_path):
    recorded(tmp_path / "bag", felt[:20], topic="/sensor/imu")
    came = list(open_source(f"{tmp_path / 'bag'}?imu=/sensor/imu"))
    for frame, was in zip(came, felt, strict=False):
        imu = frame.priors.imu
        rows = np.isin(imu.stamps_ns, was.priors.imu.stamps_ns)
        assert imu.force[rows] == pytest.approx(was.priors.imu.force, abs=1e-9)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"frame_id": "elsewhere"}, "samples of the IMU that /tf_static does not connect to the images"),
        ({"scale": 1 / 9.81}, "samples of the IMU that cannot be used"),
        ({"scale": np.nan}, "samples of the IMU that cannot be used"),
    ],
)
def test_what_of_a_bag_cannot_be_used_is_counted(felt, tmp_path, how, cause):
    recorded(tmp_path / "bag", felt[:20], **how)
    source = open_source(str(tmp_path / "bag"))
    assert all(frame.priors is None for frame in source)
    assert source.skipped[cause] >= 20


def test_samples_that_come_too_seldom():
    track = ImuTrack()
    for i in range(11):
        track.add(i * 10**8, np.zeros(3), np.array([0, 0, 9.8]))
    with pytest.raises(SourceError, match="it has 11 samples per second; 20 are needed"):
        track.until(10**9, np.eye(3))


def test_stamps_that_do_not_increase_and_time_that_jumps():
    track, force = ImuTrack(), np.array([0, 0, 9.8])
    track.add(5 * 10**9, np.zeros(3), force)
    with pytest.raises(SourceError, match="its stamps do not increase"):
        track.add(5 * 10**9, np.zeros(3), force)
    track.add(10**9, np.zeros(3), force)
    assert len(track) == 1


def test_a_frame_gets_all_that_the_one_before_has_not_had():
    track = ImuTrack()
    for i in range(800):
        track.add(i * 10**7, np.zeros(3), np.array([0, 0, 9.8]))
        if i == 100:
            track.until(10**9, np.eye(3))
    said = track.until(7_000_000_000, np.eye(3))
    assert said.stamps_ns[0] <= 10**9
    assert said.stamps_ns[-1] == 7_050_000_000

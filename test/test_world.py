"""The synthetic world: what it promises, measured on its own frames."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from da3_ros.errors import MissingDependencyError, SourceError
from da3_ros.geometry import se3
from da3_ros.sources.world import WorldSource
from da3_ros.types import Frame

SMALL = "size=160x120"


def _truth(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    assert frame.truth is not None
    assert frame.truth.depth is not None
    assert frame.truth.T_world_cam is not None
    return frame.truth.depth, frame.truth.T_world_cam


def _bytes(frame: Frame) -> tuple[bytes, bytes, bytes, int, int]:
    depth, T_world_cam = _truth(frame)
    return frame.image.tobytes(), depth.tobytes(), T_world_cam.tobytes(), frame.stamp_ns, frame.id


def _move(pixels: np.ndarray, a: Frame, b: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels (N, 2) of frame a, at whole coordinates, appear in frame b, and their depth there."""
    depth, T_world_a = _truth(a)
    assert a.camera is not None
    assert b.camera is not None
    z = depth[pixels[:, 1], pixels[:, 0]].astype(float)
    points = se3.transform(se3.inverse(_truth(b)[1]) @ T_world_a, a.camera.unproject(pixels.astype(float), z))
    return b.camera.project(points), points[:, 2]


@pytest.fixture(scope="module")
def world() -> WorldSource:
    return WorldSource.from_spec("world:7?frames=30")


@pytest.fixture(scope="module")
def motion_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A swaying motion in the axes of its first camera (y down), 61 frames at 30 Hz."""
    t = np.arange(61) / 30
    path = np.stack([0.5 * np.sin(t), 0.1 * np.cos(2 * t), 0.4 * t], axis=1)
    poses = se3.make(se3.exp_so3(np.stack([0.2 * np.sin(t), 0.3 * np.sin(1.3 * t), 0.1 * t], axis=1)), path)
    rows = np.column_stack([np.arange(61), path, se3.quaternion_from_rotation(poses[:, :3, :3])])
    file = tmp_path_factory.mktemp("motion") / "sway.txt"
    np.savetxt(file, rows, fmt="%.17g", header="index tx ty tz qx qy qz qw")
    return file, poses


def test_same_specification_same_bytes_in_any_order(world: WorldSource) -> None:
    again = WorldSource.from_spec("world:7?frames=30")
    iterated = [_bytes(frame) for frame in itertools.islice(again, 4)]
    assert [_bytes(world.frame(i)) for i in (3, 1, 0, 2)] == [iterated[i] for i in (3, 1, 0, 2)]
    assert [_bytes(frame) for frame in itertools.islice(again, 4)] == iterated


def test_seeds_and_frames_differ() -> None:
    first, second = (WorldSource.from_spec(f"world:{seed}?frames=2&{SMALL}") for seed in (1, 2))
    assert np.abs(first.frame(0).image.astype(float) - second.frame(0).image).mean() > 10
    still = WorldSource.from_spec(
        f"world:1?frames=2&{SMALL}&rate=1000"
    )  # one millisecond apart: only the noise differs
    difference = still.frame(0).image.astype(float) - still.frame(1).image
    assert 1.0 < difference.std() < 8.0


def test_frames_carry_what_the_types_promise(world: WorldSource) -> None:
    assert world.name == "world:7"
    assert len(world) == 30
    stamps = [world.frame(i).stamp_ns for i in (0, 1, 29)]
    period = round(1e9 / 15)
    assert stamps == [1_000_000_000, 1_000_000_000 + period, 1_000_000_000 + 29 * period]
    frame = world.frame(29)
    depth, T_world_cam = _truth(frame)
    assert frame.id == 29
    assert frame.image.shape == (480, 640, 3)
    assert frame.image.dtype == np.uint8
    assert frame.camera == world.camera
    assert depth.shape == (480, 640)
    assert depth.dtype == np.float32
    assert se3.is_rigid(T_world_cam, 1e-9)
    with pytest.raises(IndexError, match="30 frames"):
        world.frame(30)
    with pytest.raises(IndexError):
        world.frame(-1)


def test_size_and_field_of_view() -> None:
    world = WorldSource.from_spec("world:1?frames=1&size=200x100&fov=90&lens=0")
    frame = world.frame(0)
    assert frame.image.shape == (100, 200, 3)
    assert world.camera.fx == pytest.approx(100.0)
    assert world.camera.fy == world.camera.fx
    assert (world.camera.cx, world.camera.cy) == (99.5, 49.5)
    offset = WorldSource.from_spec("world:1?frames=1&size=200x100&fov=90").camera
    assert 0 < abs(offset.cx - 99.5) < 3


@pytest.mark.parametrize("seed", [0, 7])
def test_depth_poses_and_colours_agree_between_frames(seed: int) -> None:
    """Points of one frame reappear in another at the depth and with the colour that pose and depth predict."""
    world = WorldSource.from_spec(f"world:{seed}?frames=20&noise=0&light=0&lens=0")
    a, b = world.frame(0), world.frame(12)
    assert np.linalg.norm(_truth(a)[1][:3, 3] - _truth(b)[1][:3, 3]) > 0.15
    v, u = (axis.ravel() for axis in np.mgrid[4:476:3, 4:636:3])
    pixels = np.stack([u, v], axis=1)
    pixels = pixels[np.isfinite(_truth(a)[0][v, u])]
    there, expected = _move(pixels, a, b)
    inside = (there > 2).all(axis=1) & (there < (637, 477)).all(axis=1)
    pixels, there, expected = pixels[inside], there[inside].astype(np.float32), expected[inside]
    assert len(pixels) > 5000
    # On a plane inverse depth is linear in the image: interpolating it is exact away from edges.
    inverse = cv2.remap(1 / _truth(b)[0], there[:, :1], there[:, 1:], cv2.INTER_LINEAR)[:, 0]
    error = np.abs(1 / inverse - expected)
    visible = error < 0.02
    assert visible.mean() > 0.75
    assert np.median(error) < 2e-5
    colour = cv2.remap(b.image, there[:, :1], there[:, 1:], cv2.INTER_LINEAR)[:, 0].astype(float)
    difference = np.abs(colour - a.image[pixels[:, 1], pixels[:, 0]]).mean(axis=1)
    assert np.median(difference[visible]) < 3.0


@pytest.mark.parametrize("seed", [1, 7, 12])
def test_features_can_be_tracked_to_a_fraction_of_a_pixel(seed: int) -> None:
    world = WorldSource.from_spec(f"world:{seed}?frames=60")
    tracked, errors = 0, []
    starts = (0, 20, 40, 58)
    for start in starts:
        a, b = world.frame(start), world.frame(start + 1)
        grey = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in (a, b)]
        corners = np.rint(cv2.goodFeaturesToTrack(grey[0], 300, 0.003, 9)).astype(np.float32)
        assert len(corners) >= 200
        found, status, _ = cv2.calcOpticalFlowPyrLK(*grey, corners, None, winSize=(15, 15), maxLevel=3)
        back, status_back, _ = cv2.calcOpticalFlowPyrLK(*grey[::-1], found, None, winSize=(15, 15), maxLevel=3)
        good = (status & status_back)[:, 0].astype(bool) & (np.abs(back - corners).max(axis=(1, 2)) < 1.0)
        tracked += good.mean() / len(starts)
        there, _ = _move(corners[good, 0].astype(int), a, b)
        errors.append(np.linalg.norm(there - found[good, 0], axis=1))
    assert tracked >= 0.70
    assert np.nanmedian(np.concatenate(errors)) < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_walk_is_that_of_a_hand_held_camera(seed: int) -> None:
    world = WorldSource.from_spec(f"world:{seed}?{SMALL}")
    poses, rate = world.poses, 15.0
    step = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    turn = np.degrees(se3.rotation_angle(np.swapaxes(poses[:-1, :3, :3], 1, 2) @ poses[1:, :3, :3])) * rate
    assert world.clearance().min() >= 0.3
    assert 6.0 < step.sum() < 15.0
    assert step.max() * rate < 0.9
    assert turn.max() < 60.0
    acceleration = np.diff(poses[:, :3, 3], 2, axis=0) * rate**2
    assert np.linalg.norm(acceleration, axis=1).max() < 3.0
    assert poses[:, 2, 1].max() < -0.8  # image down stays close to down


def test_long_walk_stays_in_the_room_and_comes_back() -> None:
    world = WorldSource.from_spec(f"world:1?frames=5000&{SMALL}")
    centres = world.poses[:, :3, 3]
    assert len(centres) == 5000
    assert world.clearance().min() >= 0.3
    assert np.ptp(centres, axis=0).max() < 7.0
    first = centres[:75, :2]
    later = centres[1500::5, :2]
    nearest = np.linalg.norm(first[:, None] - later[None], axis=2).min(axis=1)
    assert np.median(nearest) < 0.2


def test_length_and_rate_do_not_change_the_walk() -> None:
    short = WorldSource.from_spec(f"world:3?frames=40&{SMALL}").poses
    fast = WorldSource.from_spec(f"world:3?frames=80&rate=30&{SMALL}").poses
    long = WorldSource.from_spec(f"world:3?frames=300&{SMALL}").poses
    assert np.abs(fast[::2] - short).max() < 1e-6
    assert np.abs(long[:40] - short).max() < 1e-6


@pytest.mark.parametrize("seed", [1, 11])
def test_laps_come_back_to_where_they_were(seed: int) -> None:
    world = WorldSource.from_spec(f"world:{seed}?laps=2&frames=201&size=64x48")
    poses = world.poses
    away = np.linalg.norm(poses[:101, :3, 3] - poses[100:, :3, 3], axis=1)
    assert away.max() < 0.4
    assert np.linalg.norm(poses[:101, :3, 3] - poses[25:126, :3, 3], axis=1).min() > 0.8
    turn = np.rad2deg(se3.rotation_angle(np.swapaxes(poses[:101, :3, :3], 1, 2) @ poses[100:, :3, :3]))
    assert 0 < turn.max() < 45
    assert world.clearance().min() > 0.3
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) * 15
    assert steps.max() < 2 * np.median(steps)


def test_sky_has_no_depth() -> None:
    world = WorldSource.from_spec(f"world:7?windows=3&{SMALL}&noise=0")
    share, blue = [], []
    for index in range(0, 300, 30):
        frame = world.frame(index)
        sky = np.isnan(_truth(frame)[0])
        share.append(sky.mean())
        assert np.nanmin(_truth(frame)[0]) > 0.2
        if sky.sum() > 100:
            pixel = frame.image[sky].astype(float).mean(axis=0)
            blue.append(pixel[2] > pixel[0])
    assert max(share) > 0.02
    assert blue
    assert all(blue)
    closed = WorldSource.from_spec(f"world:7?windows=0&{SMALL}&frames=300")
    assert all(np.isfinite(_truth(closed.frame(i))[0]).all() for i in range(0, 300, 60))


def test_effects_can_be_switched_off() -> None:
    plain = WorldSource.from_spec(f"world:2?frames=3&{SMALL}&noise=0&light=0&lens=0").frame(0).image.astype(float)
    for option in ("noise", "light", "lens"):
        others = "&".join(f"{name}=0" for name in ("noise", "light", "lens") if name != option)
        changed = WorldSource.from_spec(f"world:2?frames=3&{SMALL}&{others}").frame(0).image
        assert np.abs(changed - plain).mean() > 0.5, option
    steady, shaken = (WorldSource.from_spec(f"world:2?{SMALL}&shake={s}").poses for s in (0, 2))
    assert 0.001 < np.abs(shaken[:, :3, 3] - steady[:, :3, 3]).max() < 0.05


def test_motion_file_is_followed_exactly(motion_file: tuple[Path, np.ndarray]) -> None:
    file, poses = motion_file
    world = WorldSource.from_spec(f"world:5?motion={file}&{SMALL}&rate=15&frames=300")
    assert len(world) == 31
    expected = poses[::2]
    relative = se3.inverse(world.poses[0]) @ world.poses
    assert np.abs(relative - se3.inverse(expected[0]) @ expected).max() < 1e-12
    assert np.abs(_truth(world.frame(30))[1] - world.poses[30]).max() == 0
    assert world.poses[:, 2, 1].mean() < -0.9  # upright
    assert world.clearance().min() >= 0.3
    between = WorldSource.from_spec(f"world:5?motion={file}&{SMALL}&rate=60&frames=3").poses
    middle = se3.interpolate(poses[0], poses[1], 0.5)
    assert np.abs(se3.inverse(between[0]) @ between[1] - se3.inverse(poses[0]) @ middle).max() < 1e-12


@pytest.mark.parametrize("name", ["7scenes_chess", "7scenes_office"])
def test_real_motion_keeps_clear_of_the_room(name: str, request: pytest.FixtureRequest) -> None:
    file = request.config.rootpath.parent / "shared" / "data" / "camera_motion" / f"{name}.txt"
    if not file.exists():
        pytest.skip(f"the recorded camera motion {file.name} is not here")
    world = WorldSource.from_spec(f"world:3?motion={file}&frames=2000&rate=30&{SMALL}")
    assert len(world) == 1000
    assert world.clearance().min() >= 0.3
    assert len(np.unique(np.linalg.norm(world.poses[:, :3, 3], axis=1))) > 900
    assert np.nanmedian(_truth(world.frame(500))[0]) < 5.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("world:", "whole number"),
        ("world:x", "whole number"),
        ("world:-3", "whole number"),
        ("world:1?frams=3", "did you mean 'frames'.*options: motion, frames, size"),
        ("world:1?frames=0", "whole number from 1"),
        ("world:1?frames=nan", "whole number from 1"),
        ("world:1?size=640", "WIDTHxHEIGHT"),
        ("world:1?size=8x8", "between 16 and 4096"),
        ("world:1?rate=nan", "number from 0.1"),
        ("world:1?fov=190", "from 20 to 150"),
        ("world:1?noise=loud", "number from 0"),
        ("world:1?laps=-1", "from 0 to 1000"),
        ("world:1?laps=2&motion=walk.txt", "either motion or laps"),
        ("world:1?motion=", "must name a trajectory"),
        ("world:1?motion=/no/such/file.txt", "cannot read the motion file"),
    ],
)
def test_bad_specifications_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        WorldSource.from_spec(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least two"),
        ("0 0 0 0 0 0 0 1\n", "at least two"),
        ("0 0 0 0 0 0 0 1\n1 2 3\n", "line 2: expected eight numbers"),
        ("0 0 0 0 0 0 0 1\n1 0 0 nan 0 0 0 1\n", "line 2: expected eight numbers"),
        ("0 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "not later"),
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 0\n", "quaternion"),
        ("0 0 0 0 0 0 0 1\n1 900 0 0 0 0 0 1\n", "more than a room holds"),
    ],
)
def test_bad_motion_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "motion.txt"
    file.write_text(text)
    with pytest.raises(SourceError, match=message):
        WorldSource.from_spec(f"world:1?motion={file}")


def test_without_open3d_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingDependencyError, match="pip install open3d"):
        next(iter(WorldSource.from_spec("world:77?frames=1&size=160x120")))

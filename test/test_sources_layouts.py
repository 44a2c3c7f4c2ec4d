"""Every folder layout: written as the data sets write it, read back, compared with what was rendered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sources_layouts import (
    EUROC_K,
    EUROC_START,
    SIZE,
    write_euroc,
    write_kitti,
    write_seven_scenes,
    write_tum_rgbd,
    write_video,
)
from sources_scene import SMALL, WallSource, assert_frames_equal, pose, real_data, render, write_png

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.sources import open_source

# ---------------------------------------------------------------------------------------------------- 7-Scenes


def test_seven_scenes(tmp_path):
    write_seven_scenes(tmp_path / "seq-01")
    source = open_source(str(tmp_path / "seq-01"))
    frames = list(source)
    assert source.name == "seq-01"
    assert [f.id for f in frames] == [0, 1, 2]
    assert [f.stamp_ns for f in frames] == [1_000_000_000, 1_066_666_667, 1_333_333_333]
    for n, frame in zip((0, 2, 10), frames, strict=True):
        image, depth = render(SMALL.matrix, SIZE, pose(n))
        np.testing.assert_array_equal(frame.image, image)
        assert frame.camera == SMALL
        np.testing.assert_array_equal(frame.truth.T_world_cam, pose(n))
        assert np.isnan(frame.truth.depth[0, :2]).all()
        assert np.nanmax(np.abs(frame.truth.depth - depth)) < 0.000501
        assert (frame.image.dtype, frame.truth.depth.dtype) == (np.uint8, np.float32)
    assert_frames_equal(source, source)  # iterating again starts again


def test_seven_scenes_without_intrinsics_or_truth(tmp_path):
    write_seven_scenes(tmp_path, intrinsics=False)
    (tmp_path / "frame-000002.depth.png").unlink()
    (tmp_path / "frame-000002.pose.txt").unlink()
    np.savetxt(tmp_path / "frame-000010.pose.txt", np.full((4, 4), np.nan))  # lost, as the data set writes it
    frames = list(open_source(str(tmp_path)))
    assert (frames[0].camera.fx, frames[0].camera.cx) == (585, 320)
    assert (frames[1].truth.depth, frames[1].truth.T_world_cam) == (None, None)
    assert frames[2].truth.T_world_cam is None
    assert frames[2].truth.depth is not None


def test_several_sequences_are_named(tmp_path):
    for k in (1, 2):
        write_seven_scenes(tmp_path / f"seq-{k:02d}", numbers=(0,))
    with pytest.raises(SourceError, match=r"several recordings.*seq-01.*seq-02"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("frame-000002.color.png", b"junk", "frame-000002.color.png is not an image"),
        ("frame-000002.color.png", b"", "frame-000002.color.png is not an image"),
        ("frame-000002.depth.png", b"junk", "depth.png is not an image"),
        ("frame-000002.pose.txt", b"1 2 3", "pose.txt is not a 4x4 matrix"),
        ("frame-000002.pose.txt", b"\xff\xfe", "pose.txt is not a 4x4 matrix"),
    ],
)
def test_unreadable_files_are_named_and_earlier_frames_are_kept(tmp_path, file, content, words):
    write_seven_scenes(tmp_path)
    (tmp_path / file).write_bytes(content)
    seen = []
    with pytest.raises(SourceError, match=words):
        seen.extend(frame.id for frame in open_source(str(tmp_path)))
    iterator = iter(open_source(str(tmp_path)))
    assert next(iterator).id == 0


def test_a_colour_picture_is_no_depth(tmp_path):
    write_seven_scenes(tmp_path)
    write_png(tmp_path / "frame-000000.depth.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(SourceError, match="16-bit"):
        list(open_source(str(tmp_path)))
    write_png(tmp_path / "frame-000000.depth.png", np.zeros((4, 6), np.uint16))
    with pytest.raises(SourceError, match="differ in size"):
        list(open_source(str(tmp_path)))


def test_the_real_room():
    source = open_source(str(real_data("rgbd_room")))
    assert (len(source), source.name) == (200, "rgbd_room")
    first = next(iter(source))
    assert (first.image.shape, first.camera) == ((480, 640, 3), Pinhole(640, 480, 585, 585, 320, 240))
    assert 0.5 < np.nanmedian(first.truth.depth) < 5
    part = list(open_source(str(real_data("rgbd_room")), (10, 14), stride=2))
    assert [f.id for f in part] == [10, 12]
    assert part[0].stamp_ns == 1_666_666_667  # frame-000020 at 30 Hz, after 1 s


# ---------------------------------------------------------------------------------------------------- TUM RGB-D

FREIBURG1 = ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633))


def test_tum_rgbd_with_the_known_lens_of_freiburg1(tmp_path):
    (fx, fy, cx, cy), distortion = FREIBURG1
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"
    write_tum_rgbd(folder, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion)
    frames = list(open_source(str(folder)))
    assert len(frames) == 4
    assert frames[0].stamp_ns == 1_305_031_102_175_304_000
    for i, frame in enumerate(frames):
        image, depth = render(frame.camera.matrix, (640, 480), pose(i))
        assert np.abs(frame.image[4:-4, 4:-4].astype(int) - image[4:-4, 4:-4]).mean() < 1
        assert np.nanmax(np.abs(frame.truth.depth - depth)[4:-4, 4:-4]) < 0.01
        assert np.linalg.norm(frame.truth.T_world_cam[:3, 3] - pose(i)[:3, 3]) < 2e-4


def test_tum_rgbd_default_camera_and_missing_partners(tmp_path):
    K = np.array([[525.0, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
    write_tum_rgbd(tmp_path / "my_room", K, count=3)
    lists = (tmp_path / "my_room" / "depth.txt").read_text().splitlines()
    (tmp_path / "my_room" / "depth.txt").write_text("\n".join(lists[:2]) + "\n")
    frames = list(open_source(str(tmp_path / "my_room")))
    assert frames[0].camera == Pinhole(640, 480, 525, 525, 319.5, 239.5)
    assert [f.truth.depth is None for f in frames] == [False, True, True]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, render(K, (640, 480), pose(i))[0])
    (tmp_path / "my_room" / "groundtruth.txt").unlink()
    assert next(iter(open_source(str(tmp_path / "my_room")))).truth.T_world_cam is None


@pytest.mark.parametrize(("name", "fx"), [("rgbd_dataset_freiburg3_x", 535.4), ("fr3_office", 535.4), ("other", 525.0)])
def test_tum_rgbd_knows_its_cameras_by_name(tmp_path, name, fx):
    write_tum_rgbd(tmp_path / name, np.eye(3) * 500, count=1)
    assert next(iter(open_source(str(tmp_path / name)))).camera.fx == fx


def test_tum_rgbd_damaged_lists(tmp_path):
    write_tum_rgbd(tmp_path, np.diag([525.0, 525, 1]), count=1)
    (tmp_path / "rgb.txt").write_text("# c\n1.0 rgb/a.png\nabc rgb/b.png\n")
    with pytest.raises(SourceError, match=r"rgb.txt line 3"):
        open_source(str(tmp_path))
    (tmp_path / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match="lists no file"):
        open_source(str(tmp_path))
    (tmp_path / "rgb.txt").write_text("1.0 rgb/absent.png\n")
    with pytest.raises(SourceError, match=r"absent.png: no such file"):
        list(open_source(str(tmp_path)))


# ---------------------------------------------------------------------------------------------------- EuRoC


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("radial-tangential", (-0.28, 0.074, 0.0002, 1.7e-05)), ("equidistant", (0.003, 0.0007, -0.002, 0.0002))],
)
def test_euroc(tmp_path, model, distortion):
    write_euroc(tmp_path / "V1_01_easy", model, distortion)
    for place in ("V1_01_easy", "V1_01_easy/mav0"):
        source = open_source(str(tmp_path / place))
        frames = list(source)
        assert (source.name, len(source), frames[1].stamp_ns) == ("V1_01_easy", 3, EUROC_START + 50_000_000)
    assert frames[0].truth is None  # before the ground truth starts
    for i, frame in enumerate(frames):
        grey = cv2.cvtColor(render(frame.camera.matrix, (376, 240), pose(i))[0], cv2.COLOR_RGB2GRAY)
        assert np.abs(frame.image[4:-4, 4:-4, 0].astype(int) - grey[4:-4, 4:-4]).mean() < 1
        if i:
            np.testing.assert_allclose(frame.truth.T_world_cam, pose(i), atol=1e-4)
            assert frame.truth.depth is None


def test_euroc_damage(tmp_path):
    write_euroc(tmp_path)
    with pytest.raises(SourceError, match=r"no cam1/data.csv"):
        open_source(f"{tmp_path}?camera=cam1")
    csv = tmp_path / "mav0/state_groundtruth_estimate0/data.csv"
    csv.write_text("1,2,3\n")
    with pytest.raises(SourceError, match="line 1: expected at least 8"):
        open_source(str(tmp_path))
    csv.write_text("1,0,0,0,0,0,0,0\n")
    with pytest.raises(SourceError, match="line 1: a rotation quaternion is zero"):
        open_source(str(tmp_path))
    (tmp_path / "mav0/cam0/sensor.yaml").write_text("a: 1\n")
    with pytest.raises(SourceError, match="lacks intrinsics"):
        open_source(str(tmp_path))


# ---------------------------------------------------------------------------------------------------- KITTI


@pytest.mark.parametrize(("option", "camera"), [("", 2), ("?camera=0", 0)])
def test_kitti(tmp_path, option, camera):
    folder = write_kitti(tmp_path)
    source = open_source(str(folder) + option)
    frames = list(source)
    assert source.name == "kitti_07"
    assert [f.stamp_ns for f in frames] == [1_000_000_000, 1_103_700_000, 1_207_400_000]
    for i, frame in enumerate(frames):
        T_cam0_cam = np.eye(4)
        if camera == 2:
            T_cam0_cam[:3, 3] = (-0.06, -0.02, -0.004)
        np.testing.assert_allclose(frame.truth.T_world_cam, pose(i) @ T_cam0_cam, atol=1e-9)
        # The pose is that of this camera: rendering from it gives the image.
        again = render(frame.camera.matrix, SIZE, frame.truth.T_world_cam)[0]
        assert np.abs(again.astype(int) - frame.image).max() <= 1


def test_kitti_without_poses_and_damaged(tmp_path):
    folder = write_kitti(tmp_path)
    with pytest.raises(SourceError, match="several recordings"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="must be 0, 1, 2 or 3"):
        open_source(f"{folder}?camera=left")
    (tmp_path / "poses/07.txt").write_text("1 2 3\n")
    with pytest.raises(SourceError, match=r"07.txt line 1: expected 12"):
        open_source(str(folder))
    (tmp_path / "poses/07.txt").unlink()
    assert next(iter(open_source(str(folder)))).truth is None
    (folder / "times.txt").write_text("0\n")
    with pytest.raises(SourceError, match="1 times for 3 images"):
        open_source(str(folder))
    (folder / "calib.txt").write_text("P0: 1\n")
    with pytest.raises(SourceError, match="no line 'P2:'"):
        open_source(str(folder))


# ---------------------------------------------------------------------------------------------------- images, video


def test_image_folder_in_natural_order_without_camera(tmp_path):
    for i in (1, 2, 10, 9):
        write_png(tmp_path / f"img{i}.png", np.full((8, 8, 3), i, np.uint8))
    frames = list(open_source(str(tmp_path)))
    assert [int(f.image[0, 0, 0]) for f in frames] == [1, 2, 9, 10]
    assert [f.stamp_ns for f in frames][:2] == [1_000_000_000, 1_066_666_667]
    assert all(f.camera is None and f.truth is None for f in frames)
    assert list(open_source(f"{tmp_path}?rate=2"))[1].stamp_ns == 1_500_000_000


def test_image_folder_with_a_lens(tmp_path):
    for i in range(2):
        write_png(tmp_path / f"{i}.png", render(EUROC_K, (376, 240), pose(i), (-0.28, 0.07, 0, 0))[0])
    text = "{fx: 229.3, fy: 228.6, cx: 183.6, cy: 124.2, distortion: [-0.28, 0.07, 0, 0]}"
    (tmp_path / "camera.yaml").write_text(text)
    for i, frame in enumerate(open_source(str(tmp_path))):
        expected = render(frame.camera.matrix, (376, 240), pose(i))[0]
        assert np.abs(frame.image[4:-4, 4:-4].astype(int) - expected[4:-4, 4:-4]).mean() < 1


def test_image_folder_refuses_a_size_change_and_bad_options(tmp_path):
    write_png(tmp_path / "1.png", np.zeros((8, 8, 3), np.uint8))
    write_png(tmp_path / "2.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(SourceError, match=r"frame 1 .* is 9x8 but the ones before are 8x8"):
        list(open_source(str(tmp_path)))
    for rate in ("0", "-1", "nan", "fast"):
        with pytest.raises(SourceError, match="positive number"):
            open_source(f"{tmp_path}?rate={rate}")
    with pytest.raises(SourceError, match="no option 'speed'; it has rate, camera"):
        open_source(f"{tmp_path}?speed=1")
    with pytest.raises(SourceError, match="not key=value"):
        open_source(f"{tmp_path}?speed")


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "walk.avi"
    write_video(path, 12)
    return path


def test_video(video):
    source = open_source(str(video))
    frames = list(source)
    assert (len(source), len(frames), source.name) == (12, 12, "walk")
    assert [f.stamp_ns for f in frames][:3] == [1_000_000_000, 1_050_000_000, 1_100_000_000]
    for frame, truth in zip(frames, WallSource(12), strict=True):
        assert np.abs(frame.image.astype(int) - truth.image).mean() < 10  # JPEG at 64x48 is coarse
    assert [f.id for f in open_source(str(video), (-4, None), stride=3)] == [8, 11]
    assert list(open_source(f"{video}?rate=10"))[1].stamp_ns == 1_100_000_000


def test_video_with_a_camera(video, tmp_path):
    np.savetxt(tmp_path / "K.txt", SMALL.matrix)
    assert next(iter(open_source(f"{video}?camera={tmp_path / 'K.txt'}"))).camera == SMALL


def test_damaged_video(video, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    with pytest.raises(SourceError, match=r"junk.mp4 cannot be opened"):
        open_source(str(tmp_path / "junk.mp4"))


# ---------------------------------------------------------------------------------------------------- choosing, slicing


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "holds nothing"),
        (lambda p: (p.mkdir(), (p / "notes.txt").write_text("x"), (p / "sub").mkdir()), r"holds notes.txt, sub/"),
        (lambda p: p.write_text("x"), "neither a bag"),
    ],
)
def test_what_is_no_recording_is_refused_with_what_is_there(tmp_path, make, words):
    make(tmp_path / "thing")
    with pytest.raises(SourceError, match=words):
        open_source(str(tmp_path / "thing"))


def test_odd_names(tmp_path):
    for text in ("", "x" * 5000, "~nobody/x", "\0"):
        with pytest.raises(SourceError):
            open_source(text)
    (tmp_path / "one.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="give the folder"):
        open_source(str(tmp_path / "one.png"))
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(SourceError, match="rosbags-convert"):
        open_source(str(tmp_path / "old.bag"))
    folder = tmp_path / "what?rate=3"
    write_png(folder / "1.png", np.zeros((8, 8, 3), np.uint8))
    assert len(open_source(str(folder))) == 1  # the name of a folder that exists wins over options


@pytest.mark.parametrize(
    ("frames", "stride", "ids"),
    [
        ((None, None), 1, range(10)),
        ((2, 5), 1, [2, 3, 4]),
        ((None, 3), 1, [0, 1, 2]),
        ((-3, None), 1, [7, 8, 9]),
        ((-5, -1), 2, [5, 7]),
        ((8, 100), 1, [8, 9]),
        ((None, None), 4, [0, 4, 8]),
    ],
)
def test_slices_count_as_python_does_and_keep_ids(tmp_path, frames, stride, ids):
    for i in range(10):
        write_png(tmp_path / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    source = open_source(str(tmp_path), frames, stride=stride)
    assert len(source) == len(list(ids))
    assert [f.id for f in source] == list(ids)
    assert [int(f.image[0, 0, 0]) for f in source] == list(ids)


def test_slices_that_select_nothing(tmp_path):
    write_png(tmp_path / "0.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SourceError, match=r"frames 5:9 select nothing.*0..0"):
        open_source(str(tmp_path), (5, 9))
    with pytest.raises(SourceError, match="stride"):
        open_source(str(tmp_path), stride=0)


def test_frames_text():
    from da3_ros.sources.slicing import parse_frames

    assert parse_frames("10:20") == (10, 20)
    assert parse_frames(":") == (None, None)
    assert parse_frames("-5:") == (-5, None)
    for bad in ("", "5", "a:b", "1:2:3"):
        with pytest.raises(SourceError, match="write A:B"):
            parse_frames(bad)


def test_importing_sources_is_cheap():
    heavy = "{'cv2', 'rosbags', 'open3d', 'scipy'}"
    code = f"import sys, da3_ros.sources; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])

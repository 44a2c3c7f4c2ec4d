"""TUM trajectory files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_scene import pose, real_data

from da3_ros.errors import OutputError, SourceError
from da3_ros.sources.tum import nanoseconds, read_tum, seconds, write_tum
from da3_ros.types import Trajectory


@given(st.integers(-(2**62), 2**62))
def test_nanoseconds_survive_as_text(stamp):
    if abs(stamp) < 9_000_000_000 * 10**9:
        assert nanoseconds(seconds(stamp)) == stamp


def test_nanoseconds_are_not_rounded_through_a_float():
    assert nanoseconds("1700000000.123456789") == 1_700_000_000_123_456_789
    assert nanoseconds("1.70000000012345678e9") == 1_700_000_000_123_456_780
    assert seconds(1_700_000_000_000_000_001) == "1700000000.000000001"
    for bad in ("nan", "inf", "abc", "1e99", ""):
        with pytest.raises(ValueError, match="not"):
            nanoseconds(bad)


def test_round_trip(tmp_path):
    stamps = 1_700_000_000_123_456_789 + 33_333_333 * np.arange(50, dtype=np.int64)
    trajectory = Trajectory(stamps, np.stack([pose(i) for i in range(50)]))
    path = tmp_path / "trajectory.tum"
    write_tum(path, trajectory)
    back = read_tum(path)
    np.testing.assert_array_equal(back.stamps_ns, stamps)
    np.testing.assert_allclose(back.T_map_cam, trajectory.T_map_cam, atol=2e-9)
    assert [p.name for p in tmp_path.iterdir()] == ["trajectory.tum"]  # nothing temporary is left
    assert path.read_text().splitlines()[0].startswith("1700000000.123456789 0.000000000 ")
    assert "-0.000000000" not in path.read_text().splitlines()[0]


def test_comments_blank_lines_and_commas(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("# time x y z\n\n1.5 1 2 3 0 0 0 1 # first\n2.5, 1, 2, 4, 0, 0, 0, 1\n")
    trajectory = read_tum(path)
    np.testing.assert_array_equal(trajectory.stamps_ns, [1_500_000_000, 2_500_000_000])
    np.testing.assert_array_equal(trajectory.T_map_cam[1, :3, 3], [1, 2, 4])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "line 2.*does not come after"),
        ("1 0 0 0 0 0 0 1\n0.5 0 0 0 0 0 0 1\n", "line 2.*does not come after"),
        ("1 0 0 0 0 0 1\n", "line 1: 7 values"),
        ("\n1 0 0 0 0 0 0 0\n", "line 2: the quaternion has length 0"),
        ("1 0 0 nan 0 0 0 1\n", "line 1: a value is not finite"),
        ("nan 0 0 0 0 0 0 1\n", "line 1: 'nan'"),
        ("1 0 0 x 0 0 0 1\n", "line 1: could not convert"),
        ("# only a comment\n", "holds no pose"),
        ("", "holds no pose"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, text, words):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(SourceError, match=words):
        read_tum(path)


def test_unreadable_and_unwritable_places(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read_tum(tmp_path / "absent.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot read"):
        read_tum(tmp_path / "bytes.txt")
    trajectory = Trajectory(np.array([1], np.int64), pose(0)[None])
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "t.tum", tmp_path):
        with pytest.raises(OutputError, match="cannot write"):
            write_tum(place, trajectory)


def test_an_existing_file_survives_a_failed_write(tmp_path):
    path = tmp_path / "t.tum"
    write_tum(path, Trajectory(np.array([1], np.int64), pose(0)[None]))
    before = path.read_text()
    with pytest.raises(ValueError, match="zip"):
        write_tum(path, Trajectory(np.array([1, 2], np.int64), pose(0)[None]))
    assert path.read_text() == before


def test_a_real_trajectory():
    trajectory = read_tum(real_data("camera_motion") / "7scenes_chess.txt")
    assert len(trajectory) > 500
    steps = np.linalg.norm(np.diff(trajectory.T_map_cam[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.3

"""The map: what enters, where it lands, how it moves, how large it gets, and what is saved."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sources_scene import SMALL, WALL_M, pose, render

from da3_ros.config import MapConfig
from da3_ros.errors import OutputError, SourceError
from da3_ros.geometry import se3
from da3_ros.mapping import ply
from da3_ros.mapping.map import Map
from da3_ros.mapping.voxels import VoxelGrid
from da3_ros.types import FusedKeyframe

GREEN, RED = (20, 200, 30), (250, 10, 10)


def keyframe(index: int = 0, submap: int = 0, **changes: object) -> FusedKeyframe:
    """A view of a flat green wall two metres ahead from the submap's origin."""
    fields = {
        "frame_id": index,
        "stamp_ns": 1 + index,
        "submap": submap,
        "T_submap_cam": np.eye(4),
        "camera": SMALL,
        "depth": np.full((48, 64), 2.0, np.float32),
        "confidence": np.full((48, 64), 0.9, np.float32),
        "image": np.full((48, 64, 3), GREEN, np.uint8),
    }
    return FusedKeyframe(**{**fields, **changes})


def seen(index: int, submap: int = 0) -> FusedKeyframe:
    """A view of the textured wall, in a submap whose frame is the world."""
    image, depth = render(SMALL.matrix, SMALL.size, pose(index))
    return keyframe(index, submap, T_submap_cam=pose(index), depth=depth, image=image)


# ---------------------------------------------------------------- what enters, and where


def test_points_of_every_view_lie_on_the_surface_that_was_seen():
    map_ = Map(MapConfig(voxel=0.02))
    for index in range(6):
        map_.insert(seen(index))
    points, colors = map_.points()
    assert len(points) == len(map_) > 5000
    np.testing.assert_allclose(points[:, 2], WALL_M, atol=1e-4)
    image, _ = render(SMALL.matrix, SMALL.size, pose(0))
    pixels = SMALL.project(se3.transform(se3.inverse(pose(0)), points.astype(float)))
    u, v = np.rint(pixels).T
    inside = (u >= 1) & (u < 63) & (v >= 1) & (v < 47)
    difference = colors[inside].astype(int) - image[v[inside].astype(int), u[inside].astype(int)]
    assert np.abs(difference).max() < 40  # the texture's slope within a pixel and a voxel
    assert np.abs(difference).mean() < 5


@given(
    hnp.arrays(
        np.float32,
        (48, 64),
        elements=st.sampled_from([2.0] * 30 + [np.nan, np.inf, -np.inf, 0.0, -1.0, 8.5, 1e30]),
        fill=st.just(np.float32(2.0)),
    ),
    hnp.arrays(
        np.float32, (48, 64), elements=st.sampled_from([0.9] * 30 + [0.0, 0.49, np.nan]), fill=st.just(np.float32(0.9))
    ),
)
@settings(max_examples=40, deadline=None)
def test_invalid_far_and_unsure_pixels_never_enter(depth, confidence):
    wrong = ~((depth == 2.0) & (confidence == np.float32(0.9)))
    image = np.where(wrong[..., None], np.uint8(RED), np.uint8(GREEN))
    map_ = Map(MapConfig())
    map_.insert(keyframe(depth=depth, confidence=confidence, image=image))
    points, colors = map_.points()
    assert np.isfinite(points).all()
    np.testing.assert_allclose(points[:, 2], 2.0, atol=1e-5)
    assert (colors == GREEN).all()


def test_pixels_beside_an_occlusion_edge_or_a_hole_never_enter():
    depth = np.full((48, 64), 2.0, np.float32)
    depth[:, 30:] = 3.0
    depth[20, 10] = np.nan
    image = np.full((48, 64, 3), GREEN, np.uint8)
    image[:, 29:31] = image[19:22, 9:12] = RED
    map_ = Map(MapConfig())
    map_.insert(keyframe(depth=depth, image=image))
    points, colors = map_.points()
    assert len(points) > 500
    assert (colors == GREEN).all()


def test_a_keyframe_without_a_usable_pixel_changes_nothing():
    map_ = Map(MapConfig())
    map_.insert(keyframe(depth=np.full((48, 64), np.nan, np.float32)))
    assert len(map_) == 0
    assert map_.take_changes() == []
    points, colors = map_.points()
    assert points.shape == (0, 3)
    assert colors.shape == (0, 3)


def test_a_lost_pose_leaves_no_point():
    map_ = Map(MapConfig())
    map_.insert(keyframe(T_submap_cam=np.full((4, 4), np.nan)))
    assert len(map_) == 0


def test_the_voxel_follows_the_depth_of_the_first_keyframe():
    for depth in (0.5, 2.0, 6.0):
        map_ = Map(MapConfig())
        map_.insert(keyframe(depth=np.full((48, 64), depth, np.float32)))
        cells = np.floor(map_.points()[0] / (0.01 * depth) + 1e-4)
        assert len(np.unique(cells, axis=0)) == len(map_)
    coarse, fine = Map(MapConfig(voxel=0.2)), Map(MapConfig(voxel=0.05))
    for map_ in (coarse, fine):
        map_.insert(keyframe())
    assert 8 * len(coarse) < len(fine)


def test_a_near_and_sure_view_counts_more():
    """Two views paint the same wall: the colour leans to the one that is nearer and surer."""
    shares = []
    for depth, confidence in ((2.0, 0.9), (4.0, 0.9), (2.0, 0.6)):
        map_ = Map(MapConfig(voxel=0.5))
        map_.insert(keyframe())
        T = se3.make(np.eye(3), np.array([0, 0, 2.0 - depth]))
        map_.insert(
            keyframe(
                1,
                T_submap_cam=T,
                depth=np.full((48, 64), depth, np.float32),
                confidence=np.full((48, 64), confidence, np.float32),
                image=np.full((48, 64, 3), RED, np.uint8),
            )
        )
        points, colors = map_.points()
        middle = np.abs(points[:, :2] + 0.25).max(axis=1) < 0.25  # one voxel that both views cover
        shares.append(float(np.mean((colors[middle, 0].astype(float) - GREEN[0]) / (RED[0] - GREEN[0]))))
    assert shares[0] == pytest.approx(0.5, abs=0.01)
    # A quarter of the weight per pixel, and a quarter of the pixels on the same surface.
    assert shares[1] == pytest.approx(1 / 17, abs=0.02)
    assert shares[2] == pytest.approx(0.6 / 1.5, abs=0.01)


# ---------------------------------------------------------------- the voxel grid against a plain dictionary

POINTS = hnp.arrays(np.float64, st.tuples(st.integers(0, 60), st.just(3)), elements=st.floats(-3, 3, width=32))


@given(st.lists(POINTS, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_voxel_holds_the_weighted_mean_of_its_points(batches, random):
    grid, cells = VoxelGrid(0.5), defaultdict(list)
    for points in batches:
        colors = np.array([[random.randrange(256) for _ in range(3)] for _ in points], np.uint8).reshape(-1, 3)
        weights = np.array([random.uniform(0.01, 2) for _ in points], np.float32)
        grid.insert(points, colors, weights)
        for p, c, w in zip(points, colors, weights, strict=True):
            cells[tuple(np.floor(p / 0.5))].append((w, p, c))
    means, colors, weights = grid.points()
    assert len(grid) == len(means) == len(cells)
    for cell, mean, color, weight in zip(sorted(cells), means, colors, weights, strict=True):
        w, p, c = (np.array(x, float) for x in zip(*cells[cell], strict=True))
        np.testing.assert_allclose(weight, w.sum(), rtol=1e-5)
        np.testing.assert_allclose(mean, w @ p / w.sum(), atol=1e-5)
        np.testing.assert_allclose(color, w @ c / w.sum(), atol=0.51)


def test_points_beyond_the_range_of_a_grid_are_left_out():
    grid = VoxelGrid(1e-3)
    points = np.array([[0, 0, 1.0], [2000.0, 0, 0], [0, np.nan, 0], [0, 0, -np.inf]])
    grid.insert(points, np.full((4, 3), 7, np.uint8), np.ones(4, np.float32))
    np.testing.assert_allclose(grid.points()[0], [[0, 0, 1.0]])


# ---------------------------------------------------------------- bounded memory


@given(
    st.integers(1000, 4000),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.2, 6.0), st.floats(0.5, 0.99)), min_size=2, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_there_are_never_more_voxels_than_allowed(most, views):
    map_ = Map(MapConfig(voxel=0.01, max_points=most))
    for index, (submap, depth, confidence) in enumerate(views):
        map_.insert(
            keyframe(
                index,
                submap,
                depth=np.full((48, 64), depth, np.float32),
                confidence=np.full((48, 64), confidence, np.float32),
            )
        )
        assert len(map_) <= most
    assert len(map_.points()[0]) == len(map_)


def test_the_least_seen_goes_first_and_is_told():
    map_ = Map(MapConfig(voxel=0.01, max_points=5000))
    for index in range(3):  # the same wall again and again
        map_.insert(keyframe(index, submap=0))
    often = len(map_)
    assert often < 5000
    map_.take_changes()
    map_.insert(keyframe(9, submap=1, depth=np.full((48, 64), 4.0, np.float32)))
    assert len(map_) == 4500
    sizes = {change.submap: len(change.points) for change in map_.contents()}
    assert sizes == {0: often, 1: 4500 - often}
    assert {change.submap for change in map_.take_changes()} == {1}
    map_.insert(keyframe(10, submap=2, confidence=np.full((48, 64), 0.95, np.float32)))
    assert {change.submap for change in map_.take_changes()} == {1, 2}


# ---------------------------------------------------------------- anchors


def anchor(seed: int) -> np.ndarray:
    return se3.exp(np.random.default_rng(seed).normal(size=6))


def test_moving_an_anchor_moves_its_submap_as_one_piece():
    map_ = Map(MapConfig())
    map_.insert(seen(0, submap=0))
    map_.insert(seen(3, submap=1))
    before, _ = map_.points()
    first = len(map_.contents()[0].points)
    map_.move({0: np.eye(4), 1: anchor(1)})
    after, _ = map_.points()
    np.testing.assert_array_equal(after[:first], before[:first])
    np.testing.assert_allclose(after[first:], se3.transform(anchor(1), before[first:]), atol=1e-5)
    map_.move({1: anchor(2)})  # anchors are places, not steps
    np.testing.assert_allclose(map_.points()[0][first:], se3.transform(anchor(2), before[first:]), atol=1e-5)


def test_a_factor_resizes_a_submap_about_its_anchor():
    map_ = Map(MapConfig())
    map_.insert(seen(0))
    before, _ = map_.points()
    map_.move({0: anchor(1)}, {0: 1.5})
    np.testing.assert_allclose(map_.points()[0], se3.transform(anchor(1), 1.5 * before), atol=1e-5)
    (change,) = map_.contents()
    np.testing.assert_array_equal(change.T_map_submap, anchor(1))
    np.testing.assert_allclose(change.points, 1.5 * before, atol=1e-6)


def test_changes_are_told_once_and_only_where_there_are_some():
    map_ = Map(MapConfig())
    map_.move({0: np.eye(4), 7: np.eye(4)})
    map_.insert(seen(0, submap=0))
    map_.insert(seen(1, submap=1))
    assert [c.submap for c in map_.take_changes()] == [0, 1]
    assert map_.take_changes() == []
    map_.move({0: np.eye(4), 7: anchor(3)})  # the same place; nothing to see
    assert map_.take_changes() == []
    map_.move({0: anchor(1), 1: np.eye(4)})
    assert [c.submap for c in map_.take_changes()] == [0, 1]
    map_.insert(seen(2, submap=1))
    (change,) = map_.take_changes()
    assert change.submap == 1
    assert len(change.points) == len(change.colors) == len(map_) - len(map_.contents()[0].points)
    assert [c.submap for c in map_.contents()] == [0, 1]


# ---------------------------------------------------------------- saving


def filled() -> Map:
    map_ = Map(MapConfig())
    for index in range(4):
        map_.insert(seen(index, submap=index // 2))
    map_.move({0: anchor(1), 1: anchor(2)})
    return map_


def test_a_saved_map_opens_in_open3d(tmp_path):
    import open3d

    map_ = filled()
    points, colors = map_.points()
    assert map_.save(tmp_path / "new" / "map.ply") == len(points) > 0
    cloud = open3d.io.read_point_cloud(str(tmp_path / "new" / "map.ply"))
    np.testing.assert_array_equal(np.asarray(cloud.points), points)
    np.testing.assert_allclose(255 * np.asarray(cloud.colors), colors, atol=1e-6)


def test_the_same_keyframes_make_the_same_bytes(tmp_path):
    for name in ("a.ply", "b.ply"):
        filled().save(tmp_path / name)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_what_was_written_is_read_back(tmp_path):
    points, colors = filled().points()
    ply.write(tmp_path / "map.ply", points, colors)
    again = ply.read(tmp_path / "map.ply")
    np.testing.assert_array_equal(again[0], points)
    np.testing.assert_array_equal(again[1], colors)
    Map(MapConfig()).save(tmp_path / "empty.ply")
    assert [len(part) for part in ply.read(tmp_path / "empty.ply")] == [0, 0]


def test_a_failed_save_keeps_the_older_map(tmp_path):
    map_, path = filled(), tmp_path / "map.ply"
    map_.save(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"cannot write .*map\.ply"):
        map_.save(path / "below" / "map.ply")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["map.ply"]


def test_files_that_are_no_map(tmp_path):
    with pytest.raises(SourceError, match="cannot read the map"):
        ply.read(tmp_path / "missing.ply")
    filled().save(tmp_path / "map.ply")
    data = (tmp_path / "map.ply").read_bytes()
    for name, content in (("cut.ply", data[:-5]), ("other.ply", b"ply\nformat ascii 1.0\nend_header\n"), ("no", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match="is not a map"):
            ply.read(tmp_path / name)

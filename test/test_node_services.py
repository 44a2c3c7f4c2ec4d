"""The services: what they do, what they answer, and what they refuse."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from da3_ros.msg import PoseGraph, SlamStatus
from da3_ros.srv import SaveMap, SaveTrajectory
from nav_msgs.msg import Path as PathMessage
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from ros_bench import LATCHED, PATIENCE_S, Camera
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.mapping import ply
from da3_ros.ros.body import T_FLU_OPTICAL
from da3_ros.sources.tum import read_tum


@pytest.fixture
def seen(bench, walk, tmp_path):
    """A node that has seen part of the walk; what it saves goes below tmp_path."""
    running = bench.start(node__output_dir=str(tmp_path))
    bench.camera = Camera(bench)
    bench.camera.wait()
    bench.camera.show(walk[:25])
    bench.until(lambda: running.map_points and running.accepted == 25, "a map")
    return bench


# ------------------------------------------------------------ reset


def test_reset_starts_a_session(seen, walk):
    points = seen.listen(PointCloud2, "map/points", LATCHED)
    path = seen.listen(PathMessage, "path", LATCHED)
    graph = seen.listen(PoseGraph, "pose_graph", LATCHED)
    seen.until(lambda: points and path and graph, "map, path and graph")
    answer = seen.call(Trigger, "reset")
    assert (answer.success, answer.message) == (True, "a new session has begun; map, trajectory and counters are empty")
    # A status may be sent between the numbering of the session and its beginning; one that comes now is empty.
    status = seen.until_status(lambda s: s.session_id == 2 and s.state == SlamStatus.STATE_INIT, "the new session")
    assert (status.frames_received, status.frames_accepted) == (0, 0)
    assert (status.keyframes, status.windows, status.path_length_m) == (0, 0, 0)
    seen.until_status(lambda s: s.session_id == 2 and s.map_points == 0, "an empty map")
    # What was kept for late subscribers is withdrawn.
    seen.until(lambda: (points[-1].width, len(path[-1].poses), len(graph[-1].keyframe_ids)) == (0, 0, 0), "nothing")
    assert graph[-1].session_id == 2
    before = len(seen.odometry)
    seen.camera.show(walk[30:40])
    status = seen.until_status(lambda s: s.frames_accepted == 10, "life goes on")
    assert status.session_id == 2
    first = seen.odometry[before].pose.pose.position
    assert (first.x, first.y, first.z) == (0.0, 0.0, 0.0)


def test_reset_before_any_frame(bench):
    bench.start()
    assert bench.call(Trigger, "reset").success
    bench.until_status(lambda s: s.session_id == 2, "the new session")


# ------------------------------------------------------------ pause


def test_pause_drops_and_counts(seen, walk):
    answer = seen.call(SetBool, "pause", SetBool.Request(data=True))
    assert (answer.success, answer.message) == (True, "paused: images are dropped and counted until resumed")
    for frame in walk[25:29]:
        seen.camera.send(frame)
    status = seen.until_status(lambda s: s.dropped_paused == 4, "four drops")
    assert (status.state, status.reason) == (SlamStatus.STATE_PAUSED, "")
    assert status.frames_received == status.frames_accepted + 4 == 29
    assert seen.call(SetBool, "pause", SetBool.Request(data=True)).message == "the node is paused already"
    assert seen.call(SetBool, "pause", SetBool.Request(data=False)).message == "resumed"
    assert seen.call(SetBool, "pause", SetBool.Request(data=False)).message == "the node is not paused"
    seen.camera.show(walk[29:33])
    status = seen.until_status(lambda s: s.frames_accepted == 29, "frames again")
    assert (status.state, status.session_id) == (SlamStatus.STATE_TRACKING, 1)


# ------------------------------------------------------------ saving


def test_the_map_is_saved(seen, tmp_path):
    target = tmp_path / "deep" / "room.ply"
    answer = seen.call(SaveMap, "save_map", SaveMap.Request(path=str(target)))
    assert (answer.success, answer.result, answer.path) == (True, SaveMap.Response.RESULT_OK, str(target))
    assert answer.message == f"{answer.count} points written to {target}"
    assert answer.metric
    points, colors = ply.read(target)
    assert len(points) == len(colors) == answer.count > 100
    assert points[:, 0].max() > 1  # ahead of the camera, along x


def test_paths_default_to_the_output_folder(seen, tmp_path):
    assert seen.call(SaveMap, "save_map").path == str(tmp_path / "map.ply")
    assert seen.call(SaveTrajectory, "save_trajectory").path == str(tmp_path / "trajectory.tum")
    causal = SaveTrajectory.Request(kind=SaveTrajectory.Request.KIND_CAUSAL)
    assert seen.call(SaveTrajectory, "save_trajectory", causal).path == str(tmp_path / "trajectory_causal.tum")
    relative = SaveTrajectory.Request(path="runs/one.tum")
    assert seen.call(SaveTrajectory, "save_trajectory", relative).path == str(tmp_path / "runs" / "one.tum")
    assert {p.name for p in tmp_path.iterdir()} == {"map.ply", "trajectory.tum", "trajectory_causal.tum", "runs"}


def test_the_trajectory_is_saved_with_every_frame(seen, walk, tmp_path):
    answer = seen.call(SaveTrajectory, "save_trajectory", SaveTrajectory.Request(path=str(tmp_path / "t.tum")))
    assert (answer.success, answer.count, answer.metric) == (True, 25, True)
    saved = read_tum(tmp_path / "t.tum")
    assert saved.stamps_ns.tolist() == [frame.stamp_ns for frame in walk[:25]]
    start = se3.inverse(walk[0].truth.T_world_cam)
    expected = [T_FLU_OPTICAL @ start @ frame.truth.T_world_cam for frame in walk[:25]]
    np.testing.assert_allclose(saved.T_map_cam[:, :3, 3], np.array(expected)[:, :3, 3], atol=0.05)


def test_keyframes_only(seen, tmp_path):
    request = SaveTrajectory.Request(path=str(tmp_path / "k.tum"), keyframes_only=True)
    answer = seen.call(SaveTrajectory, "save_trajectory", request)
    assert 3 < answer.count < 25
    assert len(read_tum(tmp_path / "k.tum")) == answer.count


def test_the_causal_trajectory_is_what_was_published(seen, tmp_path):
    request = SaveTrajectory.Request(path=str(tmp_path / "c.tum"), kind=SaveTrajectory.Request.KIND_CAUSAL)
    assert seen.call(SaveTrajectory, "save_trajectory", request).count == 25
    final = SaveTrajectory.Request(path=str(tmp_path / "f.tum"))
    assert seen.call(SaveTrajectory, "save_trajectory", final).count == 25
    causal, revised = read_tum(tmp_path / "c.tum"), read_tum(tmp_path / "f.tum")
    assert causal.stamps_ns.tolist() == revised.stamps_ns.tolist()
    assert not np.allclose(causal.T_map_cam, revised.T_map_cam, atol=1e-6)


MAP, TRAJECTORY = SaveMap.Response, SaveTrajectory.Response


@pytest.mark.parametrize(
    ("kind", "fields", "results", "part"),
    [
        (SaveMap, {"path": "{}/map.pcd"}, {MAP.RESULT_BAD_FORMAT}, ".pcd"),
        (SaveMap, {"path": "{}/file/m.ply"}, {MAP.RESULT_BAD_PATH}, "cannot create the folder"),
        (SaveMap, {"path": "/proc/nowhere/m.ply"}, {MAP.RESULT_BAD_PATH}, "choose another path"),
        # Whether this is noticed before or while writing depends on who runs the test.
        (SaveMap, {"path": "/proc/m.ply"}, {MAP.RESULT_BAD_PATH, MAP.RESULT_FAILED}, "choose another p"),
        (SaveTrajectory, {"path": "/proc/nowhere/t.tum"}, {TRAJECTORY.RESULT_BAD_PATH}, "choose another path"),
        (SaveTrajectory, {"path": "{}"}, {TRAJECTORY.RESULT_BAD_PATH}, "is a folder; add a file name"),
        (SaveTrajectory, {"kind": 7}, {TRAJECTORY.RESULT_BAD_OPTION}, "kind 7 is unknown; use KIND_FINAL"),
    ],
)
def test_what_cannot_be_saved_is_refused(seen, tmp_path, kind, fields, results, part):
    (tmp_path / "file").write_text("in the way")
    fields = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in fields.items()}
    name = "save_map" if kind is SaveMap else "save_trajectory"
    answer = seen.call(kind, name, kind.Request(**fields))
    assert not answer.success
    assert answer.result in results
    assert part in answer.message
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nothing_is_saved_before_the_first_frame(bench, tmp_path):
    bench.start(node__output_dir=str(tmp_path))
    for kind, name in ((SaveMap, "save_map"), (SaveTrajectory, "save_trajectory")):
        answer = bench.call(kind, name)
        assert (answer.success, answer.result) == (False, kind.Response.RESULT_EMPTY)
        assert "nothing was written" in answer.message
    assert not list(tmp_path.iterdir())


def test_services_answer_while_a_prediction_takes_its_time(bench, walk, tmp_path):
    """A window takes seconds; nobody waits for it."""
    bench.start(node__output_dir=str(tmp_path), simulated__delay_s=3.0)
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:5])
    bench.until_status(lambda s: s.windows == 1, "a window under way")
    assert bench.call(SaveTrajectory, "save_trajectory").count == 5
    assert bench.call(SetBool, "pause", SetBool.Request(data=True)).success
    assert bench.call(Trigger, "reset").success
    assert bench.status[-1].stage_names.count("predict") == 0  # it is still under way


def test_many_callers_at_once(seen, tmp_path):
    answers = []

    def save(number: int) -> None:
        request = SaveTrajectory.Request(path=str(tmp_path / f"{number}.tum"))
        answers.append(seen.call(SaveTrajectory, "save_trajectory", request).success)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [True] * 4
    assert len(list(Path(tmp_path).glob("*.tum"))) == 4


# ------------------------------------------------------------ parameters


def test_every_leaf_of_the_configuration_is_a_parameter(bench):
    bench.start()
    names = set(bench.call(ListParameters, "list_parameters").result.names)
    expected = {leaf.key for leaf in configuration.leaves(Config())}
    assert expected <= names
    assert names - expected <= {"use_sim_time", "start_type_description_service"}


def test_parameters_describe_themselves(bench):
    bench.start()
    leaves = {leaf.key: leaf for leaf in configuration.leaves(Config())}
    request = DescribeParameters.Request(names=list(leaves))
    for descriptor in bench.call(DescribeParameters, "describe_parameters", request).descriptors:
        leaf = leaves[descriptor.name]
        assert leaf.doc in descriptor.description
        assert descriptor.read_only
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert bool(ranges) == (leaf.low is not None or leaf.high is not None)
        if ranges:
            assert leaf.low is None or ranges[0].from_value == leaf.low
            assert leaf.high is None or ranges[0].to_value == leaf.high
        assert all(choice in descriptor.additional_constraints for choice in leaf.choices)


def test_parameters_have_the_values_that_are_in_use(bench):
    bench.start(node__map_frame="earth", window__size=5, simulated__break_windows=[3, 4])
    request = GetParameters.Request(names=["node.map_frame", "window.size", "simulated.break_windows", "map.max_depth"])
    frame, size, windows, depth = bench.call(GetParameters, "get_parameters", request).values
    assert (frame.string_value, size.integer_value, list(windows.integer_array_value)) == ("earth", 5, [3, 4])
    assert depth.double_value == Config().map.max_depth


def test_a_set_is_refused_with_a_reason(bench):
    bench.start()
    change = Parameter("window.size", value=6).to_parameter_msg()
    (result,) = bench.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[change])).results
    assert not result.successful
    assert "read-only" in result.reason
    unknown = Parameter("window.sise", value=6).to_parameter_msg()
    (result,) = bench.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[unknown])).results
    assert not result.successful

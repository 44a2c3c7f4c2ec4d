"""What the node publishes: a short walk in front of it, every topic recorded, and what subscribers rely on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, pairwise

import cv2
import numpy as np
import pytest
from da3_ros.msg import MapUpdate, PoseGraph, SlamStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_bench import FRAME, LATCHED, Bench, Camera, Heard, static_tf, transform
from ros_domain import free_domain
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from da3_ros.geometry import se3
from da3_ros.ros import messages
from da3_ros.ros.body import T_FLU_OPTICAL
from da3_ros.ros.covariance import LOST_VARIANCE
from da3_ros.sources.encodings import decode_depth
from da3_ros.types import Frame

COUNT = 40


@dataclass
class Tour:
    """A finished walk and everything that was heard of it."""

    bench: Bench
    camera: Camera
    depth: Heard
    depth_info: Heard
    confidence: Heard
    preview: Heard
    pose: Heard
    tf: Heard
    diagnostics: Heard
    status: SlamStatus | None = None  # right after the last frame

    def transforms(self, child: str) -> list:
        return [t for message in self.tf for t in message.transforms if t.child_frame_id == child]


@pytest.fixture(scope="module")
def tour(walk) -> Iterator[Tour]:
    with free_domain() as domain:
        bench = Bench(domain)
        try:
            bench.start()
            camera = Camera(bench)
            tour = Tour(
                bench,
                camera,
                depth=bench.listen(Image, "depth/image"),
                depth_info=bench.listen(CameraInfo, "depth/camera_info"),
                confidence=bench.listen(Image, "confidence/image"),
                preview=bench.listen(Image, "depth/preview"),
                pose=bench.listen(PoseWithCovarianceStamped, "pose"),
                tf=bench.listen(TFMessage, "/tf"),
                diagnostics=bench.listen(DiagnosticArray, "/diagnostics"),
            )
            camera.wait()
            camera.show(walk[:COUNT])
            tour.status = bench.until_status(
                lambda s: s.frames_accepted == COUNT and s.map_points and s.stage_names, "all frames, and a map"
            )
            yield tour
        finally:
            bench.close()


def with_hole(frame: Frame) -> Frame:
    """The sensor saw nothing in the upper left corner."""
    depth = frame.truth.depth.copy()
    depth[:10, :30] = np.nan
    return replace(frame, truth=replace(frame.truth, depth=depth))


def image(message) -> np.ndarray:
    return decode_depth(
        message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
    )


# ------------------------------------------------------------ the contract of topics

TOPICS = {
    "/depth/image": ("sensor_msgs/msg/Image", False),
    "/depth/camera_info": ("sensor_msgs/msg/CameraInfo", False),
    "/confidence/image": ("sensor_msgs/msg/Image", False),
    "/depth/preview": ("sensor_msgs/msg/Image", False),
    "/odom": ("nav_msgs/msg/Odometry", False),
    "/pose": ("geometry_msgs/msg/PoseWithCovarianceStamped", False),
    "/path": ("nav_msgs/msg/Path", True),
    "/map/points": ("sensor_msgs/msg/PointCloud2", True),
    "/map/updates": ("da3_ros/msg/MapUpdate", True),
    "/pose_graph": ("da3_ros/msg/PoseGraph", True),
    "/da3_slam/status": ("da3_ros/msg/SlamStatus", True),
    "/diagnostics": ("diagnostic_msgs/msg/DiagnosticArray", False),
    "/tf": ("tf2_msgs/msg/TFMessage", False),
}


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_have_their_types_and_qos(tour, topic):
    (info,) = tour.bench.until(lambda: tour.bench.ears.get_publishers_info_by_topic(topic), topic)
    kind, latched = TOPICS[topic]
    assert info.topic_type == kind
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    assert info.qos_profile.durability == durability


# ------------------------------------------------------------ depth


def test_depth_and_its_camera_info_have_the_same_header(tour):
    assert len(tour.depth) > 10
    assert [m.header for m in tour.depth] == [m.header for m in tour.depth_info]
    assert {m.header.frame_id for m in tour.depth} == {FRAME}
    assert set(tour.depth.stamps) <= set(tour.bench.odometry.stamps)
    assert len(set(tour.depth.stamps)) == len(tour.depth)


def test_camera_info_is_that_of_the_depth_image(tour, walk):
    depth, info, camera = tour.depth[0], tour.depth_info[0], walk[0].camera
    assert (info.width, info.height) == (depth.width, depth.height) == (64, 48)
    K = np.reshape(info.k, (3, 3))
    factor = 64 / 160
    np.testing.assert_allclose([K[0, 0], K[1, 1]], [camera.fx * factor, camera.fy * factor], rtol=1e-9)
    # Pixel centres lie at integers: half a pixel is half a pixel at either size.
    centre = [(camera.cx + 0.5) * factor - 0.5, (camera.cy + 0.5) * factor - 0.5]
    np.testing.assert_allclose([K[0, 2], K[1, 2]], centre, rtol=1e-9)
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, :3], K)


def test_depth_is_metric_and_along_the_optical_axis(tour, walk):
    """What depth_image_proc makes of depth and camera_info are the points of the room."""
    truths = {frame.stamp_ns: frame for frame in walk}
    checked = 0
    for message, info in zip(tour.depth, tour.depth_info, strict=True):
        frame = truths[messages.stamp_ns(message.header.stamp)]
        depth = image(message)
        truth = cv2.resize(frame.truth.depth, (64, 48), interpolation=cv2.INTER_NEAREST)
        good = np.isfinite(depth) & np.isfinite(truth)
        relative = np.abs(depth[good] / truth[good] - 1)
        assert np.median(relative) < 0.012
        assert np.reshape(info.k, (3, 3))[0, 0] > 0
        checked += good.mean() > 0.5
    assert checked > 10


def test_depth_without_confidence_is_nan(bench, walk):
    least, doubtful = 0.9, 0
    bench.start(node__min_confidence=least, simulated__edge_bleed=0.5)
    depths, confidences = bench.listen(Image, "depth/image"), bench.listen(Image, "confidence/image")
    camera = Camera(bench)
    camera.wait()
    camera.show(with_hole(frame) for frame in walk[:8])
    bench.until(lambda: depths and depths.stamps == confidences.stamps, "both")
    for depth_message, confidence_message in zip(depths, confidences, strict=False):
        assert (depth_message.encoding, confidence_message.encoding) == ("32FC1", "32FC1")
        depth = np.frombuffer(depth_message.data, "<f4").reshape(48, 64)
        confidence = np.frombuffer(confidence_message.data, "<f4").reshape(48, 64)
        assert ((confidence >= 0) & (confidence < 1)).all()
        np.testing.assert_array_equal(np.isfinite(depth), confidence >= least)
        assert (depth[np.isfinite(depth)] > 0).all()
        assert not confidence[:4, :12].any()  # where the truth has a hole
        doubtful += int(((confidence > 0) & (confidence < least)).sum())
    assert doubtful > 100


def test_the_preview_is_a_picture(tour):
    assert set(tour.preview.stamps) <= set(tour.depth.stamps)
    picture = tour.preview[-1]
    assert (picture.encoding, picture.width, picture.height, picture.step) == ("rgb8", 64, 48, 192)
    assert np.ptp(np.frombuffer(picture.data, np.uint8)) > 100


# ------------------------------------------------------------ odometry and TF


def test_every_frame_has_odometry_at_its_own_stamp(tour, walk):
    assert tour.bench.odometry.stamps == [frame.stamp_ns for frame in walk[:COUNT]]
    for message in tour.bench.odometry:
        assert (message.header.frame_id, message.child_frame_id) == ("odom", FRAME)


def test_odometry_follows_the_camera(tour, walk):
    """Axes, handedness and metres: the pose of the camera, turned to x forward, y left, z up.

    Odometry is never corrected, so it drifts; the pose in the map is.
    """
    start = se3.inverse(walk[0].truth.T_world_cam)
    for odometry, pose, frame in zip(tour.bench.odometry, tour.pose, walk, strict=False):
        expected = T_FLU_OPTICAL @ start @ frame.truth.T_world_cam
        for message, metres, degrees in ((odometry, 0.2, 5), (pose, 0.08, 4)):
            got = messages.matrix_of_pose(message.pose.pose)
            np.testing.assert_allclose(got[:3, 3], expected[:3, 3], atol=metres)
            assert np.degrees(np.linalg.norm(se3.log(se3.inverse(expected) @ got)[:3])) < degrees


def test_twist_is_the_motion_between_poses_in_the_child_frame(tour):
    known = 0
    for before, after in pairwise(tour.bench.odometry):
        if after.twist.covariance[0] >= LOST_VARIANCE:  # until the first prediction and the step that ends the wait
            assert not known
            continue
        known += 1
        step = se3.inverse(messages.matrix_of_pose(before.pose.pose)) @ messages.matrix_of_pose(after.pose.pose)
        dt = (messages.stamp_ns(after.header.stamp) - messages.stamp_ns(before.header.stamp)) / 1e9
        log = se3.log(step) / dt
        linear, angular = after.twist.twist.linear, after.twist.twist.angular
        np.testing.assert_allclose([linear.x, linear.y, linear.z], log[3:], atol=1e-6)
        np.testing.assert_allclose([angular.x, angular.y, angular.z], log[:3], atol=1e-6)
    assert known > 0.5 * len(tour.bench.odometry)


def test_covariances_are_fit_for_a_filter(tour):
    poses = [np.reshape(message.pose.covariance, (6, 6)) for message in tour.bench.odometry]
    twists = [np.reshape(message.twist.covariance, (6, 6)) for message in tour.bench.odometry]
    for P in (*poses, *twists):
        np.testing.assert_allclose(P, P.T, atol=1e-12)
        assert np.linalg.eigvalsh(P).min() > 0
    traces = [np.trace(P) for P in poses]
    unknown = sum(trace >= LOST_VARIANCE for trace in traces)  # until the first prediction
    assert unknown < 0.5 * len(traces)
    assert max(traces[unknown:]) < 1
    assert traces[-1] > traces[unknown + 5] > traces[unknown]


def test_tf_has_odom_to_camera_at_each_image(tour):
    links = tour.transforms(FRAME)
    assert [messages.stamp_ns(t.header.stamp) for t in links] == tour.bench.odometry.stamps
    assert {t.header.frame_id for t in links} == {"odom"}
    for link, odometry in zip(links, tour.bench.odometry, strict=True):
        expected = messages.matrix_of_pose(odometry.pose.pose)
        np.testing.assert_allclose(messages.matrix_of_transform(link.transform), expected, atol=1e-9)


def test_tf_has_map_to_odom_ahead_of_time(tour):
    links = tour.transforms("odom")
    assert len(links) >= 2
    stamps = [messages.stamp_ns(t.header.stamp) for t in links]
    assert stamps == sorted(set(stamps))
    assert {t.header.frame_id for t in links} == {"map"}
    assert stamps[-1] > tour.bench.odometry.stamps[-1]


def test_the_pose_is_odometry_seen_from_the_map(tour):
    assert tour.pose.stamps == tour.bench.odometry.stamps
    assert {m.header.frame_id for m in tour.pose} == {"map"}
    final = tour.transforms("odom")[-1]
    last = messages.matrix_of_transform(final.transform) @ messages.matrix_of_pose(tour.bench.odometry[-1].pose.pose)
    got = messages.matrix_of_pose(tour.pose[-1].pose.pose)
    # The correction may have moved on by one window since the last frame.
    np.testing.assert_allclose(got[:3, 3], last[:3, 3], atol=0.05)


def test_the_pose_in_the_map_has_a_covariance_of_its_own(tour):
    """Metres are claimed with 10 %, which is part of it and no part of odometry's."""
    known = [np.reshape(m.pose.covariance, (6, 6)) for m in tour.pose]
    known = [P for P in known if np.trace(P) < LOST_VARIANCE]
    assert len(known) > 0.5 * len(tour.pose)
    for P in known:
        np.testing.assert_allclose(P, P.T, atol=1e-12)
        assert np.linalg.eigvalsh(P).min() > 0
    assert np.trace(known[-1]) < 0.1
    assert list(tour.pose[-1].pose.covariance) != list(tour.bench.odometry[-1].pose.covariance)


def test_tf_can_be_switched_off(bench, walk):
    bench.start(node__publish_odom_tf=False, node__publish_map_tf=False)
    heard = bench.listen(TFMessage, "/tf")
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:5])
    bench.until_status(lambda s: s.windows, "a window")
    assert len(bench.odometry) == 5
    assert not heard


def test_a_base_frame_moves_instead_of_the_camera(bench, walk):
    T_base_cam = se3.make(T_FLU_OPTICAL[:3, :3], np.array([0.2, 0.0, 1.1]))
    keep = static_tf(
        bench,
        transform("base_link", "mast", se3.make(np.eye(3), np.array([0.2, 0, 0]))),
        transform("mast", FRAME, se3.make(T_FLU_OPTICAL[:3, :3], np.array([0, 0, 1.1]))),
    )
    bench.start(node__base_frame="base_link", node__odom_frame="o", node__map_frame="m", node__max_gap_s=60.0)
    tf = bench.listen(TFMessage, "/tf")
    depth = bench.listen(Image, "depth/image")
    camera = Camera(bench)
    camera.wait()
    number = count()

    def first_has_odometry() -> bool:
        camera.send(replace(walk[0], stamp_ns=next(number) + 1))
        return bool(bench.odometry)

    bench.until(first_has_odometry, "odometry of the first frame, once TF is known")
    camera.show(walk[1:12])
    start = se3.inverse(walk[0].truth.T_world_cam)
    poses = {frame.stamp_ns: frame for frame in walk}
    for message, stamp in zip(bench.odometry, bench.odometry.stamps, strict=True):
        frame = poses.get(stamp, walk[0])
        assert (message.header.frame_id, message.child_frame_id) == ("o", "base_link")
        expected = T_base_cam @ start @ frame.truth.T_world_cam @ se3.inverse(T_base_cam)
        np.testing.assert_allclose(messages.matrix_of_pose(message.pose.pose)[:3, 3], expected[:3, 3], atol=0.06)
    bench.until(lambda: depth and tf, "depth and tf")
    assert depth[0].header.frame_id == FRAME
    links = {(t.header.frame_id, t.child_frame_id) for message in tf for t in message.transforms}
    assert ("o", "base_link") in links
    assert links <= {("o", "base_link"), ("m", "o")}
    assert keep is not None


# ------------------------------------------------------------ path, map, graph


def test_the_path_has_every_pose_at_its_own_stamp(tour, walk):
    """A subscriber that comes after the last frame still gets it."""
    heard = tour.bench.listen(Path, "path", LATCHED)
    path = tour.bench.until(lambda: heard and heard[-1], "a path")
    assert path.header.frame_id == "map"
    assert [messages.stamp_ns(p.header.stamp) for p in path.poses] == [frame.stamp_ns for frame in walk[:COUNT]]
    assert {p.header.frame_id for p in path.poses} == {"map"}
    start = se3.inverse(walk[0].truth.T_world_cam)
    # Early in a run metres rest on a few claims of 10 % each, and the camera moves by 0.6 m.
    for pose, frame in zip(path.poses, walk, strict=False):
        expected = T_FLU_OPTICAL @ start @ frame.truth.T_world_cam
        np.testing.assert_allclose(messages.matrix_of_pose(pose.pose)[:3, 3], expected[:3, 3], atol=0.06)


def cloud(message) -> np.ndarray:
    dtype = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    values = np.frombuffer(message.data, dtype)
    assert len(values) == message.width * message.height
    return np.stack([values[name] for name in "xyz"], axis=1)


def surfaces(walk, count: int) -> np.ndarray:
    """True points of the room (N, 3) in map axes."""
    start, parts = se3.inverse(walk[0].truth.T_world_cam), []
    for frame in walk[:count:3]:
        v, u = np.mgrid[0:120:2, 0:160:2]
        z = frame.truth.depth[::2, ::2].ravel().astype(float)
        keep = np.isfinite(z)
        points = frame.camera.unproject(np.stack([u.ravel(), v.ravel()], axis=1)[keep].astype(float), z[keep])
        parts.append(se3.transform(T_FLU_OPTICAL @ start @ frame.truth.T_world_cam, points))
    return np.concatenate(parts)


def test_map_points_lie_on_the_walls(tour, walk):
    from scipy.spatial import cKDTree

    heard = tour.bench.listen(PointCloud2, "map/points", LATCHED)
    message = tour.bench.until(lambda: heard and heard[-1], "map/points")
    assert message.header.frame_id == "map"
    points = cloud(message)
    assert len(points) > 500
    distances, _ = cKDTree(surfaces(walk, COUNT)).query(points)
    assert np.median(distances) < 0.05
    assert np.percentile(distances, 95) < 0.2


def test_map_updates_add_up_to_the_map(tour):
    """Whoever keeps one cloud per submap and draws it at its anchor has the map, late subscribers too."""
    updates = tour.bench.listen(MapUpdate, "map/updates", LATCHED)
    points = tour.bench.listen(PointCloud2, "map/points", LATCHED)
    whole = cloud(tour.bench.until(lambda: points and points[-1], "map/points"))

    def collected() -> np.ndarray:
        parts = {update.submap_id: update for update in updates}
        clouds = [se3.transform(messages.matrix_of_pose(u.t_map_submap), cloud(u.points)) for u in parts.values()]
        return np.concatenate(clouds) if clouds else np.zeros((0, 3))

    tour.bench.until(lambda: len(collected()) == len(whole), "every submap")
    np.testing.assert_allclose(np.sort(collected(), axis=0), np.sort(whole, axis=0), atol=1e-4)
    for update in updates:
        assert (update.header.frame_id, update.session_id, update.operation) == ("map", 1, MapUpdate.OPERATION_REPLACE)
        assert update.metric
        assert update.points.header.frame_id == f"submap_{update.submap_id}"


def test_the_pose_graph_lists_the_keyframes_of_the_map(tour, walk):
    heard = tour.bench.listen(PoseGraph, "pose_graph", LATCHED)
    graph = tour.bench.until(lambda: heard and heard[-1], "pose_graph")
    assert (graph.header.frame_id, graph.session_id, graph.metric) == ("map", 1, True)
    assert len(graph.keyframe_ids) >= 3
    assert len(graph.edges) == len(graph.keyframe_ids) - 1
    assert list(graph.keyframe_ids) == sorted(set(graph.keyframe_ids))
    start = se3.inverse(walk[0].truth.T_world_cam)
    for index, pose in zip(graph.keyframe_ids, graph.keyframe_poses, strict=True):
        expected = T_FLU_OPTICAL @ start @ walk[index].truth.T_world_cam
        np.testing.assert_allclose(messages.matrix_of_pose(pose)[:3, 3], expected[:3, 3], atol=1e-3)
    assert [messages.stamp_ns(s) for s in graph.keyframe_stamps] == [walk[i].stamp_ns for i in graph.keyframe_ids]


def test_large_messages_are_capped(bench, walk):
    bench.start(node__map_max_points=200, node__path_max_poses=10)
    points = bench.listen(PointCloud2, "map/points", LATCHED)
    path = bench.listen(Path, "path", LATCHED)
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:30])
    bench.until(lambda: points and path and len(path[-1].poses) == 10 and bench.status[-1].map_points > 200, "both")
    bench.until(lambda: points[-1].width == 200, "a full message")
    assert max(message.width for message in points) == 200
    assert max(len(message.poses) for message in path) == 10
    bench.until(lambda: messages.stamp_ns(path[-1].poses[-1].header.stamp) == walk[29].stamp_ns, "the newest pose")
    assert messages.stamp_ns(path[-1].poses[0].header.stamp) == walk[0].stamp_ns


def test_nothing_expensive_is_sent_to_nobody(bench, walk):
    node = bench.start().node
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:10])
    bench.until_status(lambda s: s.windows > 2, "windows")
    late = {
        name: bench.listen(kind, name, LATCHED)
        for name, kind in (("map/points", PointCloud2), ("path", Path), ("pose_graph", PoseGraph))
    }
    bench.until(lambda: late["path"], "a path for the newcomer")
    assert len(late["path"]) == 1
    assert node.count_subscribers("depth/image") == 0


# ------------------------------------------------------------ status and diagnostics


def test_status_counts_and_measures(tour):
    status = tour.status
    assert (status.state, status.session_id, status.metric) == (SlamStatus.STATE_TRACKING, 1, True)
    assert (status.frames_received, status.frames_accepted) == (COUNT, COUNT)
    assert status.scale_source == SlamStatus.SCALE_SOURCE_SIMULATED
    assert status.scale_ratio == pytest.approx(1, abs=1e-3)
    assert status.keyframes >= 5
    assert status.windows >= status.keyframes
    assert status.memory_mb > 10
    assert np.isnan(status.gpu_memory_mb)  # not known, never a made-up number
    assert np.isnan(status.progress)
    centres = np.array([[getattr(m.pose.pose.position, a) for a in "xyz"] for m in tour.bench.odometry])
    length = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    assert status.path_length_m == pytest.approx(length, rel=1e-3)
    assert {"decode", "queue", "track", "publish", "image_to_odom", "predict", "integrate", "depth", "map"} <= set(
        status.stage_names
    )
    for p50, p95, most in zip(status.stage_p50_s, status.stage_p95_s, status.stage_max_s, strict=True):
        assert 0 <= p50 <= p95 <= most


def test_status_goes_through_its_states(tour):
    states = [status.state for status in tour.bench.status]
    assert set(states) <= {SlamStatus.STATE_INIT, SlamStatus.STATE_TRACKING}
    assert states == sorted(states)
    under_way = [s for s in tour.bench.status if 0 < s.frames_accepted < COUNT]
    assert {s.reason for s in under_way} == {""}


def test_diagnostics_say_the_same(tour):
    def found() -> dict[str, str]:
        for message in tour.diagnostics:
            (status,) = message.status
            values = {value.key: value.value for value in status.values}
            if values["state"] == "tracking" and status.level == DiagnosticStatus.OK:
                return {**values, "name": status.name, "message": status.message}
        return {}

    values = tour.bench.until(found, "diagnostics")
    assert (values["name"], values["message"]) == ("da3_slam: slam", "tracking")
    assert int(values["frames received"]) >= int(values["frames accepted"]) >= 1
    assert values["dropped: mailbox full"] == "0"
    assert "track p95 (ms)" in values


def test_diagnostics_are_an_error_once_the_camera_is_silent(tour):
    last = tour.bench.until(
        lambda: tour.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR and tour.diagnostics[-1], "an error"
    )
    assert "/image has a publisher but its last image came" in last.status[0].message
    assert tour.bench.status[-1].reason == last.status[0].message


def test_odometry_messages_are_of_the_contract(tour):
    assert isinstance(tour.bench.odometry[0], Odometry)
    assert tour.bench.odometry[0].twist.covariance[0] > 100  # the first frame says nothing about speed

"""Metres from other sensors in the live node: depth_prior and odom_prior over DDS, and what is said when they fail."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from da3_ros.msg import SlamStatus
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from ros_bench import BEST_EFFORT, FRAME, RELIABLE, Bench, Camera, static_tf, transform
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String

from da3_ros.geometry import se3
from da3_ros.ros import messages
from da3_ros.sources.simulated_depth import SimulatedDepthCamera
from da3_ros.types import Frame

# A unit of the predictor is half a metre, and it does not know that.
BLIND = {"simulated__metric": False, "simulated__log_scale_bias": math.log(2.0), "keyframe__min_parallax": 0.02}
DEPTH, ODOMETRY = SlamStatus.SCALE_SOURCE_DEPTH_PRIOR, SlamStatus.SCALE_SOURCE_ODOMETRY
T_BASE_CAM = se3.from_quaternion(np.array([0.3, 0.1, 0.7]), np.array([0.5, -0.5, 0.5, -0.5]))


class Sensor:
    """Publishes what a frame's depth, points or odometry would be."""

    def __init__(self, bench: Bench, kind: type, qos=RELIABLE, *, topic: str = "", frame_id: str = FRAME) -> None:
        self._bench, self._kind, self._frame_id = bench, kind, frame_id
        topic = topic or ("odom_prior" if kind is Odometry else "depth_prior")
        self.publisher = bench.ears.create_publisher(kind, topic, qos)
        self._camera = SimulatedDepthCamera(0)

    def wait(self) -> None:
        """Until the node listens, to this type and reliability."""

        def matched() -> bool:
            name = self.publisher.topic_name
            return self.publisher.get_subscription_count() > 0 and all(
                info.topic_type == f"{self._kind.__module__.split('.')[0]}/msg/{self._kind.__name__}"
                for info in self._bench.ears.get_subscriptions_info_by_topic(name)
            )

        self._bench.until(matched, "a node that listens to the prior")

    def send(self, frame: Frame, factor: float = 1.0, late_ns: int = 0) -> None:
        self.publisher.publish(self.message(frame, factor, late_ns))

    def message(self, frame: Frame, factor: float = 1.0, late_ns: int = 0):
        head = messages.header(frame.stamp_ns + late_ns, self._frame_id)
        if self._kind is Odometry:
            T = frame.truth.T_world_cam @ se3.inverse(T_BASE_CAM)
            out = Odometry(header=messages.header(frame.stamp_ns + late_ns, "odom_wheels"), child_frame_id="base")
            T[:3, 3] *= factor
            out.pose.pose = messages.pose(T)
            return out
        depth = self._camera.measure(frame.truth.depth, frame.stamp_ns) * np.float32(factor)
        if self._kind is Image:
            return messages.image(head, np.nan_to_num(depth * 1000).astype(np.uint16), "16UC1")
        pixels = np.stack(np.nonzero(np.isfinite(depth)), axis=1)[::7, ::-1]
        points = frame.camera.unproject(pixels.astype(float), depth[pixels[:, 1], pixels[:, 0]].astype(float))
        points = se3.transform(T_BASE_CAM, points).astype(np.float32)
        return messages.point_cloud(head, points, np.zeros((len(points), 3), np.uint8))


def show(bench: Bench, camera: Camera, frames: Sequence[Frame], *sensors: Sensor, after: bool = False, **how) -> None:
    """Publish frames and what the sensors say of them, before or after the image, each once the one before is done."""
    for frame in frames:
        for sensor in sensors if not after else ():
            sensor.send(frame, **how)
        camera.show([frame])
        for sensor in sensors if after else ():
            sensor.send(frame, **how)


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
@pytest.mark.parametrize("after", [False, True], ids=["before the image", "after the image"])
def test_a_depth_image_gives_metres(bench, walk, qos, after):
    bench.start(**BLIND)
    camera, sensor = Camera(bench), Sensor(bench, Image, qos)
    camera.wait()
    sensor.wait()
    show(bench, camera, walk[:20], sensor, after=after)
    status = bench.until_status(lambda s: s.scale_source == DEPTH, "metres by depth_prior")
    assert status.metric
    assert 0 < status.scale_sigma < 0.03
    assert abs(2 * status.scale_ratio - 1) < 0.03
    assert bench.logged("depth_prior gives") == bench.logged("depth_prior is") == []


def test_points_of_a_laser_give_metres_where_tf_tells_how_it_is_mounted(bench, walk):
    bench.start(**BLIND, node__base_frame="base")
    tf = static_tf(bench, transform("base", FRAME, T_BASE_CAM))
    camera, sensor = Camera(bench), Sensor(bench, PointCloud2, frame_id="base")
    camera.wait()
    sensor.wait()
    bench.until(tf.get_subscription_count, "a node that listens to TF")
    bench.pause(0.3)
    show(bench, camera, walk[:20], sensor)
    status = bench.until_status(lambda s: s.scale_source == DEPTH, "metres by points")
    assert abs(2 * status.scale_ratio - 1) < 0.03


def test_odometry_gives_metres_where_tf_tells_where_the_camera_is(bench, walk):
    bench.start(**BLIND, node__base_frame="base")
    tf = static_tf(bench, transform("base", FRAME, T_BASE_CAM))
    camera, wheels = Camera(bench), Sensor(bench, Odometry)
    camera.wait()
    wheels.wait()
    bench.until(tf.get_subscription_count, "a node that listens to TF")
    bench.pause(0.3)
    show(bench, camera, walk, wheels, late_ns=20_000_000)
    status = bench.until_status(lambda s: s.scale_source == ODOMETRY, "metres by odom_prior")
    assert abs(2 * status.scale_ratio - 1) < 0.06


def test_without_a_publisher_nothing_is_expected(bench, walk):
    bench.start(**BLIND)
    camera = Camera(bench)
    camera.wait()
    show(bench, camera, walk[:5])
    time.sleep(0.7)  # longer than node.silence_s
    show(bench, camera, walk[5:10])
    status = bench.until_status(lambda s: s.frames_accepted == 10 and s.windows, "ten frames")
    assert (status.metric, status.scale_source) == (False, SlamStatus.SCALE_SOURCE_FIRST_WINDOW)
    assert bench.logged("_prior gives no metres") == []


def test_a_prior_that_is_ruled_out_is_not_heard(bench, walk):
    bench.start(**BLIND, prior__depth="never", prior__odometry="never")
    camera, sensor = Camera(bench), Sensor(bench, Image)
    camera.wait()
    show(bench, camera, walk[:15], sensor)
    assert sensor.publisher.get_subscription_count() == 0
    assert not bench.until_status(lambda s: s.frames_accepted == 15, "fifteen frames").metric


# ------------------------------------------------------------ what is said


def keep_showing(bench: Bench, camera: Camera, walk: Sequence[Frame], *sensors: Sensor, part: str, **how) -> None:
    """Show frames until the status gives a reason."""
    frames = iter(walk)

    def said() -> bool:
        frame = next(frames, None)
        if frame is not None:
            show(bench, camera, [frame], *sensors, **how)
        return any(part in s.reason for s in bench.status)

    bench.until(said, part)


def test_a_prior_that_never_comes_is_named(bench, walk):
    bench.start(**BLIND, prior__depth="always", prior__odometry="never")
    diagnostics = bench.listen(DiagnosticArray, "/diagnostics")
    camera = Camera(bench)
    camera.wait()
    keep_showing(bench, camera, walk, part="depth_prior gives no metres: nobody publishes /depth_prior")
    bench.until(lambda: any("nobody publishes" in s.message for d in diagnostics for s in d.status), "diagnostics")
    assert len(bench.logged("depth_prior gives no metres")) == 1


@pytest.mark.parametrize(
    ("kind", "frame_id", "how", "part"),
    [
        (
            Image,
            FRAME,
            {"late_ns": 9_000_000_000},
            "no image has a stamp that fits those on /depth_prior within 0.03 s",
        ),
        (Image, "depth_optical", {}, "it is in frame 'depth_optical' and the images are in 'camera_optical'"),
        (PointCloud2, "lidar", {}, "/tf_static does not connect 'lidar' to 'camera_optical'"),
        (Odometry, "", {}, "/tf_static does not connect 'camera_optical' to 'base'"),
        (Image, FRAME, {"factor": 0.002}, "depth_prior is not used: it has no valid depth"),
        (String, "", {}, "carries std_msgs/msg/String instead of"),
    ],
)
def test_a_prior_that_cannot_be_used_says_why_once(bench, walk, kind, frame_id, how, part):
    bench.start(**BLIND)
    camera = Camera(bench)
    if kind is String:
        bench.ears.create_publisher(String, "depth_prior", RELIABLE)
        sensors = []
    else:
        sensors = [Sensor(bench, kind, frame_id=frame_id)]
        sensors[0].wait()
    camera.wait()
    keep_showing(bench, camera, walk, *sensors, part=part, **how)
    assert len(bench.logged(part)) == 1
    assert not bench.status[-1].metric


def test_a_prior_in_another_unit_is_not_believed(bench, walk):
    """Against a predictor of metres; the sentence is in the status and once in the log."""
    bench.start(keyframe__min_parallax=0.02)
    camera, sensor = Camera(bench), Sensor(bench, Image)
    camera.wait()
    sensor.wait()
    keep_showing(bench, camera, walk, sensor, part="depth_prior is not used: its metre is", factor=4.0)
    assert len(bench.logged("depth_prior is not used")) == 1
    assert bench.status[-1].scale_source == SlamStatus.SCALE_SOURCE_SIMULATED


def test_priors_that_fail_do_not_speak_of_cameras_that_stand_still(bench, walk):
    bench.start(**BLIND, prior__depth="always")
    camera = Camera(bench)
    camera.wait()
    show(bench, camera, walk[:3])
    bench.until_status(lambda s: "last image came" in s.reason, "silence of the camera")
    assert bench.logged("depth_prior gives no metres") == []


# ------------------------------------------------------------ life


def test_priors_come_and_go_with_the_life_of_the_node(bench, walk):
    bench.start(**BLIND)
    camera, sensor = Camera(bench), Sensor(bench, Image)
    camera.wait()
    sensor.wait()
    show(bench, camera, walk[:15], sensor)
    bench.until_status(lambda s: s.scale_source == DEPTH, "metres by depth_prior")
    assert bench.transition("deactivate")
    bench.until(lambda: sensor.publisher.get_subscription_count() == 0, "a node that does not listen")
    assert bench.transition("cleanup")
    assert bench.transition("configure")
    assert bench.transition("activate")
    camera.wait()
    sensor.wait()
    later = [replace(frame, stamp_ns=frame.stamp_ns + 10**10) for frame in walk]
    show(bench, camera, later[:15], sensor)
    bench.until(
        lambda: bench.status[-1].session_id == 2 and bench.status[-1].scale_source == DEPTH, "metres by depth_prior"
    )

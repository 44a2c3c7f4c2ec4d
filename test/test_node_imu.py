"""An IMU in the live node: over DDS, with its mount from TF, and what is said when it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from ros_bench import BEST_EFFORT, FRAME, RELIABLE, Bench, Camera, static_tf, transform
from sensor_msgs.msg import Imu

from da3_ros.geometry import se3
from da3_ros.ros import messages
from da3_ros.ros.body import T_FLU_OPTICAL
from da3_ros.sources import open_source
from da3_ros.types import Frame

T_BASE_CAM = se3.from_quaternion(np.array([0.3, 0.1, 0.7]), np.array([0.5, -0.5, 0.5, -0.5]))
UP = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def felt() -> tuple[Frame, ...]:
    """The first frames of the walk of the other tests, with an IMU."""
    source = open_source("world:3?frames=60&size=160x120&rate=15&imu=200")
    return tuple(source.frame(i) for i in range(40))


class Sensor:
    """Publishes the samples that frames carry, in the axes of a frame of its own."""

    def __init__(self, bench: Bench, qos=RELIABLE, frame_id: str = FRAME, T_imu_cam: np.ndarray | None = None) -> None:
        self._bench, self._frame_id = bench, frame_id
        self._turn = np.eye(3) if T_imu_cam is None else T_imu_cam[:3, :3]
        self.publisher = bench.ears.create_publisher(Imu, "imu", qos)
        self._sent = 0

    def wait(self) -> None:
        self._bench.until(self.publisher.get_subscription_count, "a node that listens to the IMU")

    def arrive(self) -> None:
        """Wait for the last sample to be there: no load can make the node see a frame without it."""
        felt = self._bench.nodes[-1].node._intake.priors._felt
        self._bench.until(lambda: felt.reaches(self._sent), "the samples in the node")

    def send(self, frame: Frame, change: Callable[[Imu], object] = lambda message: None) -> None:
        """All that it has measured until a frame."""
        imu = frame.priors.imu
        for stamp, gyro, force in zip(imu.stamps_ns.tolist(), imu.gyro, imu.force, strict=True):
            if stamp > self._sent:
                self._sent = stamp
                message = Imu(header=messages.header(stamp, self._frame_id))
                for vector, values in ((message.angular_velocity, gyro), (message.linear_acceleration, force)):
                    vector.x, vector.y, vector.z = (self._turn @ values).tolist()
                message.orientation_covariance[0] = -1.0
                change(message)
                self.publisher.publish(message)
                self._bench.pause(0.0005)


def show(bench: Bench, camera: Camera, frames: Sequence[Frame], sensor: Sensor, **how) -> None:
    for frame in frames:
        sensor.send(frame, **how)
        if not how:
            sensor.arrive()
        camera.show([frame])


def pose_of(odometry) -> np.ndarray:
    return messages.matrix_of_pose(odometry.pose.pose)


def tilt_deg(R_map_body: np.ndarray, R_world_body: np.ndarray) -> float:
    """Between two ideas of how a body is tilted."""
    return math.degrees(se3.rotation_angle(se3.exp_so3(se3.turning(R_map_body.T @ UP, R_world_body.T @ UP))))


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
def test_map_and_odom_are_level(bench, felt, qos):
    """The camera of the walk looks down by some ten degrees, which its first pose does not show without an IMU."""
    bench.start()
    camera, sensor = Camera(bench), Sensor(bench, qos)
    camera.wait()
    sensor.wait()
    show(bench, camera, felt[:15], sensor)
    bench.until(lambda: len(bench.odometry) >= 15, "odometry")
    for odometry, frame in zip(bench.odometry, felt, strict=False):
        assert tilt_deg(pose_of(odometry)[:3, :3], frame.truth.T_world_cam[:3, :3]) < 3.5
    assert tilt_deg(T_FLU_OPTICAL[:3, :3], felt[0].truth.T_world_cam[:3, :3]) > 5
    assert bench.logged("imu is not used") == []


def test_its_mount_comes_from_tf(bench, felt):
    """The base carries camera and IMU; its first pose shows how it is tilted, at the origin and with its heading."""
    bench.start(node__base_frame="base")
    T_base_imu = se3.make(se3.exp_so3(np.array([0.4, 1.0, -0.3])), np.array([0.1, 0.0, 0.2]))
    edges = [transform("base", FRAME, T_BASE_CAM), transform("base", "imu_link", T_base_imu)]
    tf = static_tf(bench, *edges)
    camera = Camera(bench)
    sensor = Sensor(bench, frame_id="imu_link", T_imu_cam=se3.inverse(T_base_imu) @ T_BASE_CAM)
    camera.wait()
    sensor.wait()
    bench.until(tf.get_subscription_count, "a node that listens to TF")
    sensor.send(felt[0])
    bench.pause(0.5)
    show(bench, camera, felt[:15], sensor)
    bench.until(lambda: len(bench.odometry) >= 15, "odometry")
    first = pose_of(bench.odometry[0])
    assert np.abs(first[:3, 3]).max() < 1e-6
    assert abs(math.degrees(math.atan2(first[1, 0], first[0, 0]))) < 2  # level by the least turn
    for odometry, frame in zip(bench.odometry, felt, strict=False):
        there = (frame.truth.T_world_cam @ se3.inverse(T_BASE_CAM))[:3, :3]
        assert tilt_deg(pose_of(odometry)[:3, :3], there) < 3.5


def test_a_covered_lens_goes_on_turning(bench, felt):
    bench.start(tracker__lost_after_s=10.0)
    camera, sensor = Camera(bench), Sensor(bench)
    camera.wait()
    sensor.wait()
    dark = [replace(frame, image=np.full_like(frame.image, 20)) for frame in felt[25:]]
    show(bench, camera, [*felt[:25], *dark], sensor)
    bench.until(lambda: len(bench.odometry) == len(felt), "odometry")
    went = se3.inverse(pose_of(bench.odometry[24])) @ pose_of(bench.odometry[-1])
    way = se3.inverse(felt[24].truth.T_world_cam) @ felt[-1].truth.T_world_cam
    assert math.degrees(se3.rotation_angle(way[:3, :3])) > 5
    assert math.degrees(se3.rotation_angle(way[:3, :3].T @ went[:3, :3])) < 2.5


def test_one_that_is_ruled_out_is_not_heard(bench, felt):
    bench.start(prior__imu="never")
    camera, sensor = Camera(bench), Sensor(bench)
    camera.wait()
    camera.show(felt[:5])
    bench.until(lambda: len(bench.odometry) == 5, "odometry")
    assert sensor.publisher.get_subscription_count() == 0
    assert pose_of(bench.odometry[0])[:3, :3] == pytest.approx(T_FLU_OPTICAL[:3, :3], abs=1e-9)


# ------------------------------------------------------------ what is said


def _nan(message: Imu) -> None:
    message.linear_acceleration.y = math.nan


def _without_gyro(message: Imu) -> None:
    message.angular_velocity_covariance[0] = -1.0


def _without_force(message: Imu) -> None:
    message.linear_acceleration_covariance[0] = -1.0


def _zero(message: Imu) -> None:
    message.linear_acceleration.x = message.linear_acceleration.y = message.linear_acceleration.z = 0.0


def _in_g(message: Imu) -> None:
    force = message.linear_acceleration
    force.x, force.y, force.z = force.x / 9.81, force.y / 9.81, force.z / 9.81


def _standing(message: Imu) -> None:
    message.header.stamp = messages.to_stamp(10**9)


def _elsewhere(message: Imu) -> None:
    message.header.frame_id = "imu_link"


def _nowhere(message: Imu) -> None:
    message.header.frame_id = ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_nan, "its values are not finite"),
        (_without_gyro, "it says that it measures no angular_velocity (angular_velocity_covariance[0] is -1)"),
        (_without_force, "it says that it measures no linear_acceleration"),
        (_zero, "its acceleration is zero"),
        (_in_g, "its accelerations are 1 m/s^2 on the mean"),
        (_standing, "its stamps do not increase"),
        (_elsewhere, "/tf_static does not connect 'imu_link' to 'camera_optical'"),
        (_nowhere, "its messages have no frame_id"),
    ],
)
def test_one_that_cannot_be_used_says_why_once(bench, felt, change, part):
    bench.start()
    camera, sensor = Camera(bench), Sensor(bench)
    sensor.wait()
    camera.wait()
    frames = iter(felt)

    def said() -> bool:
        frame = next(frames, None)
        if frame is not None:
            show(bench, camera, [frame], sensor, change=change)
        return any(f"imu is not used: {part}" in s.reason for s in bench.status)

    bench.until(said, part)
    assert len(bench.logged("imu is not used")) == 1
    assert pose_of(bench.odometry[0])[:3, :3] == pytest.approx(T_FLU_OPTICAL[:3, :3], abs=1e-6)


def test_one_that_never_comes_is_named(bench, felt):
    bench.start(prior__imu="always")
    camera = Camera(bench)
    camera.wait()
    frames = iter(felt)

    def said() -> bool:
        frame = next(frames, None)
        if frame is not None:
            camera.show([frame])
        return any("imu is not used: nobody publishes /imu" in s.reason for s in bench.status)

    bench.until(said, "nobody publishes it")

"""Axes, twist and covariance of what is published as odometry."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from da3_ros.geometry import se3
from da3_ros.ros import covariance
from da3_ros.ros.body import T_FLU_OPTICAL, Body
from da3_ros.ros.covariance import StepCovariance
from da3_ros.ros.odometry import OdometryChain, odometry_message
from da3_ros.types import Estimate, State

# A camera half a metre ahead of the base and one above it, looking forward.
T_BASE_CAM = se3.make(T_FLU_OPTICAL[:3, :3], np.array([0.5, 0.0, 1.0]))
MOUNTED = Body.mounted("base_link", "cam", T_BASE_CAM)
CAMERA = Body.camera("cam")


def estimate(index: int, T_odom_cam: np.ndarray, **changes: object) -> Estimate:
    values = {
        "frame_id": index,
        "stamp_ns": 10**9 + index * 10**8,
        "T_map_cam": T_odom_cam,
        "T_odom_cam": T_odom_cam,
        "sigma_rotation": 1e-3,
        "sigma_translation": 2e-3,
        "covariance": np.diag([1e-6] * 3 + [4e-6] * 3),
        "state": State.TRACKING,
        "metric": True,
        "keyframe": False,
        "segment": 0,
    }
    return Estimate(**{**values, **changes})


def moved(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    """A camera (optical axes) that moved."""
    return se3.make(np.eye(3), np.array([x, y, z], float))


# ------------------------------------------------------------ axes


def test_a_camera_that_moves_forward_moves_along_x():
    np.testing.assert_allclose(CAMERA.pose(moved(z=2.0))[:3, 3], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(CAMERA.pose(moved(x=1.0))[:3, 3], [0, -1, 0], atol=1e-12)  # right is -y
    np.testing.assert_allclose(CAMERA.pose(moved(y=1.0))[:3, 3], [0, 0, -1], atol=1e-12)  # down is -z


def test_without_a_base_the_child_keeps_optical_axes():
    np.testing.assert_allclose(CAMERA.pose(np.eye(4)), T_FLU_OPTICAL, atol=1e-12)


def test_a_base_starts_at_the_identity_of_its_own_axes():
    np.testing.assert_allclose(MOUNTED.pose(np.eye(4)), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(MOUNTED.pose(moved(z=2.0)), se3.make(np.eye(3), np.array([2.0, 0, 0])), atol=1e-12)
    np.testing.assert_allclose(MOUNTED.camera_pose(np.eye(4)), T_BASE_CAM, atol=1e-12)


def test_a_turn_of_the_base_swings_the_camera_not_the_base():
    turn = se3.exp(np.array([0, 0, 0.7, 0, 0, 0]))  # of the base, about its own z
    T_slam_cam = se3.inverse(T_BASE_CAM) @ turn @ T_BASE_CAM
    np.testing.assert_allclose(MOUNTED.pose(T_slam_cam), turn, atol=1e-12)
    assert np.linalg.norm(T_slam_cam[:3, 3]) > 0.3


def test_map_to_odom_composes_with_odom_to_body():
    rng = np.random.default_rng(3)
    T_map_odom, T_odom_cam = (se3.exp(rng.normal(0, 0.5, 6)) for _ in range(2))
    for body in (CAMERA, MOUNTED):
        chained = body.correction(T_map_odom) @ body.pose(T_odom_cam)
        np.testing.assert_allclose(chained, body.pose(T_map_odom @ T_odom_cam), atol=1e-12)


# ------------------------------------------------------------ twist


def test_twist_is_in_the_axes_of_the_child():
    chain = OdometryChain()
    heading = se3.exp(np.array([0, 0, np.pi / 2, 0, 0, 0]))  # the base looks along +y of odom ...
    step = se3.exp(np.array([0, 0, 0.05, 0.1, 0, 0]))  # ... and moves 0.1 m ahead, turning left, in 0.1 s
    poses = [heading, heading @ step]
    cams = [se3.inverse(T_BASE_CAM) @ T @ T_BASE_CAM for T in poses]
    first = chain.advance(MOUNTED, estimate(0, cams[0]))
    second = chain.advance(MOUNTED, estimate(1, cams[1]))
    assert not first.twist.any()
    np.testing.assert_allclose(second.twist, [1.0, 0, 0, 0, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(second.T_odom_body[:3, 3], [0, 0.1, 0], atol=3e-3)
    message = odometry_message(second, "odom", "base_link")
    assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_link")
    assert message.twist.twist.linear.x == pytest.approx(1.0)
    assert message.twist.twist.angular.z == pytest.approx(0.5)


def test_there_is_no_twist_across_a_cut():
    chain = OdometryChain()
    chain.advance(CAMERA, estimate(0, moved()))
    state = chain.advance(CAMERA, estimate(1, moved(z=1.0), segment=1))
    assert not state.twist.any()
    np.testing.assert_array_equal(state.twist_covariance, covariance.unknown())


# ------------------------------------------------------------ covariance


def walk(body: Body, count: int, **changes: object) -> list[np.ndarray]:
    chain = OdometryChain()
    return [chain.advance(body, estimate(i, moved(z=0.1 * i), **changes)).pose_covariance for i in range(count)]


@pytest.mark.parametrize("body", [CAMERA, MOUNTED], ids=["camera", "base"])
def test_covariance_is_positive_symmetric_and_grows(body):
    grown = walk(body, 30)
    for P in grown:
        np.testing.assert_array_equal(P, P.T)
        assert np.linalg.eigvalsh(P).min() > 0
    traces = [np.trace(P) for P in grown]
    assert all(b > a for a, b in pairwise(traces))


def test_turning_errors_grow_into_sideways_position_errors():
    P = walk(CAMERA, 100)[-1]  # ten metres ahead along x of odom
    x, y, z, *_ = np.sqrt(np.diag(P))
    assert y > 3 * x
    assert z > 3 * x


def test_compounding_agrees_with_a_simulation():
    rng = np.random.default_rng(5)
    step = se3.exp(np.array([0.01, 0.05, -0.02, 0.02, 0.01, 0.1]))
    sigma_r, sigma_t, count = 2e-3, 3e-3, 20
    exact = np.linalg.matrix_power(step, count)
    chain = StepCovariance()
    for _ in range(count):
        chain.step(step, sigma_r, sigma_t)
    ends = []
    for _ in range(1000):
        T = np.eye(4)
        for noise in rng.normal(0, [sigma_r] * 3 + [sigma_t] * 3, (count, 6)):
            T = T @ step @ se3.exp(noise)
        error = T @ se3.inverse(exact)  # in the axes of the header frame, about its origin
        ends.append([*(T[:3, 3] - exact[:3, 3]), *se3.log(error)[:3]])
    sampled = np.std(ends, axis=0)
    predicted = np.sqrt(np.diag(chain.pose(exact, np.eye(4))))
    np.testing.assert_allclose(predicted, sampled, rtol=0.15)


def test_weak_frames_are_less_certain_and_lost_ones_are_not_at_all():
    good, weak = walk(CAMERA, 5)[-1], walk(CAMERA, 5, state=State.WEAK)[-1]
    np.testing.assert_allclose(weak, good * covariance.WEAK_FACTOR)
    np.testing.assert_array_equal(walk(CAMERA, 5, state=State.LOST)[-1], covariance.unknown())


def test_a_sigma_that_is_not_known_counts_as_lost():
    chain = OdometryChain()
    chain.advance(CAMERA, estimate(0, moved()))
    P = chain.advance(CAMERA, estimate(1, moved(), sigma_translation=np.nan)).pose_covariance
    assert np.isfinite(P).all()
    assert P[0, 0] > 100


def test_covariance_stays_finite_over_days():
    chain = StepCovariance()
    far = se3.exp(np.array([0.3, 0.2, 0.1, 50.0, 0, 0]))
    for _ in range(5000):
        chain.step(far, 0.5, 5.0)
    P = chain.pose(np.eye(4), np.eye(4))
    assert np.isfinite(P).all()


def test_a_lever_arm_turns_rotation_into_velocity_uncertainty():
    chain = StepCovariance()
    chain.step(np.eye(4), 0.1, 1e-3)
    at_camera, at_base = chain.twist(np.eye(4), 0.1), chain.twist(T_BASE_CAM, 0.1)
    assert at_base[1, 1] > 10 * at_camera[1, 1]

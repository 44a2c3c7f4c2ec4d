"""Messages from values and back: bytes, units, axes, and what REP 103, 117 and 118 ask for."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, Vector3
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, PointCloud2

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.ros import messages
from da3_ros.sources.encodings import decode_depth, decode_image

HEAD = messages.header(1_700_000_000_123_456_789, "cam")
POSE = se3.exp(np.array([0.3, -0.5, 0.7, 1.0, -2.0, 3.0]))


def over_the_wire(message):
    """The message as a subscriber gets it."""
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("ns", [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789, 2**31 * 10**9 - 1])
def test_stamps_survive_to_the_nanosecond(ns):
    stamp = messages.to_stamp(ns)
    assert (stamp.sec, stamp.nanosec) == divmod(ns, 10**9)
    assert messages.stamp_ns(stamp) == ns


def test_times_before_1970_become_zero():
    assert messages.stamp_ns(messages.to_stamp(-5)) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("order", ["C", "F", "sliced", "read only"])
def test_a_buffer_holds_the_bytes_of_any_array(dtype, order):
    values = np.arange(60).reshape(6, 10).astype(dtype)
    values = {"C": values, "F": np.asfortranarray(values), "sliced": values[::2, 1:7:3], "read only": values}[order]
    if order == "read only":
        values.flags.writeable = False
    data = messages.buffer(values)
    assert data.typecode == "B"  # the type that message fields take as a whole
    assert data.tobytes() == np.ascontiguousarray(values).tobytes()


def test_an_empty_buffer():
    assert len(messages.buffer(np.zeros((0, 3), np.float32))) == 0


@pytest.mark.parametrize(("channels", "encoding"), [(1, "mono8"), (3, "rgb8"), (4, "rgba8")])
def test_images_round_trip(channels, encoding):
    rng = np.random.default_rng(channels)
    shape = (7, 5) if channels == 1 else (7, 5, channels)
    pixels = rng.integers(0, 256, shape, np.uint8)
    got = over_the_wire(messages.image(HEAD, pixels, encoding))
    assert (got.header, got.height, got.width, got.step, got.encoding) == (HEAD, 7, 5, 5 * channels, encoding)
    assert got.is_bigendian == 0
    decoded = decode_image(got.encoding, got.height, got.width, got.step, bool(got.is_bigendian), got.data)
    np.testing.assert_array_equal(decoded, np.repeat(pixels[..., None], 3, 2) if channels == 1 else pixels[..., :3])


def test_depth_round_trips_with_its_gaps():
    depth = np.linspace(0.1, 9, 35, dtype=np.float32).reshape(5, 7)
    depth[2, 3] = np.nan
    got = over_the_wire(messages.image(HEAD, depth, "32FC1"))
    assert (got.step, len(got.data)) == (28, 140)
    back = decode_depth(got.encoding, got.height, got.width, got.step, bool(got.is_bigendian), got.data)
    np.testing.assert_array_equal(back, depth)


def test_camera_info_describes_an_undistorted_camera():
    camera = Pinhole(280, 210, 250.5, 249.5, 139.25, 104.75)
    got = over_the_wire(messages.camera_info(HEAD, camera))
    assert isinstance(got, CameraInfo)
    assert (got.header, got.width, got.height) == (HEAD, 280, 210)
    assert got.distortion_model == "plumb_bob"
    assert list(got.d) == [0.0] * 5
    np.testing.assert_array_equal(np.reshape(got.k, (3, 3)), camera.matrix)
    np.testing.assert_array_equal(np.reshape(got.r, (3, 3)), np.eye(3))
    np.testing.assert_array_equal(np.reshape(got.p, (3, 4)), np.hstack([camera.matrix, np.zeros((3, 1))]))


def test_depth_that_is_not_trusted_is_nan():
    depth = np.array([[1.0, 0.0, -2.0, np.inf, np.nan, 3.0, 4.0]], np.float32)
    confidence = np.array([[0.9, 0.9, 0.9, 0.9, 0.9, 0.29, 0.3]], np.float32)
    got = messages.masked_depth(depth, confidence, 0.3)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array([[1.0, *[np.nan] * 5, 4.0]], np.float32))
    np.testing.assert_array_equal(depth[0, 5], 3.0)  # the input is shared and stays


def test_the_preview_is_brighter_where_it_is_nearer():
    depth = np.linspace(1, 8, 64, dtype=np.float32).reshape(8, 8)
    depth[0, 0] = np.nan
    picture = messages.preview(depth)
    assert (picture.shape, picture.dtype) == ((8, 8, 3), np.uint8)
    assert picture[0, 0].tolist() == [0, 0, 0]
    brightness = picture.astype(int).sum(axis=2)
    assert brightness[0, 1] > brightness[4, 4] > brightness[7, 7]
    assert not messages.preview(np.full((4, 4), np.nan, np.float32)).any()
    assert messages.preview(np.full((4, 4), 2.0, np.float32)).shape == (4, 4, 3)  # one value: no range to stretch


def test_poses_and_transforms_round_trip():
    np.testing.assert_allclose(messages.matrix_of_pose(over_the_wire(messages.pose(POSE))), POSE, atol=1e-12)
    got = over_the_wire(messages.transform(5, "a", "b", POSE))
    assert (got.header.frame_id, got.child_frame_id, messages.stamp_ns(got.header.stamp)) == ("a", "b", 5)
    np.testing.assert_allclose(messages.matrix_of_transform(got.transform), POSE, atol=1e-12)


def test_a_quarter_turn_to_the_left_is_positive_about_z():
    turned = messages.pose(se3.exp(np.array([0, 0, np.pi / 2, 0, 0, 0])))
    half = np.sqrt(0.5)
    q = turned.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, half, half], atol=1e-12)


@pytest.mark.parametrize(
    ("position", "quaternion"),
    [
        ((0, 0, 0), (0, 0, 0, 0)),
        ((np.nan, 0, 0), (0, 0, 0, 1)),
        ((0, 0, 0), (np.nan, 0, 0, 1)),
        ((0, np.inf, 0), (0, 0, 0, 1)),
    ],
)
def test_what_is_no_pose_is_refused(position, quaternion):
    x, y, z = map(float, position)
    rotation = Quaternion(**dict(zip("xyzw", map(float, quaternion), strict=True)))
    with pytest.raises(ValueError, match=r"quaternion|position"):
        messages.matrix_of_pose(Pose(position=Point(x=x, y=y, z=z), orientation=rotation))
    with pytest.raises(ValueError, match=r"quaternion|position"):
        messages.matrix_of_transform(Transform(translation=Vector3(x=x, y=y, z=z), rotation=rotation))


def test_point_clouds_are_laid_out_as_pcl_reads_them():
    points = np.array([[1, 2, 3], [-4, 5.5, 0.25]], np.float32)
    colors = np.array([[255, 128, 1], [0, 10, 200]], np.uint8)
    got = over_the_wire(messages.point_cloud(HEAD, points, colors))
    assert isinstance(got, PointCloud2)
    assert [(f.name, f.offset, f.datatype, f.count) for f in got.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
        ("rgb", 12, 7, 1),
    ]
    assert (got.height, got.width, got.point_step, got.row_step, got.is_dense) == (1, 2, 16, 32, True)
    # As pcl::PointXYZRGB: blue, green, red, nothing.
    first, second = bytes(got.data[:16]), bytes(got.data[16:])
    assert struct.unpack("<3f4B", first) == (1, 2, 3, 1, 128, 255, 0)
    assert struct.unpack("<3f4B", second) == (-4, 5.5, 0.25, 200, 10, 0, 0)


def test_an_empty_point_cloud():
    got = over_the_wire(messages.point_cloud(HEAD, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)))
    assert (got.width, got.row_step, len(got.data)) == (0, 0, 0)

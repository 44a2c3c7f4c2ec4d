"""camera_info and calibration files."""

from __future__ import annotations

import numpy as np
import pytest
from sources_scene import pose, render

from da3_ros.errors import SourceError
from da3_ros.sources.camera_file import read_camera_file
from da3_ros.sources.camera_info import from_camera_info

SIZE = (320, 240)
K = np.array([[210.0, 0, 161.0], [0, 208.0, 118.0], [0, 0, 1]])
LENSES = {
    "plumb_bob": (-0.28, 0.07, 0.0002, 0.0001, 0.01),
    "rational_polynomial": (0.26, -0.4, 0.001, -0.0005, 0.1, 0.02, -0.05, 0.01),
    "equidistant": (-0.01, 0.02, -0.01, 0.002),
}


def inner(image, margin=3):
    return image[margin:-margin, margin:-margin]


@pytest.mark.parametrize("model", LENSES)
def test_a_rectified_image_is_that_of_its_pinhole(model):
    raw, raw_depth = render(K, SIZE, pose(3), LENSES[model], fisheye=model == "equidistant")
    camera, rectifier = from_camera_info(*SIZE, K.ravel(), LENSES[model], model)
    expected, depth = render(camera.matrix, SIZE, pose(3))
    error = np.abs(rectifier.image(raw).astype(int) - expected)
    assert inner(error).mean() < 1.0
    assert inner(np.abs(raw.astype(int) - expected)).mean() > 2 * inner(error).mean()  # there was something to do
    rectified = rectifier.depth(raw_depth)
    assert np.nanmax(np.abs(inner(rectified - depth) / inner(depth))) < 0.02
    assert np.isfinite(inner(rectified)).all()  # zoomed so that nothing is empty


def test_projection_and_rotation_say_what_the_rectified_camera_is():
    turn = np.array([[np.cos(0.05), 0, np.sin(0.05)], [0, 1, 0], [-np.sin(0.05), 0, np.cos(0.05)]])
    P = np.array([[190.0, 0, 150, 0], [0, 190, 121, 0], [0, 0, 1, 0]])
    camera, rectifier = from_camera_info(*SIZE, K.ravel(), LENSES["plumb_bob"], "plumb_bob", turn.ravel(), P.ravel())
    assert (camera.fx, camera.cx, camera.cy) == (190, 150, 121)
    raw, _ = render(K, SIZE, pose(0), LENSES["plumb_bob"])
    T = pose(0).copy()
    T[:3, :3] = T[:3, :3] @ turn.T  # the rectified frame is turned: p_rect = R p_cam
    expected, _ = render(camera.matrix, SIZE, T)
    seen = rectifier.image(raw).any(-1)
    assert np.abs(rectifier.image(raw).astype(int) - expected)[seen].mean() < 1.5


def test_depth_outside_the_lens_is_nan_and_colour_black():
    P = np.array([[60.0, 0, 160, 0], [0, 60, 120, 0], [0, 0, 1, 0]])  # much wider than the lens
    _, rectifier = from_camera_info(*SIZE, K.ravel(), (0.1, 0, 0, 0, 0), "plumb_bob", None, P.ravel())
    assert np.isnan(rectifier.depth(np.ones(SIZE[::-1], np.float32))[0, 0])
    assert not rectifier.image(np.full((*SIZE[::-1], 3), 255, np.uint8))[0, 0].any()


def test_no_distortion_needs_no_rectifier():
    camera, rectifier = from_camera_info(*SIZE, K.ravel(), np.zeros(5))
    assert rectifier is None
    assert (camera.size, camera.fx, camera.cy) == (SIZE, 210, 118)


def test_uncalibrated_is_said_by_a_zero_focal_length():
    assert from_camera_info(*SIZE, np.zeros(9)) == (None, None)


def test_a_rectified_topic_uses_its_projection_and_is_left_alone():
    P = np.array([[190.0, 0, 150, 0], [0, 190, 121, 0], [0, 0, 1, 0]])
    camera, rectifier = from_camera_info(
        *SIZE, K.ravel(), LENSES["plumb_bob"], "plumb_bob", None, P.ravel(), rectified=True
    )
    assert rectifier is None
    assert camera.fx == 190


def test_images_smaller_than_the_calibration_scale_it():
    double = (2 * K + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, -1]]).ravel()
    camera, rectifier = from_camera_info(640, 480, double, image_size=SIZE)
    assert rectifier is None
    np.testing.assert_allclose(camera.matrix, K)
    scaled, _ = from_camera_info(640, 480, double, LENSES["plumb_bob"], image_size=SIZE)
    direct, _ = from_camera_info(*SIZE, K.ravel(), LENSES["plumb_bob"])
    np.testing.assert_allclose(scaled.matrix, direct.matrix, rtol=1e-3)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"K": K.ravel()[:8]}, "8 values in K"),
        ({"K": -K.ravel()}, "does not describe a camera"),
        ({"K": np.full(9, np.nan)}, "not finite"),
        ({"K": K.ravel(), "D": (0.1, np.inf, 0, 0)}, "not finite"),
        ({"K": K.ravel(), "D": (0.1, 0, 0)}, "4, 5, 8"),
        ({"K": K.ravel(), "D": (0.1, 0, 0, 0, 0), "distortion_model": "equidistant"}, "needs 4 values"),
        ({"K": K.ravel(), "D": (0.1, 0, 0, 0), "distortion_model": "magic"}, "'magic' is not known"),
        ({"K": K.ravel(), "image_size": (320, 320)}, "are 320x320"),
    ],
)
def test_bad_calibrations_are_refused(kwargs, words):
    with pytest.raises(SourceError, match=words):
        from_camera_info(*SIZE, **kwargs)


def test_a_rectifier_refuses_another_size():
    _, rectifier = from_camera_info(*SIZE, K.ravel(), LENSES["plumb_bob"])
    with pytest.raises(SourceError, match="320x240 but the image is 100x50"):
        rectifier.image(np.zeros((50, 100, 3), np.uint8))


ROS_FILE = """
image_width: 320
image_height: 240
camera_name: test
camera_matrix: {rows: 3, cols: 3, data: [210.0, 0.0, 161.0, 0.0, 208.0, 118.0, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.28, 0.07, 0.0002, 0.0001, 0.01]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [190.0, 0, 150, 0, 0, 190.0, 121, 0, 0, 0, 1, 0]}
"""


def test_calibration_files(tmp_path):
    ros, plain, matrix = tmp_path / "ros.yaml", tmp_path / "plain.yaml", tmp_path / "K.txt"
    ros.write_text(ROS_FILE)
    camera, rectifier = read_camera_file(ros, SIZE)
    assert (camera.fx, camera.cx, rectifier is None) == (190, 150, False)
    plain.write_text("{fx: 210, fy: 208, cx: 161, cy: 118, distortion: [-0.28, 0.07, 0, 0]}")
    camera, rectifier = read_camera_file(plain, SIZE)
    assert (camera.size, rectifier is None) == (SIZE, False)
    matrix.write_text("210 0 161\n0 208 118\n0 0 1\n")
    assert read_camera_file(matrix, SIZE)[0].fy == 208


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "fx: 210", "needs fx, fy, cx, cy"),
        ("a.yaml", "{fx: a, fy: 1, cx: 1, cy: 1}", "needs fx, fy, cx, cy"),
        ("a.yaml", "[1, 2", "YAML"),
        ("a.yaml", "- 1", "mapping"),
        ("a.yaml", "camera_matrix: {data: [1]}", "camera_calibration"),
        ("a.txt", "1 2 3", "3x3"),
        ("a.txt", "1 2 3\n4 5\n", "3x3"),
        ("a.txt", "0 0 0\n0 0 0\n0 0 0\n", "intrinsic matrix"),
    ],
)
def test_bad_calibration_files_are_named(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SourceError, match=words) as error:
        read_camera_file(path, SIZE)
    assert name in str(error.value)

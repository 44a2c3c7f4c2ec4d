"""Decoding of sensor_msgs images."""

from __future__ import annotations

import array
import struct
import time

import cv2
import numpy as np
import pytest

from da3_ros.errors import SourceError
from da3_ros.sources.encodings import (
    DEPTH_ENCODINGS,
    IMAGE_ENCODINGS,
    decode_compressed,
    decode_compressed_depth,
    decode_depth,
    decode_image,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
ALPHA = np.full((6, 8, 1), 77, np.uint8)


def padded(pixels: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Rows with padding bytes at their ends, as drivers align them."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.hstack([rows, np.full((len(rows), padding), 201, np.uint8)])
    return rows.shape[1], rows.tobytes()


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], -1), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], -1), RGB),
        ("mono8", GREY, np.repeat(GREY[..., None], 3, -1)),
        ("8UC1", GREY, np.repeat(GREY[..., None], 3, -1)),
    ],
)
def test_eight_bit_encodings_are_exact_with_and_without_padding(encoding, pixels, expected, padding):
    step, data = padded(pixels, padding)
    np.testing.assert_array_equal(decode_image(encoding, 6, 8, step, False, data), expected)


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "rgb16", "bgr16"])
def test_sixteen_bit_encodings_keep_the_upper_byte_in_either_byte_order(encoding, bigendian):
    source = GREY if encoding in ("mono16", "16UC1") else RGB
    values = source.astype(">u2" if bigendian else "<u2") * 256 + 99
    values = values.astype(">u2" if bigendian else "<u2")
    stored = values[..., ::-1] if encoding == "bgr16" else values
    step, data = padded(np.ascontiguousarray(stored), 6)
    out = decode_image(encoding, 6, 8, step, bigendian, data)
    np.testing.assert_array_equal(out, RGB if source is RGB else np.repeat(GREY[..., None], 3, -1))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_recover_a_smooth_colour_image(pattern, bits):
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[...] = (200, 120, 40)
    channel = {"r": 0, "g": 1, "b": 2}
    mosaic = np.zeros((16, 16), np.uint8)
    for k, letter in enumerate(pattern):
        mosaic[k // 2 :: 2, k % 2 :: 2] = flat[k // 2 :: 2, k % 2 :: 2, channel[letter]]
    stored = mosaic if bits == 8 else mosaic.astype("<u2") << 8
    step, data = padded(stored, 0)
    np.testing.assert_array_equal(decode_image(f"bayer_{pattern}{bits}", 16, 16, step, False, data), flat)


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_packed_yuv(encoding, order):
    y, u, v = 120, 90, 180
    step, data = padded(np.tile(np.array([{"y": y, "u": u, "v": v}[c] for c in order], np.uint8), (4, 3)), 4)
    check_yuv(decode_image(encoding, 4, 6, step, False, data), y, u, v)


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_half_chroma_yuv(encoding):
    y, u, v = 90, 200, 70
    luma = np.full((4, 6), y, np.uint8)
    pair = (u, v) if encoding == "nv12" else (v, u)
    step, data = padded(np.vstack([luma, np.tile(np.array(pair, np.uint8), (2, 3))]), 2)
    check_yuv(decode_image(encoding, 4, 6, step, False, data), y, u, v)


def check_yuv(out, y, u, v):
    """BT.601, studio range (ITU-R BT.601-7)."""
    luma, cb, cr = 1.164 * (y - 16), u - 128, v - 128
    rgb = np.array([luma + 1.596 * cr, luma - 0.392 * cb - 0.813 * cr, luma + 2.017 * cb])
    assert np.abs(out.astype(float) - np.clip(rgb, 0, 255)).max() <= 2


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: array.array("B", b), as_array])
def test_any_buffer_is_taken(kind):
    np.testing.assert_array_equal(decode_image("rgb8", 6, 8, 24, False, kind(RGB.tobytes())), RGB)


def test_packed_rgb_is_not_copied():
    data = np.frombuffer(RGB.tobytes(), np.uint8)
    assert np.shares_memory(decode_image("rgb8", 6, 8, 24, False, data), data)


def test_the_last_row_may_lack_its_padding():
    step, data = padded(RGB, 8)
    np.testing.assert_array_equal(decode_image("rgb8", 6, 8, step, False, data[:-8]), RGB)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("rgb9", 6, 8, 24, False, RGB.tobytes()), ("rgb9", "bgr8")),
        (("32FC1", 6, 8, 32, False, bytes(192)), ("depth topic",)),
        (("rgb8", 6, 8, 23, False, RGB.tobytes()), ("step 23", "24 bytes")),
        (("rgb8", 6, 8, 0, False, RGB.tobytes()), ("step 0",)),
        (("rgb8", 6, 8, 24, False, RGB.tobytes()[:-1]), ("needs 144 bytes but has 143",)),
        (("rgb8", 6, 8, 24, False, b""), ("has 0",)),
        (("rgb8", 0, 8, 24, False, b""), ("8x0",)),
        (("nv12", 5, 8, 8, False, bytes(64)), ("even",)),
        (("yuv422", 2, 3, 6, False, bytes(12)), ("odd width",)),
    ],
)
def test_bad_images_are_refused_with_what_is_wrong(args, words):
    with pytest.raises(SourceError) as error:
        decode_image(*args)
    assert all(word in str(error.value) for word in words), error.value


def test_an_unknown_encoding_names_every_known_one():
    with pytest.raises(SourceError) as error:
        decode_image("nonsense", 1, 1, 1, False, b"x")
    assert all(name in str(error.value) for name in IMAGE_ENCODINGS)
    with pytest.raises(SourceError) as error:
        decode_depth("rgb8", 1, 1, 3, False, b"xxx")
    assert all(name in str(error.value) for name in DEPTH_ENCODINGS)


@pytest.mark.parametrize("bigendian", [False, True])
def test_depth_in_metres_and_millimetres(bigendian):
    order = ">" if bigendian else "<"
    millimetres = np.array([[0, 1500], [65535, 65534]], order + "u2")
    step, data = padded(millimetres, 2)
    expected = np.array([[np.nan, 1.5], [np.nan, 65.534]], np.float32)
    np.testing.assert_array_equal(decode_depth("16UC1", 2, 2, step, bigendian, data), expected)
    metres = np.array([[0.0, 1.5, np.inf], [-1.0, np.nan, 65.534]], order + "f4")
    step, data = padded(metres, 4)
    out = decode_depth("32FC1", 2, 3, step, bigendian, data)
    np.testing.assert_array_equal(out, np.array([[np.nan, 1.5, np.nan], [np.nan, np.nan, 65.534]], np.float32))
    assert out.dtype == np.float32


def test_compressed_images():
    smooth = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)
    _, png = cv2.imencode(".png", smooth[..., ::-1])
    _, jpg = cv2.imencode(".jpg", smooth[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    np.testing.assert_array_equal(decode_compressed("png", png.tobytes()), smooth)
    assert np.abs(decode_compressed("rgb8; jpeg compressed bgr8", jpg.tobytes()).astype(int) - smooth).mean() < 4
    for damaged in (b"", b"not an image", jpg.tobytes()[:20]):
        with pytest.raises(SourceError, match="cannot be decoded"):
            decode_compressed("jpeg", damaged)
    with pytest.raises(SourceError, match="depth topic"):
        decode_compressed("16UC1; compressedDepth png", png.tobytes())


def test_compressed_depth():
    depth = np.array([[0.5, 1.0], [4.0, np.nan]], np.float32)
    a, b = 100.0 * (100.0 + 1), 1.0  # as the transport's encoder chooses them
    quantised = np.nan_to_num(np.rint(a / depth + b)).astype(np.uint16)
    _, png = cv2.imencode(".png", quantised)
    header = struct.pack("<iff", 0, a, b)
    out = decode_compressed_depth("32FC1; compressedDepth png", header + png.tobytes())
    np.testing.assert_allclose(out, depth, rtol=1e-3)
    _, png = cv2.imencode(".png", np.array([[0, 1234]], np.uint16))
    out = decode_compressed_depth("16UC1; compressedDepth png", header + png.tobytes())
    np.testing.assert_array_equal(out, np.array([[np.nan, 1.234]], np.float32))
    with pytest.raises(SourceError, match="cannot be read"):
        decode_compressed_depth("16UC1; compressedDepth rvl", header)
    with pytest.raises(SourceError, match="cannot be decoded"):
        decode_compressed_depth("16UC1; compressedDepth png", header + b"junk")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("padding", [0, 64])
def test_a_camera_image_takes_less_than_a_millisecond(encoding, padding):
    step, data = padded(RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8), padding)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        decode_image(encoding, 480, 640, step, False, data)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # the least of many: other processes share the processor

"""Pixels from the bytes of ``sensor_msgs/Image`` and ``CompressedImage``, without ROS and without cv_bridge.

Shared by the bag source and the node.  Encoding names are those of sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

import struct
from array import array
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import SourceError
from da3_ros.types import FloatArray, ImageArray

Bytes: TypeAlias = "bytes | bytearray | memoryview | array[int] | NDArray[np.uint8]"

# encoding -> (channels, bytes per channel, OpenCV conversion of the 8-bit image to RGB; None = is RGB)
_PACKED: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, cv2.COLOR_BGR2RGB),
    "8UC3": (3, 1, cv2.COLOR_BGR2RGB),  # OpenCV's own order, as cv_bridge takes it
    "rgba8": (4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 1, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (3, 2, None),
    "bgr16": (3, 2, cv2.COLOR_BGR2RGB),
    "16UC3": (3, 2, cv2.COLOR_BGR2RGB),
    "rgba16": (4, 2, cv2.COLOR_RGBA2RGB),
    "bgra16": (4, 2, cv2.COLOR_BGRA2RGB),
    "mono16": (1, 2, cv2.COLOR_GRAY2RGB),
    "16UC1": (1, 2, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGRBG2RGB),
    "bayer_rggb16": (1, 2, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": (1, 2, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": (1, 2, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": (1, 2, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, 1, cv2.COLOR_YUV2RGB_YUY2),
}
_HALF_CHROMA = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}  # H rows of Y, H/2 rows of UV
_DEPTH = {"32FC1": "f4", "16UC1": "u2", "mono16": "u2"}

IMAGE_ENCODINGS = (*_PACKED, *_HALF_CHROMA)
DEPTH_ENCODINGS = tuple(_DEPTH)


def decode_image(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Bytes) -> ImageArray:
    """Decode a colour or grey image to RGB.

    Sixteen-bit images keep their upper byte, as cv_bridge scales them; ``16UC1`` is taken as grey.

    Args:
        encoding: a name of sensor_msgs, see IMAGE_ENCODINGS.
        height: rows.
        width: columns.
        step: bytes from one row to the next, padding included.
        is_bigendian: byte order of sixteen-bit channels.
        data: any buffer of bytes; not copied where it already is tightly packed RGB.

    Returns:
        (height, width, 3) uint8 RGB, contiguous; a read-only view of ``data`` where nothing had to change.

    Raises:
        SourceError: the encoding is unknown, or step or data do not fit the size.
    """
    if encoding in _HALF_CHROMA:
        return _decode_half_chroma(encoding, height, width, step, data)
    if encoding not in _PACKED:
        hint = (
            "it is depth, give it as the depth topic"
            if encoding == "32FC1"
            else "publish one of " + ", ".join(IMAGE_ENCODINGS)
        )
        raise SourceError(f"image encoding '{encoding}' cannot be read as colour or grey; {hint}")
    channels, size, conversion = _PACKED[encoding]
    dtype = np.dtype("u1") if size == 1 else np.dtype(">u2" if is_bigendian else "<u2")
    pixels = _rows(encoding, height, width, step, data, channels, dtype)
    if size == 2:
        pixels = np.ascontiguousarray((pixels >> 8).astype(np.uint8))
    if channels == 2 and width % 2:
        raise SourceError(f"a {encoding} image of odd width {width} is not complete; publish an even width")
    if conversion is None:
        return np.ascontiguousarray(pixels)
    return _rgb(pixels, conversion)


def decode_depth(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Bytes) -> FloatArray:
    """Decode a depth image (REP 118): ``32FC1`` metres, ``16UC1`` millimetres.

    Returns:
        (height, width) float32 z-depth in metres; zero, negative and not finite values, and 65535 of the
        sixteen-bit form, are NaN.

    Raises:
        SourceError: the encoding is no depth, or step or data do not fit the size.
    """
    if encoding not in _DEPTH:
        known = ", ".join(DEPTH_ENCODINGS)
        raise SourceError(f"depth encoding '{encoding}' cannot be read; publish one of {known}")
    dtype = np.dtype((">" if is_bigendian else "<") + _DEPTH[encoding])
    values = _rows(encoding, height, width, step, data, 1, dtype)
    return metres_from_millimetres(values) if dtype.kind == "u" else valid_depth(values)


def decode_compressed(format: str, data: Bytes) -> ImageArray:  # noqa: A002  (the field's name)
    """Decode a ``CompressedImage`` (JPEG, PNG and what else OpenCV reads) to (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the data is not an image, or it is compressed depth.
    """
    if "compressedDepth" in format:
        raise SourceError(f"'{format}' is compressed depth, not an image; give it as the depth topic")
    image = _imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(
            f"a compressed image of format '{format}' ({_size(data)} bytes) cannot be decoded; "
            "it is damaged or of a kind OpenCV does not read"
        )
    return _rgb(image, cv2.COLOR_BGR2RGB)


def decode_compressed_depth(format: str, data: Bytes) -> FloatArray:  # noqa: A002
    """Decode the PNG form of compressed_depth_image_transport to (H, W) float32 metres, NaN invalid.

    A 12 byte header (int32 kind, float32 a, float32 b) precedes the PNG; floats were stored as the inverse depth
    ``q = a / depth + b`` (compressed_depth_image_transport, codec.cpp).

    Raises:
        SourceError: another compression (RVL), or damaged data.
    """
    if "rvl" in format.lower():
        raise SourceError(f"depth of format '{format}' cannot be read; record it raw or with the png format")
    raw = memoryview(data).cast("B")
    pixels = _imdecode(raw[12:], cv2.IMREAD_UNCHANGED) if len(raw) > 12 else None
    if pixels is None or pixels.ndim != 2:
        raise SourceError(f"compressed depth of format '{format}' ({len(raw)} bytes) cannot be decoded")
    if not format.startswith("32FC1"):
        return metres_from_millimetres(pixels)
    _, a, b = struct.unpack_from("<iff", raw, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return valid_depth(np.where(pixels > 0, np.float32(a) / (pixels.astype(np.float32) - np.float32(b)), np.nan))


def metres_from_millimetres(values: NDArray[Any], unit: float = 1000.0) -> FloatArray:
    """Depth in metres of integers (H, W) of 1 / ``unit`` metres; 0 and 65535 are NaN."""
    depth = values.astype(np.float32) / np.float32(unit)
    depth[(values == 0) | (values == 65535)] = np.nan
    return depth


def valid_depth(values: NDArray[Any]) -> FloatArray:
    """Depth (H, W) as float32 with everything that is not a positive finite number set to NaN."""
    depth = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        depth[~((depth > 0) & (depth < np.inf))] = np.nan
    return depth


def _rows(
    encoding: str, height: int, width: int, step: int, data: Bytes, channels: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """View of the pixels, (H, W) or (H, W, channels); the padding of rows is cut off."""
    row = width * channels * dtype.itemsize
    available = _size(data)
    if height < 1 or width < 1:
        raise SourceError(f"an image of {width}x{height} pixels has no content; check the publisher")
    if step < row:
        raise SourceError(f"step {step} is too small for {width} {encoding} pixels ({row} bytes); check the publisher")
    if available < step * (height - 1) + row:  # the last row may come without its padding
        raise SourceError(
            f"a {width}x{height} {encoding} image with step {step} needs {step * height} bytes but has {available}; "
            "the message is cut short"
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, dtype.itemsize) if channels == 1 else (step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray(shape, dtype, memoryview(data).cast("B"), strides=strides)


def _decode_half_chroma(encoding: str, height: int, width: int, step: int, data: Bytes) -> ImageArray:
    if height % 2 or width % 2:
        raise SourceError(f"a {encoding} image must have even sides, not {width}x{height}")
    planes = _rows(encoding, height * 3 // 2, width, step, data, 1, np.dtype("u1"))
    return _rgb(planes, _HALF_CHROMA[encoding])


def _rgb(pixels: NDArray[Any], conversion: int) -> ImageArray:
    converted: ImageArray = cv2.cvtColor(np.ascontiguousarray(pixels), conversion)
    return converted


def _imdecode(data: Bytes, flags: int) -> NDArray[Any] | None:
    """OpenCV's decoder; None for what it cannot read (it throws on empty and on absurd sizes)."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, ValueError):
        return None


def _size(data: Bytes) -> int:
    return memoryview(data).nbytes

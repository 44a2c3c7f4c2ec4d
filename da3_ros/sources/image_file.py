"""Pixels from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import SourceError
from da3_ros.files import reason
from da3_ros.sources.encodings import metres_from_millimetres
from da3_ros.types import FloatArray, ImageArray

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def read_image(path: Path) -> ImageArray:
    """Colour image (H, W, 3) RGB; grey images are repeated over the channels.

    Raises:
        SourceError: the file is missing or no image.
    """
    image: ImageArray = cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image


def read_depth(path: Path, unit: float) -> FloatArray:
    """Depth (H, W) in metres of a 16-bit PNG with ``unit`` counts per metre; 0 and 65535 are NaN.

    Raises:
        SourceError: the file is missing or no 16-bit single-channel image.
    """
    values = _read(path, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise SourceError(f"{path} is not a 16-bit depth image; expected one channel of unsigned 16-bit integers")
    return metres_from_millimetres(values, unit)


def _read(path: Path, flags: int) -> NDArray[Any]:
    # Reading the bytes first keeps OpenCV from writing warnings about missing files.
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {reason(error)}") from error
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:
        image = None
    if image is None:
        raise SourceError(f"{path} is not an image that can be decoded ({data.size} bytes); replace or remove it")
    return image

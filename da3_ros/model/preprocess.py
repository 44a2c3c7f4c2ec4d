"""Camera images to what the network takes, and the cameras of the result.

Two ways: as the released code does it (longest side to 504, then each side to the nearest multiple of 14), or to a
fixed size in one step, which is what a window of one camera wants.  Never letterboxed, so a camera changes by one
factor per axis and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import PredictorError
from da3_ros.geometry.camera import Pinhole
from da3_ros.model.presets import PATCH
from da3_ros.types import FloatArray, ImageArray

LONGEST = 504  # pixels of the longer side, as released
LONGEST_ON_CPU = 280  # a window of eight in about a second on a few cores
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, for colours in 0..1
_STD = np.array([0.229, 0.224, 0.225], np.float32)
# Value of each of the 256 steps of each channel (3, 256), computed as the released code computes it.
_NORMALISED = ((np.arange(256, dtype=np.float32) / np.float32(255))[None] - _MEAN[:, None]) / _STD[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A window as the network takes it."""

    images: FloatArray  # (N, 3, H, W), normalised, contiguous
    cameras: tuple[Pinhole | None, ...]  # at the size of the images, which is that of the depth


class Preprocessor:
    """Prepares frames one by one or a window at a time; holds no state between them."""

    def __init__(self, size: tuple[int, int] | None = None, *, longest: int = LONGEST) -> None:
        """``size`` is the fixed (width, height); without it every frame is fitted as the released code does.

        Raises:
            PredictorError: a side is no multiple of 14.
        """
        if size is not None:
            check_size(*size)
        if longest < PATCH:
            raise PredictorError(f"the longest side must be at least {PATCH} pixels, not {longest}")
        self._size = size
        self._longest = longest

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size is given."""
        return self._size or fitted_size(width, height, self._longest)

    def frame(self, image: NDArray[Any]) -> FloatArray:
        """One image, of any kind ``as_rgb`` takes -> (3, H, W).

        Raises:
            PredictorError: this is no image.
        """
        rgb = as_rgb(image)
        if self._size is None:
            return normalised(resized_as_released(rgb, self._longest))
        return normalised(resized(rgb, *self._size))

    def window(self, images: Sequence[NDArray[Any]], cameras: Sequence[Pinhole | None] | None = None) -> Prepared:
        """Images of one size, and their cameras where these are known.

        Raises:
            PredictorError: there is no image, their sizes differ, or a camera is not of the size of its image.
        """
        if not len(images):
            raise PredictorError("a window needs at least one image")
        if cameras is None:
            cameras = [None] * len(images)
        if len(cameras) != len(images):
            raise PredictorError(f"{len(images)} images with {len(cameras)} cameras; give one camera for each image")
        sizes = [(np.shape(image)[1::-1] if np.ndim(image) >= 2 else ()) for image in images]
        if len(set(sizes)) > 1:
            told = ", ".join(sorted({"x".join(map(str, size)) or "none" for size in sizes}))
            raise PredictorError(f"the images of a window must have one size, not {told}; resize or sort them")
        frames = np.stack([self.frame(image) for image in images])
        return Prepared(frames, tuple(self._camera(c, sizes[0]) for c in cameras))

    def _camera(self, camera: Pinhole | None, size: tuple[int, ...]) -> Pinhole | None:
        if camera is None:
            return None
        if camera.size != size:
            raise PredictorError(
                f"a camera calibrated for {camera.width}x{camera.height} pixels does not fit an image of "
                f"{size[0]}x{size[1]}; resize its calibration first"
            )
        return camera.resized(*self.size_of(*camera.size))


def check_size(width: int, height: int) -> None:
    """Refuse a size that does not split into patches.

    Raises:
        PredictorError: names the nearest size that does.
    """
    if width < PATCH or height < PATCH or width % PATCH or height % PATCH:
        near = "x".join(str(_nearest(side)) for side in (width, height))
        raise PredictorError(
            f"the network cannot take {width}x{height}: sides must be multiples of {PATCH}; try {near}"
        )


def parse_size(text: str) -> tuple[int, int] | None:
    """Width and height of "280x210"; None for "auto".

    Raises:
        PredictorError: it is neither, or a side is no multiple of 14.
    """
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise PredictorError(f"'{text}' is no size; write WIDTHxHEIGHT in pixels, such as 280x210, or auto")
    size = int(found[1]), int(found[2])
    check_size(*size)
    return size


def network_size(wanted: str, width: int, height: int, *, on_gpu: bool, longest: int | None = None) -> tuple[int, int]:
    """Width and height at which the network sees the images of a camera.

    Args:
        wanted: "280x210", or "auto": fitted to the images, longest side 504 on a GPU and 280 on a CPU.
        width: of the images, px.
        height: of the images, px.
        on_gpu: the network runs on a GPU.
        longest: longer side that the network was trained on, px, where it knows no others (``Preset.longest``).

    Raises:
        PredictorError: ``wanted`` is neither, or a side of it is no multiple of 14.
    """
    usual = LONGEST if on_gpu else LONGEST_ON_CPU
    return parse_size(wanted) or fitted_size(width, height, longest or usual)


def fitted_size(width: int, height: int, longest: int = LONGEST) -> tuple[int, int]:
    """Width and height that the released code gives an image."""
    w, h = _bounded(width, height, longest)
    return _nearest(w), _nearest(h)


def resized_as_released(image: ImageArray, longest: int = LONGEST) -> ImageArray:
    """(H, W, 3) RGB in two steps: longest side, then multiples of 14; both times by area down, by cubic up."""
    height, width = image.shape[:2]
    bounded = _bounded(width, height, longest)
    if max(width, height) != longest:
        image = cv2.resize(
            image, bounded, interpolation=cv2.INTER_CUBIC if longest > max(width, height) else cv2.INTER_AREA
        )
    fitted = _nearest(bounded[0]), _nearest(bounded[1])
    if fitted != bounded:
        grows = fitted[0] > bounded[0] or fitted[1] > bounded[1]
        image = cv2.resize(image, fitted, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    return image


def resized(image: ImageArray, width: int, height: int) -> ImageArray:
    """(H, W, 3) to a size in one step, by area down, by cubic up; in two where one side grows and the other shrinks."""
    smaller = min(width, image.shape[1]), min(height, image.shape[0])
    if smaller != image.shape[1::-1]:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def normalised(image: ImageArray) -> FloatArray:
    """(H, W, 3) RGB -> (3, H, W): colours in 0..1, less ImageNet's mean, by its deviation."""
    out = np.empty((3, *image.shape[:2]), np.float32)
    for plane, table, target in zip(cv2.split(image), _NORMALISED, out, strict=True):
        cv2.LUT(plane, table, target)
    return out


def as_rgb(image: NDArray[Any]) -> ImageArray:
    """Any camera image as (H, W, 3) uint8 RGB.

    Grey is repeated, an alpha channel is dropped, and of sixteen bits the upper eight are kept, as cv_bridge does.

    Raises:
        PredictorError: the array has another shape or type, or no pixels.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise PredictorError(
            f"an array of shape {np.shape(image)} is no image; give (H, W), (H, W, 3) RGB or (H, W, 4) RGBA"
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise PredictorError(
            f"an image of {pixels.dtype} has no known range; give 8 bits (0..255) or 16 bits (0..65535) per channel"
        )
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _bounded(width: int, height: int, longest: int) -> tuple[int, int]:
    """Size with the longer side ``longest``; halves are rounded to even, as Python does."""
    scale = longest / float(max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _nearest(side: int) -> int:
    """Nearest multiple of 14, halves up; at least one patch, where the released code would fail."""
    return max(PATCH, (side + PATCH // 2) // PATCH * PATCH)

"""New features: corners of a keyframe where its depth can be trusted and none is followed yet."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.config import SeamConfig, TrackerConfig
from da3_ros.geometry.se3 import Array
from da3_ros.slam.keyframe import Depth
from da3_ros.types import ImageArray

_QUALITY = 0.003  # of the best corner's response
_PATCH, _GRADIENT = 15, 3  # px: of flow's window, of the derivative
_LEAST_GRADIENT = 1.0  # of a patch, squares of Sobel's responses summed: below it nothing is seen
_STRIPES = 8.0  # ratio of gradients, across to along, beyond which flow slides along with hardly any hold
_NOTICED = 2.0  # and up to which it does not
_CLEAR = 36  # the share 1/36 of the image's width, across


def find(
    gray: ImageArray, depth: Depth, followed: Array, tracker: TrackerConfig, seam: SeamConfig
) -> tuple[Array, Array]:
    """Find corners, evenly over the image.

    Args:
        gray: (h, w) the keyframe's shrunk image.
        depth: its depth, at any size.
        followed: (N, 2) pixels of ``gray`` with features that are followed already.
        tracker: how many there should be in all.
        seam: which depth is trusted.

    Returns:
        Pixels (M, 2) of ``gray`` and their log depth (M,).
    """
    height, width = gray.shape
    usable = (depth.confidence >= seam.min_confidence) & ~depth.edges(seam.edge_ratio)
    mask = cv2.resize(usable.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) * 255
    spacing = max(3.0, 0.5 * np.sqrt(width * height / tracker.features))
    for x, y in np.rint(followed).astype(int).tolist():
        cv2.circle(mask, (x, y), round(spacing), 0, -1)
    wanted = tracker.features - len(followed)
    # Flow looks at a patch: one that holds a depth edge follows the foreground and not the point.
    across = max(round(width / _CLEAR), 1)
    clear = cv2.erode(mask, np.ones((across, across), np.uint8))
    pixels = _corners(gray, wanted, spacing, clear)
    if len(pixels) + len(followed) < tracker.min_inliers:  # foliage: better such features than none
        pixels = _corners(gray, wanted, spacing, mask)
    log_z = sample(depth, pixels, (width, height))
    found = np.isfinite(log_z)
    return pixels[found], log_z[found]


def _corners(gray: ImageArray, wanted: int, spacing: float, mask: np.ndarray) -> Array:
    if wanted <= 0:
        return np.zeros((0, 2))
    corners = cv2.goodFeaturesToTrack(gray, wanted, _QUALITY, spacing, mask=mask)
    if corners is None:
        return np.zeros((0, 2))
    return corners.reshape(-1, 2).astype(float)


def textures(gray: ImageArray, pixels: Array) -> Array:
    """How well flow is fixed at pixels (N, 2), by direction: (N, 2, 2), symmetric, 1 where it is best.

    Along stripes flow is as much worse as gradients are weaker there: over worlds with known motion its error is 0.05
    px across, whatever the texture, and along 1.5, 3 and 4 times that where gradients differ by 2, 5 and 8.
    """
    ratio, along = _stripes(gray, pixels)
    worse = _NOTICED / np.maximum(ratio, _NOTICED) / np.maximum(ratio / _STRIPES, 1.0) ** 2
    return np.eye(2) - (1 - worse)[:, None, None] * along[:, :, None] * along[:, None, :]


def _stripes(gray: ImageArray, pixels: Array) -> tuple[Array, Array]:
    """Ratio (N,) of the gradients' size across stripes and along, and the unit direction (N, 2) along.

    From the structure tensor of each patch: the whole image's takes several times as long.
    """
    column, row = np.rint(pixels).astype(int).T
    x, y = (_patches(cv2.Sobel(gray, cv2.CV_32F, dx, dy, ksize=_GRADIENT), row, column) for dx, dy in ((1, 0), (0, 1)))
    xx, xy, yy = ((a * b).sum(axis=(1, 2), dtype=float) for a, b in ((x, x), (x, y), (y, y)))
    size, direction = np.linalg.eigh(np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2))
    size = np.maximum(size, _LEAST_GRADIENT)
    return np.sqrt(size[:, 1] / size[:, 0]), direction[:, :, 0]


def _patches(image: np.ndarray, row: NDArray[np.int_], column: NDArray[np.int_]) -> np.ndarray:
    """Patches (N, _PATCH, _PATCH) around pixels; beyond the image's border it is mirrored."""
    padded = cv2.copyMakeBorder(image, *4 * (_PATCH // 2,), cv2.BORDER_REFLECT_101)
    return np.lib.stride_tricks.sliding_window_view(padded, (_PATCH, _PATCH))[row, column]


def sample(depth: Depth, pixels: Array, size: tuple[int, int]) -> Array:
    """Log depth (N,) at pixels (N, 2) of an image of a size (width, height); NaN next to a hole."""
    if len(pixels) == 0:
        return np.zeros(0)
    height, width = depth.log.shape
    at = (pixels + 0.5) * np.array([width / size[0], height / size[1]]) - 0.5
    grid = np.ascontiguousarray(at.reshape(-1, 1, 2), np.float32)
    values = cv2.remap(depth.log, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, float).ravel()

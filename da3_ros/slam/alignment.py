"""Where the landmarks of older keyframes are in a new one, to a fraction of a pixel.

Flow compares patches as they are, and a slanted surface seen from elsewhere looks different: over a few keyframes that
costs half a pixel, in the same direction for all features of a surface.  So the older images are drawn as the new
camera would see them, by the new keyframe's depth, and the drawings are compared with the new image.  Errors of the
depth and of the poses shift the drawing, which does not matter, and distort patches only a little.

Drawn is a patch around each landmark, and all of them, whatever image they are of, side by side on one sheet: one call
of the flow then serves all, and nothing is drawn that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.keyframe import Depth
from da3_ros.types import FloatArray, ImageArray

_COARSE = 4  # the drawing's geometry is computed at 1 / this size
_LK = {"winSize": (15, 15), "maxLevel": 0, "criteria": (3, 20, 0.01), "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
_AT_ONCE = 1000  # patches; OpenCV remaps images of fewer than 32768 rows
_PATCH = 24  # px, side of what is drawn of a landmark: the flow's window, its gradients, and some pixels to move in
_ROUNDS = 3  # of Newton's method, to find what pixel of the drawing shows a landmark
_REACH = 1.5  # px, over which the drawing's Jacobian is measured
_FLATTEST = 0.05  # least |Jacobian|: patches seen nearly edge-on cannot be compared
_MOST_BACK = 0.5  # px forward-backward
_MOST = 4.0  # px from where flow had it
_NOWHERE = -1e5  # px, what is shown where depth is unknown; a share of an eighth still lies outside of the image
# Newton's method looks at a pixel and at its neighbours to the right, left, below and above.
_LOOKS = np.array([[0, 0], [_REACH, 0], [-_REACH, 0], [0, _REACH], [0, -_REACH]])

Index = NDArray[np.intp]


class Drawings:
    """Older images as a new camera would see them."""

    def __init__(self, old: Sequence[ImageArray], T_old_new: Array, depth: Depth, camera: Pinhole) -> None:
        """Say where each pixel of the new camera lies in the older images.

        Args:
            old: (h, w) grey images of K older keyframes.
            T_old_new: (K, 4, 4) pose of the new keyframe in the older ones, in the unit of the depth.
            depth: of the new keyframe, at any size.
            camera: of all grey images.
        """
        self._old, self._camera = old, camera
        width, height = camera.size
        coarse = camera.resized(max(width // _COARSE, 1), max(height // _COARSE, 1))
        z = np.exp(cv2.resize(depth.log, coarse.size, interpolation=cv2.INTER_NEAREST))
        self._per_coarse = np.array([width / coarse.width, height / coarse.height])
        # (K, h / 4, w / 4, 2) pixel of the older image that each pixel of the drawing shows
        self._shown = np.stack([_shown(T, z, coarse, camera) for T in T_old_new])

    def find(
        self, new: ImageArray, image: Index, pixels_old: Array, pixels_new: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Align landmarks.

        Args:
            new: (h, w) grey image of the new keyframe.
            image: (N,) which of the older images they are compared with.
            pixels_old: (N, 2) where this has them.
            pixels_new: (N, 2) about where the new image has them.

        Returns:
            (N, 2) where the new image has them, and which of these (N,) can be believed.
        """
        drawn, good = self._drawn(image, pixels_old, pixels_new)
        found = pixels_new.copy()
        room = (new.shape[1] // _PATCH) * (new.shape[0] // _PATCH)  # the flow wants both its images of one size
        for first in range(0, len(image) if room else 0, max(room, 1)):
            some = slice(first, first + room)
            sheet, start = self._sheet(new.shape, image[some], drawn[some])
            found[some], matched = _matched(sheet, start, new, pixels_new[some])
            good[some] &= matched
        good &= room > 0
        return np.where(good[:, None], found, pixels_new), good

    def _drawn(self, image: Index, pixels_old: Array, about: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Pixels (N, 2) of the drawings that show pixels (N, 2) of the older images, and where (N,) that is known."""
        drawn, known = about.copy(), np.ones(len(image), bool)
        for _ in range(_ROUNDS):
            here, right, left, below, above = self._at(image, drawn + _LOOKS[:, None])
            (a, c), (b, d) = (right - left).T / (2 * _REACH), (below - above).T / (2 * _REACH)
            determinant = a * d - b * c
            known = np.abs(determinant) >= _FLATTEST  # not so where depth is unknown
            inverse = 1 / np.where(known, determinant, 1.0)
            x, y = (pixels_old - here).T
            step = np.stack([(d * x - b * y) * inverse, (a * y - c * x) * inverse], axis=1)
            drawn = drawn + np.clip(np.where(known[:, None], step, 0.0), -20, 20)
        return drawn, known

    def _at(self, image: Index, pixels: Array) -> Array:
        """Pixels (..., N, 2) of the older images (N,) that their drawings show at pixels (..., N, 2)."""
        _, height, width, _ = self._shown.shape
        at = (pixels + 0.5) / self._per_coarse - 0.5
        x, y = np.clip(at[..., 0], 0, width - 1), np.clip(at[..., 1], 0, height - 1)
        column, row = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
        right, down = (x - column)[..., None], (y - row)[..., None]
        shown, corner = self._shown.reshape(-1, 2), (image * height + row) * width + column
        upper = shown[corner] * (1 - right) + shown[corner + 1] * right
        lower = shown[corner + width] * (1 - right) + shown[corner + width + 1] * right
        return np.asarray(upper * (1 - down) + lower * down, float)

    def _sheet(self, shape: tuple[int, ...], image: Index, drawn: Array) -> tuple[ImageArray, Array]:
        """Patches of the drawings around pixels (N, 2) on one image of a shape, and where (N, 2) these pixels lie."""
        middle = np.rint(drawn)
        side = np.arange(_PATCH) - _PATCH // 2
        # Where the pixels of the patches lie on the coarse grid.
        x, y = np.moveaxis(((middle[:, None] + side[:, None]) + 0.5) / self._per_coarse - 0.5, -1, 0)
        columns = shape[1] // _PATCH
        sheet = np.zeros(shape, np.uint8)
        row, column = np.divmod(np.arange(len(image)), columns)
        for k in np.unique(image):
            own = np.flatnonzero(image == k)
            known = np.nan_to_num(self._shown[k], nan=_NOWHERE)
            for some in np.split(own, np.arange(_AT_ONCE, len(own), _AT_ONCE)):
                grid = np.empty((len(some), _PATCH, _PATCH, 2), np.float32)
                grid[..., 0], grid[..., 1] = x[some, None, :], y[some, :, None]
                shown = cv2.remap(
                    known, grid.reshape(-1, _PATCH, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                )
                patches = cv2.remap(self._old[k], shown, None, cv2.INTER_LINEAR).reshape(-1, _PATCH, _PATCH)
                for i, patch in zip(some, patches, strict=True):
                    top, left = row[i] * _PATCH, column[i] * _PATCH
                    sheet[top : top + _PATCH, left : left + _PATCH] = patch
        return sheet, np.stack([column, row], axis=1) * _PATCH + _PATCH // 2 + (drawn - middle)


def _shown(T_old_new: Array, z: FloatArray, coarse: Pinhole, camera: Pinhole) -> FloatArray:
    """Pixels (h, w, 2) of an older image where a new camera sees depth z (h, w); NaN behind the older camera."""
    x = ((np.arange(coarse.width) - coarse.cx) / coarse.fx).astype(np.float32)
    y = ((np.arange(coarse.height) - coarse.cy) / coarse.fy).astype(np.float32)[:, None]
    P = camera.matrix @ T_old_new[:3]
    u, v, w = ((float(a) * x + (float(b) * y + float(c))) * z + float(shift) for a, b, c, shift in P)
    w[~(w > 0)] = np.nan
    return np.stack([u / w, v / w], axis=-1)


def _matched(sheet: ImageArray, start: Array, new: ImageArray, about: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Where patches around points (N, 2) of a sheet are in an image, about (N, 2), and which of these are right."""
    drawn, near = (np.ascontiguousarray(p, np.float32).reshape(-1, 1, 2) for p in (start, about))
    there, found, _ = cv2.calcOpticalFlowPyrLK(sheet, new, drawn, near.copy(), **_LK)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(new, sheet, there, drawn.copy(), **_LK)
    good = (found[:, 0] > 0) & (found_back[:, 0] > 0)
    good &= np.linalg.norm((back - drawn)[:, 0], axis=1) < _MOST_BACK
    good &= np.linalg.norm((there - near)[:, 0], axis=1) < _MOST
    return there[:, 0].astype(float), good

"""Where the landmarks of an older keyframe are in a new one, to a fraction of a pixel.

Flow compares patches as they are, and a slanted surface seen from elsewhere looks different: over a few keyframes that
costs half a pixel, in the same direction for all features of a surface.  So the older image is drawn as the new camera
would see it, by the new keyframe's depth, and this drawing is compared with the new image.  Errors of the depth and of
the poses shift the drawing, which does not matter, and distort patches only a little.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.keyframe import Depth
from da3_ros.types import ImageArray

_COARSE = 4  # the drawing's geometry is computed at 1 / this size
_LK = {"winSize": (15, 15), "maxLevel": 0, "criteria": (3, 20, 0.01), "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
_ROUNDS = 3  # of Newton's method, to find what pixel of the drawing shows a landmark
_REACH = 1.5  # px, over which the drawing's Jacobian is measured
_FLATTEST = 0.05  # least |Jacobian|: patches seen nearly edge-on cannot be compared
_MOST_BACK = 0.5  # px forward-backward
_MOST = 4.0  # px from where flow had it


class Drawing:
    """An older image as a new camera would see it."""

    def __init__(self, old: ImageArray, T_old_new: Array, depth: Depth, camera: Pinhole) -> None:
        """Draw it.

        Args:
            old: (h, w) grey image of the older keyframe.
            T_old_new: (4, 4) pose of the new keyframe in the older one, in the unit of the depth.
            depth: of the new keyframe, at any size.
            camera: of both grey images.
        """
        width, height = camera.size
        coarse = camera.resized(max(width // _COARSE, 1), max(height // _COARSE, 1))
        z = np.exp(cv2.resize(depth.log, coarse.size, interpolation=cv2.INTER_NEAREST))
        points = se3.transform(T_old_new, (z[:, :, None] * coarse.directions()).reshape(-1, 3))
        shown = camera.project(points).reshape(coarse.height, coarse.width, 2).astype(np.float32)
        # (h, w, 2) pixel of the older image that each pixel of the drawing shows
        self._source = cv2.resize(shown, camera.size, interpolation=cv2.INTER_LINEAR)
        self._image = cv2.remap(old, np.nan_to_num(self._source, nan=-1e4), None, cv2.INTER_LINEAR)

    def find(self, new: ImageArray, pixels_old: Array, pixels_new: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Align landmarks.

        Args:
            new: (h, w) grey image of the new keyframe.
            pixels_old: (N, 2) where the older image has them.
            pixels_new: (N, 2) about where the new image has them.

        Returns:
            (N, 2) where the new image has them, and which of these (N,) can be believed.
        """
        if not len(pixels_old):
            return pixels_new, np.zeros(0, bool)
        drawn = pixels_new.copy()
        for _ in range(_ROUNDS):
            jacobian, flat = self._jacobian(drawn)
            step = np.linalg.solve(jacobian, (pixels_old - self._at(drawn))[:, :, None])[:, :, 0]
            drawn = drawn + np.clip(np.nan_to_num(step), -20, 20)
        start = np.ascontiguousarray(drawn, np.float32).reshape(-1, 1, 2)
        about = np.ascontiguousarray(pixels_new, np.float32).reshape(-1, 1, 2)
        there, found, _ = cv2.calcOpticalFlowPyrLK(self._image, new, start, about.copy(), **_LK)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(new, self._image, there, start.copy(), **_LK)
        good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & ~flat
        good &= np.linalg.norm((back - start)[:, 0], axis=1) < _MOST_BACK
        good &= np.linalg.norm((there - about)[:, 0], axis=1) < _MOST
        return np.where(good[:, None], there[:, 0].astype(float), pixels_new), good

    def _at(self, pixels: Array) -> Array:
        """Pixels (N, 2) of the older image that the drawing shows at pixels (N, 2)."""
        grid = np.ascontiguousarray(pixels, np.float32).reshape(-1, 1, 2)
        return np.asarray(cv2.remap(self._source, grid, None, cv2.INTER_LINEAR)[:, 0], float)

    def _jacobian(self, pixels: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Of ``_at`` (N, 2, 2), and where (N,) there is none."""
        steps = _REACH * np.eye(2)
        columns = [(self._at(pixels + step) - self._at(pixels - step)) / (2 * _REACH) for step in steps]
        jacobian = np.stack(columns, axis=-1)
        flat = ~np.isfinite(jacobian).all(axis=(1, 2)) | (np.abs(np.linalg.det(np.nan_to_num(jacobian))) < _FLATTEST)
        jacobian[flat] = np.eye(2)
        return jacobian, flat

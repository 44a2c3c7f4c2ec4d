"""What is kept of keyframes that have left the window, so that a place can be known again.

An image is kept as JPEG at its full size (a predictor wants all views of a window alike), depth at every second pixel
in half precision: about 0.1 MB per keyframe of a 640x480 camera.  Beyond the budget the view goes whose neighbours are
closest in time, so that old places thin out and none is lost.  What else a frame carries stays with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.camera import Pinhole
from da3_ros.slam.keyframe import Depth, Keyframe
from da3_ros.types import FloatArray, Frame, ImageArray

_QUALITY = 92
_STEP = 2  # every second pixel of the depth in both axes
_MOST = 2000  # views, whatever they take
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One old view."""

    keyframe: Keyframe
    jpeg: ImageArray  # (bytes,)
    bare: Frame  # without its image
    log_depth: NDArray[np.float16]  # (h, w) chain units
    confidence: NDArray[np.uint8]  # (h, w) in 1/255
    camera: Pinhole  # at the size of the depth
    reach: float  # median depth, chain units

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.jpeg.nbytes + self.log_depth.nbytes + self.confidence.nbytes + self.bare.bytes

    def frame(self) -> Frame:
        """The frame, with its image."""
        image = cv2.cvtColor(cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return replace(self.bare, image=np.asarray(image, np.uint8))

    def depth(self) -> Depth:
        """Depth in chain units, thinned as by ``thinned``."""
        confidence = self.confidence.astype(np.float32) / np.float32(255)
        return Depth(self.log_depth.astype(np.float32), confidence, self.camera, confidence)


class Places:
    """Old views by the index of their keyframe, within a budget."""

    def __init__(self, memory_mb: int) -> None:
        """Start empty."""
        self._budget = memory_mb * 1_000_000
        self._bytes = 0
        self._kept: dict[int, Place] = {}  # by ascending index
        self.looks: dict[int, FloatArray] = {}  # of keyframes, also of those still in the window; see ``appearance``

    def __len__(self) -> int:
        """Number of views."""
        return len(self._kept)

    def __contains__(self, index: int) -> bool:
        """Whether the view of a keyframe is kept."""
        return index in self._kept

    def __getitem__(self, index: int) -> Place:
        """The view of a keyframe."""
        return self._kept[index]

    def indices(self) -> NDArray[np.int64]:
        """Keyframes whose views are kept, ascending."""
        return np.array(list(self._kept), np.int64)

    def keep(self, keyframe: Keyframe) -> None:
        """Keep the view of a keyframe that is about to lose its image and depth."""
        if keyframe.frame is None or keyframe.depth is None or not keyframe.depth.any():
            return
        frame, depth = keyframe.frame, thinned(keyframe.depth)
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        confidence = np.clip(depth.confidence * 255, 0, 255).astype(np.uint8)
        reach = keyframe.depth.median()
        bare, log_depth = replace(frame, image=_NO_IMAGE, priors=None), depth.log.astype(np.float16)
        self._kept[keyframe.index] = Place(
            keyframe, np.asarray(jpeg, np.uint8).ravel(), bare, log_depth, confidence, depth.camera, reach
        )
        self._bytes += self._kept[keyframe.index].bytes
        while len(self._kept) > 2 and (self._bytes > self._budget or len(self._kept) > _MOST):
            self._drop()

    def _drop(self) -> None:
        """Give up the view without which the gap between its neighbours is least; the newest stays."""
        indices = self.indices()
        gaps = indices[2:] - indices[:-2]
        gone = int(indices[1 + int(np.argmin(gaps))])
        self._bytes -= self._kept.pop(gone).bytes
        self.looks.pop(gone, None)


def thinned(depth: Depth) -> Depth:
    """Every second pixel in both axes, no pixel mixed with another."""
    step = (slice(None, None, _STEP), slice(None, None, _STEP))
    log = depth.log[step]
    c = depth.camera
    camera = Pinhole(log.shape[1], log.shape[0], c.fx / _STEP, c.fy / _STEP, c.cx / _STEP, c.cy / _STEP)
    return Depth(log, depth.confidence[step], camera, depth.weight[step])

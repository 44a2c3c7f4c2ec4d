"""Which camera took the images: from camera_info, or uncalibrated.

The rule, in order: a valid camera_info is used.  One with K[0] == 0 says "uncalibrated", and the intrinsics are then
estimated.  Where camera_info has a publisher but none has arrived, frames are dropped and counted.  Where nobody
publishes camera_info for two seconds of images, the camera counts as uncalibrated.  What was decided holds for the
session, so that two calibrations never meet in one map.
"""

from __future__ import annotations

import time

import numpy as np
from sensor_msgs.msg import CameraInfo

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.ros.following import FollowingSubscription
from da3_ros.sources.camera_info import Rectifier, from_message
from da3_ros.types import FloatArray, ImageArray

WAIT_S = 2.0


class Calibration:
    """The camera of this session."""

    def __init__(self, *, rectified: bool) -> None:
        self._rectified = rectified
        self._latest: CameraInfo | None = None
        self._used: CameraInfo | None = None
        self._first_image: float | None = None
        self._decided = False
        self._rectifier: Rectifier | None = None
        self.fault = ""  # why the latest camera_info cannot be used, one sentence
        self.camera: Pinhole | None = None
        self.remark = ""  # something to say once, such as "uncalibrated"

    def update(self, message: CameraInfo) -> None:
        """Remember the latest camera_info."""
        self._latest = message
        if self._decided and self._used is None:
            self.remark = "camera_info has arrived after the session began uncalibrated; call ~/reset to use it"
        elif self._decided and not _equal(message, self._used):
            self.remark = "camera_info changed; the session goes on with the old one until ~/reset is called"

    def release(self) -> None:
        """Decide anew with the next frame (new session)."""
        self._decided, self._first_image, self.remark, self.fault = False, None, "", ""

    def ready(self, infos: FollowingSubscription, width: int, height: int) -> bool:
        """Whether frames of this size may be used; decides the camera of the session when it can."""
        if self._decided:
            return True
        if self._first_image is None:
            self._first_image = time.monotonic()
        message = self._latest
        if message is not None:
            return self._decide(message, width, height)
        if not infos.offers and time.monotonic() - self._first_image > WAIT_S:
            self.camera, self._rectifier, self._used, self._decided = None, None, None, True
            self.remark = (
                f"nobody publishes {infos.topic}: the camera counts as uncalibrated, its focal length is estimated "
                "and lens distortion is not removed"
            )
        return self._decided

    def explain(self, infos: FollowingSubscription) -> str:
        """Why ``ready`` said no."""
        if self.fault:
            return self.fault
        if infos.offers:
            problem = infos.problem()
            return f"no camera_info: {problem}" if problem else f"{infos.topic} has a publisher but sends nothing"
        return f"no camera_info on {infos.topic}; publish it, or wait {WAIT_S:g} s to run uncalibrated"

    @property
    def distorted(self) -> bool:
        """Whether the lens distorts images, as far as is known."""
        return self._rectifier is not None

    def rectified(self, image: ImageArray) -> ImageArray:
        """Remove lens distortion from (H, W, 3) where there is any."""
        return image if self._rectifier is None else self._rectifier.image(image)

    def rectified_depth(self, depth: FloatArray) -> FloatArray:
        """Remove lens distortion from (H, W), where depth was given in the raw image."""
        return depth if self._rectifier is None else self._rectifier.depth(depth)

    def _decide(self, message: CameraInfo, width: int, height: int) -> bool:
        try:
            self.camera, self._rectifier = from_message(message, (width, height), rectified=self._rectified)
        except SourceError as error:
            self.fault = str(error)
            return False
        self._used, self._decided, self.fault = message, True, ""
        if self.camera is None:
            self.remark = "camera_info says uncalibrated (K[0] is 0): the focal length is estimated"
        return True


def announced_size(message: CameraInfo) -> tuple[int, int] | None:
    """(width, height) of the images that a camera_info speaks of; None where it does not say."""
    part = message.roi.width > 0 and message.roi.height > 0
    width, height = (message.roi.width, message.roi.height) if part else (message.width, message.height)
    size = width // max(message.binning_x, 1), height // max(message.binning_y, 1)
    return size if min(size) > 0 else None


def _equal(a: CameraInfo, b: CameraInfo) -> bool:
    fields = ("width", "height", "distortion_model", "binning_x", "binning_y", "roi")
    arrays = ("k", "d", "r", "p")
    return all(getattr(a, f) == getattr(b, f) for f in fields) and all(
        np.array_equal(getattr(a, f), getattr(b, f)) for f in arrays
    )

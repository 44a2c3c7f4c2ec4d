"""A pinhole camera and a rectifier from the plain values of ``sensor_msgs/CameraInfo``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, ImageArray

Numbers: TypeAlias = "Sequence[float] | NDArray[np.float64]"

_FISHEYE = ("equidistant", "fisheye", "kannala_brandt")
_RADTAN = ("plumb_bob", "rational_polynomial", "radial-tangential", "radtan", "")
_ABSURD = 1e7
_MAX_ZOOM = 1.5  # a wide lens keeps empty corners rather than lose more of the view than this


@dataclass(frozen=True, slots=True, eq=False)
class Rectifier:
    """Removes lens distortion; its maps are built once."""

    width: int
    height: int
    map_xy: NDArray[np.int16]  # (H, W, 2) whole source pixels
    map_fraction: NDArray[np.uint16]  # (H, W) sub-pixel part, OpenCV's fixed-point form
    map_nearest: NDArray[np.int16]  # (H, W, 2) nearest source pixels, for depth

    def image(self, image: ImageArray) -> ImageArray:
        """Rectify (H, W, 3) bilinearly; what the lens never saw is black."""
        self._check(image)
        out: ImageArray = cv2.remap(image, self.map_xy, self.map_fraction, cv2.INTER_LINEAR)
        return out

    def depth(self, depth: FloatArray) -> FloatArray:
        """Rectify (H, W) z-depth by the nearest pixel (never across an edge); what the lens never saw is NaN."""
        self._check(depth)
        out: FloatArray = cv2.remap(
            depth, self.map_nearest, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan")
        )
        return out

    def _check(self, image: NDArray[Any]) -> None:
        if image.shape[:2] != (self.height, self.width):
            raise SourceError(
                f"the camera was calibrated at {self.width}x{self.height} but the image is "
                f"{image.shape[1]}x{image.shape[0]}; record both at one size"
            )


def from_message(message: Any, size: tuple[int, int], *, rectified: bool) -> tuple[Pinhole | None, Rectifier | None]:
    """Camera and rectifier of a CameraInfo message, from rclpy or from a bag, for images of a size (width, height).

    K describes the whole sensor where a region of interest or binning was read out.

    Raises:
        SourceError: the message does not describe a camera for images of this size.
    """
    roi = message.roi
    binned = message.binning_x > 1 or message.binning_y > 1
    part = roi.width > 0 and roi.height > 0 and (roi.width, roi.height) != (message.width, message.height)
    if not binned and not part:
        return from_camera_info(
            message.width,
            message.height,
            message.k,
            message.d,
            message.distortion_model,
            message.r,
            message.p,
            image_size=size,
            rectified=rectified,
        )
    if np.any(message.d) and not rectified:
        raise SourceError(
            "camera_info has lens distortion together with binning or a region of interest; rectify the images "
            "(image_proc) and set node.image_rectified"
        )
    camera, _ = from_camera_info(message.width, message.height, message.k, P=message.p, rectified=rectified)
    if camera is None:
        return None, None
    if part:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    return camera.resized(*size), None


def from_camera_info(
    width: int,
    height: int,
    K: Numbers,
    D: Numbers = (),
    distortion_model: str = "plumb_bob",
    R: Numbers | None = None,
    P: Numbers | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    rectified: bool = False,
) -> tuple[Pinhole | None, Rectifier | None]:
    """Camera of the rectified image, and what rectifies it.

    Without distortion the image is already that of a pinhole with K and is left alone.  With distortion, R and P say
    what the rectified camera looks like, as for image_proc; where P is empty it is K, zoomed in as far as
    needed to leave no empty border.

    Args:
        width: of the calibrated image, pixels; 0 = that of the image.
        height: likewise.
        K: 9 values, row-major; K[0] == 0 means uncalibrated.
        D: distortion coefficients of the model; may be empty.
        distortion_model: plumb_bob, rational_polynomial, equidistant or fisheye.
        R: 9 values, rotation from the camera to its rectified frame; None, empty or zeros = none.
        P: 12 values, the rectified projection; None, empty or P[0] == 0 = not given.
        image_size: (width, height) of the images where it differs from the calibration's; K is scaled.
        rectified: the images are rectified already (their topic is ``image_rect``): P describes them.

    Returns:
        (camera, rectifier): (None, None) for an uncalibrated camera; no rectifier where none is needed.

    Raises:
        SourceError: the values do not describe a camera, or the aspect of the image is not that of the calibration.
    """
    K_values, D_values = np.asarray(K, float).ravel(), np.asarray(D, float).ravel()
    if K_values.size != 9:
        raise SourceError(f"camera_info has {K_values.size} values in K instead of 9; fix the calibration")
    if K_values[0] == 0:
        return None, None
    width, height = _size(width, height, image_size)
    P_values = np.zeros(12) if P is None or len(P) != 12 else np.asarray(P, float)
    R_values = np.eye(3) if R is None or len(R) != 9 else np.asarray(R, float).reshape(3, 3)
    R_values = R_values if R_values.any() else np.eye(3)
    K_matrix, P_matrix = K_values.reshape(3, 3), P_values.reshape(3, 4)[:, :3]
    if not all((np.abs(v) < _ABSURD).all() for v in (K_matrix, D_values, P_matrix, R_values)):
        raise SourceError("camera_info holds values that are not finite or absurdly large; fix the calibration")
    if rectified or not D_values.any():
        matrix = P_matrix if rectified and P_matrix[0, 0] > 0 else K_matrix
        return _scaled(_pinhole(matrix, width, height), image_size), None
    target = image_size or (width, height)
    scale = np.diag([target[0] / width, target[1] / height, 1.0])
    scale[:2, 2] = 0.5 * (np.diag(scale)[:2] - 1)  # pixel centres lie at integers
    K_image = scale @ _pinhole(K_matrix, width, height).matrix
    lens = _Lens(K_image, D_values, _is_fisheye(distortion_model, D_values.size), target)
    new_K = scale @ P_matrix if P_matrix[0, 0] > 0 else lens.filled()
    camera = _pinhole(new_K, *target)
    return camera, lens.rectifier(R_values, camera)


@dataclass(frozen=True, slots=True, eq=False)
class _Lens:
    """A distorted camera in OpenCV's terms."""

    K: Array
    D: Array
    fisheye: bool
    size: tuple[int, int]

    def filled(self) -> Array:
        """K zoomed about its centre until every pixel of the rectified image is seen by the lens; at most 1.5 times."""
        w, h = self.size
        steps = np.linspace(0, 1, 33)
        left, top = np.stack([0 * steps, steps * (h - 1)], 1), np.stack([steps * (w - 1), 0 * steps], 1)
        right, bottom = left + np.array([w - 1, 0]), top + np.array([0, h - 1])
        fx, fy, cx, cy = self.K[0, 0], self.K[1, 1], self.K[0, 2], self.K[1, 2]
        zooms = [
            cx / -(fx * self._undistorted(left)[:, 0].max()),
            cy / -(fy * self._undistorted(top)[:, 1].max()),
            (w - 1 - cx) / (fx * self._undistorted(right)[:, 0].min()),
            (h - 1 - cy) / (fy * self._undistorted(bottom)[:, 1].min()),
        ]
        zoom = float(np.clip(np.nan_to_num(max(zooms), nan=1.0), 1.0, _MAX_ZOOM))
        return np.array([[zoom * fx, 0, cx], [0, zoom * fy, cy], [0, 0, 1.0]])

    def _undistorted(self, pixels: Array) -> Array:
        """Normalised coordinates (N, 2) of distorted pixels (N, 2)."""
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        return np.asarray(undistort(pixels[:, None], self.K, self.D), float)[:, 0]

    def rectifier(self, R: Array, camera: Pinhole) -> Rectifier:
        make = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        try:
            x, y = make(self.K, self.D, R, camera.matrix, self.size, cv2.CV_32FC1)
        except cv2.error as error:
            raise SourceError("camera_info holds distortion values that OpenCV refuses; fix the calibration") from error
        whole, fraction = cv2.convertMaps(x, y, cv2.CV_16SC2)
        nearest = np.stack([np.rint(x), np.rint(y)], axis=-1).clip(-32768, 32767).astype(np.int16)
        return Rectifier(*self.size, whole, fraction, nearest)


def _is_fisheye(model: str, coefficients: int) -> bool:
    if model in _FISHEYE:
        if coefficients != 4:
            raise SourceError(f"distortion '{model}' needs 4 values in D, not {coefficients}; fix the calibration")
        return True
    if model not in _RADTAN:
        raise SourceError(
            f"distortion model '{model}' is not known; use plumb_bob, rational_polynomial, equidistant or fisheye, "
            "or record the rectified image"
        )
    if coefficients not in (4, 5, 8, 12, 14):
        raise SourceError(
            f"distortion model '{model}' needs 4, 5, 8, 12 or 14 values in D, not {coefficients}; fix the calibration"
        )
    return False


def _size(width: int, height: int, image_size: tuple[int, int] | None) -> tuple[int, int]:
    if width < 1 or height < 1:
        if image_size is None:
            raise SourceError("camera_info has no width and height; fix the calibration")
        return image_size
    if image_size is not None and abs(width * image_size[1] - height * image_size[0]) > max(image_size):
        raise SourceError(
            f"camera_info is for {width}x{height} but the images are {image_size[0]}x{image_size[1]}; "
            "use the camera_info of these images"
        )
    return width, height


def _pinhole(K: Array, width: int, height: int) -> Pinhole:
    try:
        return Pinhole.from_matrix(K, width, height)
    except ValueError as error:
        raise SourceError(f"camera_info does not describe a camera ({error}); fix the calibration") from error


def _scaled(camera: Pinhole, image_size: tuple[int, int] | None) -> Pinhole:
    return camera if image_size is None or image_size == camera.size else camera.resized(*image_size)

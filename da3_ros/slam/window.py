"""Which views are predicted together, and what their cameras are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from da3_ros.config import SeamConfig, WindowConfig
from da3_ros.errors import PredictorError
from da3_ros.geometry import rays as ray_geometry
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.keyframe import Depth, Keyframe
from da3_ros.types import Frame, Prediction, Window


def compose(
    number: int, placed: Sequence[Keyframe], new: Sequence[Frame], window: WindowConfig, seam: SeamConfig
) -> Window:
    """The last placed keyframes, oldest first, then the new frames.

    Depth is asked for the new views and for the newest of the shared keyframes, over which the seam measures scale.
    """
    shared = [k.frame for k in placed[-window.overlap :] if k.frame is not None]
    shared = shared[-max(window.size - len(new), 0) :] if len(new) < window.size else []
    frames = (*shared, *new)
    first = max(len(shared) - seam.depth_views, 0)
    return Window(number, frames, tuple(range(first, len(frames))))


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One view of a predicted window."""

    T_win_cam: Array  # (4, 4) window units; NaN where its rays form no camera
    camera: Pinhole  # the predictor's where the frame is not calibrated, at the size of the depth
    depth: Depth | None  # window units, where it was asked for

    @property
    def posed(self) -> bool:
        """The prediction says where it is."""
        return bool(np.isfinite(self.T_win_cam).all())

    def depth_scaled(self, log_scale: float) -> Depth:
        """Depth in chain units; new views always have one."""
        assert self.depth is not None, "depth of new views is always asked for"
        return self.depth.scaled(log_scale)


def unpack(
    prediction: Prediction, given: Sequence[Pinhole | None], believed: Sequence[Pinhole | None], new: int = 1
) -> list[View]:
    """Split a prediction into views, with cameras from its poses or in closed form from its rays.

    Args:
        prediction: of one window.
        given: per view the calibrated camera, or None.
        believed: the same, with what earlier windows taught about uncalibrated cameras; used for the depth.
        new: how many of the last views must have depth.

    Raises:
        PredictorError: the prediction's shapes do not fit, it is not finite, or its rays do not form a camera in any of
            the views before the new ones (in any view, where there are none).
    """
    frames = prediction.window.frames
    count, height, width = prediction.depth.shape
    if count != len(frames) or prediction.confidence.shape != prediction.depth.shape:
        raise PredictorError("the prediction's shapes do not fit its window")
    T_win_cam, seen, problem = _cameras(prediction, given, (width, height))
    if T_win_cam.shape != (count, 4, 4):
        raise PredictorError("the prediction's shapes do not fit its window")
    views = []
    for i in range(count):
        camera = (believed[i] or seen[i]).resized(width, height)
        asked = i in prediction.window.depth_views
        depth = Depth.first(prediction.depth[i], prediction.confidence[i], camera) if asked else None
        views.append(View(T_win_cam[i], seen[i], depth))
    if not any(view.posed for view in views[: -max(new, 1)] or views):
        raise PredictorError(problem or "the predicted poses are not finite")
    if any(view.depth is None or not view.depth.any() for view in views[-max(new, 1) :]):
        raise PredictorError("the prediction has no valid depth for the newest view")
    return views


def _cameras(
    prediction: Prediction, given: Sequence[Pinhole | None], size: tuple[int, int]
) -> tuple[Array, list[Pinhole], str]:
    """Poses (N, 4, 4), NaN where there is none, cameras, and why there is no pose somewhere."""
    if prediction.T_window_cam is not None:
        found = [g or p for g, p in zip(given, prediction.cameras or given, strict=True)]
        if any(camera is None for camera in found):
            raise PredictorError("the prediction has poses but no intrinsics, and the camera is not calibrated")
        return prediction.T_window_cam, [camera.resized(*size) for camera in found if camera is not None], ""
    if prediction.rays is None:
        raise PredictorError("the prediction has neither rays nor poses")
    rays, weights = prediction.rays.rays, prediction.rays.confidence
    if len(rays) != len(given) or weights.shape != rays.shape[:3]:
        raise PredictorError("the prediction's shapes do not fit its window")
    unknown = [i for i, known in enumerate(given) if known is None]
    fits: dict[int, ray_geometry.RayCamera] = {}
    problem = ""
    try:
        if unknown:  # of one camera, since one camera streams
            fits = dict(
                zip(unknown, ray_geometry.cameras_from_rays(rays[unknown], weights[unknown], size), strict=True)
            )
    except ValueError as error:
        raise PredictorError(f"the predicted rays form no camera: {error}") from error
    poses, cameras = np.full((len(given), 4, 4), np.nan), []
    for i, known in enumerate(given):
        if known is not None:
            try:
                fits[i] = ray_geometry.camera_from_rays(rays[i], weights[i], size, known)
            except ValueError as error:
                problem = f"the predicted rays form no camera: {error}"
                cameras.append(known.resized(*size))
                continue
        poses[i] = fits[i].T_frame_cam
        cameras.append(fits[i].camera)
    return poses, cameras, problem

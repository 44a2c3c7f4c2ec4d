"""Some images at once, without SLAM: everything that the network says of them, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.engine.fit import require_fit
from da3_ros.engine.loader import Loader
from da3_ros.geometry import rays as ray_geometry
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.model import camera_code, nested
from da3_ros.model import confidence as confidences
from da3_ros.model.preprocess import LONGEST, Preprocessor
from da3_ros.types import FloatArray, ImageArray

WINDOW_UNITS, METRES, CANONICAL = "window units", "metres", "metres times 300 over the focal length"


@dataclass(frozen=True, slots=True, eq=False)
class ImagePrediction:
    """What a model says of N images; what it does not know is None.

    The world is the frame of the reference view.
    """

    depth: FloatArray  # (N, H, W) z-depth in ``unit``, NaN where invalid
    unit: str
    reference: int  # view
    confidence: FloatArray | None = None  # (N, H, W) in [0, 1), 0 = invalid
    depth_confidence_raw: FloatArray | None = None  # (N, H, W), 1 and above
    rays: FloatArray | None = None  # (N, h, w, 6) direction (z = 1 in its camera) then origin
    ray_confidence_raw: FloatArray | None = None  # (N, h, w), 1 and above
    T_world_cam: Array | None = None  # (N, 4, 4) OpenCV axes, NaN where there is no camera
    K: Array | None = None  # (N, 3, 3) in pixels of the depth, NaN where there is no camera
    sky: NDArray[np.bool_] | None = None  # (N, H, W)
    notes: tuple[str, ...] = ()  # sentences about what is missing

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is there, by name, for a file."""
        names = (
            "depth", "confidence", "depth_confidence_raw", "rays", "ray_confidence_raw", "T_world_cam", "K", "sky",
        )  # fmt: skip
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**found, "reference": np.array(self.reference), "unit": np.array(self.unit)}


def predict_images(
    loader: Loader,
    images: Sequence[ImageArray],
    *,
    cameras: Sequence[Pinhole | None] | None = None,
    size: tuple[int, int] | None = None,
    reference: str = "saddle_balanced",
    pose: str = "rays",
) -> ImagePrediction:
    """Predict images of one size as one window.

    Args:
        loader: of any model.
        images: (H, W, 3) RGB each.
        cameras: per image its calibration, or None.
        size: (width, height) that the network sees; default as the released code fits them (longest side 504).
        reference: first, middle or saddle_balanced.
        pose: cameras from rays, or from the camera head.

    Raises:
        PredictorError: the images do not fit together or into memory, or the runtime failed.
        Da3Error: the model cannot be opened.
    """
    part = loader.folder.parts[0]
    preprocessor = Preprocessor(size, longest=part.preset.longest or LONGEST)
    prepared = preprocessor.window(images, cameras)
    height, width = prepared.images.shape[2:]
    require_fit(part.preset, (width, height), len(images) if part.preset.any_view else 1, loader.choice)
    if not part.preset.any_view:
        return _single_views(loader, prepared.images, prepared.cameras)
    found = _window(loader, prepared.images, prepared.cameras, reference, pose)
    return found if len(loader.folder.parts) == 1 else _in_metres(loader, found, prepared.images)


def _window(
    loader: Loader, images: FloatArray, known: Sequence[Pinhole | None], reference: str, pose: str
) -> ImagePrediction:
    count, _, height, width = images.shape
    views = range(count)
    staged = loader.window((width, height), count)
    try:
        out = staged.predict(
            list(views), [image[None] for image in images], reference=reference, depth_views=views, ray_views=views
        )
    finally:
        staged.close()
    depth, raw = (np.stack([out.depth[i][k] for i in views]) for k in (0, 1))
    rays, ray_raw = (np.stack([out.rays[i][k] for i in views]) for k in (0, 1))
    usable = np.isfinite(depth) & (depth > 0) & np.isfinite(raw)
    if pose == "rays":
        T, K, notes = _cameras_from_rays(rays, ray_raw, (width, height), known)
    else:
        T, K, notes = _cameras_from_head(out.cameras, (width, height), known)
    return ImagePrediction(
        depth=np.where(usable, depth, np.nan).astype(np.float32),
        unit=WINDOW_UNITS,
        reference=out.reference,
        confidence=np.where(usable, confidences.of_depth(raw), 0).astype(np.float32),
        depth_confidence_raw=raw,
        rays=rays,
        ray_confidence_raw=ray_raw,
        T_world_cam=T,
        K=K,
        notes=notes,
    )


def _cameras_from_rays(
    rays: FloatArray, raw: FloatArray, size: tuple[int, int], known: Sequence[Pinhole | None]
) -> tuple[Array, Array, tuple[str, ...]]:
    T, K, notes = np.full((len(rays), 4, 4), np.nan), np.full((len(rays), 3, 3), np.nan), []
    for i, (view, weights, camera) in enumerate(zip(rays, confidences.of_rays(raw), known, strict=True)):
        try:
            fit = ray_geometry.camera_from_rays(view, weights, size, camera)
        except ValueError as error:
            notes.append(f"image {i} has no camera: {error}")
            continue
        T[i], K[i] = fit.T_frame_cam, fit.camera.matrix
    return T, K, tuple(notes)


def _cameras_from_head(
    codes: FloatArray, size: tuple[int, int], known: Sequence[Pinhole | None]
) -> tuple[Array, Array, tuple[str, ...]]:
    found = camera_code.decode(codes, *size)
    K = found.K.copy()
    for i, camera in enumerate(known):
        if camera is not None:
            K[i] = camera.matrix
    notes = [f"image {i} has no camera: the camera head gives none" for i in np.flatnonzero(~found.valid)]
    return found.T_window_cam, K, tuple(notes)


def _single_views(loader: Loader, images: FloatArray, known: Sequence[Pinhole | None]) -> ImagePrediction:
    depth, raw_sky = _look(loader, images)
    sky, unit, K = nested.is_sky(raw_sky), CANONICAL, None
    if all(camera is not None for camera in known):
        K = np.stack([camera.matrix for camera in known if camera is not None])
        if "metric" in loader.folder.name:
            depth, unit = nested.metres(depth, K), METRES
    if "metric" not in loader.folder.name:
        unit = WINDOW_UNITS
    depth = np.where(np.isfinite(depth) & (depth > 0) & ~sky, depth, np.nan).astype(np.float32)
    notes = () if unit != CANONICAL else ("metres need the focal length; give --camera",)
    return ImagePrediction(depth, unit, 0, K=K, sky=sky, notes=notes)


def _in_metres(loader: Loader, found: ImagePrediction, images: FloatArray) -> ImagePrediction:
    """The nested model: the window scaled by its metric network, the sky taken out."""
    assert found.K is not None
    assert found.T_world_cam is not None
    assert found.depth_confidence_raw is not None
    assert found.confidence is not None
    assert found.rays is not None
    raw, raw_sky = _look(loader, images)
    coupled = nested.couple(found.depth, found.depth_confidence_raw, nested.metres(raw, found.K), raw_sky)
    scale = 1.0 if coupled.scale is None else coupled.scale
    T, rays = found.T_world_cam.copy(), found.rays.copy()
    T[:, :3, 3] *= scale
    rays[..., 3:] *= scale
    return ImagePrediction(
        depth=np.where(coupled.sky, np.nan, coupled.depth).astype(np.float32),
        unit=WINDOW_UNITS if coupled.scale is None else METRES,
        reference=found.reference,
        confidence=np.where(coupled.sky, 0, found.confidence).astype(np.float32),
        depth_confidence_raw=found.depth_confidence_raw,
        rays=rays,
        ray_confidence_raw=found.ray_confidence_raw,
        T_world_cam=T,
        K=found.K,
        sky=coupled.sky,
        notes=(*found.notes, *([coupled.reason] if coupled.reason else [])),
    )


def _look(loader: Loader, images: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Depth (N, H, W) before scaling, and sky, of a network that looks at one view at a time."""
    looker = loader.looker((images.shape[3], images.shape[2]))
    try:
        looks = [looker.look(image[None]) for image in images]
    finally:
        looker.close()
    return np.stack([depth for depth, _ in looks]), np.stack([sky for _, sky in looks])

"""Metres for a window: its scale by a network that sees metres one view at a time.

That network's output times the focal length in pixels over 300 is metres, as the released code of Depth Anything 3 has
it.  The robust mean of the log-ratio to the window's depth is the window's scale: a few pixels that either network
gets wrong have no say in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from da3_ros.config import MetricConfig
from da3_ros.engine.loader import Loader
from da3_ros.engine.look import Looker
from da3_ros.geometry import robust
from da3_ros.geometry.camera import Pinhole
from da3_ros.model.nested import is_sky, metres
from da3_ros.types import FloatArray, Prediction, Rays

_MIN_CONFIDENCE = 0.3
_CELL = 8  # px: errors of depth are correlated over patches of about this size
_FEWEST = 100  # pixels


class MetricScale:
    """Looks at a view now and then and scales the window it belongs to.  Owned by one thread."""

    def __init__(self, loader: Loader, config: MetricConfig) -> None:
        """Use the metric network of a model (of the nested model: its second)."""
        self._loader, self._config = loader, config
        self._looker: Looker | None = None
        self._looked_ns: int | None = None

    def prepare(self, size: tuple[int, int]) -> None:
        """Open the network at an image size (width, height).

        Raises:
            Da3Error: it cannot be opened.
        """
        self.close()
        self._looker = self._loader.looker(size)

    def applied(self, prediction: Prediction, image: Callable[[], FloatArray]) -> Prediction:
        """The prediction in metres where its newest view was looked at and gave a scale; else as it is.

        Args:
            prediction: of a window, in its own units.
            image: gives the newest view as the network takes it, (1, 3, H, W).

        Raises:
            PredictorError: the network failed.
        """
        newest = prediction.window.frames[-1]
        since_ns = None if self._looked_ns is None else newest.stamp_ns - self._looked_ns
        if newest.camera is None or (since_ns is not None and 0 <= since_ns < self._config.interval_s * 1e9):
            return prediction  # metres need the focal length
        assert self._looker is not None, "prepare comes first"
        self._looked_ns = newest.stamp_ns
        raw, sky = self._looker.look(image())
        return scaled_to_metres(prediction, raw, sky, newest.camera, self._config.sigma)

    def close(self) -> None:
        """Free the network."""
        if self._looker is not None:
            self._looker.close()
            self._looker = None


def scaled_to_metres(
    prediction: Prediction, raw: FloatArray, sky: FloatArray, camera: Pinhole, sigma: float
) -> Prediction:
    """Scale a window by what the metric network says of its newest view.

    Args:
        prediction: in window units.
        raw: (h, w) output of the metric network for the newest view, at the size of the depth.
        sky: (h, w) output of its sky head; that part of the depth becomes NaN.
        camera: of the newest view, at any size.
        sigma: 1-sigma of the log scale, whatever the pixels say.

    Returns:
        The prediction in metres with ``scale_sigma``; in its own units where too few pixels can be compared.
    """
    height, width = raw.shape
    K = camera.resized(width, height).matrix
    metric, masked = metres(raw[None], K[None])[0], is_sky(sky)
    depth, confidence = prediction.depth.copy(), prediction.confidence.copy()
    depth[-1][masked], confidence[-1][masked] = np.nan, 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(metric) - np.log(depth[-1])
    used = np.isfinite(ratio) & (confidence[-1] >= _MIN_CONFIDENCE)
    count = int(used.sum())
    if count < _FEWEST:
        return replace(prediction, depth=depth, confidence=confidence)
    log_scale, spread = robust.tukey_location(ratio[used].astype(float), confidence[-1][used].astype(float))
    scale = np.float32(np.exp(log_scale))
    rays, poses = prediction.rays, prediction.T_window_cam
    if rays is not None:
        maps = rays.rays.copy()
        maps[..., 3:] *= scale
        rays = Rays(maps, rays.confidence)
    if poses is not None:
        poses = poses.copy()
        poses[:, :3, 3] *= float(scale)
    return replace(
        prediction,
        depth=depth * scale,
        confidence=confidence,
        rays=rays,
        T_window_cam=poses,
        scale_sigma=float(np.hypot(sigma, spread / np.sqrt(count / _CELL**2))),
    )

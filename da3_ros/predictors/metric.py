"""Metres for a window: its scale by a network that sees metres one view at a time.

That network's output times the focal length in pixels over 300 is metres, as the released code of Depth Anything 3 has
it.  The robust mean of the log-ratio to the window's depth is the window's scale: a few pixels that either network
gets wrong have no say in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

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
_SKIES = 64  # views whose sky is remembered: more than a window ever holds


class MetricScale:
    """Looks at a view now and then and scales the window it belongs to.  Owned by one thread."""

    def __init__(self, loader: Loader, config: MetricConfig) -> None:
        """Use the metric network of a model (of the nested model: its second)."""
        self._loader, self._config = loader, config
        self._looker: Looker | None = None
        self._looked_ns: int | None = None
        self._last: tuple[Hashable, FloatArray, FloatArray] | None = None  # view, what it looked like
        self._skies: OrderedDict[Hashable, NDArray[np.bool_]] = OrderedDict()  # of views that were looked at

    def prepare(self, size: tuple[int, int]) -> None:
        """Open the network at an image size (width, height).

        Raises:
            Da3Error: it cannot be opened.
        """
        self.close()
        self._looker = self._loader.looker(size)

    def applied(self, prediction: Prediction, keys: Sequence[Hashable], image: Callable[[], FloatArray]) -> Prediction:
        """The prediction in metres where its newest view was looked at and gave a scale; else in its units.

        A view that was looked at claims its metres again when it comes again as the newest, as in a second look at a
        scale break, and has no depth in its sky in any later window.

        Args:
            prediction: of a window, in its own units.
            keys: per view what tells it apart.
            image: gives the newest view as the network takes it, (1, 3, H, W).

        Raises:
            PredictorError: the network failed.
        """
        newest = prediction.window.frames[-1]
        if newest.camera is None:  # metres need the focal length
            return self._without_sky(prediction, keys)
        if self._last is None or self._last[0] != keys[-1]:
            since_ns = None if self._looked_ns is None else newest.stamp_ns - self._looked_ns
            if since_ns is not None and 0 <= since_ns < self._config.interval_s * 1e9:
                return self._without_sky(prediction, keys)
            assert self._looker is not None, "prepare comes first"
            self._looked_ns = newest.stamp_ns
            self._last = (keys[-1], *self._looker.look(image()))
            self._skies[keys[-1]] = is_sky(self._last[2])
            while len(self._skies) > _SKIES:
                self._skies.popitem(last=False)
        _, raw, sky = self._last
        return scaled_to_metres(self._without_sky(prediction, keys), raw, sky, newest.camera, self._config.sigma)

    def close(self) -> None:
        """Free the network."""
        if self._looker is not None:
            self._looker.close()
            self._looker = None
        self._last = None  # of another size
        self._skies.clear()

    def _without_sky(self, prediction: Prediction, keys: Sequence[Hashable]) -> Prediction:
        known = [(i, self._skies[key]) for i, key in enumerate(keys) if key in self._skies]
        if not any(sky.any() for _, sky in known):
            return prediction
        depth, confidence = prediction.depth.copy(), prediction.confidence.copy()
        for i, sky in known:
            depth[i][sky], confidence[i][sky] = np.nan, 0
        return replace(prediction, depth=depth, confidence=confidence)


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

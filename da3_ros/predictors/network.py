"""Depth Anything 3 as a predictor: pixels in; depth, confidence and rays or cameras out."""

from __future__ import annotations

import zlib
from collections.abc import Hashable

import numpy as np

from da3_ros.config import Config
from da3_ros.engine.fit import require_fit
from da3_ros.engine.gpu import find_gpu
from da3_ros.engine.loader import Loader, open_loader, silent
from da3_ros.engine.staged import StagedNetwork, StagedOutput
from da3_ros.errors import ModelError, PredictorError
from da3_ros.model import camera_code
from da3_ros.model import confidence as confidences
from da3_ros.model.preprocess import Preprocessor, network_size
from da3_ros.predictors.metric import MetricScale
from da3_ros.types import Engine, Frame, Prediction, Rays, Tell, Window

_FINGERPRINT = 16  # every so many pixels of an image go into its key


class NetworkPredictor:
    """One network on one runtime.  Owned by one thread."""

    needs_truth = False

    def __init__(self, name: str, config: Config, tell: Tell = silent) -> None:
        """Find the model (or download it) and choose how to run it; nothing is loaded before a size is known.

        Raises:
            ModelError: there is no such model, or it gives no poses.
            MissingDependencyError: what was asked for cannot run here.
        """
        self._config, self._tell = config, tell
        self._loader = self._open(name)
        if not self._loader.folder.parts[0].preset.any_view:
            raise ModelError(
                f"{self._loader.folder.name} looks at one view at a time and gives no poses; use it as metric.model, "
                "with a predictor such as da3-small"
            )
        self._metric = self._open_metric()
        self._staged: StagedNetwork | None = None
        self._preprocessor = Preprocessor()
        self._frame_size = self._size = (0, 0)
        self.name = f"{self._loader.folder.name} {self._loader.choice.name}"

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        folder, choice = self._loader.folder, self._loader.choice
        gpu = find_gpu() if choice.device == "cuda" else None
        return Engine(
            model=folder.name,
            licence=folder.licence,
            runtime=choice.runtime,
            device=choice.device,
            gpu=gpu.name if gpu is not None else "",
            precision=choice.precision,
            size=self._size,
            views=self._config.window.size,
        )

    def prepare(self, width: int, height: int) -> None:
        """Open the network at the size that images of this size are given; see the base protocol."""
        if (width, height) == self._frame_size and self._staged is not None:
            return
        network, window = self._config.network, self._config.window
        on_gpu, preset = self._loader.choice.device == "cuda", self._loader.folder.parts[0].preset
        size = network_size(network.size, width, height, on_gpu=on_gpu, longest=preset.longest)
        if self._staged is not None:
            self._staged.close()
            # Forgotten before anything that can fail or be given up: what is left must not pass for what is wanted.
            self._staged, self._frame_size = None, (0, 0)
        require_fit(preset, size, window.size, self._loader.choice)
        self._staged = self._loader.window(size, window.size)
        if self._metric is not None:
            self._metric.prepare(size)
        self._preprocessor, self._size, self._frame_size = Preprocessor(size), size, (width, height)

    def predict(self, window: Window) -> Prediction:
        """Predict one window; see the base protocol."""
        height, width = window.frames[0].image.shape[:2]
        if any(frame.image.shape[:2] != (height, width) for frame in window.frames):
            raise PredictorError("the images of a window must have one size; start a new session when it changes")
        self.prepare(width, height)
        assert self._staged is not None
        keys = [_key(frame) for frame in window.frames]
        staged = self._staged
        images = [
            None if staged.knows(key) else self._preprocessor.frame(frame.image)[None]
            for key, frame in zip(keys, window.frames, strict=True)
        ]
        rays = self._config.network.pose == "rays"
        views = range(len(keys))
        out = staged.predict(
            keys,
            images,
            reference=self._config.network.reference,
            depth_views=window.depth_views,
            ray_views=views if rays else (),
        )
        prediction = self._prediction(window, out)
        if self._metric is None:
            return prediction
        newest = window.frames[-1]
        return self._metric.applied(prediction, keys, lambda: self._preprocessor.frame(newest.image)[None])

    def close(self) -> None:
        """Free the networks."""
        if self._staged is not None:
            self._staged.close()
            self._staged = None
        if self._metric is not None:
            self._metric.close()

    def _prediction(self, window: Window, out: StagedOutput) -> Prediction:
        width, height = self._size
        depth = np.full((len(window.frames), height, width), np.nan, np.float32)
        confidence = np.zeros_like(depth)
        asked = list(out.depth)
        if asked:
            found, raw = (np.stack([out.depth[view][k] for view in asked]) for k in (0, 1))
            usable = np.isfinite(found) & (found > 0) & np.isfinite(raw)
            depth[asked] = np.where(usable, found, np.nan)
            confidence[asked] = np.where(usable, confidences.of_depth(raw), 0)
        tokens = out.descriptors[:, None, :]
        if self._config.network.pose == "head":
            cameras = camera_code.decode(out.cameras, width, height)
            pinholes = cameras.pinholes()
            known = tuple(camera for camera in pinholes if camera is not None)
            return Prediction(
                window,
                depth,
                confidence,
                T_window_cam=cameras.T_window_cam,
                cameras=known if len(known) == len(pinholes) else None,
                tokens=tokens,
            )
        maps, raw = (np.stack([out.rays[i][k] for i in range(len(window.frames))]) for k in (0, 1))
        rays = Rays(maps, np.where(np.isfinite(maps).all(axis=-1), confidences.of_rays(raw), 0).astype(np.float32))
        return Prediction(window, depth, confidence, rays=rays, tokens=tokens)

    def _open(self, name: str) -> Loader:
        network = self._config.network
        return open_loader(
            name,
            network.runtime,
            network.device,
            network.precision,
            build=network.build,
            threads=network.threads,
            cache_bytes=network.cache_mb * 1_000_000,
            tell=self._tell,
        )

    def _open_metric(self) -> MetricScale | None:
        name = self._config.metric.model
        if name:
            return MetricScale(self._open(name), self._config.metric)
        if len(self._loader.folder.parts) > 1:  # the nested model
            return MetricScale(self._loader, self._config.metric)
        return None


def _key(frame: Frame) -> Hashable:
    """What tells frames apart: stamps and numbers may come again after a reset or with another recording."""
    pixels = np.ascontiguousarray(frame.image[::_FINGERPRINT, ::_FINGERPRINT])
    return frame.id, frame.stamp_ns, zlib.crc32(pixels)

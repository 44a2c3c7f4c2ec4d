"""What a lens and a sensor do to a picture: vignetting, blur, exposure and white balance that drift, noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.camera import Pinhole

FloatArray = NDArray[np.float32]

_READ_NOISE = 1.0  # 1-sigma in grey levels in the dark
_SHOT_NOISE = 0.028  # variance in grey levels per grey level
_POOL = 1 << 18  # spare noise samples: each frame starts at another place of the pool


class Sensor:
    """Turns ideal pictures into frames; what it does depends on seed and frame time only."""

    def __init__(self, camera: Pinhole, rng: np.random.Generator, *, noise: float, light: float, lens: float) -> None:
        """Draw the sensor's character; each factor scales one effect, 0 switches it off."""
        self._seed = int(rng.integers(2**31))
        self._noise, self._light, self._lens = noise, light, lens
        x = (np.arange(camera.width) - camera.cx) / camera.width
        y = (np.arange(camera.height) - camera.cy) / camera.width
        falloff = rng.uniform(0.35, 0.65) * lens
        self._vignette = (1 / (1 + falloff * (x[None, :] ** 2 + y[:, None] ** 2)) ** 2).astype(np.float32)[..., None]
        self._blur = float(rng.uniform(0.45, 0.6)) * lens * camera.width / 640
        self._periods = rng.uniform(4.0, 17.0, 3)
        self._phases = rng.uniform(0, 2 * np.pi, 3)
        self._tint = 1 + light * rng.normal(0, 0.015, 3)
        if noise:
            self._pool = rng.standard_normal(camera.width * camera.height * 3 + _POOL, dtype=np.float32)
            level = np.arange(256, dtype=np.float32)
            self._sigma = noise * np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * level)

    def expose(self, picture: FloatArray, index: int, seconds: float) -> NDArray[np.uint8]:
        """Return frame ``index``, taken ``seconds`` after the first, of a picture (H, W, 3) in grey levels 0..255."""
        waves = np.sin(2 * np.pi * seconds / self._periods + self._phases)
        gain = (1 + 0.035 * self._light * waves.sum()) * (self._tint + 0.006 * self._light * waves)
        picture = picture * gain.astype(np.float32)
        picture *= self._vignette
        if self._blur > 0.15:
            picture = cv2.GaussianBlur(picture, (0, 0), self._blur, borderType=cv2.BORDER_REPLICATE)
        if self._noise:
            start = int(np.random.default_rng([self._seed, index]).integers(_POOL))
            sigma = self._sigma[np.clip(picture, 0, 255).astype(np.uint8)]
            sigma *= self._pool[start : start + picture.size].reshape(picture.shape)
            picture += sigma
        picture += np.float32(0.5)
        return np.clip(picture, 0, 255, out=picture).astype(np.uint8)

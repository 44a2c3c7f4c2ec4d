"""What a window's images go through before the network sees them: zoom, mirror, colour, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from da3_ros.geometry.camera import Pinhole
from da3_ros.training.matches import View
from da3_ros.types import ImageArray

_OFF_CENTRE = 0.02  # largest shift of the cut from the middle, share of the width
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of the images of a window that is used, and at which size."""

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]  # width and height that it is resized to
    mirrored: bool

    def image(self, image: ImageArray) -> ImageArray:
        """(H, W, 3) -> (size[1], size[0], 3)."""
        part = image[self.top : self.top + self.height, self.left : self.left + self.width]
        if self.mirrored:
            part = part[:, ::-1]
        shrinks = self.size[0] <= self.width
        return cv2.resize(part, self.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def view(self, view: View) -> View:
        """The truth about a view after the same; mirroring turns the whole world into its mirror image."""
        depth = view.depth[self.top : self.top + self.height, self.left : self.left + self.width]
        camera, T = view.camera.cropped(self.left, self.top, self.width, self.height), view.T_world_cam
        if self.mirrored:
            depth, T = depth[:, ::-1], _MIRROR @ T @ _MIRROR
            camera = replace(camera, cx=camera.width - 1 - camera.cx)
        depth = cv2.resize(depth, self.size, interpolation=cv2.INTER_NEAREST_EXACT)
        return View(depth, T, camera.resized(*self.size))


def drawn_cut(rng: np.random.Generator, camera: Pinhole, size: tuple[int, int], zoom: float) -> Cut:
    """One cut for all views of a window, as they are of one camera."""
    factor = rng.uniform(1 / zoom, 1.0)
    shift = rng.uniform(-_OFF_CENTRE, _OFF_CENTRE, 2) * camera.width
    width, height = round(camera.width * factor), round(camera.height * factor)
    left = int(np.clip((camera.width - width) / 2 + shift[0], 0, camera.width - width))
    top = int(np.clip((camera.height - height) / 2 + shift[1], 0, camera.height - height))
    return Cut(left, top, width, height, size, bool(rng.random() < 0.5))


def whole(camera: Pinhole, size: tuple[int, int]) -> Cut:
    """The whole image, resized."""
    return Cut(0, 0, camera.width, camera.height, size, mirrored=False)


class Look:
    """Colours of a window: what all its views share, and what changes from view to view."""

    def __init__(self, rng: np.random.Generator, colour: float, noise: float) -> None:
        """Draw the shared part; ``colour`` and ``noise`` scale all changes."""
        self._rng = rng
        self._colour, self._noise = colour, noise
        self._order = rng.permutation(3) if rng.random() < 0.3 * colour else np.arange(3)
        self._tint = np.exp(rng.normal(0, 0.12 * colour, 3))
        self._gamma = float(np.exp(rng.normal(0, 0.2 * colour)))
        self._gain = float(np.exp(rng.normal(0, 0.2 * colour)))
        self._grey = float(rng.uniform(0, 1)) if rng.random() < 0.3 * colour else 0.0
        self._sigma = float(rng.uniform(0, 5.0)) * noise
        self._blur = float(rng.uniform(0, 0.8)) * noise if rng.random() < 0.4 else 0.0

    def __call__(self, image: ImageArray) -> ImageArray:
        """(H, W, 3) uint8 of one view -> the same."""
        rng = self._rng
        gain = self._gain * float(np.exp(rng.normal(0, 0.06 * self._colour)))
        tint = self._tint * np.exp(rng.normal(0, 0.02 * self._colour, 3))
        levels = np.arange(256) / 255
        table = (255 * levels**self._gamma * gain)[:, None] * tint
        picture = image[..., self._order]
        picture = np.stack([table[:, k].astype(np.float32).take(picture[..., k]) for k in range(3)], axis=-1)
        if self._grey:
            picture += self._grey * (picture.mean(axis=-1, keepdims=True) - picture)
        blur = self._blur * float(rng.uniform(0.5, 1.5))
        if blur > 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), blur)
        if self._sigma > 0:
            picture += np.float32(self._sigma) * rng.standard_normal(picture.shape, dtype=np.float32)
        return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)

"""A folder of images."""

from __future__ import annotations

import re
from pathlib import Path

from da3_ros.errors import SourceError
from da3_ros.sources.camera_file import find_camera_file, read_camera_file
from da3_ros.sources.image_file import IMAGE_SUFFIXES, read_image
from da3_ros.sources.indexed import IndexedSource
from da3_ros.sources.spec import Spec
from da3_ros.types import Frame

_FIRST_NS = 1_000_000_000  # stamps must be positive
DEFAULT_RATE_HZ = 15.0


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that takes runs of digits as numbers: img2 before img10."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


class ImageFolderSource(IndexedSource):
    """Images in natural order of their names, at a constant rate.

    Options: ``rate`` in Hz (default 15), ``camera`` a calibration file; without the option ``camera.yaml`` or
    ``camera-intrinsics.txt`` in the folder is used, and without either the images are uncalibrated.
    """

    def __init__(self, folder: Path, rate_hz: float = DEFAULT_RATE_HZ, camera_file: Path | None = None) -> None:
        self.name = folder.resolve().name
        self._files = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")),
            key=lambda p: natural_key(p.name),
        )
        if not self._files:
            raise SourceError(f"{folder} holds no image")
        self._rate_hz = rate_hz
        path = camera_file or find_camera_file(folder)
        height, width = read_image(self._files[0]).shape[:2]
        self._camera, self._rectifier = (None, None) if path is None else read_camera_file(path, (width, height))

    @staticmethod
    def fits(folder: Path) -> bool:
        """Tell whether the folder holds images."""
        return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())

    @classmethod
    def open(cls, spec: Spec) -> ImageFolderSource:
        """Open the folder; options ``rate`` and ``camera``."""
        spec.check(("rate", "camera"))
        camera = spec.options.get("camera")
        rate = spec.number("rate") or DEFAULT_RATE_HZ
        return cls(spec.path, rate, Path(camera) if camera else None)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._files)

    def frame(self, index: int) -> Frame:
        """Open one image."""
        image = read_image(self._files[index])
        if self._rectifier is not None:
            image = self._rectifier.image(image)
        return Frame(index, _FIRST_NS + round(index * 1e9 / self._rate_hz), image, self._camera)

"""A video file, decoded by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from da3_ros.errors import SourceError
from da3_ros.sources.camera_file import read_camera_file
from da3_ros.sources.spec import Spec
from da3_ros.types import Frame

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".ts", ".wmv")
_FIRST_NS = 1_000_000_000  # stamps must be positive


class VideoSource:
    """Frames of a video at its nominal rate.

    Options: ``rate`` in Hz where the file says none or a wrong one, ``camera`` a calibration file.
    """

    def __init__(self, path: Path, rate_hz: float | None = None, camera_file: Path | None = None) -> None:
        self.name = path.stem
        self._path = path
        capture = self._open()
        try:
            fps = rate_hz or capture.get(cv2.CAP_PROP_FPS)
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            found, first = capture.read()
        finally:
            capture.release()
        if not found:
            raise SourceError(f"{path} holds no frame that can be decoded")
        if not 0 < fps < 100_000:
            raise SourceError(f"{path} does not say its rate; give it, as in '{path.name}?rate=30'")
        self._rate_hz = float(fps)
        # Some containers do not know their length or guess it; then the frames are counted.
        self._count = count if count > 0 else None
        size = (first.shape[1], first.shape[0])
        self._camera, self._rectifier = (None, None) if camera_file is None else read_camera_file(camera_file, size)

    @classmethod
    def open(cls, spec: Spec) -> VideoSource:
        """Open the file; options ``rate`` and ``camera``."""
        spec.check(("rate", "camera"))
        camera = spec.options.get("camera")
        return cls(spec.path, spec.number("rate"), Path(camera) if camera else None)

    def __len__(self) -> int:
        """Number of frames, by the container's index; exact once all were read."""
        if self._count is None:
            capture = self._open()
            try:
                count = 0
                while capture.grab():
                    count += 1
            finally:
                capture.release()
            self._count = count
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        """All frames."""
        return self._frames(None)

    def select(self, indices: range) -> Iterator[Frame]:
        """Frames of these indices; the others are skipped without converting them."""
        return self._frames(indices)

    def _frames(self, indices: range | None) -> Iterator[Frame]:
        capture = self._open()
        try:
            index = 0
            while indices is None or index < indices.stop:
                if not capture.grab():
                    self._end(index)
                    return
                if indices is None or index in indices:
                    found, image = capture.retrieve()
                    if not found:
                        raise SourceError(f"frame {index} of {self._path} cannot be decoded; the file is damaged there")
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    if self._rectifier is not None:
                        image = self._rectifier.image(image)
                    yield Frame(index, _FIRST_NS + round(index * 1e9 / self._rate_hz), image, self._camera)
                index += 1
        finally:
            capture.release()

    def _end(self, found: int) -> None:
        """Correct the length; containers guess it by a few frames, a file that was cut short lacks many."""
        expected, self._count = self._count, found
        if expected is not None and found < 0.98 * expected - 2:
            raise SourceError(
                f"{self._path} ends early: {found} of {expected} frames can be decoded and have been read; "
                f"copy it again, or use what is there with --frames :{found}"
            )

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(f"{self._path} cannot be opened as a video; it is damaged or its codec is not known")
        return capture

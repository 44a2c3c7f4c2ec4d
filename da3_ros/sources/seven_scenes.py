"""RGB-D sequences in the layout of Microsoft 7-Scenes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources.image_file import read_depth, read_image
from da3_ros.sources.indexed import IndexedSource
from da3_ros.sources.pose_track import rigid
from da3_ros.sources.spec import Spec
from da3_ros.types import Frame, Truth

_COLOR = re.compile(r"frame-(\d+)\.color\.(png|jpg|jpeg)$")
_FIRST_NS = 1_000_000_000  # stamps must be positive, and frame numbers start at 0
_MILLIMETRES = 1000.0


class SevenScenesSource(IndexedSource):
    """``frame-XXXXXX.color.png|jpg`` with ``.depth.png`` (millimetres) and ``.pose.txt`` (camera-to-world).

    The recording ran at 30 Hz, so frame n is stamped 1 s + n/30 s.  Intrinsics come from ``camera-intrinsics.txt``
    where it lies beside the frames or one folder above, else they are the 585, 585, 320, 240 of the data set's page.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        found = sorted((int(m[1]), p) for p in folder.iterdir() if (m := _COLOR.match(p.name)))
        self._files = dict(found)
        self._numbers = list(self._files)
        self._K = _intrinsics(folder)

    @staticmethod
    def fits(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return any(_COLOR.match(p.name) for p in folder.iterdir())

    @classmethod
    def open(cls, spec: Spec) -> SevenScenesSource:
        """Open the folder; it has no options."""
        spec.check(())
        return cls(spec.path)

    def __len__(self) -> int:
        """Number of colour images."""
        return len(self._numbers)

    def frame(self, index: int) -> Frame:
        """Open one frame; a missing depth or pose file leaves that part of the truth empty."""
        number = self._numbers[index]
        color = self._files[number]
        image = read_image(color)
        stem = color.name.split(".")[0]
        depth_file, pose_file = color.with_name(f"{stem}.depth.png"), color.with_name(f"{stem}.pose.txt")
        depth = read_depth(depth_file, _MILLIMETRES) if depth_file.exists() else None
        if depth is not None and depth.shape != image.shape[:2]:
            raise SourceError(f"{depth_file} and {color.name} differ in size; they must match pixel by pixel")
        truth = Truth(depth, _pose(pose_file) if pose_file.exists() else None, sensor=True)
        height, width = image.shape[:2]
        camera = Pinhole.from_matrix(self._K, width, height)
        stamp = _FIRST_NS + (number * 1_000_000_000 + 15) // 30
        return Frame(index, stamp, image, camera, truth)


def _pose(path: Path) -> Array | None:
    """Camera pose; the data set writes NaN or zeros where tracking was lost, then None.

    Raises:
        SourceError: the file is no 4x4 matrix.
    """
    matrix = read_matrix(path, (4, 4))
    return rigid(matrix)


def _intrinsics(folder: Path) -> Array:
    for path in (folder / "camera-intrinsics.txt", folder.parent / "camera-intrinsics.txt"):
        if path.is_file():
            return read_intrinsics(path)
    return np.array([[585.0, 0, 320], [0, 585.0, 240], [0, 0, 1]])


def read_intrinsics(path: Path) -> Array:
    """A 3x3 intrinsic matrix in pixels.

    Raises:
        SourceError: the file is not one.
    """
    K = read_matrix(path, (3, 3))
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise SourceError(f"{path} is not an intrinsic matrix; expected fx 0 cx, 0 fy cy, 0 0 1 in pixels")
    return K


def read_matrix(path: Path, shape: tuple[int, int]) -> Array:
    """A matrix of whitespace-separated numbers; NaN and inf are numbers here.

    Raises:
        SourceError: the file cannot be read or has another shape.
    """
    try:
        rows = [[float(w) for w in line.split()] for line in path.read_text().splitlines() if line.strip()]
        matrix = np.array(rows)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is not a {shape[0]}x{shape[1]} matrix: {error}") from error
    if matrix.shape != shape:
        raise SourceError(f"{path} is not a {shape[0]}x{shape[1]} matrix; it has {matrix.size} numbers")
    return matrix

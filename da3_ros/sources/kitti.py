"""Sequences in the layout of KITTI odometry (Geiger et al., CVPR 2012)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources.image_file import IMAGE_SUFFIXES, read_image
from da3_ros.sources.indexed import IndexedSource
from da3_ros.sources.pose_track import rigid
from da3_ros.sources.spec import Spec
from da3_ros.sources.tum import nanoseconds
from da3_ros.types import Frame, Truth

_FIRST_NS = 1_000_000_000  # times.txt starts at 0 and stamps must be positive


class KittiSource(IndexedSource):
    """``sequences/NN`` with ``image_2`` or ``image_0``, ``calib.txt``, ``times.txt``; poses in ``poses/NN.txt``.

    The poses are those of the left grey camera; they are moved to the camera chosen.  Option ``camera``: 0..3,
    default 2 where its images are there, else 0.
    """

    def __init__(self, folder: Path, camera: int | None = None) -> None:
        folder = folder.resolve()
        self.name = f"kitti_{folder.name}"
        number = next((n for n in (2, 0, 3, 1) if (folder / f"image_{n}").is_dir()), 0) if camera is None else camera
        images = folder / f"image_{number}"
        if not images.is_dir():
            raise SourceError(f"{folder} has no image_{number}; give another camera, as in '?camera=0'")
        self._files = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            raise SourceError(f"{images} holds no image")
        self._K, T_cam_cam0 = _projection(folder / "calib.txt", number)
        self._stamps = _times(folder / "times.txt", len(self._files))
        self._poses = _poses(folder, len(self._files), se3.inverse(T_cam_cam0))

    @staticmethod
    def fits(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return (folder / "calib.txt").is_file() and any((folder / f"image_{n}").is_dir() for n in range(4))

    @classmethod
    def open(cls, spec: Spec) -> KittiSource:
        """Open the folder; option ``camera``."""
        spec.check(("camera",))
        text = spec.options.get("camera")
        if text is not None and text not in ("0", "1", "2", "3"):
            raise SourceError(f"option camera of {spec.path} must be 0, 1, 2 or 3, not '{text}'")
        return cls(spec.path, None if text is None else int(text))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._files)

    def frame(self, index: int) -> Frame:
        """Open one frame."""
        image = read_image(self._files[index])
        camera = Pinhole.from_matrix(self._K, image.shape[1], image.shape[0])
        T = None if self._poses is None else self._poses[index]
        return Frame(index, self._stamps[index], image, camera, None if T is None else Truth(None, T))


def _projection(path: Path, camera: int) -> tuple[Array, Array]:
    """K and T_cam_cam0 of ``P = K [I | t]``."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        P = np.array([float(v) for v in lines[f"P{camera}"].split()]).reshape(3, 4)
        translation = np.linalg.solve(P[:, :3], P[:, 3])
    except KeyError:
        raise SourceError(f"{path} has no line 'P{camera}:'; it must hold the projection of camera {camera}") from None
    except (OSError, UnicodeDecodeError, ValueError, np.linalg.LinAlgError) as error:
        raise SourceError(f"{path}: P{camera} is not a 3x4 projection matrix ({error})") from error
    return P[:, :3], se3.make(np.eye(3), translation)


def _times(path: Path, count: int) -> list[int]:
    if not path.is_file():
        raise SourceError(f"{path} is missing; it holds the time of each image in seconds")
    stamps: list[int] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            stamps.append(_FIRST_NS + nanoseconds(line.strip()))
        except ValueError as error:
            raise SourceError(f"{path} line {number}: {error}") from error
        if len(stamps) > 1 and stamps[-1] <= stamps[-2]:
            raise SourceError(f"{path} line {number}: the time does not come after the line before")
    if len(stamps) < count:
        raise SourceError(f"{path} has {len(stamps)} times for {count} images")
    return stamps


def _poses(folder: Path, count: int, T_cam0_cam: Array) -> list[Array | None] | None:
    """Camera poses of the ground truth; None where there is none (sequences 11 to 21)."""
    path = folder.parent.parent / "poses" / f"{folder.name}.txt"
    if not path.is_file():
        return None
    poses: list[Array | None] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows = np.array([float(v) for v in line.split()]).reshape(3, 4)
        except ValueError as error:
            raise SourceError(f"{path} line {number}: expected 12 numbers ({error})") from error
        T = rigid(np.vstack([rows, (0, 0, 0, 1)]))
        poses.append(None if T is None else T @ T_cam0_cam)
    if len(poses) < count:
        raise SourceError(f"{path} has {len(poses)} poses for {count} images")
    return poses

"""Sequences in the ASL layout of EuRoC MAV (Burri et al., IJRR 2016); TUM-VI uses it too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources.camera_file import read_yaml
from da3_ros.sources.camera_info import from_camera_info
from da3_ros.sources.image_file import read_image
from da3_ros.sources.indexed import IndexedSource
from da3_ros.sources.pose_track import PoseTrack, rigid
from da3_ros.sources.spec import Spec
from da3_ros.types import Frame, Truth

_TRUTH = ("state_groundtruth_estimate0", "mocap0")


class EurocSource(IndexedSource):
    """``mav0/cam0/data.csv`` and ``sensor.yaml``; ground truth of the body becomes that of the camera.

    Option ``camera``: "cam0" (default), "cam1", ...
    """

    def __init__(self, folder: Path, camera: str = "cam0") -> None:
        root = _root(folder)
        self.name = folder.resolve().name if root != folder else folder.resolve().parent.name
        if not (root / camera / "data.csv").is_file():
            raise SourceError(f"{root} has no {camera}/data.csv; give another camera, as in '?camera=cam0'")
        self._images = [
            (stamp, root / camera / "data" / name) for stamp, name in _read_images(root / camera / "data.csv")
        ]
        sensor = read_yaml(root / camera / "sensor.yaml")
        self._camera, self._rectifier = _calibration(root / camera / "sensor.yaml", sensor)
        self._poses = _read_truth(root, _extrinsic(root / camera / "sensor.yaml", sensor))

    @staticmethod
    def fits(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return (_root(folder) / "cam0" / "data.csv").is_file()

    @classmethod
    def open(cls, spec: Spec) -> EurocSource:
        """Open the folder; option ``camera``."""
        spec.check(("camera",))
        return cls(spec.path, spec.options.get("camera", "cam0"))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def frame(self, index: int) -> Frame:
        """Open one frame, rectified; frames outside the ground truth have none."""
        stamp, path = self._images[index]
        image = read_image(path)
        if self._rectifier is not None:
            image = self._rectifier.image(image)
        T_world_cam = self._poses.at(stamp)
        return Frame(index, stamp, image, self._camera, None if T_world_cam is None else Truth(None, T_world_cam))


def _root(folder: Path) -> Path:
    return folder / "mav0" if (folder / "mav0").is_dir() else folder


def _rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a comma-separated file.

    Raises:
        SourceError: the file cannot be read or a line has too few cells.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < columns:
            raise SourceError(f"{path} line {number}: expected at least {columns} values, not {len(cells)}")
        yield number, cells


def _read_images(path: Path) -> list[tuple[int, str]]:
    images: dict[int, str] = {}
    for number, cells in _rows(path, 2):
        if not cells[0].isdigit():
            raise SourceError(f"{path} line {number}: '{cells[0]}' is not a time in nanoseconds")
        images[int(cells[0])] = cells[1]
    if not images:
        raise SourceError(f"{path} lists no image")
    return sorted(images.items())


def _calibration(path: Path, sensor: dict[str, Any]) -> Any:
    try:
        fx, fy, cx, cy = (float(v) for v in sensor["intrinsics"])
        width, height = (int(v) for v in sensor["resolution"])
        distortion = [float(v) for v in sensor.get("distortion_coefficients") or ()]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} lacks intrinsics, resolution or distortion_coefficients ({error})") from error
    model = str(sensor.get("distortion_model", "radial-tangential"))
    return from_camera_info(width, height, (fx, 0, cx, 0, fy, cy, 0, 0, 1), distortion, model)


def _extrinsic(path: Path, sensor: dict[str, Any]) -> Array:
    """T_body_sensor of a sensor.yaml; the identity where it says nothing."""
    if "T_BS" not in sensor:
        return np.eye(4)
    try:
        T = rigid(np.array(sensor["T_BS"]["data"], float).reshape(4, 4))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: T_BS is not a list of 16 numbers ({error})") from error
    if T is None:
        raise SourceError(f"{path}: T_BS is not a rigid transform")
    return T


def _read_truth(root: Path, T_body_cam: Array) -> PoseTrack:
    """Camera poses: body poses (position, quaternion w x y z) of the ground truth times the camera's extrinsic."""
    track = PoseTrack()
    folder = next((root / name for name in _TRUTH if (root / name / "data.csv").is_file()), None)
    if folder is None:
        return track
    sensor = folder / "sensor.yaml"
    T_sensor_body = se3.inverse(_extrinsic(sensor, read_yaml(sensor))) if sensor.is_file() else np.eye(4)
    for number, cells in _rows(folder / "data.csv", 8):
        try:
            stamp, values = int(cells[0]), np.array([float(v) for v in cells[1:8]])
            q = values[[4, 5, 6, 3]]
            T_world_sensor = se3.from_quaternion(values[:3], q)
        except ValueError as error:
            raise SourceError(f"{folder / 'data.csv'} line {number}: {error}") from error
        track.add(stamp, T_world_sensor @ T_sensor_body @ T_body_cam)
    return track

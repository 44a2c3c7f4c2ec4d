"""Calibration files beside images: ROS camera_calibration YAML, a plain mapping, or a 3x3 matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.sources.camera_info import Rectifier, from_camera_info

NAMES = ("camera.yaml", "camera.yml", "camera-intrinsics.txt")


def find_camera_file(folder: Path) -> Path | None:
    """The calibration file of a folder of images, if it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_camera_file(path: Path, image_size: tuple[int, int]) -> tuple[Pinhole | None, Rectifier | None]:
    """Camera of the rectified images of ``image_size`` (width, height), and what rectifies them.

    Understood are the YAML of ROS camera_calibration (``image_width, image_height, camera_matrix: {data: [...]},
    distortion_model, distortion_coefficients, rectification_matrix, projection_matrix``), a mapping ``fx, fy, cx, cy``
    (with ``width, height, distortion_model, distortion: [...]`` if wanted), and a text file with a 3x3 matrix.

    Raises:
        SourceError: the file cannot be read, or it does not describe a camera.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        from da3_ros.sources.seven_scenes import read_intrinsics

        return from_camera_info(*image_size, read_intrinsics(path).ravel())
    tree = read_yaml(path)
    try:
        values = _ros(tree) if "camera_matrix" in tree else _plain(tree, image_size)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} does not describe a camera ({type(error).__name__}: {error}); it needs fx, fy, cx, cy or the keys "
            "of a ROS camera_calibration file"
        ) from error
    try:
        return from_camera_info(**values, image_size=image_size)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, whether or not OpenCV's ``%YAML:1.0`` line stands first.

    Raises:
        SourceError: the file cannot be read or is no mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text.replace("%YAML:1.0", "", 1))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise SourceError(f"{path} must hold a mapping of keys to values")
    return tree


def _ros(tree: dict[str, Any]) -> dict[str, Any]:
    def data(key: str) -> list[float]:
        block = tree.get(key) or ()
        return [float(v) for v in (block["data"] if isinstance(block, dict) else block)]

    return {
        "width": int(tree["image_width"]),
        "height": int(tree["image_height"]),
        "K": data("camera_matrix"),
        "D": data("distortion_coefficients"),
        "distortion_model": str(tree.get("distortion_model", "plumb_bob")),
        "R": data("rectification_matrix"),
        "P": data("projection_matrix"),
    }


def _plain(tree: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    fx, fy, cx, cy = (float(tree[key]) for key in ("fx", "fy", "cx", "cy"))
    return {
        "width": int(tree.get("width", image_size[0])),
        "height": int(tree.get("height", image_size[1])),
        "K": np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        "D": [float(v) for v in tree.get("distortion", ())],
        "distortion_model": str(tree.get("distortion_model", "plumb_bob")),
    }

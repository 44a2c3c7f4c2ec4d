"""Point clouds as binary PLY files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from da3_ros.errors import OutputError
from da3_ros.types import FloatArray, ImageArray

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def write(path: Path, points: FloatArray, colors: ImageArray) -> None:
    """Write points (N, 3) and colours (N, 3) atomically.

    Raises:
        OutputError: the file cannot be written; an older one stays as it was.
    """
    vertices = np.empty(len(points), _VERTEX)
    vertices["xyz"], vertices["rgb"] = points, colors
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header.encode())
            file.write(vertices.tobytes())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write the map {path}: {(error.strerror or str(error)).lower()}") from error

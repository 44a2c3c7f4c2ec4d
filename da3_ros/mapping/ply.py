"""Point clouds as binary PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.files import reason, write_atomic
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
    write_atomic(path, header.encode() + vertices.tobytes())


def read(path: Path) -> tuple[FloatArray, ImageArray]:
    """Read what ``write`` wrote: points (N, 3) and colours (N, 3) RGB.

    Raises:
        SourceError: the file cannot be read or is not such a PLY.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read the map {path}: {reason(error)}") from error
    header, mark, body = data.partition(b"end_header\n")
    if not mark or b"format binary_little_endian 1.0" not in header or len(body) % _VERTEX.itemsize:
        raise SourceError(f"{path} is not a map that da3_ros wrote; save it again")
    vertices = np.frombuffer(body, _VERTEX)
    return vertices["xyz"].copy(), vertices["rgb"].copy()

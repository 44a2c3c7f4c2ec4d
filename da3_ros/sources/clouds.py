"""Points from the bytes of ``sensor_msgs/PointCloud2``, without ROS; shared by the bag source and the node."""

from __future__ import annotations

from typing import Any

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry.se3 import Array

_TYPES = {7: "f4", 8: "f8"}  # PointField.FLOAT32, FLOAT64


def decode_cloud(message: Any) -> Array:
    """x, y, z of every point (N, 3), in the unit of the message; those not measured are NaN.

    Raises:
        SourceError: it has no coordinates, or it is cut short.
    """
    order = ">" if message.is_bigendian else "<"
    fields = {field.name: field for field in message.fields}
    lacking = [name for name in "xyz" if name not in fields or fields[name].datatype not in _TYPES]
    if lacking:
        raise SourceError(f"the point cloud has no field {lacking[0]} of floating point (it has {', '.join(fields)})")
    step, width, height = int(message.point_step), int(message.width), int(message.height)
    row, data = int(message.row_step) or width * step, memoryview(message.data).cast("B")
    kinds = [np.dtype(order + _TYPES[fields[name].datatype]) for name in "xyz"]
    ends = [fields[name].offset + kind.itemsize for name, kind in zip("xyz", kinds, strict=True)]
    if max(ends) > step or width * step > row or row * (height - 1) + width * step > len(data) or not width * height:
        raise SourceError(f"a point cloud of {width}x{height} points has {len(data)} bytes; the message is cut short")
    planes = [
        np.ndarray((height, width), kind, data, offset=fields[name].offset, strides=(row, step)).ravel()
        for name, kind in zip("xyz", kinds, strict=True)
    ]
    return np.stack(planes, axis=1).astype(float)

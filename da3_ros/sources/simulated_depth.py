"""A depth camera for worlds whose depth is known exactly: what it measures, with the errors of a real one.

Noise and steps of disparity grow with the square of the depth, as measured for the Kinect (Khoshelham and Elberink,
Sensors 2012, equation 11: sigma of 1.425 mm at 1 m).  Pixels are displaced by about half a pixel (Handa et al., ICRA
2014), nothing is measured near depth edges and out of range, some pixels are missing, and the calibration is off.
"""

from __future__ import annotations

import cv2
import numpy as np

from da3_ros.types import FloatArray

_SIGMA = 1.425e-3  # 1/m: of inverse depth
_STEP = 2.85e-3  # 1/m: of inverse depth, one step of disparity
_RANGE_M = (0.4, 6.0)
_DISPLACED_PX = 0.5
_EDGE = 0.05  # log depth within 5 px
_MISSING = 0.05  # share of the pixels
_CALIBRATION = 0.005  # sigma of the log of a factor on all depth of one camera


class SimulatedDepthCamera:
    """Measures depth; every draw depends on the seed and the stamp alone."""

    def __init__(self, seed: int) -> None:
        """Calibrate it, not quite right."""
        self._seed = seed
        self._factor = float(np.exp(_CALIBRATION * np.random.default_rng([seed, 1]).standard_normal()))

    def measure(self, exact: FloatArray, stamp_ns: int) -> FloatArray:
        """Depth (H, W) in metres, NaN where it is not measured, of exact depth (H, W)."""
        rng = np.random.default_rng([self._seed, stamp_ns])
        height, width = exact.shape
        shifts = np.rint(rng.normal(0, _DISPLACED_PX, (2, height, width))).astype(np.intp)
        rows = (np.arange(height)[:, None] + shifts[0]).clip(0, height - 1)
        columns = (np.arange(width) + shifts[1]).clip(0, width - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / exact[rows, columns] + rng.normal(0, _SIGMA, exact.shape)
            measured = 1.0 / (np.rint(inverse / _STEP) * _STEP)
            near, far = _RANGE_M
            lost = ~((measured > near) & (measured < far)) | self._edges(exact) | (rng.random(exact.shape) < _MISSING)
        measured[lost] = np.nan
        return (measured * self._factor).astype(np.float32)

    @staticmethod
    def _edges(exact: FloatArray) -> np.ndarray:
        kernel = np.ones((5, 5), np.uint8)
        log = np.log(np.where(np.isfinite(exact) & (exact > 0), exact, 1e3)).astype(np.float32)
        return np.asarray(cv2.dilate(log, kernel) - cv2.erode(log, kernel) > _EDGE)

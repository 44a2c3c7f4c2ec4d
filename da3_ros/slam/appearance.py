"""What a view looks like, as a vector: views of one place have similar ones.

Where the predictor gives tokens, the vector is made of them: ``L2([class token; GeM of the patch tokens])``
(generalised mean, power 3: Radenovic et al., Fine-tuning CNN Image Retrieval, 2018, eq. 3).  Otherwise histograms of
gradient directions over a coarse grid of the grey image, as in GIST (Oliva and Torralba, 2001), which know a place
again from nearly the same viewpoint only.
"""

from __future__ import annotations

import cv2
import numpy as np

from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, ImageArray

_POWER = 3.0
_CELLS = (4, 6)  # rows, columns
_PIXELS = 8  # a cell is shrunk to so many, squared
_SOFT = 0.6  # of a cell: edges count for the cells beside theirs too, so that a small turn changes little
_DIRECTIONS = 8


def of_tokens(tokens: FloatArray) -> FloatArray:
    """Unit vector of one view's tokens (T, C), the class token first."""
    head, patches = tokens[0], tokens[1:].astype(float)
    parts = [_unit(head)]
    if len(patches):
        parts.append(_unit(np.mean(np.maximum(patches, 1e-6) ** _POWER, axis=0) ** (1 / _POWER)))
    return _unit(np.concatenate(parts))


def of_image(gray: ImageArray) -> FloatArray:
    """Unit vector of a grey image (h, w)."""
    rows, columns = _CELLS
    size = (_PIXELS * columns, _PIXELS * rows)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(across, down)
    direction = np.floor(angle * (_DIRECTIONS / (2 * np.pi))).astype(int) % _DIRECTIONS
    edges = (direction[:, :, None] == np.arange(_DIRECTIONS)) * strength[:, :, None]
    edges = cv2.GaussianBlur(edges, (0, 0), _SOFT * _PIXELS)
    histogram = edges.reshape(rows, _PIXELS, columns, _PIXELS, _DIRECTIONS).mean(axis=(1, 3))
    # The root keeps one strong edge from being all there is.
    return _unit(np.sqrt(histogram).ravel())


def likeness(present: FloatArray, others: FloatArray) -> Array:
    """How much more each of the others (N, C) is like the present (C,) than usual, in standard deviations (N,).

    Vectors of one predictor, or one camera, all point much the same way: what they have in common is taken off first.
    """
    mean = others.mean(axis=0)
    centred = others - mean
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    found = centred @ _unit(present - mean)
    return np.asarray((found - found.mean()) / max(float(found.std()), 1e-9), float)


def _unit(vector: Array | FloatArray) -> FloatArray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)

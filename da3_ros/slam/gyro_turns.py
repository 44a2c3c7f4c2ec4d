"""Turns from keyframe to keyframe, as a gyro measured them, for the adjustment of the last keyframes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from da3_ros.geometry import se3
from da3_ros.slam.bundle import Between
from da3_ros.slam.inertia import Inertia
from da3_ros.slam.keyframe import Keyframe

_NOTHING = 1e6  # sigma of the translation, of which a gyro knows nothing, chain units


def turns(keyframes: Sequence[Keyframe], inertia: Inertia) -> Between:
    """Measured turns from each keyframe to the next, numbered as given."""
    index, T, sigmas = [], [], []
    for i, (a, b) in enumerate(itertools.pairwise(keyframes)):
        found = inertia.turned(a.stamp_ns, b.stamp_ns)
        if found is not None:
            rotation, sigma = found
            index.append(i)
            T.append(se3.make(rotation, (se3.inverse(a.T_chain_cam) @ b.T_chain_cam)[:3, 3]))
            sigmas.append([sigma] * 3 + [_NOTHING] * 3)
    if not index:
        return Between.none()
    first = np.array(index, np.intp)
    return Between(first, first + 1, np.stack(T), np.array(sigmas))

"""How good depth is, against the truth: that of every frame, warped, beside that of the frames that were predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from da3_ros.types import DepthMap, FloatArray

_STRIDE = 3  # every so many rows and columns are compared
KINDS = ("warped", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class DepthCheck:
    """The depth of one frame as it goes out, at some pixels whose true depth is known."""

    ratio: FloatArray  # (K,) depth in map units / true depth in metres, where there is depth
    valid: float  # share of the pixels with a true depth that have depth
    age_s: float  # of the frame that it was predicted for


def check(depth: DepthMap | None, age_s: float, truth: FloatArray, min_confidence: float) -> DepthCheck:
    """Compare a depth, of which less confident pixels do not go out, with the truth (H, W) in metres, NaN invalid.

    None: nothing goes out.
    """
    if depth is None:
        return DepthCheck(np.zeros(0, np.float32), 0.0, age_s)
    height, width = depth.depth.shape
    if truth.shape != depth.depth.shape:  # nearest: no interpolation across edges or into invalid pixels
        truth = np.asarray(cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST), np.float32)
    found, sure, true = (values[::_STRIDE, ::_STRIDE] for values in (depth.depth, depth.confidence, truth))
    known = np.isfinite(true) & (true > 0)
    out = known & np.isfinite(found) & (found > 0) & (sure >= min_confidence)
    return DepthCheck(found[out] / true[out], float(out.sum() / max(known.sum(), 1)), age_s)


def figures(checks: Mapping[str, Sequence[DepthCheck]], truth_scale: float | None) -> dict[str, dict[str, float]]:
    """Per kind of depth ``frames``, ``abs_rel``, ``delta1``, ``valid`` (share of the pixels with truth) and ``age_s``.

    Args:
        checks: by kind.
        truth_scale: metres per map unit; None: not known, so that only ``valid`` is defined.
    """
    return {kind: _figures(found, truth_scale) for kind, found in checks.items() if found}


def _figures(checks: Sequence[DepthCheck], truth_scale: float | None) -> dict[str, float]:
    ratio = np.concatenate([c.ratio for c in checks]) * np.float32(np.nan if truth_scale is None else truth_scale)
    known = len(ratio) > 0 and truth_scale is not None
    ages = [c.age_s for c in checks if np.isfinite(c.age_s)]
    return {
        "frames": len(checks),
        "abs_rel": float(np.abs(ratio - 1).mean()) if known else float("nan"),
        "delta1": float((np.maximum(ratio, 1 / ratio) < 1.25).mean()) if known else float("nan"),
        "valid": float(np.mean([c.valid for c in checks])),
        "age_s": float(np.mean(ages)) if ages else float("nan"),
    }

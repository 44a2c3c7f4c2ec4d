"""Sample frames as pictures: image, depth, confidence, and depth against the truth."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import OutputError
from da3_ros.evaluation.record import Sample
from da3_ros.files import write_atomic
from da3_ros.types import FloatArray, ImageArray

_WIDTH = 380  # px of each picture
_INVALID = (128, 128, 128)  # RGB, readable on a light and on a dark page
_QUALITY = 88

Table = NDArray[np.uint8]  # (256, 3) RGB


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture with its caption and, where it has one, its colour bar."""

    title: str
    caption: str
    data_uri: str
    bar: tuple[str, str, str] | None  # CSS colours, text at the left end, text at the right end


def panels(sample: Sample, truth_scale: float, unit: str, limit: float) -> list[Panel]:
    """Draw one sample.

    Depth is coloured in viridis between its 2nd and 98th percentile, shared with the truth; the error is signed and
    relative.

    Args:
        sample: what to draw.
        truth_scale: metres per map unit, by which the depth is multiplied before it is compared.
        unit: of the depth, for the captions.
        limit: relative error at the ends of the colours, the same for all samples that are compared.
    """
    out = [Panel("image", f"frame {sample.frame_id}", jpeg_uri(_resized(sample.image)), None)]
    valid = np.isfinite(sample.depth) & (sample.depth > 0)
    share = f"{100 * valid.mean():.0f} % valid"
    if valid.any():
        low, high = (float(v) for v in np.percentile(sample.depth[valid], (2, 98)))
    else:
        low, high = 0.0, 1.0
    high = max(high, low * 1.01 + 1e-6)
    depth = _coloured(sample.depth, valid, low, high, _VIRIDIS_R)
    out.append(Panel("depth", share, jpeg_uri(depth), (_css(_VIRIDIS_R), f"{low:.2f} {unit}", f"{high:.2f} {unit}")))
    confidence = np.asarray(sample.confidence)
    picture = _coloured(confidence, np.isfinite(confidence) & (confidence > 0), 0.0, 1.0, _CIVIDIS)
    median = float(np.median(confidence[confidence > 0])) if (confidence > 0).any() else 0.0
    out.append(Panel("confidence", f"median {median:.2f}", jpeg_uri(picture), (_css(_CIVIDIS), "0", "1")))
    if sample.truth_depth is not None:
        out.append(_error_panel(sample.depth, sample.truth_depth, truth_scale, limit))
    return out


def write_sheet(path: Path, images: Sequence[ImageArray], depth: FloatArray, confidence: FloatArray | None) -> None:
    """Draw a row per image: the image, its depth (one range for all), its confidence.

    Args:
        path: .png or .jpg.
        images: (H, W, 3) RGB each, of one size.
        depth: (N, h, w), NaN where invalid.
        confidence: (N, h, w) in [0, 1), or None.

    Raises:
        OutputError: the picture cannot be written, or the file's ending names no format.
    """
    valid = np.isfinite(depth)
    low, high = (float(v) for v in np.percentile(depth[valid], (2, 98))) if valid.any() else (0.0, 1.0)
    high = max(high, low * 1.01 + 1e-6)
    rows = []
    for i, image in enumerate(images):
        shown = _resized(image)
        parts = [_coloured(depth[i], valid[i], low, high, _VIRIDIS_R)]
        if confidence is not None:
            parts.append(_coloured(confidence[i], confidence[i] > 0, 0.0, 1.0, _CIVIDIS))
        size = shown.shape[1::-1]
        rows.append(np.hstack([shown, *(cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in parts)]))
    try:
        ok, data = cv2.imencode(path.suffix, np.vstack(rows)[:, :, ::-1])
    except cv2.error:
        ok = False
    if not ok:
        raise OutputError(f"cannot draw {path}: its ending names no picture format; use .png or .jpg")
    write_atomic(path, data.tobytes())


def error_limit(samples: Iterable[Sample], truth_scale: float) -> float:
    """The relative error that nine tenths of the pixels of every sample stay below, in steps of 5 % up to 50 %."""
    limits = [0.05]
    for sample in samples:
        if sample.truth_depth is not None:
            ratio, valid = _ratio(sample.depth, sample.truth_depth, truth_scale)
            if valid.any():
                limits.append(float(np.round(np.percentile(np.abs(ratio[valid] - 1), 90) * 20) / 20))
    return min(0.5, max(limits))


def _error_panel(depth: FloatArray, truth: FloatArray, truth_scale: float, limit: float) -> Panel:
    ratio, valid = _ratio(depth, truth, truth_scale)
    if not valid.any():
        return Panel("error", "no common pixels", jpeg_uri(_coloured(depth, valid, 0, 1, _DIVERGING)), None)
    error = np.abs(ratio[valid] - 1)
    within = float((np.maximum(ratio[valid], 1 / ratio[valid]) < 1.25).mean())
    picture = _coloured(ratio - 1, valid, -limit, limit, _DIVERGING)
    caption = f"AbsRel {100 * error.mean():.1f} %, δ₁ {100 * within:.0f} %"
    bar = (_css(_DIVERGING), f"−{100 * limit:.0f} % near", f"+{100 * limit:.0f} % far")
    return Panel("error", caption, jpeg_uri(picture), bar)


def _ratio(depth: FloatArray, truth: FloatArray, truth_scale: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Depth over truth (h, w), and where both are known."""
    height, width = depth.shape
    if truth.shape != depth.shape:  # nearest: no interpolation across edges or into invalid pixels
        truth = cv2.resize(truth.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    valid = np.isfinite(depth) & np.isfinite(truth) & (truth > 0) & (depth > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = truth_scale * depth / truth
    return np.where(valid, ratio, np.nan).astype(np.float32), valid


def jpeg_uri(image: ImageArray) -> str:
    """RGB picture (H, W, 3) as a data URI."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise ValueError(f"an image of shape {image.shape} cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _resized(image: ImageArray) -> ImageArray:
    height, width = image.shape[:2]
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    method = cv2.INTER_AREA if width > _WIDTH else cv2.INTER_NEAREST
    out: ImageArray = cv2.resize(image, size, interpolation=method).astype(np.uint8)
    return out


def _coloured(values: FloatArray, valid: NDArray[np.bool_], low: float, high: float, table: Table) -> ImageArray:
    level = np.zeros(values.shape, np.uint8)
    level[valid] = np.clip(255 * (values[valid] - low) / (high - low), 0, 255).astype(np.uint8)
    picture: ImageArray = table[level]
    picture[~valid] = _INVALID
    return _resized(picture)


def _opencv_table(code: int) -> Table:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    table: Table = cv2.applyColorMap(ramp, code)[:, 0, ::-1].astype(np.uint8)
    return table


def _diverging_table() -> Table:
    """Blue (too near) over near white to vermilion (too far): Okabe-Ito's colours."""
    stops = np.array([(0, 60, 110), (0, 114, 178), (240, 240, 240), (213, 94, 0), (125, 45, 0)], float)
    at = np.linspace(0, 4, 256)
    return np.stack([np.interp(at, range(5), stops[:, c]) for c in range(3)], axis=1).astype(np.uint8)


def _css(table: Table) -> str:
    return ",".join("rgb({},{},{})".format(*table[i]) for i in np.linspace(0, 255, 9).astype(int))


_VIRIDIS_R = _opencv_table(cv2.COLORMAP_VIRIDIS)[::-1]  # near is bright
_CIVIDIS = _opencv_table(cv2.COLORMAP_CIVIDIS)
_DIVERGING = _diverging_table()

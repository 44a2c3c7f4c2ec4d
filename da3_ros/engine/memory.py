"""How much memory a window takes, before it is tried."""

from __future__ import annotations

from dataclasses import dataclass

from da3_ros.engine.staged import HEAD_VIEWS
from da3_ros.model.presets import PATCH, Preset

_FLOAT = 4  # bytes
_KEPT = 8 + 2 + 1  # floats per channel and token: four features, the two values of the cache, those of the window
_RESULTS = 17  # bytes per pixel and view: depth, rays and their confidence
_START = 10 << 20  # of the first window, whatever its size


@dataclass(frozen=True, slots=True)
class _Cost:
    """What the stages of one runtime hold at their peak."""

    mixing: int  # floats per channel and token
    scores: float  # times the attention of all tokens to all is held in full; more than once where the arena splits
    head: tuple[int, int]  # bytes per pixel and view, and per feature of the heads


_COSTS = {
    "torch": _Cost(mixing=40, scores=0, head=(400, 7)),
    "onnxruntime": _Cost(mixing=61, scores=1.6, head=(200, 4)),
}


def window_bytes(preset: Preset, size: tuple[int, int], views: int, runtime: str | None = None) -> int:
    """Bytes that a window adds at its peak to a network that is loaded, with depth and rays wanted of every view.

    A fit, good to about 20 %, and rather too much than too little, to the growth of resident memory (the kernel's own
    peak) over the first window in a fresh process: da3-small and da3-base on two CPU threads in single precision,
    280x210 and 504x378, 1 to 16 views.

    Args:
        preset: of a network that mixes views.
        size: (width, height) of the images, px.
        views: in the window.
        runtime: torch or onnxruntime, which holds the attention of all tokens to all (it grows with the square of the
            number of views); else the larger of the two.
    """
    costs = [_COSTS[runtime]] if runtime in _COSTS else list(_COSTS.values())
    return max(_bytes(preset, size, views, cost) for cost in costs)


def _bytes(preset: Preset, size: tuple[int, int], views: int, cost: _Cost) -> int:
    width, height = size
    pixels = width * height
    tokens = views * (1 + pixels // PATCH**2)
    channel = _FLOAT * preset.dim * tokens  # one float per channel and token
    mixing = cost.mixing * channel + int(cost.scores * _FLOAT * preset.heads * tokens**2)
    fixed, per_feature = cost.head
    heads = min(views, HEAD_VIEWS) * pixels * (fixed + per_feature * preset.features)
    return _START + max(mixing, _KEPT * channel + views * pixels * _RESULTS + heads)

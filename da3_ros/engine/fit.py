"""Whether a window fits into memory: refused beforehand, with the number of views that fits."""

from __future__ import annotations

import sys

import psutil

from da3_ros.engine.choice import Choice
from da3_ros.engine.gpu import find_gpu
from da3_ros.engine.memory import window_bytes
from da3_ros.errors import PredictorError
from da3_ros.model.presets import Preset

_SPARE = 0.9  # of what is free: others live here too
_GIB = 1 << 30


def require_fit(preset: Preset, size: tuple[int, int], views: int, choice: Choice) -> None:
    """Refuse a window that does not fit.

    Args:
        preset: of the network.
        size: (width, height) of the images, px.
        views: in the window.
        choice: what runs it.

    Raises:
        PredictorError: names what is needed, what there is, and how many views fit.
    """
    free = free_bytes(choice.device)
    needed = window_bytes(preset, size, views, choice.runtime)
    if needed <= free:
        return
    fitting = next((n for n in range(views - 1, 0, -1) if window_bytes(preset, size, n, choice.runtime) <= free), 0)
    raise PredictorError(
        f"{views} views of {size[0]}x{size[1]} need about {needed / _GIB:.1f} GiB with {preset.name}, and "
        f"{free / _GIB:.1f} GiB are free: {f'at most {fitting}' if fitting else 'not even one'} would fit; use fewer "
        "views or a smaller size"
    )


def free_bytes(device: str) -> int:
    """Memory that a window may take on a device (cpu or cuda)."""
    if device == "cpu":
        return int(_SPARE * psutil.virtual_memory().available)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(_SPARE * torch.cuda.mem_get_info()[0])
    gpu = find_gpu()
    return int(_SPARE * gpu.memory) if gpu is not None else 0

"""What the predictor holds on the accelerator."""

from __future__ import annotations

import math
import sys

from da3_ros.types import Engine


def gpu_memory_mb(engine: Engine | None) -> float:
    """MB that torch has reserved there; NaN where nothing tells.

    What compiled engines hold for themselves (weights, contexts) is not in it; ONNX Runtime does not say what it has.
    """
    torch = sys.modules.get("torch")  # where it matters the predictor has loaded it
    if engine is None or engine.device != "cuda" or engine.runtime == "onnxruntime" or torch is None:
        return math.nan
    return float(torch.cuda.memory_reserved()) / 1e6

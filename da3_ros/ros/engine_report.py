"""EngineInfo from the predictor's thread."""

from __future__ import annotations

import math

from std_msgs.msg import Header

from da3_ros.msg import EngineInfo
from da3_ros.ros.predictor_thread import PredictorThread


def engine_message(head: Header, thread: PredictorThread | None) -> EngineInfo:
    """What runs the network, and how far loading it is; ``thread`` is None while the node is not configured."""
    out = EngineInfo(header=head, state=EngineInfo.STATE_NONE)
    out.progress = out.elapsed_s = out.remaining_s = math.nan
    if thread is None:
        return out
    engine, loading, took_s = thread.engine, thread.loading, thread.took_s
    if engine is not None:
        out.model, out.licence = engine.model, engine.licence
        out.runtime, out.device, out.gpu, out.precision = engine.runtime, engine.device, engine.gpu, engine.precision
        (out.width_px, out.height_px), out.views = engine.size, engine.views
    out.elapsed_s = math.nan if took_s is None else took_s
    if thread.error is not None:
        out.state, out.step = EngineInfo.STATE_FAILED, str(thread.error)
    elif loading is not None:
        out.state, out.step, out.elapsed_s = EngineInfo.STATE_LOADING, loading.what, loading.elapsed_s
        out.progress = math.nan if loading.share is None else loading.share
        remaining_s = loading.remaining_s
        out.remaining_s = math.nan if remaining_s is None else remaining_s
    elif thread.ready.is_set():
        out.state = EngineInfo.STATE_READY
    else:
        out.state, out.step = EngineInfo.STATE_WAITING, "waiting for camera_info or an image"
    return out

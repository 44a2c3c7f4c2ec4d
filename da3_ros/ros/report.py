"""SlamStatus and diagnostics from counters and snapshots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from da3_ros.msg import SlamStatus
from da3_ros.ros.counters import DROP_CAUSES, Counters, Stopwatch
from da3_ros.ros.gpu_memory import gpu_memory_mb
from da3_ros.ros.loading import Loading
from da3_ros.types import Engine, Metre, State, Status

STAGES = (
    *("decode", "queue", "track", "publish", "image_to_odom", "end_to_end"),
    *("predict", "integrate", "warp", "depth", "map"),
    # Windows of keyframes: all the work, its parts, and from the prediction to the refined pose.
    *("place", "unpack", "join", "align", "adjust", "move", "find", "keep", "refined"),
)

_STATES = {
    State.INIT: SlamStatus.STATE_INIT,
    State.TRACKING: SlamStatus.STATE_TRACKING,
    State.WEAK: SlamStatus.STATE_WEAK,
    State.LOST: SlamStatus.STATE_LOST,
    State.RELOCALISED: SlamStatus.STATE_RELOCALISED,
}
_SENSORS: dict[Metre | None, int] = {
    Metre.DEPTH: SlamStatus.SCALE_SOURCE_DEPTH_PRIOR,
    Metre.ODOMETRY: SlamStatus.SCALE_SOURCE_ODOMETRY,
}
_NAMES = {
    SlamStatus.STATE_UNCONFIGURED: "unconfigured",
    SlamStatus.STATE_BUILDING_ENGINE: "loading the predictor",
    SlamStatus.STATE_INIT: "waiting for the first window",
    SlamStatus.STATE_TRACKING: "tracking",
    SlamStatus.STATE_WEAK: "tracking weakly",
    SlamStatus.STATE_LOST: "lost",
    SlamStatus.STATE_RELOCALISED: "relocalised",
    SlamStatus.STATE_PAUSED: "paused",
    SlamStatus.STATE_FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Health:
    """What the node knows beside the snapshot of Slam."""

    session: int
    state: int | None  # overrides the state of Slam (paused, loading, unconfigured)
    silence: str  # of the watchdog; empty: there is output
    time_jumps: int
    map_points: int
    path_length_m: float
    simulated: bool
    loading: Loading | None = None  # of the predictor
    engine: Engine | None = None  # what runs its network
    doubt: str = ""  # which prior gives no metres and why


def state_of(status: Status | None, health: Health) -> int:
    """The state as SlamStatus numbers it."""
    if health.state is not None:
        return health.state
    return int(SlamStatus.STATE_UNCONFIGURED if status is None else _STATES[status.state])


def reason_of(status: Status | None, health: Health) -> str:
    """Silence first, then what is being loaded, then what Slam says, then which prior is not used."""
    loading = health.loading.what if health.loading is not None else ""
    return health.silence or loading or ("" if status is None else status.reason) or health.doubt


def status_message(
    head: Header, status: Status | None, health: Health, counters: Counters, stopwatch: Stopwatch
) -> SlamStatus:
    """The whole report."""
    out = SlamStatus(header=head, session_id=health.session)
    out.state = state_of(status, health)
    out.reason = reason_of(status, health)
    share = health.loading.share if health.loading is not None else None
    out.progress = math.nan if share is None else share
    out.frames_received, out.frames_accepted = counters.received, counters.accepted
    for cause, count in counters.drops().items():
        setattr(out, f"dropped_{cause}", count)
    out.keyframes_dropped = counters.keyframes_dropped
    out.time_jumps = health.time_jumps
    out.image_rate_hz = stopwatch.rate_hz("image")
    out.pose_rate_hz = stopwatch.rate_hz("publish")
    out.keyframe_rate_hz = stopwatch.rate_hz("keyframe")
    out.window_rate_hz = stopwatch.rate_hz("predict")
    spreads = {stage: spread for stage in STAGES if (spread := stopwatch.spread(stage)) is not None}
    out.stage_names = list(spreads)
    out.stage_p50_s = [spread.p50 for spread in spreads.values()]
    out.stage_p95_s = [spread.p95 for spread in spreads.values()]
    out.stage_max_s = [spread.max for spread in spreads.values()]
    out.memory_mb = psutil.Process().memory_info().rss / 1e6
    out.scale_ratio = out.scale_sigma = out.seam_residual = out.focal_ratio = math.nan
    out.gpu_memory_mb = gpu_memory_mb(health.engine)
    out.map_points, out.path_length_m = health.map_points, health.path_length_m
    if status is not None:
        _fill_slam(out, status, health)
    return out


def _fill_slam(out: SlamStatus, status: Status, health: Health) -> None:
    out.metric = status.metric
    if status.windows == 0:
        out.scale_source = SlamStatus.SCALE_SOURCE_NONE
    elif not status.metric:
        out.scale_source = SlamStatus.SCALE_SOURCE_FIRST_WINDOW
    else:
        simulated, network = SlamStatus.SCALE_SOURCE_SIMULATED, SlamStatus.SCALE_SOURCE_METRIC_NETWORK
        predictor = simulated if health.simulated else network
        out.scale_source = _SENSORS.get(status.scale_source, predictor)
    if status.metric and math.isfinite(status.scale_sigma):
        out.scale_sigma = status.scale_sigma
    if status.windows:
        out.scale_ratio, out.seam_residual = status.scale_ratio, abs(status.seam_residual)
    out.scale_breaks_detected, out.scale_breaks_repaired = status.breaks_detected, status.breaks_repaired
    out.keyframes, out.windows, out.submaps = status.keyframes, status.windows, status.submaps
    out.loops, out.graph_revision = status.loops, status.revision


def diagnostics_message(head: Header, name: str, report: SlamStatus, *, silent: bool) -> DiagnosticArray:
    """The report for robot monitors: ERROR when lost or silent, WARN when weak, loading or with a reason."""
    level = DiagnosticStatus.OK
    if silent or report.state in (SlamStatus.STATE_LOST, SlamStatus.STATE_FAILED):
        level = DiagnosticStatus.ERROR
    elif report.reason or report.state in (SlamStatus.STATE_WEAK, SlamStatus.STATE_BUILDING_ENGINE):
        level = DiagnosticStatus.WARN
    values = {
        "state": _NAMES.get(report.state, str(report.state)),
        "session": report.session_id,
        "frames received": report.frames_received,
        "frames accepted": report.frames_accepted,
        **{f"dropped: {cause.replace('_', ' ')}": getattr(report, f"dropped_{cause}") for cause in DROP_CAUSES},
        "image rate (Hz)": f"{report.image_rate_hz:.2f}",
        "pose rate (Hz)": f"{report.pose_rate_hz:.2f}",
        "window rate (Hz)": f"{report.window_rate_hz:.2f}",
        "metric": report.metric,
        "scale ratio": f"{report.scale_ratio:.4f}",
        "keyframes": report.keyframes,
        "submaps": report.submaps,
        "loops": report.loops,
        "map points": report.map_points,
        "memory (MB)": f"{report.memory_mb:.0f}",
    }
    for stage, p95 in zip(report.stage_names, report.stage_p95_s, strict=True):
        values[f"{stage} p95 (ms)"] = f"{1e3 * p95:.2f}"
    status = DiagnosticStatus(
        level=level,
        name=name,
        message=report.reason or values["state"],
        hardware_id="",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    return DiagnosticArray(header=head, status=[status])

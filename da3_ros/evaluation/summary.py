"""The figures of a run: as a dictionary for report.json and as a table for people."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from da3_ros import __version__
from da3_ros.errors import EvaluationError
from da3_ros.evaluation import depths, map_poses, steps
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import TrajectoryMetrics, evaluate, path_lengths
from da3_ros.files import write_atomic
from da3_ros.types import Trajectory

COUNTS = (
    "frames",
    "keyframes",
    "submaps",
    "windows",
    "segments",
    "loops",
    "breaks_detected",
    "breaks_repaired",
    "map_points",
)

Summary = dict[str, Any]


def summarise(record: Record) -> Summary:
    """The content of report.json: strict JSON, a quantity that is not defined for this run is None.

    The trajectory metrics at the top level (see ``TrajectoryMetrics`` for units) are those of the final
    trajectory; ``causal`` has the same for the poses as they were known right after each frame and
    ``keyframe_poses`` for the final poses of the keyframes alone.  Without ground truth they are None, except
    that ``path_length_m`` is then the estimate's (map units) and ``coverage`` the share of the frames that have
    a pose.  ``odometry`` compares the steps from frame to frame with the truth and their own sigmas, ``depth`` that of
    every frame (``warped``) and that of predicted frames with the truth.
    """
    notes = list(record.notes)
    frames = record.counts.get("frames", len(record.trajectory))
    final, reason = _metrics(record.trajectory, record.truth)
    causal, _ = _metrics(record.causal, record.truth)
    keyframes, _ = _metrics(_keyframes(record.trajectory), record.truth)
    if reason:
        notes.append(f"No metrics: {reason}.")
    if final["path_length_m"] is None:
        for metrics, trajectory in ((final, record.trajectory), (causal, record.causal)):
            metrics["path_length_m"] = _path_length(trajectory)
            metrics["coverage"] = min(1.0, len(trajectory) / frames) if frames else 0.0
    keyframes.pop("coverage")
    metres = 1.0 if record.metric else 1 / final["scale"] if final["scale"] else None
    summary: Summary = {
        "title": record.title,
        "source": record.source,
        "predictor": record.predictor,
        "method": record.method,
        "mode": record.mode,
        "version": __version__,
        "metric": record.metric,
        "frames": frames,
        **{name: record.counts.get(name, 0) for name in COUNTS if name != "frames"},
        "duration_s": _duration_s(record.trajectory),
        **final,
        "causal": causal,
        "keyframe_poses": keyframes,
        "depth": depths.figures(record.depth, metres),
        "odometry": steps.figures(record.steps, metres),
        "map_poses": map_poses.figures(record.poses, metres),
        "latency_ms": record.latency_ms,
        "drops": record.drops,
        "windows_by_outcome": _outcomes(record),
        "notes": notes,
    }
    strict: Summary = _strict(summary)
    return strict


def write_json(path: Path, summary: Summary) -> None:
    """Write report.json in one step; raises OutputError where the place cannot be written."""
    write_atomic(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def table(summary: Summary) -> str:
    """The figures as aligned plain text with units, for a terminal."""
    lines = ["{source}  predictor {predictor}  method {method}  {mode}".format_map(summary)]
    lines.append(_row("frames", summary["frames"], _counts(summary)))
    if summary["windows"]:
        lines.append(_row("scale breaks", summary["breaks_detected"], breaks(summary)))
    length = f"path {summary['path_length_m']:.2f} {_unit(summary)}"
    lines.append(_row("coverage", _number(summary["coverage"], ".3f"), length))
    if summary["ate_sim3_m"] is not None:
        lines += _trajectory_rows(summary)
    else:
        lines.append("no ground truth: no trajectory errors")
    if summary["odometry"]:
        lines.append(f"{'':<26}{'rotation':>10}{'place':>10}")
        lines.append(_anees_row("odometry, ANEES per frame", summary["odometry"]) + "   1: sigmas are right")
        if summary["map_poses"]:
            lines.append(_anees_row("pose in the map, ANEES", summary["map_poses"]))
    if summary["depth"]:
        lines += _depth_rows(summary)
    if summary["latency_ms"]:
        lines.append(f"{'latency, ms':<26}{'p50':>10}{'p95':>10}{'max':>10}")
        for stage, values in summary["latency_ms"].items():
            lines.append(f"  {stage:<24}" + "".join(f"{values[key]:>10.2f}" for key in ("p50", "p95", "max")))
    dropped = {cause: number for cause, number in summary["drops"].items() if number}
    causes = ", ".join(f"{cause} {number}" for cause, number in dropped.items())
    lines.append(_row("drops", sum(dropped.values()), causes))
    lines += [f"note: {note}" for note in summary["notes"]]
    return "\n".join(lines)


def _anees_row(name: str, figures: dict[str, float]) -> str:
    values = (figures["anees_rotation"], figures["anees_translation"])
    return f"{name:<26}" + "".join(f"{_number(value, '.2f'):>10}" for value in values)


def _trajectory_rows(summary: Summary) -> list[str]:
    causal = summary["causal"]

    def pair(name: str, key: str, form: str, factor: float = 1.0) -> str:
        return f"{name:<26}{_number(summary[key], form, factor):>10}{_number(causal[key], form, factor):>10}"

    return [
        f"{'':<26}{'final':>10}{'causal':>10}",
        pair("ATE after Sim3, m", "ate_sim3_m", ".4f"),
        pair("ATE after SE3, m", "ate_se3_m", ".4f"),
        pair("ATE rotation, deg", "ate_rot_deg", ".3f"),
        pair("scale, estimate / truth", "scale", ".4f") + ("" if summary["metric"] else "   no metres claimed"),
        pair("scale drift, %", "scale_drift", ".2f", 100),
        pair("RPE, mm per frame", "rpe_trans_m", ".2f", 1000),
        pair("RPE, deg per frame", "rpe_rot_deg", ".3f"),
        pair("RPE over 1 m, %", "rpe_trans_per_m", ".2f"),
    ]


def _depth_rows(summary: Summary) -> list[str]:
    found = [summary["depth"].get(kind, {}) for kind in depths.KINDS]

    def pair(name: str, key: str, form: str, factor: float = 1.0) -> str:
        return f"{name:<26}" + "".join(f"{_number(values.get(key), form, factor):>10}" for values in found)

    return [
        f"{'':<26}" + "".join(f"{kind:>10}" for kind in depths.KINDS),
        pair("depth, AbsRel, %", "abs_rel", ".2f", 100),
        pair("depth within 25 %, %", "delta1", ".1f", 100),
        pair("pixels with depth, %", "valid", ".1f", 100),
        pair("age of the prediction, s", "age_s", ".3f"),
    ]


def plural(number: int, noun: str) -> str:
    """The number and its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _row(name: str, value: object, remark: str) -> str:
    return f"{name:<26}{value!s:>10}   {remark}".rstrip()


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(factor * value, form)


def _counts(summary: Summary) -> str:
    names = ("keyframe", "window", "submap", "segment", "loop")
    return ", ".join(plural(summary[f"{name}s"], name) for name in names if summary[f"{name}s"])


def breaks(summary: Summary) -> str:
    """What became of the windows with a break: a live window is left out, one with keyframes gets a second look."""
    if not summary["breaks_detected"]:
        return ""
    weak = summary["windows_by_outcome"].get("weak", 0)
    left_out = max(summary["breaks_detected"] - summary["breaks_repaired"] - weak, 0)
    parts = ((summary["breaks_repaired"], "repaired"), (weak, "behind a weak link"), (left_out, "left out"))
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def _unit(summary: Summary) -> str:
    return "m" if summary["metric"] or summary["ate_sim3_m"] is not None else "map units"


def _metrics(trajectory: Trajectory, truth: Trajectory | None) -> tuple[dict[str, Any], str]:
    """The metrics by name, all None where they are not defined, and why."""
    undefined: dict[str, Any] = {f.name: None for f in dataclasses.fields(TrajectoryMetrics)}
    if truth is None:
        return undefined, ""
    try:
        return dataclasses.asdict(evaluate(trajectory, truth).metrics), ""
    except EvaluationError as error:
        return undefined, str(error)


def _keyframes(trajectory: Trajectory) -> Trajectory:
    chosen = trajectory.keyframe if len(trajectory.keyframe) else np.zeros(len(trajectory), bool)
    return Trajectory(trajectory.stamps_ns[chosen], trajectory.T_map_cam[chosen], chosen[chosen])


def _path_length(trajectory: Trajectory) -> float:
    return float(path_lengths(trajectory.T_map_cam[:, :3, 3])[-1]) if len(trajectory) else 0.0


def _duration_s(trajectory: Trajectory) -> float:
    return float(trajectory.stamps_ns[-1] - trajectory.stamps_ns[0]) / 1e9 if len(trajectory) else 0.0


def _outcomes(record: Record) -> dict[str, int]:
    outcomes: dict[str, int] = {}
    for window in record.windows:
        outcomes[window.outcome] = outcomes.get(window.outcome, 0) + 1
    return outcomes


def _strict(value: Any) -> Any:
    """Plain Python values; NaN and infinities, which JSON does not have, become None."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

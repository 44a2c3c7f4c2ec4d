"""The key figures of a run as tiles and as plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from da3_ros.evaluation.summary import Summary, breaks, plural

_WHOLE_FRAME = ("image_to_odom", "frame")  # of the node, of an offline run


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure."""

    name: str
    value: str
    unit: str
    remark: str


def tiles(summary: Summary) -> list[Tile]:
    """The figures to read first."""
    causal, out = summary["causal"], []
    for name, key in (("ATE after Sim3", "ate_sim3_m"), ("ATE after SE3", "ate_se3_m")):
        if summary[key] is None:
            continue
        value, unit = _length(summary[key])
        remark = "final"
        if causal[key] is not None:
            remark = f"causal: {_length(causal[key], unit)[0]} {unit}"
        out.append(Tile(name, value, unit, remark))
    if summary["scale"] is not None:
        drift = summary["scale_drift"]
        remark = "of the true size" if drift is None else f"of the true size, drift {100 * drift:.1f} %"
        out.append(Tile("Scale", f"{summary['scale']:.3f}", "×", remark))
    if summary["coverage"] is not None:
        of = "true poses" if summary["ate_sim3_m"] is not None else "frames"
        out.append(Tile("Coverage", f"{100 * summary['coverage']:.1f}", "%", f"of the {of}"))
    unit = "m" if summary["metric"] or summary["ate_sim3_m"] is not None else "map units"
    out.append(Tile("Path", f"{summary['path_length_m']:.2f}", unit, f"in {summary['duration_s']:.1f} s"))
    stage = _headline_stage(summary)
    if stage:
        values = summary["latency_ms"][stage]
        value, unit = duration(values["p50"]).split(" ")
        out.append(Tile("Latency: " + stage.replace("_", " "), value, unit, f"95 %: {duration(values['p95'])}"))
    frames = f"of {summary['frames']:,} frames" if summary["frames"] else ""
    out.append(Tile("Drops", f"{_dropped(summary):,}", "", frames))
    return out


def verdicts(summary: Summary) -> list[tuple[str, str]]:
    """Sentences with a kind: ``good``, ``fair`` or ``bad`` (only where a threshold is given) or ``plain``."""
    out = []
    ate, path = summary["ate_sim3_m"], summary["path_length_m"]
    if ate is not None:
        share = f", {100 * ate / path:.2g} % of the path of {path:.2f} m" if path > 0 else ""
        out.append(("plain", f"The final camera path is off by {' '.join(_length(ate))} (RMSE){share}."))
    if summary["scale"] is not None and summary["metric"]:
        error = summary["scale"] - 1
        size = "too large" if error > 0 else "too small"
        kind = "good" if abs(error) <= 0.03 else "fair" if abs(error) <= 0.1 else "bad"
        out.append((kind, f"Lengths come out {100 * abs(error):.1f} % {size}."))
    if not summary["metric"]:
        out.append(("fair", "The predictor claims no metres: positions and depth are in arbitrary map units."))
    if summary["coverage"] is not None and summary["coverage"] < 1:
        missing = 100 * (1 - summary["coverage"])
        out.append(("fair" if missing < 5 else "bad", f"{missing:.1f} % of the run has no pose."))
    if summary["breaks_detected"]:
        text = f"{plural(summary['breaks_detected'], 'scale break')} detected: {breaks(summary)}."
        out.append(("fair" if summary["windows_by_outcome"].get("weak") else "good", text))
    elif summary["windows"]:
        out.append(("good", f"No scale break in {plural(summary['windows'], 'window')}."))
    dropped = _dropped(summary)
    if dropped:
        worst = max(summary["drops"], key=summary["drops"].__getitem__)
        out.append(("fair", f"{plural(dropped, 'item')} dropped, mostly: {worst}."))
    return out


def duration(milliseconds: float) -> str:
    """A duration with a unit that suits it."""
    if milliseconds < 0.1:
        return f"{1e3 * milliseconds:.0f} µs"
    if milliseconds < 1e4:
        return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1e3:.1f} s"


def _length(metres: float, unit: str = "") -> tuple[str, str]:
    """A length as text and its unit, chosen by size where none is given."""
    unit = unit or ("mm" if metres < 0.02 else "cm" if metres < 1 else "m")
    value = metres * {"mm": 1e3, "cm": 1e2, "m": 1.0}[unit]
    return (f"{value:.2g}" if value < 1 else f"{value:.1f}" if unit != "m" else f"{value:.2f}"), unit


def _headline_stage(summary: Summary) -> str:
    """The stage that covers a whole frame where one does, else the slowest."""
    stages = summary["latency_ms"]
    whole = [stage for stage in _WHOLE_FRAME if stage in stages]
    return whole[0] if whole else max(stages, key=lambda stage: stages[stage]["p50"], default="")


def _dropped(summary: Summary) -> int:
    return sum(summary["drops"].values())

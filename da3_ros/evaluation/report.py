"""The report of a run: one HTML file that a person can look at, without external links."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from da3_ros.errors import EvaluationError
from da3_ros.evaluation import figures, verdicts
from da3_ros.evaluation.ground import ground_plane
from da3_ros.evaluation.mapview import map_pictures
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.samples import Panel, error_limit, jpeg_uri, panels
from da3_ros.evaluation.style import CSS
from da3_ros.evaluation.summary import Summary
from da3_ros.evaluation.trajectory import TrajectoryEvaluation, evaluate
from da3_ros.files import write_atomic
from da3_ros.types import Trajectory

_MOST_SAMPLES = 6  # drawn; they are the bulk of the file


def write_report(path: Path, record: Record, summary: Summary) -> None:
    """Write the report in one step; what a run lacks (truth, map, windows, samples) is left out or said.

    Args:
        path: the HTML file.
        record: the run.
        summary: ``summarise(record)``.

    Raises:
        OutputError: the place cannot be written.
    """
    write_atomic(path, page(record, summary))


def page(record: Record, summary: Summary) -> str:
    """The report as HTML text."""
    final = _evaluated(record.trajectory, record.truth)
    causal = _evaluated(record.causal, record.truth)
    body = [
        _header(record, summary),
        _tiles(summary),
        _verdicts(summary),
        _trajectory(record, final, causal),
        _errors(record, final, causal),
        _scale(record, final, causal),
        _depth(summary),
        _samples(record, summary),
        _map(record),
        _latency(record),
        _counts(summary),
        _configuration(record),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _evaluated(trajectory: Trajectory, truth: Trajectory | None) -> TrajectoryEvaluation | None:
    """The evaluation for drawing; why there is none stands in the notes of the summary."""
    if truth is None:
        return None
    try:
        return evaluate(trajectory, truth)
    except EvaluationError:
        return None


def _header(record: Record, summary: Summary) -> str:
    facts = [
        ("source", record.source),
        ("predictor", record.predictor),
        ("method", record.method),
        ("mode", record.mode),
        ("da3_ros", summary["version"]),
    ]
    chips = "".join(f"<span><b>{escape(name)}</b> {escape(value)}</span>" for name, value in facts)
    return f'<header><h1>{escape(record.title)}</h1><p class="chips">{chips}</p></header>'


def _tiles(summary: Summary) -> str:
    cells = "".join(
        f'<div class="tile"><div class="name">{escape(tile.name)}</div><div class="value">{escape(tile.value)}'
        f'<small>{escape(tile.unit)}</small></div><div class="remark">{escape(tile.remark)}</div></div>'
        for tile in verdicts.tiles(summary)
    )
    return f'<section class="tiles">{cells}</section>'


def _verdicts(summary: Summary) -> str:
    items = "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in verdicts.verdicts(summary))
    return f'<ul class="verdicts">{items}</ul>' if items else ""


def _card(title: str, content: str, caption: str = "") -> str:
    note = f'<p class="caption">{caption}</p>' if caption else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{note}{content}</section>'


def _trajectory(record: Record, final: TrajectoryEvaluation | None, causal: TrajectoryEvaluation | None) -> str:
    if len(record.trajectory) == 0 and len(record.causal) == 0:
        return _card("Trajectory", '<p class="empty">There is no pose in this run.</p>')
    title, caption = "Trajectory", "Camera centres in the map frame; there is no ground truth to compare with."
    if final is not None:
        title = "Trajectory against ground truth"
        caption = (
            "Camera centres in the frame of the ground truth; each estimate is aligned by its own similarity. "
            "<i>Causal</i> is each pose as known right after its frame, <i>final</i> has all later corrections."
        )
    return _card(title, _scroll(figures.trajectory_figure(record, final, causal)), caption)


def _errors(record: Record, final: TrajectoryEvaluation | None, causal: TrajectoryEvaluation | None) -> str:
    if final is None:
        return ""
    caption = (
        "Distance to the true camera centre after Sim3 alignment (and after SE3 alignment, where an error of scale "
        "counts); angle to the true orientation after the best constant rotation."
    )
    return _card("Error over time", _scroll(figures.error_figure(record, final, causal)), caption)


def _scale(record: Record, final: TrajectoryEvaluation | None, causal: TrajectoryEvaluation | None) -> str:
    if not record.windows:
        return _card("Scale over windows", '<p class="empty">No window was predicted in this run.</p>')
    caption = "Each prediction has a scale of its own, which the joint with the map estimates (top, with one sigma)"
    caption += (
        " and compares with what was expected (residual); a large residual is a break, which is repaired or cut."
        if figures.expects_scale(record)
        else "; none claims metres, so that nothing was expected of it."
    )
    return _card("Scale over windows", _scroll(figures.scale_figure(record, final, causal)), caption)


def _depth(summary: Summary) -> str:
    if not summary["depth"]:
        return ""
    caption = (
        "<i>Warped</i> is what goes out for every frame as soon as it is tracked: the latest prediction as this frame "
        "sees it. <i>Predicted</i> is the frame's own prediction, where it had one. Both as published, on some frames."
    )
    head = "<tr><th></th><th>AbsRel</th><th>within 25 %</th><th>pixels with depth</th><th>age</th><th>frames</th></tr>"
    rows = ""
    for kind, values in summary["depth"].items():
        shares = (values["abs_rel"], values["delta1"], values["valid"])
        cells = "".join(f"<td>{'–' if share is None else f'{100 * share:.1f} %'}</td>" for share in shares)
        age = "–" if values["age_s"] is None else verdicts.duration(1e3 * values["age_s"])
        rows += f"<tr><th>{escape(kind)}</th>{cells}<td>{age}</td><td>{values['frames']}</td></tr>"
    return _card("Depth against ground truth", f'<table class="figures">{head}{rows}</table>', caption)


def _samples(record: Record, summary: Summary) -> str:
    if not record.samples:
        return ""
    places = np.unique(np.linspace(0, len(record.samples) - 1, _MOST_SAMPLES).astype(int))
    chosen = [record.samples[place] for place in places]
    unit = "m" if record.metric else "map units"
    scale = summary["scale"]
    truth_scale = 1.0 if record.metric or not scale else 1.0 / scale
    limit = error_limit(chosen, truth_scale)
    rows = []
    for sample in chosen:
        cells = "".join(_panel(panel) for panel in panels(sample, truth_scale, unit, limit))
        rows.append(f'<div class="row">{cells}</div>')
    caption = "Depth and its confidence as published; grey is invalid. "
    if any(sample.truth_depth is not None for sample in record.samples):
        caption += "The error is estimate / truth − 1: blue is too near, orange too far; δ₁ is the share within 25 %."
        if not record.metric:
            caption += " The depth was brought to metres by the scale of the whole run."
    return _card("Sample frames", "".join(rows), caption)


def _panel(panel: Panel) -> str:
    bar = ""
    if panel.bar is not None:
        colours, low, high = panel.bar
        bar = (
            f'<div class="bar"><span>{escape(low)}</span><i style="background:linear-gradient(90deg,{colours})"></i>'
            f"<span>{escape(high)}</span></div>"
        )
    return (
        f'<figure><img src="{panel.data_uri}" alt="{escape(panel.title)}"><figcaption><b>{escape(panel.title)}</b> '
        f"{escape(panel.caption)}</figcaption>{bar}</figure>"
    )


def _map(record: Record) -> str:
    T_map_cam = record.trajectory.T_map_cam
    unit = "m" if record.metric else "units"
    pictures = map_pictures(record.map_points, record.map_colors, T_map_cam, ground_plane(T_map_cam), unit)
    if pictures is None:
        return _card("Map", '<p class="empty">The map is empty.</p>')
    caption = (
        f"{len(record.map_points):,} points in the map frame with the final camera path (blue; green start, orange "
        "end; white ticks look where the camera looks). Surfaces that face away are left out, to see inside."
    )
    content = '<div class="pair">' + "".join(
        f'<figure><img src="{jpeg_uri(image)}" alt="{title}"><figcaption><b>{title}</b></figcaption></figure>'
        for title, image in (("from outside", pictures.perspective), ("from above", pictures.top))
    )
    return _card("Map", content + "</div>", caption)


def _latency(record: Record) -> str:
    if not record.latency_ms:
        return ""
    head = "<tr><th>stage</th><th>median</th><th>95 %</th><th>largest</th><th>count</th></tr>"
    rows = ""
    for stage, values in record.latency_ms.items():
        figures_ = "".join(f"<td>{verdicts.duration(values[key])}</td>" for key in ("p50", "p95", "max"))
        count = f"{int(values['count']):,}" if "count" in values else ""
        rows += f"<tr><th>{escape(stage)}</th>{figures_}<td>{count}</td></tr>"
    table = f'<table class="figures">{head}{rows}</table>'
    return _card("Latency", _scroll(figures.latency_figure(record)) + table)


def _counts(summary: Summary) -> str:
    names = {
        "frames": "frames",
        "keyframes": "keyframes",
        "windows": "windows",
        "submaps": "submaps",
        "segments": "segments",
        "loops": "loops closed",
        "breaks_detected": "scale breaks detected",
        "breaks_repaired": "scale breaks repaired",
        "map_points": "map points",
    }
    counts = "".join(f"<tr><th>{words}</th><td>{summary[name]:,}</td></tr>" for name, words in names.items())
    dropped = "".join(
        f"<tr><th>{escape(cause)}</th><td>{number:,}</td></tr>" for cause, number in summary["drops"].items() if number
    )
    drops = f'<table class="figures">{dropped}</table>' if dropped else '<p class="empty">Nothing was dropped.</p>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"])
    notes = f"<ul>{notes}</ul>" if notes else '<p class="empty">None.</p>'
    return _card(
        "Counts, drops and notes",
        f'<div class="three"><div><h3>Counts</h3><table class="figures">{counts}</table></div>'
        f"<div><h3>Drops</h3>{drops}</div><div><h3>Notes</h3>{notes}</div></div>",
    )


def _configuration(record: Record) -> str:
    if not record.config_text:
        return ""
    return (
        f'<section class="card"><details><summary>Configuration</summary><pre>{escape(record.config_text)}</pre>'
        "</details></section>"
    )


def _scroll(svg: str) -> str:
    return f'<div class="scroll">{svg}</div>'

"""The learning curve of a training run, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from da3_ros.evaluation import palette
from da3_ros.evaluation.figures import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float]

_PAPER = {"axes.facecolor": "white", "figure.facecolor": "white"}  # a file of its own has no page behind it
_PANELS: tuple[tuple[str, str, dict[str, tuple[str, str]]], ...] = (
    (
        "Training: parts of the loss",
        "log",
        {
            "rays": (palette.FINAL, "rays"),
            "camera": (palette.CAUSAL, "camera"),
            "points": (palette.GOOD, "points"),
            "attention": (palette.REPAIRED, "attention"),
        },
    ),
    (
        "Held out: depth",
        "linear",
        {"held_out_abs_rel": (palette.BREAK, "AbsRel"), "held_out_delta1": (palette.FINAL, "delta1")},
    ),
    (
        "Held out: cameras from rays, median error in degrees",
        "log",
        {
            "held_out_rotation_deg": (palette.FINAL, "rotation"),
            "held_out_translation_deg": (palette.CAUSAL, "direction of translation"),
        },
    ),
    (
        "Held out: matches and focal length",
        "linear",
        {"held_out_matched": (palette.GOOD, "patches matched"), "held_out_focal": (palette.REPAIRED, "focal error")},
    ),
)


def learning_curve(rows: Sequence[Row]) -> str:
    """Losses and held-out figures over steps, from the lines of a training log; a whole SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(cast(Any, STYLE | _PAPER)):
        fig = Figure(figsize=(10.4, 6.4), layout="constrained")
        panels = fig.subplots(2, 2, sharex=True).flat
        for axes, (title, scale, curves) in zip(panels, _PANELS, strict=True):
            axes.set_title(title)
            _draw(axes, rows, curves)
            axes.set_yscale(scale)
        for axes in fig.axes[2:]:
            axes.set_xlabel("step")
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw(axes: Axes, rows: Sequence[Row], curves: Mapping[str, tuple[str, str]]) -> None:
    for key, (colour, label) in curves.items():
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, label=label, linewidth=1.4, marker="." if len(points) < 60 else "")
    if axes.lines:
        axes.legend(loc="best")

"""The line drawings of a report, as SVG that follows the colours of the page."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import numpy as np
from numpy.typing import NDArray

from da3_ros.evaluation import palette
from da3_ros.evaluation.ground import ground_plane
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import TrajectoryEvaluation
from da3_ros.geometry.se3 import Array
from da3_ros.types import Trajectory, WindowRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

_MOST_VERTICES = 2500  # of a line; a screen shows no more
_GAP_NS = 1_000_000_000  # a line is not drawn across a longer gap
_UNDER, _OVER = 2.6, 1.1  # widths, so that the line below shows where both agree

_OUTCOMES = {  # outcome of a window -> marker, colour, words
    "repaired": ("D", palette.REPAIRED, "scale break, repaired"),
    "weak": ("X", palette.BREAK, "scale break, weak joint"),
    "refused": ("v", palette.MUTED, "prediction refused"),
}


STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": palette.MUTED,
    "axes.labelcolor": palette.INK,
    "axes.titlecolor": palette.INK,
    "text.color": palette.INK,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "xtick.labelcolor": palette.INK,
    "ytick.labelcolor": palette.INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": palette.GRID,
    "grid.linewidth": 0.7,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "da3_ros",
    "lines.solid_joinstyle": "round",
}


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw under the style of the report; settings of the host program are untouched."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(cast(Any, STYLE)):
            return draw(*args, **kwargs)

    return styled


@_styled
def trajectory_figure(record: Record, final: TrajectoryEvaluation | None, causal: TrajectoryEvaluation | None) -> str:
    """Top view and height over time, in the frame of the ground truth where there is one."""
    fig = _figure(10.4, 4.9)
    top, side = fig.subplots(1, 2, width_ratios=(1.15, 1))
    truth = record.truth if final is not None else None
    poses = truth.T_map_cam if truth is not None else record.trajectory.T_map_cam
    ground = ground_plane(poses)
    unit = "m" if record.metric or final is not None else "map units"
    start = _start_ns(record)

    lines = []
    if truth is not None:
        lines.append((truth.stamps_ns, truth.T_map_cam[:, :3, 3], palette.INK, "ground truth", 4.0, 0.3))
    for trajectory, result, colour, name, width in (
        (record.causal, causal, palette.CAUSAL, "causal", _UNDER),
        (record.trajectory, final, palette.FINAL, "final", _OVER),
    ):
        positions = trajectory.T_map_cam[:, :3, 3]
        if truth is not None and result is None:
            continue  # without an alignment its frame means nothing here
        if result is not None:
            positions = result.S_truth_est.act(positions)
        lines.append((trajectory.stamps_ns, positions, colour, name, width, 1.0))
    for stamps, positions, colour, name, width, alpha in lines:
        p = ground.coordinates(positions)
        style: dict[str, Any] = {"color": colour, "lw": width, "alpha": alpha, "label": name}
        if len(p) == 1:
            style["marker"] = "o"
        t, p = _thinned(stamps, p)
        top.plot(p[:, 0], p[:, 1], **style)
        side.plot((t - start) / 1e9, p[:, 2], **style)
    if lines:
        stamps, positions = lines[-1][:2]
        _mark_poses(top, side, record, stamps, ground.coordinates(positions), start)
    top.set(xlabel=f"{ground.names[0]} ({unit})", ylabel=f"{ground.names[1]} ({unit})", title="Top view")
    top.set_aspect("equal", adjustable="datalim")
    side.set(xlabel="time (s)", ylabel=f"height {ground.names[2]} ({unit})", title="Height over time")
    _at_least(side, 0.02 * max(np.ptp(top.get_xlim()), np.ptp(top.get_ylim())))
    _legend(fig, top)
    return _svg(fig, "Trajectory: top view and height over time")


@_styled
def error_figure(record: Record, final: TrajectoryEvaluation, causal: TrajectoryEvaluation | None) -> str:
    """Position and rotation error over time, final and causal."""
    fig = _figure(10.4, 4.2)
    above, below = fig.subplots(2, 1, sharex=True)
    start = _start_ns(record)
    series = [(causal, palette.CAUSAL, "causal", _UNDER), (final, palette.FINAL, "final", _OVER)]
    peak = max(result.errors_m.max() for result, *_ in series if result is not None)
    factor, unit = (1e3, "mm") if peak < 0.02 else (1e2, "cm") if peak < 1 else (1.0, "m")
    for result, colour, name, width in series:
        if result is None:
            continue
        errors = np.stack([factor * result.errors_m, result.errors_rot_deg], axis=1)
        t, e = _thinned(result.stamps_ns, errors)
        seconds = (t - start) / 1e9
        above.plot(seconds, e[:, 0], color=colour, lw=width, label=f"{name}, after Sim3")
        below.plot(seconds, e[:, 1], color=colour, lw=width)
    t, e = _thinned(final.stamps_ns, factor * final.errors_se3_m[:, None])
    above.plot((t - start) / 1e9, e[:, 0], color=palette.FINAL, lw=1, ls=(0, (4, 2)), label="final, after SE3")
    _mark_windows(above, record.windows, start)
    _mark_windows(below, record.windows, start, label=False)
    above.set(ylabel=f"position error ({unit})", ylim=(0, None))
    below.set(ylabel="rotation error (deg)", xlabel="time (s)", ylim=(0, None))
    _legend(fig, above)
    return _svg(fig, "Position and rotation error over time")


def expects_scale(record: Record) -> bool:
    """Whether some window was compared with a scale that was expected: not so where none claims metres."""
    return any(abs(window.residual) > 0 for window in record.windows)


@_styled
def scale_figure(record: Record, final: TrajectoryEvaluation | None, causal: TrajectoryEvaluation | None) -> str:
    """Scale of each window with its sigma band, its residual, and the scale of the result against the truth."""
    known = final is not None and len(final.local_scale) > 0
    expected = expects_scale(record)
    heights = (1.4, *(1,) * (expected + known))
    fig = _figure(10.4, 1.4 * (1 + len(heights)))
    axes = fig.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    start = _start_ns(record)
    _draw_windows(axes[0], axes[1] if expected else None, record.windows, start)
    if known:
        series = ((causal, palette.CAUSAL, "causal", _UNDER), (final, palette.FINAL, "final", _OVER))
        for result, colour, name, width in series:
            if result is None or len(result.local_scale) == 0:
                continue
            seconds = (result.local_scale_ns - start) / 1e9
            order = np.argsort(seconds, kind="stable")
            axes[-1].plot(seconds[order], 100 * (result.local_scale[order] - 1), color=colour, lw=width, label=name)
        axes[-1].axhline(0, color=palette.INK, lw=0.8, alpha=0.5)
        axes[-1].set(ylabel="error (%)")
        axes[-1].set_title("Scale of the trajectory against the truth, over pieces of 10 % of the path")
        _at_least(axes[-1], 1.0)
        axes[-1].legend(loc="best", ncols=2)
    axes[-1].set(xlabel="time (s)")
    return _svg(fig, "Scale over windows")


@_styled
def latency_figure(record: Record) -> str:
    """One row per stage: the distribution where it was kept, median, 95th percentile and maximum."""
    from matplotlib.ticker import LogLocator

    stages = list(record.latency_ms)
    fig = _figure(10.4, 1.0 + 0.52 * len(stages))
    axes = fig.subplots()
    for row, stage in enumerate(stages):
        values = record.latency_ms[stage]
        if stage in record.latency_histograms:
            edges, counts = record.latency_histograms[stage]
            height = 0.72 * np.sqrt(counts / counts.max())
            axes.fill_between(
                np.repeat(edges, 2),
                row,
                row - np.concatenate([[0], np.repeat(height, 2), [0]]),
                color=palette.FINAL,
                alpha=0.28,
                lw=0,
            )
        axes.plot([values["p50"], values["p95"]], [row, row], color=palette.FINAL, lw=3, solid_capstyle="butt")
        axes.plot([values["p95"], values["max"]], [row, row], color=palette.FINAL, lw=1)
        axes.plot(values["p50"], row, "o", ms=6, color=palette.FINAL, label="median" if row == 0 else None)
        axes.plot(values["p95"], row, "|", ms=12, mew=2.5, color=palette.FINAL, label="95 %" if row == 0 else None)
        axes.plot(values["max"], row, "x", ms=6, mew=1.4, color=palette.BREAK, label="largest" if row == 0 else None)
    axes.set_xscale("log")
    axes.set_yticks(range(len(stages)), stages)
    axes.set_ylim(len(stages) - 0.6, -0.9)
    low, high = axes.get_xlim()
    if high < 1e3 * low:  # over a few decades the powers of ten alone say little
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="time (ms, logarithmic)")
    axes.grid(axis="y", visible=False)
    _legend(fig, axes)
    return _svg(fig, "Latency per stage")


def _draw_windows(scale: Axes, residual: Axes | None, windows: list[WindowRecord], start: int) -> None:
    t = np.array([(w.stamp_ns - start) / 1e9 for w in windows])
    log_scale = np.array([w.log_scale for w in windows])
    sigma = np.array([w.sigma for w in windows])
    innovation = np.array([w.residual for w in windows])
    used = np.array([w.outcome != "refused" for w in windows], bool) & np.isfinite(log_scale)
    scale.fill_between(
        t[used],
        np.exp(log_scale - sigma)[used],
        np.exp(log_scale + sigma)[used],
        color=palette.FINAL,
        alpha=0.22,
        lw=0,
        label="±1 σ",
    )
    scale.plot(t[used], np.exp(log_scale[used]), "-o", color=palette.FINAL, lw=1, ms=3, label="window scale")
    for outcome, (marker, colour, words) in _OUTCOMES.items():
        chosen = np.array([w.outcome == outcome for w in windows], bool)
        if chosen.any():
            heights = np.where(np.isfinite(log_scale), np.exp(log_scale), 1.0)
            scale.plot(t[chosen], heights[chosen], marker, color=colour, ms=8, ls="none", label=words, zorder=5)
            if residual is not None:
                residual.plot(t[chosen], 100 * np.expm1(innovation)[chosen], marker, color=colour, ms=7, ls="none")
    scale.set(ylabel="map units per unit", title="Scale of each window")
    scale.legend(loc="best", ncols=3)
    if residual is None:
        return
    residual.vlines(t, 0, 100 * np.expm1(innovation), color=palette.FINAL, lw=1.2)
    residual.plot(t, 100 * np.expm1(innovation), ".", color=palette.FINAL, ms=4)
    residual.axhline(0, color=palette.INK, lw=0.8, alpha=0.5)
    residual.set(ylabel="residual (%)", title="Scale of each window against what was expected")
    residual.margins(y=0.15)
    _at_least(residual, 2.0)


def _mark_poses(top: Axes, side: Axes, record: Record, stamps: NDArray[np.int64], p: Array, start: int) -> None:
    """Keyframes, start, and the joints of windows that did not go smoothly."""
    keyframe = record.trajectory.keyframe
    if len(keyframe) == len(p) and 0 < keyframe.sum() <= 1500:
        top.plot(*p[keyframe, :2].T, "o", color=palette.FINAL, ms=3, ls="none", label="keyframe")
    top.plot(*p[0, :2], "o", color=palette.GOOD, ms=8, ls="none", label="start", zorder=6)
    for outcome, (marker, colour, words) in _OUTCOMES.items():
        marked = np.array([w.stamp_ns for w in record.windows if w.outcome == outcome], np.int64)
        if outcome == "refused" or len(marked) == 0:
            continue
        index = np.clip(np.searchsorted(stamps, marked), 0, len(stamps) - 1)
        style: dict[str, Any] = {"color": colour, "ms": 8, "ls": "none", "zorder": 5}
        top.plot(*p[index, :2].T, marker, label=words, **style)
        side.plot((stamps[index] - start) / 1e9, p[index, 2], marker, **style)
    for after in np.flatnonzero(np.diff(stamps) > _GAP_NS):
        side.axvspan(
            (stamps[after] - start) / 1e9, (stamps[after + 1] - start) / 1e9, color=palette.MUTED, alpha=0.15, lw=0
        )


def _mark_windows(axes: Axes, windows: list[WindowRecord], start: int, label: bool = True) -> None:
    for outcome, (_, colour, words) in _OUTCOMES.items():
        times = [(w.stamp_ns - start) / 1e9 for w in windows if w.outcome == outcome]
        if outcome == "refused":
            continue
        for number, t in enumerate(times):
            axes.axvline(t, color=colour, lw=1.2, alpha=0.8, label=words if label and number == 0 else None)


def _thinned(stamps: NDArray[np.int64], values: Array) -> tuple[Array, Array]:
    """At most so many vertices, with NaN rows where the line has a gap.

    Returns:
        Stamps (M,) as float nanoseconds, values (M, k).
    """
    step = -(-len(stamps) // _MOST_VERTICES) if len(stamps) else 1
    index = np.unique(np.r_[np.arange(0, len(stamps), step), len(stamps) - 1]) if len(stamps) else np.zeros(0, int)
    t, v = stamps[index].astype(float), values[index].astype(float)
    gaps = np.flatnonzero(np.diff(stamps[index]) > max(_GAP_NS, 5 * _median_step(stamps) * step)) + 1
    return np.insert(t, gaps, np.nan), np.insert(v, gaps, np.nan, axis=0)


def _median_step(stamps: NDArray[np.int64]) -> float:
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0


def _start_ns(record: Record) -> int:
    """Zero of the time axes: the first stamp of the run."""
    runs: list[Trajectory] = [record.trajectory, record.causal]
    firsts = [int(run.stamps_ns[0]) for run in runs if len(run)]
    firsts += [w.stamp_ns for w in record.windows[:1]]
    return min(firsts, default=0)


def _at_least(axes: Axes, extent: float) -> None:
    """Widen the y axis to this extent, so that noise does not look like a signal."""
    low, high = axes.get_ylim()
    missing = extent - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(fig: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside upper left", ncols=7)


def _svg(fig: Figure, label: str) -> str:
    """Inline SVG: page colours, page font, identifiers that do not clash with those of other drawings."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text[text.index(">") + 1 :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|\n", " ", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;]*;", "font-family: var(--font);", text)
    prefix = "f" + hashlib.sha256(label.encode()).hexdigest()[:6] + "-"
    text = text.replace(' id="', f' id="{prefix}').replace('xlink:href="#', f'href="#{prefix}')
    text = text.replace("url(#", f"url(#{prefix}")
    for colour, variable in palette.CSS_NAMES.items():
        text = text.replace(colour, variable)
    width, height = 72 * fig.get_size_inches()
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{text}'

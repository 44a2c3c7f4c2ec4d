"""What the live node adds to a prediction: a world's bag over DDS, measured by the node and from outside."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.evaluation.summary import Summary
from da3_ros.ros.live import evaluate_live
from da3_ros.sources import open_source
from da3_ros.sources.bag_writer import write_bag

SPEC = "world:1?frames={frames}&size=640x480&rate=30"
# No live windows and a keyframe every 24th frame: 19 of 20 frames find no inference due or under way.
CALM = {
    "window.live": False,
    "keyframe.min_interval_s": 0.8,
    "keyframe.max_interval_s": 0.8,
}
# Stage: (what it is, bound on p50 in ms, bound on p95 in ms)
CALM_BOUNDS = {
    "node: decode": ("image message to frame", 1.0, None),
    "node: warp": ("depth warped to a frame", 5.0, None),
    "node: depth": ("depth message out", 1.0, None),
    "image to odometry, no inference": ("image to odometry, no inference", None, 10.0),
    "image to odometry": ("image to odometry, all frames", None, None),
}
# Windows without a pause, each of which takes as long as a small network does on a small GPU.
BUSY = {"simulated.delay_s": 0.3}
BUSY_BOUNDS = {
    "image to odometry": ("image to odometry", None, 20.0),
    "node: queue": ("  waits for the tracker", None, None),
    "node: track": ("  is tracked", 15.0, None),
    "node: refined": ("keyframe predicted to refined", 50.0, None),
    "node: place": ("  work on it", None, None),
    "node: unpack": ("    cameras and depth unpacked", None, None),
    "node: join": ("    seam, joined to the chain", None, None),
    "node: align": ("    landmarks aligned", None, None),
    "node: adjust": ("    bundle adjusted", 30.0, None),
    "node: move": ("    keyframes moved", None, None),
    "node: find": ("    new landmarks found", None, None),
    "node: keep": ("    and followed; to the map and to places", None, None),
    "node: integrate": ("any window, work on it", None, None),
}
Bounds = dict[str, tuple[str, float | None, float | None]]


def run(frames: int, say: Callable[[str], None]) -> tuple[Summary, Summary]:
    """Measure a calm and a busy camera; ``say`` gets one line at a time."""
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        say(f"rendering {frames} frames ...")
        write_bag(open_source(SPEC.format(frames=frames)), bag)
        calm = _play(bag, CALM, "few keyframes", CALM_BOUNDS, say)
        busy = _play(bag, BUSY, "windows of 300 ms without a pause", BUSY_BOUNDS, say)
    return calm, busy


def _play(bag: Path, values: dict[str, Any], what: str, bounds: Bounds, say: Callable[[str], None]) -> Summary:
    _, summary = evaluate_live(bag, configuration.updated(Config(), values), bag.parent / "out", say=say)
    dropped = sum(summary["drops"].values())
    say(f"{what}: {summary['frames']} frames at 30 Hz, {dropped} dropped, coverage {summary['coverage']:.3f}")
    say(f"{'ms':<34}{'p50':>9}{'p95':>9}{'max':>9}   wanted")
    for stage, (name, p50, p95) in bounds.items():
        spread = summary["latency_ms"].get(stage)
        if spread is None:
            say(f"{name:<34}{'-':>9}{'-':>9}{'-':>9}")
            continue
        wanted = f"p50 <= {p50:g}" if p50 else f"p95 <= {p95:g}" if p95 else ""
        say(f"{name:<34}" + "".join(f"{spread[key]:>9.2f}" for key in ("p50", "p95", "max")) + f"   {wanted}")
    return summary

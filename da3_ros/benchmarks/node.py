"""What the live node adds to a prediction: a world's bag over DDS, measured by the node and from outside."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

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
BOUNDS = {  # stage: (what it is, bound on p50 in ms, bound on p95 in ms)
    "node: decode": ("image message to frame", 1.0, None),
    "node: warp": ("depth warped to a frame", 5.0, None),
    "node: depth": ("depth message out", 1.0, None),
    "image to odometry, no inference": ("image to odometry, no inference", None, 10.0),
    "image to odometry": ("image to odometry, all frames", None, None),
}


def run(frames: int, say: Callable[[str], None]) -> Summary:
    """Measure; ``say`` gets one line at a time."""
    config = configuration.updated(Config(), CALM)
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        say(f"rendering {frames} frames ...")
        write_bag(open_source(SPEC.format(frames=frames)), bag)
        _, summary = evaluate_live(bag, config, Path(folder) / "out", say=say)
    say(f"{'ms':<34}{'p50':>9}{'p95':>9}{'max':>9}   wanted")
    for stage, (name, p50, p95) in BOUNDS.items():
        values = summary["latency_ms"][stage]
        wanted = f"p50 <= {p50:g}" if p50 else f"p95 <= {p95:g}" if p95 else ""
        say(f"{name:<34}" + "".join(f"{values[key]:>9.2f}" for key in ("p50", "p95", "max")) + f"   {wanted}")
    dropped = sum(summary["drops"].values())
    say(f"{frames} frames of 640x480 at 30 Hz, {dropped} dropped, coverage {summary['coverage']:.3f}")
    return summary

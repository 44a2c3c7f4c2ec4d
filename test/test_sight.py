"""Depth of frames that were not predicted: right against the truth, said only where it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import EXACT

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.summary import summarise, table
from da3_ros.predictors import open_predictor
from da3_ros.slam.sight import Sight
from da3_ros.slam.slam import Slam
from da3_ros.sources.held import HeldSource
from da3_ros.types import DepthMap, Frame, State

SMALL = {
    **EXACT,
    "simulated.window_log_scale": 0.0,
    "simulated.width": 64,
    "tracker.width": 160,
    "window.size": 4,
    "window.overlap": 3,
}


def config(**values: object) -> Config:
    return configuration.updated(Config(), {**SMALL, **{k.replace("__", "."): v for k, v in values.items()}})


def ratio(depth: DepthMap, frame: Frame) -> np.ndarray:
    """Depth / truth (K,) where both are known and the truth is no edge."""
    height, width = depth.depth.shape
    truth = cv2.resize(frame.truth.depth, (width, height), interpolation=cv2.INTER_NEAREST)
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.dilate(truth, kernel) < 1.1 * cv2.erode(truth, kernel)
    return (depth.depth / truth)[flat & np.isfinite(depth.depth) & np.isfinite(truth)]


def tracked(frames, config: Config, predicted: int = 10**9) -> Iterator[tuple[Frame, Slam, Sight | None, State]]:
    """Each frame with what it can see before its own prediction; predictions end after so many frames."""
    slam, predictor = Slam(config), open_predictor(config)
    for count, frame in enumerate(frames):
        estimate = slam.track(frame)
        yield frame, slam, slam.sight(), estimate.state
        if count < predicted:
            slam.catch_up(predictor)


@pytest.mark.parametrize("live", [True, False])
def test_every_frame_after_the_first_prediction_has_the_true_depth(walk, live):
    held = []
    for count, (frame, _, sight, state) in enumerate(tracked(walk, config(window__live=live))):
        assert (sight is None) == (count == 0)
        assert (state is State.INIT) == (count == 0)
        if sight is None:
            continue
        depth = sight.depth_map()
        held.append((sight, depth))
        assert (depth.frame_id, depth.stamp_ns) == (frame.id, frame.stamp_ns)
        assert sight.predicted_ns < frame.stamp_ns
        assert depth.camera == frame.camera.resized(64, 48)
        found = ratio(depth, frame)
        assert np.median(np.abs(found - 1)) < 0.012  # of images of 160x120, in which a pose is off by millimetres
        assert np.percentile(np.abs(found - 1), 95) < 0.05
        assert np.isfinite(depth.depth).mean() > (0.8 if live else 0.4)
        np.testing.assert_array_equal(np.isfinite(depth.depth), depth.confidence > 0)
    if not live:
        assert min(np.isfinite(depth.depth).mean() for _, depth in held) < 0.95  # what nobody has seen yet is a hole
    for sight, depth in held:  # drawn later, when the chain has moved on, it is the same
        np.testing.assert_array_equal(sight.depth_map().depth, depth.depth)


def test_depth_is_in_the_unit_of_the_map(walk):
    """Windows have scales of their own; the map has one."""
    values = {"simulated__window_log_scale": 0.5, "simulated__metric": False}
    factors = []
    for frame, _, sight, _ in tracked(walk[:30], config(**values)):
        if sight is not None:
            factors.append(np.median(ratio(sight.depth_map(), frame)))
    np.testing.assert_allclose(factors, factors[0], rtol=0.02)
    assert abs(np.log(factors[0])) > 0.02


def test_a_live_frame_is_nearer_than_the_keyframe_before(walk):
    seen = {live: [] for live in (True, False)}
    for live, ages in seen.items():
        for frame, _, sight, _ in tracked(walk[:20], config(window__live=live)):
            if sight is not None:
                ages.append(frame.stamp_ns - sight.predicted_ns)
    interval = walk[1].stamp_ns - walk[0].stamp_ns
    assert max(seen[True]) < 1.5 * interval
    assert max(seen[False]) > 2.5 * interval


def test_depth_ends_when_the_last_prediction_is_too_old(walk):
    ages = {}
    for most in (0.4, 0.0):
        sights = [sight for *_, sight, _ in tracked(walk[:20], config(depth__max_age_s=most), predicted=5) if sight]
        ages[most] = [(sight.stamp_ns - sight.predicted_ns) * 1e-9 for sight in sights]
    assert 0.3 < max(ages[0.4]) <= 0.4
    assert max(ages[0.0]) > 0.9


def test_there_is_no_depth_while_tracking_is_weak(walk):
    blank = [replace(frame, image=np.full_like(frame.image, 127)) for frame in walk[10:20]]
    states = []
    for _, _, sight, state in tracked([*walk[:10], *blank], config(), predicted=10):
        states.append(state)
        assert (sight is not None) == (state is State.TRACKING)
    assert set(states[10:]) == {State.WEAK}


def test_a_cut_leaves_nothing_to_see(walk):
    for count, (_, slam, sight, _) in enumerate(tracked(walk[:12], config())):
        if count == 11:
            assert sight is not None
            slam.cut("a gap")
            assert slam.sight() is None


def test_the_report_has_the_depth_of_every_frame(walk):
    settings = config(window__live=False)
    record, _ = OfflineRun(HeldSource(list(walk)), open_predictor(settings), settings).run()
    summary = summarise(record)
    warped, predicted = summary["depth"]["warped"], summary["depth"]["predicted"]
    assert warped["frames"] == len(walk) - 1
    assert predicted["frames"] == record.counts["keyframes"]
    assert predicted["abs_rel"] < warped["abs_rel"] < 0.03
    assert warped["delta1"] > 0.97
    assert 0.5 < warped["valid"] < predicted["valid"] <= 1
    assert predicted["age_s"] == 0 < warped["age_s"]
    assert "warped predicted" in table(summary)

"""Evaluating the live node: a bag played to a process, watched over DDS, compared with the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_bag import Recorder

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import Da3Error, OutputError, SourceError
from da3_ros.mapping import ply
from da3_ros.ros import live, player
from da3_ros.ros.live import evaluate_live
from da3_ros.sources.bag_writer import write_bag
from da3_ros.sources.simulated_depth import SimulatedDepthCamera
from da3_ros.sources.tum import read_tum

EXACT = {
    f"simulated.{name}": 0.0
    for name in (
        "window_log_scale",
        "depth_patch",
        "depth_pixel",
        "edge_bleed",
        "focal",
        "rotation_deg",
        "translation",
    )
}


@pytest.fixture(autouse=True)
def own_domain(domain, monkeypatch):
    """Apart from everybody else, and with less time to settle: these runs are short."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(live, "_QUIET_S", 0.5)
    monkeypatch.setattr(player, "_SETTLE_S", 0.3)


def small(**values: object) -> Config:
    """Quick enough to keep up with anything."""
    usual = {
        "tracker.width": 160,
        "simulated.width": 64,
        "node.mailbox": 30,
        "window.size": 4,
        "window.overlap": 3,
        "keyframe.max_interval_s": 0.3,
    }
    return configuration.updated(Config(), {**usual, **EXACT, **{k.replace("__", "."): v for k, v in values.items()}})


def test_a_bag_through_the_live_node(walk, walk_bag, tmp_path):
    said, shown = [], []
    record, summary = evaluate_live(
        walk_bag, small(), tmp_path / "out", progress=lambda *args: shown.append(args), say=said.append
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.yaml",
        "map.ply",
        "node.log",
        "report.html",
        "report.json",
        "trajectory.tum",
        "trajectory_causal.tum",
    }
    assert (summary["frames"], summary["coverage"], sum(summary["drops"].values())) == (30, 1.0, 0)
    assert summary["ate_se3_m"] < 0.05
    assert summary["scale"] == pytest.approx(1, abs=0.02)
    assert (record.mode, record.metric, record.notes) == ("live", True, [])
    assert json.loads((tmp_path / "out" / "report.json").read_text())["coverage"] == 1.0
    for name in ("trajectory.tum", "trajectory_causal.tum"):
        saved = read_tum(tmp_path / "out" / name)
        assert saved.stamps_ns.tolist() == [frame.stamp_ns for frame in walk[:30]]
    points, _ = ply.read(tmp_path / "out" / "map.ply")
    assert len(points) == summary["map_points"] > 0
    assert record.trajectory.keyframe.sum() == summary["keyframes"] >= 4
    assert {"image to odometry", "image to depth", "node: track", "node: image to odom"} <= set(summary["latency_ms"])
    assert summary["latency_ms"]["image to odometry"]["count"] == 30
    assert record.samples
    for sample in record.samples:
        assert sample.depth.shape == sample.confidence.shape == (48, 64)
        assert sample.image.shape == (120, 160, 3)
    assert len(said) == 3
    assert shown[-1][0] == shown[-1][1] > 1
    log = (tmp_path / "out" / "node.log").read_text()
    assert "active" in log
    assert not [word for word in ("WARN", "ERROR", "FATAL", "Traceback") if word in log]
    text = (tmp_path / "out" / "report.html").read_text()
    assert "walk" in text
    assert np.isfinite(summary["rpe_trans_m"])


def test_a_prior_that_was_recorded_is_played_to_the_node(walk, tmp_path):
    camera = SimulatedDepthCamera(0)
    with Recorder(tmp_path / "bag") as recorder:
        for frame in walk[:30]:
            t = frame.stamp_ns
            recorder.image(t, frame.truth.depth, topic="/truth/depth", encoding="32FC1")
            recorder.pose(t, frame.truth.T_world_cam)
            measured = np.nan_to_num(1000 * camera.measure(frame.truth.depth, t)).astype(np.uint16)
            recorder.image(t, measured, topic="/depth_prior", encoding="16UC1")
            recorder.info(t, frame.camera.matrix, (160, 120))
            recorder.image(t, frame.image)
    config = small(simulated__metric=False, simulated__log_scale_bias=0.7)
    record, summary = evaluate_live(tmp_path / "bag", config, tmp_path / "out")
    assert record.metric
    assert summary["scale"] == pytest.approx(1, abs=0.03)


def test_a_compressed_bag_that_is_too_short_for_a_map(walk, tmp_path):
    """Nothing has left the window yet; an older map in the folder is not taken for that of this run."""

    class Walk:
        name = "walk"

        def __iter__(self):
            return iter(walk[:8])

        def __len__(self):
            return 8

    write_bag(Walk(), tmp_path / "bag", compressed=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "map.ply").write_text("of an earlier run")
    record, summary = evaluate_live(tmp_path / "bag", small(), out)
    assert (summary["frames"], summary["coverage"]) == (8, 1.0)
    assert record.notes == ["No map: the map is empty; nothing was written."]
    assert not (out / "map.ply").exists()


def test_a_node_that_cannot_start_is_quoted(walk_bag, tmp_path):
    with pytest.raises(Da3Error, match=r"the node ended with exit code 1: .*no recording at .*none") as refusal:
        evaluate_live(walk_bag, small(predictor=f"recorded:{tmp_path}/none"), tmp_path / "out")
    assert str(tmp_path / "out" / "node.log") in str(refusal.value)


def test_a_bag_without_truth_is_refused_for_the_simulated_predictor(walk, tmp_path):
    from dataclasses import replace

    class Untrue:
        name = "untrue"

        def __iter__(self):
            return (replace(frame, truth=None) for frame in walk[:3])

        def __len__(self):
            return 3

    write_bag(Untrue(), tmp_path / "bag")
    with pytest.raises(SourceError, match=r"has no ground-truth depth .* make a bag of the source with 'da3 bag make'"):
        evaluate_live(tmp_path / "bag", small(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(SourceError):
        evaluate_live(tmp_path / "nothing", small(), tmp_path / "out")


def test_results_that_cannot_be_written_are_refused_before_anything_runs(walk_bag, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot create .*choose another place with --out"):
        evaluate_live(walk_bag, small(), tmp_path / "file" / "out")

"""The benchmarks run, and what they print is what they measured; their figures are not judged here."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from conftest import ros_missing

from da3_ros.benchmarks import imu, memory, network, pixels, priors, slam, worlds
from da3_ros.cli import main
from da3_ros.errors import PredictorError, SourceError


def test_worlds_counts_the_breaks_it_injects(monkeypatch):
    monkeypatch.setattr(worlds, "SPEC", "world:{seed}?frames=40&size=160x120")
    lines: list[str] = []
    (row,) = worlds.run([3], lines.append)
    assert row.injected >= 2
    assert row.missed == 0
    assert row.ours.coverage == 1.0
    assert row.ours.ate_sim3_m < row.free.ate_sim3_m
    assert lines[-2] == str(row)
    assert f"{row.injected} breaks injected, 0 missed" in lines[-1]


def test_slam_compares_every_method_on_the_same_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(slam, "SIZE", "160x120")
    lines: list[str] = []
    scores = slam.run(1, 30, None, lines.append)
    assert list(scores) == [name for name, _, _ in slam.ROWS]
    assert all(0 < found[0].causal < 0.2 for found in scores.values())
    assert lines[-1] == slam.row("ours", scores["ours"])
    with pytest.raises(SourceError, match="holds no trajectory"):
        slam.run(1, 30, tmp_path, lines.append)


def test_memory_compares_the_end_with_the_start(monkeypatch):
    monkeypatch.setattr(memory, "WARM_UP", 10)
    monkeypatch.setattr(memory, "EVERY", 5)
    lines: list[str] = []
    growth = memory.run(30, lines.append)
    assert growth.frames == [10, 15, 20, 25, 30]
    assert min(growth.rss_mb) > 50
    assert f"{growth.percent:.2f} %" in lines[-1]
    known = memory.Growth([1, 2, 3, 4], [100.0, 100.0, 100.0, 110.0], [20.0, 21.0, 22.0, 24.0])
    assert known.percent == pytest.approx(10)
    assert known.time_percent == pytest.approx(20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_network_compares_every_row_with_the_first(monkeypatch, exported):
    for needed in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    from small_networks import GRID, SMALL

    from da3_ros.engine import export

    def copy(stage, module, preset, grid, path, *, opset):
        assert (preset, grid) == (SMALL["even"], GRID)
        shutil.copy(exported.stage("even", stage, opset), path)

    monkeypatch.setattr(export, "export", copy)
    monkeypatch.setattr(network, "_in_a_process", lambda function, setting: function(setting))
    monkeypatch.setattr(network, "PRESET", SMALL["even"])
    monkeypatch.setattr(network, "SIZE", GRID.image[::-1])
    monkeypatch.setattr(network, "VIEWS", (3,))
    monkeypatch.setattr(network, "WINDOWS", 4)
    monkeypatch.setattr(network, "official_missing", lambda: "not installed: pip install it")
    lines: list[str] = []
    rows = network.run(lines.append)[3]
    assert [row.name for row in rows] == ["whole", "staged, torch", "staged, ONNX Runtime"]
    assert any(line.split(maxsplit=1) == ["official", "not installed: pip install it"] for line in lines)
    assert lines[-3:] == [str(row) for row in rows]
    for row in rows:
        assert len(row.ms) == len(row.rates) == 4 - network.WARM_UP
        assert min(row.ms) > 0
        assert row.differences.keys() == {"depth", "confidence", "rays", "ray_confidence", "cameras"}
        assert max(row.differences.values()) < 1e-3
        assert 0 <= row.memory[0] < row.memory[1] < 1 << 30
    assert set(rows[0].differences.values()) == {0.0}
    assert set(rows[0].rates) == {1.0}


def test_pixels_runs_the_network_that_is_shipped_on_a_world_it_does_not_know():
    lines: list[str] = []
    (row,) = pixels.run(1, lines.append, "world:{seed}?frames=40&size=320x240&rate=10")
    assert row.seed == 900_001
    assert row.coverage == 1.0
    assert 0 < row.causal < 0.2
    assert lines[1] == str(row)
    assert lines[-1].startswith("da3-tiny: causal ATE, median")


def test_what_fails_in_a_process_of_its_own_is_said(tmp_path):
    network._in_a_process(os.mkdir, tmp_path / "made")
    assert (tmp_path / "made").is_dir()
    with pytest.raises(PredictorError, match="cannot be exported"):
        network._in_a_process(sys.exit, 3)


@pytest.mark.ros
@pytest.mark.skipif(bool(ros_missing()), reason=ros_missing())
def test_node_measures_every_stage_it_lists(domain, monkeypatch):
    from da3_ros.benchmarks import node

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(node, "SPEC", "world:1?frames={frames}&size=160x120&rate=10")
    lines: list[str] = []
    for summary in node.run(30, lines.append):
        assert summary["coverage"] > 0.5
    for name, *_ in [*node.CALM_BOUNDS.values(), *node.BUSY_BOUNDS.values()]:
        assert any(line.startswith(name) and "-" not in line[len(name) :] for line in lines)


@pytest.mark.parametrize("arguments", [["speed"], ["memory", "--frames", "500"], ["worlds", "--seeds", "0"]])
def test_what_cannot_be_measured_is_refused_in_a_sentence(arguments, capsys):
    assert main(["bench", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_imu_says_what_one_is_worth(monkeypatch):
    lines = []
    monkeypatch.setattr(imu, "ROWS", imu.ROWS[:1])
    without, given = imu.run([3], lines.append, "world:{seed}?frames=40&size=160x120&imu=200")
    assert (without.imu, given.imu) == (False, True)
    assert max(*without.tilt, *given.tilt) < 2
    assert without.ate != given.ate
    assert lines[-1].startswith("usual, with an IMU: median tilt")


def test_priors_says_how_metric_each_source_is(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(priors, "ROWS", priors.ROWS[:2])
    none, depth = priors.run([3], lines.append, "world:{seed}?frames=40&size=160x120")
    assert abs(none.final.scale - 1) > 0.3
    assert not none.good
    assert depth.good
    assert lines[-2] == str(depth)
    assert "1 of 1 worlds within 3 % and 1.5" in lines[-1]

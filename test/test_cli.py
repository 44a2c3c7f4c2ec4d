"""The command line: what it promises to write, what it says of mistakes, and that nothing saved is ever lost."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ros_missing
from sources_layouts import EUROC_K, write_euroc, write_kitti, write_seven_scenes, write_tum_rgbd, write_video
from sources_scene import SMALL, WallSource, assert_frames_equal, pose, render, write_png

from da3_ros import config as configuration
from da3_ros.cli import main
from da3_ros.commands.stopping import StoppableSource, interruptible
from da3_ros.config import Config
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.mapping import ply
from da3_ros.predictors import open_predictor
from da3_ros.predictors.recorded import RecordedPredictor, RecordingPredictor
from da3_ros.sources import open_source
from da3_ros.sources.bag_writer import write_bag
from da3_ros.sources.tum import read_tum
from da3_ros.types import Frame, Prediction, Truth, Window

pytestmark = pytest.mark.usefixtures("rooms_built_once")

WORLD = "world:3?frames=25&size=160x120"
REPOSITORY = Path(__file__).parents[1]
# The same input makes the same bytes of these.
REPRODUCIBLE = ("trajectory.tum", "trajectory_causal.tum", "map.ply", "config.yaml")
RESULTS = {*REPRODUCIBLE, "report.json"}
PROGRESS = re.compile(r": (frame|second) \d+/\d+")


def da3(*words: object) -> int:
    """Run one command in this process; the exit code, also of a usage error."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def process(*words: object, **options: object) -> subprocess.Popen[str]:
    """Run one command in a process of its own, to which Ctrl-C can be sent."""
    return subprocess.Popen(
        [sys.executable, "-m", "da3_ros.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        # A shell that puts its jobs into the background has them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        **options,  # type: ignore[call-overload]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def figures(folder: Path) -> dict[str, object]:
    """report.json without the times."""
    report = json.loads((folder / "report.json").read_text())
    del report["latency_ms"]
    return report


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence that a mistake is answered with; exit code 2."""
    capsys.readouterr()
    assert da3(*words) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not PROGRESS.search(line)]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("da3: ")
    return lines[0].removeprefix("da3: ")


class Finished(NamedTuple):
    folder: Path
    recording: Path


@pytest.fixture(scope="module")
def finished(rooms_built_once, tmp_path_factory) -> Finished:
    """``da3 eval`` on a walk through the synthetic world, with its predictions recorded."""
    folder = tmp_path_factory.mktemp("eval")
    done = Finished(folder / "results", folder / "walk.da3")
    assert da3("eval", WORLD, "--seed", 3, "--set", "window.size=7", "--out", done[0], "--record", done[1]) == 0
    return done


@pytest.fixture
def older(finished, tmp_path) -> Path:
    """A folder with results of an earlier run, and a file of the user's."""
    folder = tmp_path / "older"
    shutil.copytree(finished.folder, folder)
    (folder / "notes.txt").write_text("mine")
    return folder


# ---------------------------------------------------------------- what is written


def test_a_run_leaves_every_file_it_promises(finished):
    assert set(contents(finished.folder)) == RESULTS | {"report.html"}
    assert not [p for p in finished.folder.parent.rglob("*") if p.name.startswith(".") or p.suffix == ".partial"]
    page = (finished.folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")


def test_trajectories_have_every_frame_to_the_nanosecond(finished):
    frames = list(open_source(WORLD))
    for name in ("trajectory.tum", "trajectory_causal.tum"):
        trajectory = read_tum(finished.folder / name)
        assert trajectory.stamps_ns.tolist() == [frame.stamp_ns for frame in frames]
        first = (finished.folder / name).read_text().splitlines()[1].split()
        assert first[0] == f"{frames[1].stamp_ns // 10**9}.{frames[1].stamp_ns % 10**9:09d}"
        assert len(first) == 8
        true = np.stack([frame.truth.T_world_cam for frame in frames])
        moved = se3.inverse(true[0]) @ true
        off = np.linalg.norm((se3.inverse(trajectory.T_map_cam[0]) @ trajectory.T_map_cam - moved)[:, :3, 3], axis=1)
        assert off.max() < 0.1  # camera poses T_map_cam, not their inverses


def test_the_map_holds_the_points_that_the_report_counts(finished):
    points, colors = ply.read(finished.folder / "map.ply")
    assert len(points) == figures(finished.folder)["map_points"] > 1000
    assert np.isfinite(points).all()
    assert colors.std() > 10


def test_the_report_has_the_promised_figures(finished):
    report = json.loads((finished.folder / "report.json").read_text())
    for key in ("frames", "keyframes"):
        assert type(report[key]) is int
        assert report[key] > 0
    for key in ("coverage", "path_length_m", "ate_sim3_m", "ate_se3_m", "scale", "rpe_trans_m", "rpe_rot_deg"):
        assert type(report[key]) is float, key
        assert np.isfinite(report[key])
    assert report["coverage"] == 1.0
    assert report["frames"] == 25
    assert {"predict", "frame"} <= set(report["latency_ms"])
    for stage in report["latency_ms"].values():
        assert stage["p50"] <= stage["p95"] <= stage["max"]
    assert report["drops"] == {}


def test_the_saved_configuration_repeats_the_run(finished, tmp_path):
    saved = finished.folder / "config.yaml"
    expected = configuration.updated(Config(), {"seed": 3, "window.size": 7})
    assert configuration.load(saved) == expected
    assert da3("run", WORLD, "--config", saved, "--out", tmp_path / "again") == 0
    one, other = contents(finished.folder), contents(tmp_path / "again")
    assert set(other) == RESULTS
    for name in REPRODUCIBLE:
        assert one[name] == other[name], name
    assert figures(finished.folder) == figures(tmp_path / "again")


def test_a_recording_replays_the_run(finished, tmp_path):
    options = ("--seed", 3, "--set", "window.size=7", "--out", tmp_path)
    assert da3("run", WORLD, "--predictor", f"recorded:{finished.recording}", *options) == 0
    for name in ("trajectory.tum", "trajectory_causal.tum", "map.ply"):
        assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()
    assert figures(tmp_path)["predictor"] == "recorded:walk.da3"
    assert f'predictor: "recorded:{finished.recording}"' in (tmp_path / "config.yaml").read_text()


def test_frames_are_chosen_as_python_slices(finished, tmp_path, capsys):
    stamps = read_tum(finished.folder / "trajectory.tum").stamps_ns.tolist()
    for text, chosen in (("5:12", slice(5, 12)), ("-4:", slice(-4, None))):
        assert da3("run", WORLD, "--frames", text, "--out", tmp_path) == 0
        assert read_tum(tmp_path / "trajectory.tum").stamps_ns.tolist() == stamps[chosen]
        assert figures(tmp_path)["frames"] == len(stamps[chosen])
    assert "report.json" in capsys.readouterr().out


def test_another_method_and_another_seed_give_another_trajectory(finished, tmp_path):
    assert da3("eval", WORLD, "--seed", 3, "--set", "window.size=7", "--method", "free_sim3", "--out", tmp_path) == 0
    report = figures(tmp_path)
    assert report["method"] == "free_sim3"
    assert report["ate_sim3_m"] != figures(finished.folder)["ate_sim3_m"]
    assert da3("run", WORLD, "--frames", ":5", "--set", "window.size=7", "--seed", 4, "--out", tmp_path) == 0
    causal = [read_tum(folder / "trajectory_causal.tum").T_map_cam[4] for folder in (tmp_path, finished.folder)]
    assert np.abs(causal[0] - causal[1]).max() > 1e-4


@pytest.mark.parametrize("method", ["pose_averaging", "pnp", "chunked_irls"])
def test_baselines_run_by_the_same_command(method, tmp_path):
    assert da3("eval", WORLD, "--method", method, "--out", tmp_path) == 0
    report = figures(tmp_path)
    assert (report["method"], report["coverage"]) == (method, 1.0)
    assert 0 < report["ate_sim3_m"] < 0.2
    assert method in (tmp_path / "report.html").read_text()


def test_results_go_below_out_and_never_over_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert da3("run", WORLD, "--frames", ":2") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["world_3", "world_3-2"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"report: {tmp_path / 'out' / 'world_3-2' / 'report.json'}"


def test_later_options_win(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("seed: 1\nwindow: {size: 5, overlap: 3}\nmap: {max_depth: 3}\n")
    words = ["config", "--config", tmp_path / "a.yaml", "--set", "window.size=6", "--set", "seed=2"]
    assert da3(*words) == 0
    (tmp_path / "b.yaml").write_text(capsys.readouterr().out)
    read = configuration.load(tmp_path / "b.yaml")
    assert (read.seed, read.window.size, read.window.overlap, read.map.max_depth) == (2, 6, 3, 3.0)
    assert da3(*words, "--seed", "9", "--predictor", "recorded:x y.da3", "--ros") == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    read = configuration.load(tmp_path / "c.yaml")
    assert (read.seed, read.window.size, read.predictor) == (9, 6, "recorded:x y.da3")


# ---------------------------------------------------------------- every layout


class Knowing:
    """Predicts from what the wall is what is asked of frames that bring no ground truth."""

    name, needs_truth = "knowing", False

    def __init__(self, frames: list[Frame], config: Config) -> None:
        self._frames = {frame.stamp_ns: frame for frame in frames}
        self._inner = open_predictor(config)

    def predict(self, window: Window) -> Prediction:
        known = tuple(self._frames[frame.stamp_ns] for frame in window.frames)
        return dataclasses.replace(self._inner.predict(dataclasses.replace(window, frames=known)), window=window)

    def close(self) -> None:
        pass


def record(source: str, path: Path, K: np.ndarray) -> None:
    """Make a recording for a source of the wall that has no depth."""
    frames = list(open_source(source))
    known = []
    for i, frame in enumerate(frames):
        height, width = frame.image.shape[:2]
        camera = frame.camera or Pinhole.from_matrix(K, width, height)
        depth = render(camera.matrix, camera.size, pose(i))[1]
        known.append(dataclasses.replace(frame, camera=camera, truth=Truth(depth, pose(i))))
    recorder = RecordingPredictor(Knowing(known, Config()), path)
    assert OfflineRun(open_source(source), recorder, Config()).run()[1] is None
    recorder.complete()
    recorder.close()


def write_images(folder: Path) -> None:
    for i in range(6):
        write_png(folder / f"{i}.png", render(SMALL.matrix, SMALL.size, pose(i))[0])


@pytest.mark.parametrize(
    ("write", "inside"),
    [
        (lambda p: write_seven_scenes(p, range(6)), ""),
        (lambda p: write_tum_rgbd(p, np.array([[525.0, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])), ""),
        (lambda p: write_bag(WallSource(6), p / "bag", storage="sqlite3"), "bag"),
        (lambda p: write_bag(WallSource(6), p / "bag", compressed=True), "bag/bag.mcap"),
    ],
    ids=["seven_scenes", "tum_rgbd", "sqlite3", "mcap"],
)
def test_sources_with_truth_are_evaluated(write: Callable[[Path], None], inside, tmp_path):
    write(tmp_path / "data")
    source = tmp_path / "data" / inside if inside else tmp_path / "data"
    assert da3("run", source, "--out", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == RESULTS
    report = figures(tmp_path / "out")
    count = len(open_source(str(source)))
    assert report["frames"] == count == len(read_tum(tmp_path / "out" / "trajectory.tum"))
    assert report["coverage"] == 1.0
    assert report["ate_se3_m"] < 0.1
    assert report["map_points"] > 100


@pytest.mark.parametrize(
    ("write", "inside", "K"),
    [
        (lambda p: write_euroc(p, count=5), "", EUROC_K),
        (lambda p: write_kitti(p, count=5), "sequences/07", SMALL.matrix),
        (write_images, "", SMALL.matrix),
        (lambda p: write_video(p / "walk.avi", 6), "walk.avi", SMALL.matrix),
        (lambda p: write_bag(Blind(), p / "bag"), "bag", SMALL.matrix),
    ],
    ids=["euroc", "kitti", "images", "video", "bag"],
)
def test_sources_without_depth_say_so_at_once_and_replay_recordings(
    write: Callable[[Path], None], inside, K, tmp_path, capsys
):
    write(tmp_path / "data")
    source = tmp_path / "data" / inside
    said = refused(capsys, "run", source, "--out", tmp_path / "out")
    assert said.startswith("the simulated predictor needs ground-truth depth and pose")
    assert "use a source that has both, or another --predictor" in said
    assert not (tmp_path / "out").exists()
    record(str(source), tmp_path / "a.da3", K)
    assert da3("run", source, "--predictor", f"recorded:{tmp_path / 'a.da3'}", "--out", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == RESULTS
    report = figures(tmp_path / "out")
    assert report["frames"] == len(open_source(str(source)))
    assert report["path_length_m"] > 0.02
    assert report["map_points"] > 100


class Blind(WallSource):
    """The wall without its truth."""

    def __init__(self) -> None:
        super().__init__(5)

    def __iter__(self) -> Iterator[Frame]:
        return (dataclasses.replace(frame, truth=None) for frame in super().__iter__())


# ---------------------------------------------------------------- bags


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_holds_the_frames_it_was_made_of(storage, tmp_path, capsys):
    source = "world:3?frames=6&size=64x48"
    assert da3("bag", "make", source, tmp_path / "bag", "--storage", storage, "--frames", "1:5") == 0
    assert capsys.readouterr().out == f"bag: {tmp_path / 'bag'}\n"
    assert_frames_equal(renumbered(open_source(str(tmp_path / "bag"))), renumbered(open_source(source, (1, 5))))
    before = contents(tmp_path / "bag")
    assert "exists already; remove it or choose another folder" in refused(
        capsys, "bag", "make", source, tmp_path / "bag"
    )
    assert contents(tmp_path / "bag") == before


def renumbered(source) -> list[Frame]:
    return [dataclasses.replace(frame, id=i) for i, frame in enumerate(source)]


def test_a_bag_of_a_broken_source_is_not_left_behind(tmp_path, capsys):
    write_seven_scenes(tmp_path / "data", range(4))
    (tmp_path / "data" / "frame-000002.color.png").write_bytes(b"junk")
    assert "frame-000002.color.png" in refused(capsys, "bag", "make", tmp_path / "data", tmp_path / "bag")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


# ---------------------------------------------------------------- mistakes

TINY = "world:3?frames=4&size=64x48"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frob"], "invalid choice: 'frob'"),
        (["run"], "required: SOURCE; see da3 run --help"),
        (["bag"], "required: ACTION; see da3 bag --help"),
        (["run", "TMP/missing"], "missing does not exist; give a recording"),
        (["run", "TMP/empty"], "holds nothing"),
        (["run", "TMP/file"], "is neither a bag"),
        (["run", "TMP/junk.mcap"], "is not an MCAP file"),
        (["run", "TMP/junk.db3"], "cannot be read"),
        (["run", "TMP/junk.avi"], "cannot be opened as a video"),
        (["run", ""], "the name of the source is empty"),
        (["run", "world:"], "write world:SEED"),
        (["run", "world:1?frame=3"], "did you mean 'frames'"),
        (["run", "world:1?size=big"], "it must be WIDTHxHEIGHT"),
        (["run", "world:1?motion=TMP/missing"], "cannot read the motion file"),
        (["run", TINY, "--frames", "3"], "'3' does not select frames; write A:B"),
        (["run", TINY, "--frames", "a:b"], "'a:b' does not select frames; write A:B"),
        (["run", TINY, "--frames", "9:"], "select nothing: world:3 has frames 0..3"),
        (["run", TINY, "--out", "TMP/file"], "choose another folder with --out"),
        (["run", TINY, "--out", "TMP/file/below"], "not a directory; choose another folder with --out"),
        (["run", TINY, "--set", "windw.size=3"], "unknown config key 'windw.size'; did you mean 'window.size'?"),
        (["run", TINY, "--set", "window.size=x"], "window.size must be of type int, not 'x'"),
        (["run", TINY, "--set", "window.size=99"], "window.size must lie in [1, 64], not 99"),
        (["run", TINY, "--set", "window.size"], "write --set key=value"),
        (["run", TINY, "--config", "TMP/missing.yaml"], "cannot read the configuration"),
        (["run", TINY, "--config", "TMP/file"], "must hold a mapping of keys to values"),
        (["run", TINY, "--config", "TMP/wrong.yaml"], "wrong.yaml: unknown config key 'sed'; did you mean 'seed'?"),
        (["run", TINY, "--seed", "x"], "invalid int value: 'x'"),
        (["run", TINY, "--seed", "-1"], "seed must lie in"),
        (["run", TINY, "--predictor", "network"], "unknown predictor 'network'; use simulated, recorded:FILE, a"),
        (["run", TINY, "--predictor", "recorded:TMP/missing"], "make one with da3 run SOURCE --record"),
        (["run", TINY, "--predictor", "recorded:TMP/file"], "is not a recording of predictions"),
        (["run", TINY, "--record", "TMP/file/x"], "cannot write the recording"),
        (["run", TINY, "--record", "TMP/empty"], "it is a folder; name a file"),
        (["eval", TINY, "--method", "best"], "invalid choice: 'best'"),
        (["eval", TINY, "--rate", "2"], "add --live or leave it out"),
        (["eval", TINY, "--live", "--frames", "1:2"], "leave --frames out"),
        (["eval", TINY, "--live", "--method", "free_sim3"], "leave --method out"),
        (["eval", TINY, "--live", "--record", "x"], "leave --live out"),
        (["bag", "make", "TMP/missing", "TMP/bag"], "missing does not exist"),
        (["bag", "make", TINY, "TMP/file/bag"], "cannot write the bag"),
        (["bag", "make", TINY, "TMP/bag", "--storage", "x"], "invalid choice: 'x'"),
        (["play", "TMP/junk.mcap", "--rate", "0"], "--rate must be a positive number"),
        (["play", "TMP/junk.mcap", "--rate", "nan"], "--rate must be a positive number"),
        (["play", "TMP/junk.mcap", "--wait", "-1"], "--wait must be a number of seconds"),
        (["play", "TMP/junk.mcap", "--remap", "/a"], "write --remap FROM:=TO"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("file", "junk.mcap", "junk.db3", "junk.avi"):
        (tmp_path / name).write_text("junk")
    (tmp_path / "wrong.yaml").write_text("sed: 3\n")
    before = sorted(tmp_path.rglob("*"))
    assert sentence in refused(capsys, *[word.replace("TMP", str(tmp_path)) for word in words])
    kept = [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "out"]
    assert kept == before  # no empty folder of results, no half a file
    assert not list((tmp_path / "out").glob("*"))


def test_every_mistake_in_the_configuration_is_named(capsys):
    assert da3("run", TINY, "--set", "a=1", "--set", "window.size=0", "--set", "seed=no") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("da3: ") for line in lines)


def test_images_that_change_size_end_the_run_in_a_sentence(tmp_path, capsys):
    write_seven_scenes(tmp_path / "data", range(3))
    write_png(tmp_path / "data" / "frame-000002.color.png", np.zeros((50, 64, 3), np.uint8))
    write_png(tmp_path / "data" / "frame-000002.depth.png", np.full((50, 64), 4000, np.uint16))
    said = refused(capsys, "run", tmp_path / "data", "--out", tmp_path / "out")
    assert "images of one source must have one size" in said
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 2


def test_a_recording_of_something_else_writes_nothing(finished, older, capsys):
    before = contents(older)
    for words, sentence in (
        (["world:4?frames=25&size=160x120"], "it was made with another source"),
        ([WORLD, "--frames", "3:"], "replay it with the source, --frames and configuration that it was made with"),
    ):
        said = refused(capsys, "run", *words, "--predictor", f"recorded:{finished.recording}", "--out", older)
        assert sentence in said
        assert contents(older) == before


def test_a_recording_that_ends_early_ends_the_run_there(tmp_path, capsys):
    recording, predictor = tmp_path / "short.da3", f"recorded:{tmp_path / 'short.da3'}"
    assert da3("run", WORLD, "--frames", ":10", "--out", tmp_path / "a", "--record", recording) == 0
    said = refused(capsys, "run", WORLD, "--predictor", predictor, "--out", tmp_path / "b")
    assert said.startswith("the recording has no window of")
    whole = read_tum(tmp_path / "a" / "trajectory_causal.tum")
    part = read_tum(tmp_path / "b" / "trajectory_causal.tum")
    assert len(part) == 11  # the frame that could not be predicted was still tracked
    np.testing.assert_array_equal(part.T_map_cam[:10], whole.T_map_cam)


# ---------------------------------------------------------------- what was saved stays


def test_new_results_replace_older_ones_together(older):
    assert da3("run", WORLD, "--frames", ":5", "--out", older) == 0
    assert set(contents(older)) == RESULTS | {"notes.txt"}  # report.html of the older run would be wrong now
    assert (older / "notes.txt").read_text() == "mine"
    assert figures(older)["frames"] == len(read_tum(older / "trajectory.tum")) == 5


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full, to whoever writes more than this into one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_results_that_cannot_be_written_leave_the_older_ones(older, capsys):
    before = contents(older)
    with files_no_larger_than(10_000):
        said = refused(capsys, "eval", WORLD, "--frames", ":5", "--out", older)
    assert said == f"cannot write the results into {older}: file too large; choose another folder with --out"
    assert contents(older) == before
    assert not [path for path in older.iterdir() if path.is_dir()]
    (older / "map.ply").unlink()
    (older / "map.ply").mkdir()
    before = contents(older)
    assert "map.ply is a folder there" in refused(capsys, "run", WORLD, "--frames", ":5", "--out", older)
    assert contents(older) == before


def test_a_recording_that_cannot_be_written_costs_the_recording_only(tmp_path, capsys):
    recording = tmp_path / "walk.da3"
    with files_no_larger_than(300_000):
        said = refused(capsys, "run", WORLD, "--frames", ":5", "--out", tmp_path / "out", "--record", recording)
    assert said.startswith(f"cannot write the recording {recording}: file too large")
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_run_that_fails_leaves_the_results_of_one_that_did_not(finished, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished.folder, out)
    before = contents(out)
    write_seven_scenes(tmp_path / "data", range(6))
    (tmp_path / "data" / "frame-000004.color.png").write_bytes(b"junk")
    refused(capsys, "run", tmp_path / "data", "--out", out)
    assert contents(out) == before
    assert figures(tmp_path / "out-partial")["frames"] == 4


def test_a_source_that_breaks_midway_leaves_the_results_until_there(tmp_path, capsys):
    write_seven_scenes(tmp_path / "data", range(6))
    (tmp_path / "data" / "frame-000004.color.png").write_bytes(b"junk")
    recording = tmp_path / "a.da3"
    words = ["eval", tmp_path / "data", "--out", tmp_path / "out", "--record", recording]
    assert "frame-000004.color.png" in refused(capsys, *words)
    assert set(contents(tmp_path / "out")) == RESULTS | {"report.html"}
    report = figures(tmp_path / "out")
    assert report["frames"] == len(read_tum(tmp_path / "out" / "trajectory.tum")) == 4
    assert "ended early" in report["notes"][0]
    RecordedPredictor(recording).close()  # and the recording


def test_a_bag_that_was_cut_short_is_run_to_its_end(tmp_path, capsys):
    write_bag(WallSource(12), tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[: int(0.6 * file.stat().st_size)])
    said = refused(capsys, "run", tmp_path / "bag", "--out", tmp_path / "out")
    assert "was cut short" in said
    count = len(read_tum(tmp_path / "out" / "trajectory.tum"))
    assert 2 < count < 12
    assert da3("run", f"{tmp_path / 'bag'}?partial=yes", "--out", tmp_path / "all") == 0
    assert len(read_tum(tmp_path / "all" / "trajectory.tum")) == count


def test_stamps_that_do_not_increase_are_counted_and_the_rest_is_used(tmp_path, capsys):
    frames = list(WallSource(6))
    frames[3] = dataclasses.replace(frames[3], stamp_ns=frames[1].stamp_ns)

    class Disordered(WallSource):
        def __iter__(self) -> Iterator[Frame]:
            return iter(frames)

    write_bag(Disordered(6), tmp_path / "bag")
    for words in ([], ["--frames", "0:6"]):
        assert da3("run", tmp_path / "bag", "--out", tmp_path / "out", *words) == 0
        assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 5
        assert sum(figures(tmp_path / "out")["drops"].values()) == 1
    assert "drops                              1" in capsys.readouterr().out


# ---------------------------------------------------------------- Ctrl-C

LONG = "world:3?frames=3000&size=64x48"


def interrupt(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Press Ctrl-C once the first progress is shown; exit code, output and the errors said after that."""
    assert command.stderr is not None
    try:
        assert PROGRESS.search(command.stderr.readline())
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()
    return command.returncode, out, "".join(x for x in err.splitlines(keepends=True) if not PROGRESS.search(x))


def test_an_interrupted_run_saves_what_it_has(tmp_path):
    recording = tmp_path / "a.da3"
    code, out, err = interrupt(process("run", LONG, "--out", tmp_path / "out", "--record", recording))
    assert (code, err) == (130, "da3: interrupted; saving what there is (Ctrl-C again: stop at once)\n")
    assert set(contents(tmp_path / "out")) == RESULTS
    causal = read_tum(tmp_path / "out" / "trajectory_causal.tum")
    assert figures(tmp_path / "out")["notes"] == [
        f"interrupted after {len(causal)} of 3000 frames",
        f"the predictions until then are in {recording}.partial",
    ]
    assert f"note: interrupted after {len(causal)} of 3000 frames" in out
    assert not recording.exists()
    words = ("--frames", ":5", "--predictor", f"recorded:{recording}.partial")
    assert da3("run", LONG, *words, "--out", tmp_path / "again") == 0
    again = read_tum(tmp_path / "again" / "trajectory_causal.tum")
    np.testing.assert_array_equal(again.T_map_cam, causal.T_map_cam[:5])


def test_an_interrupted_bag_leaves_nothing(tmp_path):
    code, out, err = interrupt(process("bag", "make", LONG, tmp_path / "bag"))
    assert (code, out, err) == (130, "", "da3: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_the_second_interrupt_stops_at_once(capfd):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    source = StoppableSource(WallSource(5))
    with interruptible(source) as caught:
        frames = iter(source)
        next(frames)
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        assert list(frames) == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.count("interrupted") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_is_told_to_ignore_interrupts_does(capfd):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        source = StoppableSource(WallSource(5))
        with interruptible(source) as caught:
            signal.raise_signal(signal.SIGINT)
            assert len(list(source)) == 5
        assert not caught
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------- help, and playing


def test_every_command_explains_itself(capsys):
    assert da3("--help") == 0
    told = capsys.readouterr().out
    for command in ("demo", "run", "eval", "bag", "play", "config", "bench"):
        assert f"\n    {command} " in told
        assert da3(command, "--help") == 0
        assert f"usage: da3 {command}" in capsys.readouterr().out
    assert da3("bag", "make", "--help") == 0
    assert da3("--version") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("da3_ros ")
    assert da3() == 2
    assert capsys.readouterr().err == told


def test_the_installed_command_is_this_one():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("da3")), "run", "nothing/here"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("da3: nothing/here does not exist")


def test_playing_without_ros_says_what_is_missing(tmp_path):
    write_bag(WallSource(2), tmp_path / "bag")
    words = ["play", str(tmp_path / "bag")]
    hidden = f"import sys; sys.modules['rclpy'] = None; from da3_ros.cli import main; sys.exit(main({words}))"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "this needs ROS 2 with the messages of da3_ros" in done.stderr
    assert "make setup" in done.stderr


@pytest.mark.ros
@pytest.mark.skipif(bool(ros_missing()), reason=ros_missing() or "ROS 2 is here")
def test_a_bag_is_played_with_a_clock(domain, tmp_path):
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    write_bag(WallSource(10), tmp_path / "bag")
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    images: list[int] = []
    clock: list[int] = []
    best_effort = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, "/seen", lambda m: images.append(nanoseconds(m.header.stamp)), 20)
    node.create_subscription(Clock, "/clock", lambda m: clock.append(nanoseconds(m.clock)), best_effort)
    remap = ("--remap", "/camera/image_raw:=/seen", "--remap", "/truth/depth:=")
    command = process(
        *("play", tmp_path / "bag", "--clock", "--wait", "30", *remap), env={**os.environ, "ROS_DOMAIN_ID": str(domain)}
    )
    try:
        until = time.monotonic() + 60
        while command.poll() is None and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.1)
        for _ in range(50):
            executor.spin_once(timeout_sec=0.01)
        out, err = command.communicate(timeout=10)
    finally:
        command.kill()
        node.destroy_node()
        context.try_shutdown()
    assert command.returncode == 0, err
    assert out.startswith("played 30 messages, at most ")  # images, camera_info and poses; no depth
    stamps = [frame.stamp_ns for frame in WallSource(10)]
    assert images == stamps
    assert clock == sorted(clock)
    assert clock[-1] >= stamps[-1]


def nanoseconds(stamp) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


@pytest.mark.skipif(bool(ros_missing()), reason=ros_missing() or "ROS 2 is here")
def test_mistakes_of_playing(tmp_path, capsys, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    (tmp_path / "empty").mkdir()
    assert "holds no .mcap or .db3 file" in refused(capsys, "play", tmp_path / "empty")
    assert "does not exist" in refused(capsys, "play", tmp_path / "missing")
    write_bag(WallSource(2), tmp_path / "bag")
    assert "has no topic /no to remap; it has /camera/" in refused(
        capsys, "play", tmp_path / "bag", "--remap", "/no:=/a"
    )
    said = refused(capsys, "play", tmp_path / "bag", "--wait", "0.2")
    assert said.startswith("nobody subscribed to ")

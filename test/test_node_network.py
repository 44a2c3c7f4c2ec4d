"""The live node with a real network: it loads in the background, says so, and then predicts."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from da3_ros.msg import EngineInfo, SlamStatus

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="graphs cannot be exported without onnxscript")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fitted_model import SIZE, fitted_model
from ros_bench import DEFAULTS, FRAME, LATCHED, NAME, Bench, Camera, Heard, NodeProcess, arguments
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from da3_ros import config as configuration
from da3_ros.cli import main
from da3_ros.config import Config
from da3_ros.predictors import open_predictor
from da3_ros.ros import live, messages, player
from da3_ros.ros.live import evaluate_live
from da3_ros.sources.bag_writer import write_bag

LOADING_S = 240.0  # exporting the tiny network takes seconds, on a machine that has nothing else to do
WIDTH, HEIGHT = SIZE
NETWORK = {"network.size": f"{WIDTH}x{HEIGHT}", "network.runtime": "onnxruntime", "network.device": "cpu"}


@pytest.fixture(scope="module")
def model(walk, tmp_path_factory) -> Path:
    return fitted_model(tmp_path_factory.mktemp("models") / "tiny", walk[::2])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DA3_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache that is empty until somebody fills it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def filled(model, cache) -> Path:
    """A cache that has the graphs, which the first test has exported already unless it was left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DA3_CACHE", str(cache))
        predictor = open_predictor(configuration.updated(Config(), {"predictor": str(model), **NETWORK}))
        predictor.prepare(160, 120)
        predictor.close()
    return cache


@pytest.fixture
def filled_cache(filled, monkeypatch) -> None:
    monkeypatch.setenv("DA3_CACHE", str(filled))


@pytest.fixture
def launch(domain, tmp_path) -> Iterator[Callable[..., NodeProcess]]:
    processes, number = [], itertools.count()

    def start(**values: Any) -> NodeProcess:
        process = NodeProcess(domain, *arguments({**DEFAULTS, **values}), log=tmp_path / f"node{next(number)}.log")
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.close()


def listen(bench: Bench) -> Heard:
    return bench.listen(EngineInfo, f"{NAME}/engine", LATCHED)


def states(engine: Heard) -> list[int]:
    """Without repetitions."""
    told = [message.state for message in engine]
    return [state for i, state in enumerate(told) if i == 0 or told[i - 1] != state]


def steps(engine: Heard) -> set[str]:
    return {message.step for message in engine if message.state == EngineInfo.STATE_LOADING}


def until_engine(bench: Bench, engine: Heard, state: int) -> EngineInfo:
    bench.until(lambda: engine and engine[-1].state == state, f"engine state {state}", LOADING_S)
    return engine[-1]


# ------------------------------------------------------------ loading


@pytest.mark.timeout(600)
def test_from_an_empty_cache_to_depth(bench, walk, model, cache, monkeypatch):
    shutil.rmtree(cache)
    monkeypatch.setenv("DA3_CACHE", str(cache))
    engine, depth = listen(bench), bench.listen(Image, "depth/image")
    diagnostics = bench.listen(DiagnosticArray, "/diagnostics")
    confidence, infos = bench.listen(Image, "confidence/image"), bench.listen(CameraInfo, "depth/camera_info")
    bench.start(predictor=str(model), **{k.replace(".", "__"): v for k, v in NETWORK.items()})
    camera = Camera(bench, truth=False)
    camera.wait()
    waiting = until_engine(bench, engine, EngineInfo.STATE_WAITING)
    assert (waiting.model, waiting.width_px, waiting.height_px) == ("da3-tiny", 0, 0)
    bench.until_status(lambda s: s.state == SlamStatus.STATE_INIT, "nothing to do before the size is known")
    # The calibration alone tells the size.
    camera.info.publish(messages.camera_info(messages.header(walk[0].stamp_ns, FRAME), walk[0].camera))
    bench.until(lambda: any("exporting" in step for step in steps(engine)), "an export", LOADING_S)
    building = bench.until_status(lambda s: s.state == SlamStatus.STATE_BUILDING_ENGINE, "building")
    assert building.reason
    assert np.isnan(building.progress) or 0 <= building.progress <= 1
    told = [part for array in diagnostics for part in array.status if part.message.startswith("exporting da3-tiny")]
    assert {part.level for part in told} <= {DiagnosticStatus.WARN}
    # Frames that come meanwhile are tracked, and wait for nothing.
    sent, told_before = iter(walk), 0
    for frame in itertools.islice(sent, 40):
        if engine[-1].state != EngineInfo.STATE_LOADING:
            break
        camera.show([frame])
        bench.pause(1.0)
        told_before = told_before or len(bench.status)
    ready = until_engine(bench, engine, EngineInfo.STATE_READY)
    assert (ready.model, ready.licence, ready.runtime, ready.device, ready.gpu, ready.precision) == (
        *("da3-tiny", "Apache-2.0", "onnxruntime"),
        *("cpu", "", "fp32"),
    )
    assert (ready.width_px, ready.height_px, ready.views, ready.step) == (WIDTH, HEIGHT, 4, "")
    assert ready.elapsed_s > 0
    assert states(engine)[-3:] == [EngineInfo.STATE_WAITING, EngineInfo.STATE_LOADING, EngineInfo.STATE_READY]
    assert all(s.windows == 0 for s in bench.status if s.state == SlamStatus.STATE_BUILDING_ENGINE)
    after = bench.status[told_before:]  # a slow machine has time to miss images before it is shown the first
    assert not [s.reason for s in after if "no output" in s.reason or "no image" in s.reason]
    # The first window is made of the newest frame, not of the first.
    camera.show([next(sent)])
    newest = bench.odometry.stamps[-1]
    bench.until(lambda: depth, "depth")
    assert depth.stamps[0] >= bench.odometry.stamps[-2]
    camera.show(list(sent)[:15])
    bench.until_status(lambda s: s.state == SlamStatus.STATE_TRACKING and s.windows > 2, "tracking")
    bench.until(lambda: depth.stamps[-1] > newest and confidence and infos, "more depth")
    status = bench.until_status(lambda s: s.scale_source, "a scale")
    assert (status.scale_source, status.metric) == (SlamStatus.SCALE_SOURCE_FIRST_WINDOW, False)
    assert np.isnan(status.gpu_memory_mb)
    image = depth[0]  # of its own frame; later ones are warped, and have holes
    assert (image.width, image.height, image.encoding) == (WIDTH, HEIGHT, "32FC1")
    metres = np.frombuffer(image.data, np.float32)
    assert np.isfinite(metres).mean() > 0.9
    assert 0.5 < np.nanmedian(metres) < 20
    sure = np.frombuffer(confidence[-1].data, np.float32)
    assert (sure >= 0).all()
    assert (sure < 1).all()
    K = walk[0].camera.resized(WIDTH, HEIGHT).matrix
    assert (infos[-1].width, infos[-1].height) == (WIDTH, HEIGHT)
    assert np.allclose(infos[-1].k, K.ravel())
    assert bench.logged("da3-tiny (licence Apache-2.0) on onnxruntime cpu fp32")


@pytest.mark.timeout(600)
def test_what_was_exported_once_is_not_exported_again(bench, walk, model, filled_cache):
    """And a manager may take the node through its states again."""
    engine = listen(bench)
    values = {"predictor": str(model), **NETWORK, "node.autostart": False}
    bench.start(**{k.replace(".", "__"): v for k, v in values.items()})
    camera = Camera(bench, truth=False)
    for first in (0, 20):
        until_engine(bench, engine, EngineInfo.STATE_NONE)
        assert bench.transition("configure")
        assert bench.transition("activate")
        camera.wait()
        camera.show(walk[first : first + 2])
        until_engine(bench, engine, EngineInfo.STATE_READY)
        camera.show(walk[first + 2 : first + 4])
        bench.until_status(lambda s: s.keyframes > 0, "a first window, however long it takes")
        camera.show(walk[first + 4 : first + 6])
        bench.until_status(lambda s: s.state == SlamStatus.STATE_TRACKING, "tracking")
        assert bench.transition("deactivate")
        assert bench.transition("cleanup")
    until_engine(bench, engine, EngineInfo.STATE_NONE)
    assert not [step for step in steps(engine) if "exporting" in step]


@pytest.mark.timeout(600)
def test_images_of_another_size_after_a_reset(bench, walk, model, filled_cache):
    engine, depth = listen(bench), bench.listen(Image, "depth/image")
    bench.start(predictor=str(model), network__runtime="torch", network__device="cpu")
    camera = Camera(bench, truth=False)
    camera.wait()
    camera.show(walk[:2])
    first = until_engine(bench, engine, EngineInfo.STATE_READY)
    assert (first.width_px, first.height_px) == (280, 210)
    camera.show(walk[2:4])
    bench.until(lambda: depth, "depth", LOADING_S)
    assert bench.call(Trigger, "reset").success
    upper = [
        replace(f, image=np.ascontiguousarray(f.image[:60]), camera=f.camera.cropped(0, 0, 160, 60)) for f in walk[4:8]
    ]
    camera.show(upper)
    bench.until(lambda: engine[-1].state == EngineInfo.STATE_READY and engine[-1].height_px == 112, "ready", LOADING_S)
    bench.until(lambda: (depth[-1].width, depth[-1].height) == (280, 112), "depth of the new size", LOADING_S)


def test_a_predictor_without_a_network_is_ready(bench, walk):
    engine = listen(bench)
    bench.start()
    ready = until_engine(bench, engine, EngineInfo.STATE_READY)
    assert (ready.model, ready.runtime, ready.width_px, ready.step) == ("", "", 0, "")


# ------------------------------------------------------------ what cannot be loaded


def test_a_folder_without_a_model_fails_the_transition(bench, tmp_path):
    engine = listen(bench)
    bench.start(predictor=str(tmp_path), node__autostart=False)
    assert not bench.transition("configure")
    bench.until(lambda: bench.logged("has no model.safetensors"), "the log")
    until_engine(bench, engine, EngineInfo.STATE_NONE)


def test_a_folder_without_a_model_ends_the_process(launch, tmp_path):
    process = launch(predictor=str(tmp_path))
    assert process.wait() == 1
    assert "has no model.safetensors" in process.output
    assert "Traceback" not in process.output


def test_a_network_that_cannot_be_made_ready_ends_the_process(bench, launch, walk, model):
    engine = listen(bench)
    process = launch(**{"predictor": str(model), **NETWORK, "network.size": "100x56"})
    camera = Camera(bench, truth=False)
    bench.until(lambda: (camera.send(walk[0]), process.process.poll() is not None)[1], "its end", LOADING_S)
    assert process.wait() == 1
    lines = [line for line in process.output.splitlines() if "the predictor cannot be used: " in line]
    assert len(lines) == 1
    assert "try 98x56" in lines[0]
    assert "Traceback" not in process.output
    failed = until_engine(bench, engine, EngineInfo.STATE_FAILED)
    assert "try 98x56" in failed.step
    bench.until_status(lambda s: s.state == SlamStatus.STATE_FAILED and "try 98x56" in s.reason, "the last status")


@pytest.mark.timeout(600)
def test_sigint_while_exporting_ends_the_process_cleanly(bench, launch, walk, model, empty_cache):
    engine = listen(bench)
    process = launch(**{"predictor": str(model), **NETWORK})
    camera = Camera(bench, truth=False)
    bench.until(
        lambda: (camera.send(walk[0]), any("exporting" in step for step in steps(engine)))[1], "an export", LOADING_S
    )
    assert process.interrupt() == 0
    for word in ("Traceback", "terminate", "Aborted", "FATAL", "ERROR"):
        assert word not in process.output
    until_engine(bench, engine, EngineInfo.STATE_NONE)  # its last word may reach us after its end


@pytest.mark.timeout(600)
def test_sigint_ends_a_process_that_waits_for_what_nothing_interrupts(bench, launch, walk, model, empty_cache):
    """Two nodes want the same graphs; the one that makes them stands still, and the other waits for its lock."""
    engine = listen(bench)
    values = {"predictor": str(model), **NETWORK}
    maker = launch(**values)
    camera = Camera(bench, truth=False)

    def until_step(text: str) -> None:
        bench.until(lambda: (camera.send(walk[0]), any(text in step for step in steps(engine)))[1], text, LOADING_S)

    until_step("exporting")
    maker.process.send_signal(signal.SIGSTOP)
    waiting = launch(**values)
    until_step("waiting for another process")
    assert waiting.interrupt() == 0
    for word in ("Traceback", "terminate", "FATAL", "ERROR"):
        assert word not in waiting.output


# ------------------------------------------------------------ evaluation


@pytest.mark.timeout(600)
@pytest.mark.parametrize("calibrated", [True, False])
def test_live_evaluation_waits_for_the_network(domain, walk, model, filled_cache, tmp_path, monkeypatch, calibrated):
    class Walk:
        name = "walk"

        def __iter__(self):
            return (frame if calibrated else replace(frame, camera=None) for frame in walk[:15])

        def __len__(self):
            return 15

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(live, "_QUIET_S", 0.5)
    monkeypatch.setattr(player, "_SETTLE_S", 0.3)
    write_bag(Walk(), tmp_path / "bag")
    values = {"predictor": str(model), **NETWORK, "tracker.width": 160, "node.mailbox": 30, "window.size": 4}
    config = configuration.updated(Config(), {**values, "window.overlap": 3, "keyframe.max_interval_s": 0.3})
    said: list[str] = []
    record, summary = evaluate_live(tmp_path / "bag", config, tmp_path / "out", rate=0.5, say=said.append)
    assert (summary["frames"], summary["coverage"], sum(summary["drops"].values())) == (15, 1.0, 0)
    assert record.trajectory.keyframe[0], "nothing was played before the network was there"
    assert not record.metric
    assert said  # of the network too, unless it is there before anybody looks


@pytest.mark.timeout(600)
def test_a_run_without_ros_says_the_same_twice(model, filled_cache, tmp_path, capsys):
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        command = ["run", "world:3?frames=12&size=160x120", "--predictor", str(model), "--out", str(out)]
        for key, value in NETWORK.items():
            command += ["--set", f"{key}={value}"]
        assert main(command) == 0, capsys.readouterr().err
    for name in ("trajectory.tum", "trajectory_causal.tum", "map.ply"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name

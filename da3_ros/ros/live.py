"""Evaluate the live node: start it, play a bag to it over DDS, watch it, and report.

Nothing is shared with the node but ROS: what this measures is what any other program would receive.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo

import da3_ros
from da3_ros import config as configs
from da3_ros.config import Config
from da3_ros.errors import Da3Error, OutputError, SourceError
from da3_ros.evaluation.record import Record, Sample
from da3_ros.evaluation.report import write_report
from da3_ros.evaluation.summary import Summary, summarise, write_json
from da3_ros.files import reason
from da3_ros.mapping import ply
from da3_ros.msg import EngineInfo
from da3_ros.ros.calibration import announced_size
from da3_ros.ros.fastdds import use_profile
from da3_ros.ros.observer import Observer, dropped
from da3_ros.ros.player import Progress, play
from da3_ros.ros.predictor_thread import OPENING
from da3_ros.sources import bag_types
from da3_ros.sources.bag import BagSource
from da3_ros.sources.player import BagPlayback
from da3_ros.sources.tum import read_tum
from da3_ros.types import Trajectory

NODE = "/da3_slam"
START_S = 120.0
LOAD_S = 3600.0  # a network may have to be downloaded and compiled
DRAIN_S = 60.0
_QUIET_S = 1.5
_ANNOUNCE_S = 1.0
_SAMPLES = 6

Say = Callable[[str], None]


def evaluate_live(
    bag: Path,
    config: Config,
    out: Path,
    *,
    rate: float = 1.0,
    name: str | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> tuple[Record, Summary]:
    """Run the node on a bag and write report.json, report.html, trajectories, map.ply and config.yaml.

    The node runs as a process of its own with a simulated clock, on ``ROS_DOMAIN_ID`` where that is set and on a
    free domain otherwise; its output goes to ``node.log`` in ``out``.

    Args:
        bag: rosbag2 with images and, for the simulated predictor, ``truth/depth`` and ``truth/pose``.
        config: of the node.
        out: folder for the results.
        rate: playing speed.
        name: of the recording in the results; else that of the bag.
        progress: called while the bag plays.
        say: called with one line per step.

    Returns:
        (record, summary)

    Raises:
        SourceError: the bag cannot be used.
        OutputError: the results cannot be written.
        Da3Error: the node ended early or did not answer; the sentence names its log.
    """
    say = say or (lambda _: None)
    source = BagSource(bag)
    remap = _remap(source, config)
    config = replace(config, node=replace(config.node, autostart=True, publish_when_lost=True))
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {out}: {reason(error)}; choose another place with --out") from error
    truth, stamps = _truth(source)
    with _context() as (context, domain), _node_process(config, out / "node.log", domain) as node:
        observer = Observer(context, NODE, _spread(stamps))
        try:
            say(f"starting the node (domain {domain}, log {node.log})")
            _load(source, observer, node, say)
            say(f"playing {bag} at {rate:g}x")
            _play(bag, rate, source.topics.image, remap, context, observer, node, progress)
            say("waiting until the node has finished")
            _wait(lambda: observer.settled(_QUIET_S), node, DRAIN_S, "did not finish")
            notes, keyframes = _collect(observer, out)
            if not config.window.live:  # otherwise every frame is predicted
                observer.leave_out_inference(keyframes)
            status = observer.status
        finally:
            observer.close()
    assert status is not None
    record = Record(
        title=f"{name or source.name}, live",
        source=name or source.name,
        predictor=config.predictor,
        method="ours",
        mode="live",
        trajectory=_marked(read_tum(out / "trajectory.tum"), keyframes),
        causal=_marked(read_tum(out / "trajectory_causal.tum"), keyframes),
        truth=truth,
        windows=observer.windows,
        latency_ms=observer.latency_ms(),
        latency_histograms=observer.latency.histograms(),
        drops=dropped(status),
        counts={
            "frames": len(stamps),
            "keyframes": status.keyframes,
            "submaps": status.submaps,
            "windows": status.windows,
            "segments": status.time_jumps + 1,
            "loops": status.loops,
            "breaks_detected": status.scale_breaks_detected,
            "breaks_repaired": status.scale_breaks_repaired,
            "map_points": status.map_points,
        },
        samples=_samples(source, stamps, observer),
        metric=status.metric,
        config_text=configs.dump(config),
        notes=notes,
    )
    if (out / "map.ply").exists():
        record.map_points, record.map_colors = ply.read(out / "map.ply")
    lost = len(stamps) - status.frames_received
    if lost > 0:
        record.notes.append(f"{lost} images were lost between the player and the node.")
    if observer.odometry < status.frames_accepted:
        record.notes.append(f"{status.frames_accepted - observer.odometry} odometry messages did not arrive.")
    summary = summarise(record)
    write_json(out / "report.json", summary)
    write_report(out / "report.html", record, summary)
    configs.save(config, out / "config.yaml")
    return record, summary


def _remap(source: BagSource, config: Config) -> dict[str, str]:
    """Recorded topics -> the node's; other topics are not played.

    Raises:
        SourceError: the simulated predictor needs ground truth that the bag lacks.
    """
    topics = source.topics
    available = {name: topic.msgtype for name, topic in BagPlayback(source.path).topics.items()}
    remap = dict.fromkeys(available, "")
    compressed = available[topics.image] == bag_types.COMPRESSED
    remap[topics.image] = "/image/compressed" if compressed else "/image"
    if topics.camera_info is not None:
        remap[topics.camera_info] = "/camera_info"
    if config.predictor.startswith("simulated"):
        wanted = {"depth": (topics.depth, bag_types.IMAGE), "pose": (topics.pose, bag_types.POSE)}
        for kind, (name, msgtype) in wanted.items():
            if name is None or available[name] != msgtype:
                raise SourceError(
                    f"{source.path} has no ground-truth {kind} ({msgtype}) for the simulated predictor; make a bag of "
                    "the source with 'da3 bag make', or use another predictor"
                )
            remap[name] = f"/truth/{kind}"
    for name, asked, target in (
        (topics.depth_prior, config.prior.depth, bag_types.DEPTH_PRIOR_TOPIC),
        (topics.odom_prior, config.prior.odometry, bag_types.ODOM_PRIOR_TOPIC),
        (topics.imu, config.prior.imu, bag_types.IMU_TOPIC),
    ):
        if name is not None and asked != "never":
            remap[name] = target
    if "/tf_static" in remap and (topics.depth_prior or topics.odom_prior or topics.imu):
        remap["/tf_static"] = "/tf_static"
    return remap


def _truth(source: BagSource) -> tuple[Trajectory | None, list[int]]:
    """Ground-truth camera poses, and the stamps of all frames that can be used."""
    stamps, posed, poses = [], [], []
    for frame in source:
        stamps.append(frame.stamp_ns)
        if frame.truth is not None and frame.truth.T_world_cam is not None:
            posed.append(frame.stamp_ns)
            poses.append(frame.truth.T_world_cam)
    truth = Trajectory(np.array(posed, np.int64), np.array(poses)) if len(poses) > 1 else None
    return truth, stamps


def _spread(stamps: list[int]) -> list[int]:
    """A few stamps, evenly over the run, past its very start."""
    places = np.linspace(0.05, 0.95, _SAMPLES) * (len(stamps) - 1)
    return sorted({stamps[round(place)] for place in places.tolist()})


def _samples(source: BagSource, stamps: list[int], observer: Observer) -> list[Sample]:
    """Depth as published beside the image and true depth of the same frame."""
    out = []
    for sample in observer.samples:
        if sample.confidence is None or sample.stamp_ns not in stamps:
            continue
        index = stamps.index(sample.stamp_ns)
        for frame in source.select(range(index, index + 1)):
            truth = frame.truth.depth if frame.truth is not None else None
            out.append(Sample(frame.id, frame.stamp_ns, frame.image, sample.depth, sample.confidence, truth))
    return out


def _load(source: BagSource, observer: Observer, node: NodeProcess, say: Say) -> None:
    """Wait until the node is ready to predict: what is played before is lost on it.

    Its network is loaded for the size of the images, which the first camera_info of the bag tells; where there is none,
    one says so that says nothing else.

    Raises:
        SourceError: the first image of the bag is needed and cannot be read.
        Da3Error: the node ended, or was not ready in time.
    """
    told = ""

    def engine_in(*states: int) -> bool:
        nonlocal told
        engine = observer.engine
        if engine is None:
            return False
        if engine.state == EngineInfo.STATE_LOADING and engine.step not in (told, OPENING):
            told = engine.step
            say(told)
        return engine.state in states

    waiting, ready = EngineInfo.STATE_WAITING, EngineInfo.STATE_READY
    _wait(lambda: observer.engine is not None, node, START_S, "did not answer")
    _wait(lambda: engine_in(waiting, ready), node, LOAD_S, "did not open its predictor")
    _wait(observer.ready, node, START_S, "did not become ready")
    if engine_in(ready):
        return
    due = 0.0
    with observer.announcing(_first_info(source)) as announce:

        def loaded() -> bool:
            nonlocal due
            if engine_in(waiting) and time.monotonic() >= due:
                due = time.monotonic() + _ANNOUNCE_S
                announce()
            return engine_in(ready)

        _wait(loaded, node, LOAD_S, "did not load its network")


def _first_info(source: BagSource) -> CameraInfo:
    """The first camera_info of a bag, else one of an uncalibrated camera; with the size of the images."""
    info, topic = CameraInfo(), source.topics.camera_info
    if topic is not None:
        for _, _, _, raw in BagPlayback(source.path, [topic]):
            info = deserialize_message(raw, CameraInfo)
            break
    if announced_size(info) is None:
        for frame in source.select(range(1)):
            info.height, info.width = frame.image.shape[:2]
    return info


def _play(
    bag: Path,
    rate: float,
    image_topic: str,
    remap: dict[str, str],
    context: Context,
    observer: Observer,
    node: NodeProcess,
    progress: Progress | None,
) -> None:
    def on_publish(topic: str, raw: bytes) -> None:
        if topic == image_topic:
            observer.image_sent(raw)
            node.check()

    result = play(
        bag,
        rate=rate,
        clock=True,
        wait_s=START_S,
        wait_for_all=True,
        remap=remap,
        progress=progress,
        context=context,
        on_publish=on_publish,
    )
    if result.interrupted:
        raise KeyboardInterrupt


def _collect(observer: Observer, out: Path) -> tuple[list[str], set[int]]:
    """Have the node write its results; returns remarks and the stamps of keyframes.

    Raises:
        Da3Error: it has no trajectory, or did not answer.
    """
    notes: list[str] = []
    (out / "map.ply").unlink(missing_ok=True)  # of an earlier run: an empty map writes nothing
    for causal, name in ((False, "trajectory.tum"), (True, "trajectory_causal.tum")):
        answer = observer.save_trajectory(out / name, causal=causal)
        if not answer.success:
            reason = observer.status.reason if observer.status is not None else ""
            raise Da3Error(f"the node has no trajectory: {answer.message}" + (f" ({reason})" if reason else ""))
    keyframes: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keyframes.tum"
        if observer.save_trajectory(path, causal=False, keyframes_only=True).success:
            keyframes = set(read_tum(path).stamps_ns.tolist())
    answer = observer.save_map(out / "map.ply")
    if not answer.success:
        notes.append(f"No map: {answer.message}.")
    return notes, keyframes


def _marked(trajectory: Trajectory, keyframes: set[int]) -> Trajectory:
    flags = np.array([stamp in keyframes for stamp in trajectory.stamps_ns.tolist()], bool)
    return Trajectory(trajectory.stamps_ns, trajectory.T_map_cam, flags)


def _wait(done: Callable[[], bool], node: NodeProcess, timeout_s: float, failure: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        node.check()
        if time.monotonic() > deadline:
            raise Da3Error(f"the node {failure} within {timeout_s:g} s; look at {node.log}")
        time.sleep(0.05)


@contextmanager
def _context() -> Iterator[tuple[Context, int]]:
    """A ROS context on the user's domain, or on one that is probably free; confined to this machine."""
    use_profile()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    given = os.environ.get("ROS_DOMAIN_ID", "")
    domain = int(given) if given.isdigit() else random.SystemRandom().randint(1, 100)
    context = Context()
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield context, domain
    finally:
        context.try_shutdown()


class NodeProcess:
    """The node as a child."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def check(self) -> None:
        """Raise Da3Error where it has ended."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            last = f": {lines[-1]}" if lines else ""
            raise Da3Error(f"the node ended with exit code {code}{last} (log: {self.log})")

    def stop(self) -> None:
        """SIGINT, and SIGKILL where that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def _node_process(config: Config, log: Path, domain: int) -> Iterator[NodeProcess]:
    """Run the node on its own topic names: the player renames what it plays."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "parameters.yaml"
        parameters.write_text(configs.dump(config, ros=True))
        command = [sys.executable, "-m", "da3_ros.ros.slam_node"]
        command += ["--ros-args", "--params-file", str(parameters), "-p", "use_sim_time:=true"]
        try:
            output = log.open("wb")
        except OSError as error:
            raise OutputError(f"cannot write {log}: {reason(error)}") from error
        with output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_environment(domain)
            )
            node = NodeProcess(process, log)
            try:
                yield node
            finally:
                node.stop()


def _environment(domain: int) -> dict[str, Any]:
    """The child runs this very package on the same domain."""
    root = str(Path(da3_ros.__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ROS_DOMAIN_ID": str(domain)}

"""A source through predictor, SLAM and map, without ROS and without threads: same input twice, same bytes out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import SourceError
from da3_ros.evaluation.depths import DepthCheck, check
from da3_ros.evaluation.latency import Latency
from da3_ros.evaluation.map_poses import PoseChecks
from da3_ros.evaluation.record import Record, Sample
from da3_ros.evaluation.steps import StepChecks
from da3_ros.evaluation.trajectory import as_trajectory
from da3_ros.mapping.map import Map
from da3_ros.slam.junction import Method
from da3_ros.slam.sight import Sight
from da3_ros.slam.slam import Slam
from da3_ros.slam.stamps import StampGate
from da3_ros.sources.priors import PriorSource
from da3_ros.types import DepthMap, Frame, Integration, Prediction, Predictor, Source, State, Window

_SAMPLES = 4  # frames shown in the report
_CHECKS = 50  # frames whose depth is compared with the truth, about

Progress = Callable[[int, int, Slam], None]


@dataclass(slots=True)
class TimedPredictor:
    """Measures a predictor."""

    inner: Predictor
    latency: Latency

    @property
    def name(self) -> str:
        """Name of the predictor inside."""
        return self.inner.name

    @property
    def needs_truth(self) -> bool:
        """As the predictor inside."""
        return self.inner.needs_truth

    def prepare(self, width: int, height: int) -> None:
        """Prepare the predictor inside; not counted."""
        self.inner.prepare(width, height)

    def predict(self, window: Window) -> Prediction:
        """Predict and note the time."""
        started = time.perf_counter()
        prediction = self.inner.predict(window)
        self.latency.add("predict", time.perf_counter() - started)
        return prediction

    def close(self) -> None:
        """Close the predictor inside."""
        self.inner.close()


class OfflineRun:
    """One pass over a source."""

    def __init__(self, source: Source, predictor: Predictor, config: Config, method: Method | None = None) -> None:
        """Prepare; ``run`` does the work."""
        self._source = PriorSource(source, config.prior, config.seed)
        self._config, self._method = config, method or Method()
        self._latency = Latency()
        self._predictor = TimedPredictor(predictor, self._latency)
        self._slam, self._map = Slam(config, self._method), Map(config.map)
        self._gate = StampGate(config.node)
        self._truth: list[tuple[int, np.ndarray]] = []
        self._samples: list[Sample] = []
        self._depth: dict[str, list[DepthCheck]] = {}
        self._steps, self._poses = StepChecks(), PoseChecks()
        self._drops: dict[str, int] = {}

    def run(self, progress: Progress | None = None) -> tuple[Record, SourceError | None]:
        """Process every frame.

        Returns:
            The record of all that was read, and the error that ended the source early, if one did.
        """
        total = len(self._source)
        every = max(total // (_SAMPLES + 1), 1)
        wanted = {every * (i + 1) for i in range(_SAMPLES)} if total > _SAMPLES else set(range(total))
        checked = max(total // _CHECKS, 1)
        failure = None
        frames = iter(self._source)
        for count in itertools.count():  # not up to the total: what is wrong may only be said at the very end
            try:
                frame = next(frames, None)
            except SourceError as error:
                failure = error
                break
            if frame is None:
                break
            self._step(frame, sample=count in wanted, compare=count % checked == 0)
            if progress:
                progress(count + 1, total, self._slam)
        return self._finish(failure), failure

    def _step(self, frame: Frame, *, sample: bool, compare: bool) -> None:
        ruling = self._gate.judge(frame.stamp_ns, 0)
        if ruling.drop:
            self._drops[ruling.drop] = self._drops.get(ruling.drop, 0) + 1
            return
        if ruling.cut:
            self._fuse(Integration(None, tuple(self._slam.cut(ruling.cut)), {}, 0))
        if frame.truth is not None and frame.truth.T_world_cam is not None:
            self._truth.append((frame.stamp_ns, frame.truth.T_world_cam))
        truth = frame.truth.depth if frame.truth else None
        compare = compare and truth is not None
        started = time.perf_counter()
        estimate = self._slam.track(frame)
        self._latency.add("track", time.perf_counter() - started)
        T_world_cam = frame.truth.T_world_cam if frame.truth else None
        self._steps.add(estimate, T_world_cam)
        self._poses.add(estimate, T_world_cam)
        sight = self._slam.sight() if compare else None
        integrations = self._slam.catch_up(self._predictor)
        self._latency.add("frame", time.perf_counter() - started)
        if compare and estimate.state is not State.INIT:
            self._compare_warped(sight, frame)
        for integration in integrations:
            self._fuse(integration)
            depth = integration.depth
            if depth is None or depth.frame_id != frame.id:
                continue
            if sample:
                self._samples.append(
                    Sample(frame.id, frame.stamp_ns, frame.image, depth.depth, depth.confidence, truth)
                )
            if compare:
                self._compare("predicted", depth, 0.0, frame)

    def _compare_warped(self, sight: Sight | None, frame: Frame) -> None:
        if sight is None:  # nothing goes out
            self._compare("warped", None, float("nan"), frame)
            return
        started = time.perf_counter()
        depth = sight.depth_map()
        self._latency.add("warp", time.perf_counter() - started)
        self._compare("warped", depth, (sight.stamp_ns - sight.predicted_ns) * 1e-9, frame)

    def _compare(self, kind: str, depth: DepthMap | None, age_s: float, frame: Frame) -> None:
        assert frame.truth is not None
        assert frame.truth.depth is not None
        found = check(depth, age_s, frame.truth.depth, self._config.node.min_confidence)
        self._depth.setdefault(kind, []).append(found)

    def _fuse(self, integration: Integration) -> None:
        started = time.perf_counter()
        for keyframe in integration.fused:
            self._map.insert(keyframe)
        self._map.move(integration.anchors, integration.sizes)
        if integration.fused:
            self._latency.add("map", time.perf_counter() - started)

    def _finish(self, failure: SourceError | None) -> Record:
        fused, anchors, factors = self._slam.finish()
        for keyframe in fused:
            self._map.insert(keyframe)
        self._map.move(anchors, factors)
        points, colors = self._map.points()
        status = self._slam.status()
        notes = [f"the source ended early: {failure}"] if failure else []
        if not status.keyframes and status.reason:
            notes.append(f"no window could be used: {status.reason}")
        notes += [status.doubt] if status.doubt else []
        if self._source.missing:
            notes.append(f"{self._source.missing} was asked for, and {self._source.name} has none")
        return Record(
            title=self._source.name,
            source=self._source.name,
            predictor=self._predictor.name,
            method=self._method.name,
            mode="offline",
            trajectory=self._slam.trajectory(),
            causal=self._slam.causal_trajectory(),
            truth=as_trajectory(self._truth),
            windows=list(self._slam.windows),
            latency_ms=self._latency.summary(),
            latency_histograms=self._latency.histograms(),
            drops={**self._drops, **self._source.skipped},
            counts={
                "frames": status.frames,
                "keyframes": status.keyframes,
                "submaps": status.submaps,
                "windows": status.windows,
                "breaks_detected": status.breaks_detected,
                "breaks_repaired": status.breaks_repaired,
                "segments": status.segments,
                "loops": status.loops,
                "loops_tried": status.loops_tried,
                "map_points": len(points),
            },
            samples=self._samples,
            depth=self._depth,
            steps=self._steps.found,
            poses=self._poses.found,
            map_points=points,
            map_colors=colors,
            metric=status.metric,
            config_text=configuration.dump(self._config, comments=True),
            notes=notes,
        )

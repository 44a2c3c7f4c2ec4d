"""Chunked chaining: 60 frames at a time, 30 of them shared, joined by IRLS-Huber Umeyama on the shared point maps.

As VGGT-Long and DA3-Streaming do it, without their loop closure: every frame is predicted, the chunks' confident
points of the shared frames are aligned by a similarity whose weights are confidence times Huber's (delta 0.1, five
rounds), and similarities are multiplied.  A frame's pose is what the first chunk that holds it says; nothing is known
of it before that chunk is complete, so that this is no causal trajectory in our sense but a friendlier one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.evaluation.baselines.free_sim3 import points_of
from da3_ros.evaluation.record import Record
from da3_ros.evaluation.trajectory import as_trajectory
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3, umeyama
from da3_ros.slam.window import View, unpack
from da3_ros.types import Frame, Predictor, Source, Trajectory, Window

CHUNK, OVERLAP = 60, 30  # frames
_DELTA, _ROUNDS = 0.1, 5  # Huber's threshold in units of the map; re-weightings
_CONFIDENT = 0.1  # share of the median confidence below which a pixel does not count
_SAMPLE = 4  # every so many pixels in both axes: 100,000 pairs a seam are plenty


Progress = Callable[[int, int], None]


def record(source: Source, predictor: Predictor, config: Config, progress: Progress | None = None) -> Record:
    """Chain the chunks of a source; the map stays empty.

    Raises:
        PredictorError: a chunk cannot be predicted; there is no way on.
        SourceError: a frame cannot be read.
    """
    chain, truth = _Chain(), []
    waiting: list[Frame] = []
    fresh = 0
    for count, frame in enumerate(source, 1):
        if frame.truth is not None and frame.truth.T_world_cam is not None:
            truth.append((frame.stamp_ns, frame.truth.T_world_cam))
        waiting.append(frame)
        fresh += 1
        if len(waiting) == CHUNK:
            chain.add(waiting, predictor)
            waiting, fresh = waiting[-OVERLAP:], 0
        if progress is not None:
            progress(count, len(source))
    if fresh:
        chain.add(waiting, predictor)
    trajectory = chain.trajectory()
    counts = dict.fromkeys(("submaps", "breaks_detected", "breaks_repaired", "segments", "loops", "map_points"), 0)
    return Record(
        title=source.name,
        source=source.name,
        predictor=predictor.name,
        method="chunked_irls",
        mode="offline",
        trajectory=trajectory,
        causal=trajectory,
        truth=as_trajectory(truth),
        counts={**counts, "frames": len(trajectory), "keyframes": len(trajectory), "windows": chain.count},
        metric=False,
        config_text=configuration.dump(config, comments=True),
        notes=["poses are those of the first chunk that holds a frame, known when that chunk was complete"],
    )


class _Chain:
    """Chunks joined so far."""

    def __init__(self) -> None:
        self.count = 0
        self._views: dict[int, View] = {}  # of the latest chunk, by frame
        self._S_map_chunk = Sim3.identity()
        self._poses: list[tuple[int, Array]] = []  # by stamp

    def add(self, frames: list[Frame], predictor: Predictor) -> None:
        """Predict a chunk and join it to the one before."""
        self.count += 1
        prediction = predictor.predict(Window(self.count, tuple(frames), tuple(range(len(frames)))))
        cameras = [frame.camera for frame in frames]
        views = {frame.id: view for frame, view in zip(frames, unpack(prediction, cameras, cameras), strict=True)}
        shared = [frame for frame in frames if frame.id in self._views]
        if shared:
            before, after = ([chunk[frame.id] for frame in shared] for chunk in (self._views, views))
            self._S_map_chunk = self._S_map_chunk @ align(before, after)
        for frame in frames:
            if frame.id not in self._views:
                self._poses.append((frame.stamp_ns, self._S_map_chunk.act_pose(views[frame.id].T_win_cam)))
        self._views = views

    def trajectory(self) -> Trajectory:
        """All frames."""
        return as_trajectory(self._poses) or Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))


def align(before: list[View], after: list[View]) -> Sim3:
    """Similarity ``S_before_after`` between two chunks' points of the same views."""
    target, source, weights = zip(*map(_pairs, before, after), strict=True)
    a, b, confidence = np.concatenate(target), np.concatenate(source), np.concatenate(weights)
    S = umeyama(b, a, weights=confidence)
    for _ in range(_ROUNDS):
        residual = np.linalg.norm(a - S.act(b), axis=1)
        S = umeyama(b, a, weights=confidence * np.minimum(1.0, _DELTA / np.maximum(residual, 1e-12)))
    return S


def _pairs(before: View, after: View) -> tuple[Array, Array, Array]:
    """Points (N, 3) of the same pixels in both chunks, and their confidence (N,)."""
    ours, theirs = before.depth, after.depth
    assert ours is not None
    assert theirs is not None
    keep = np.zeros(ours.log.shape, bool)
    keep[::_SAMPLE, ::_SAMPLE] = True
    for depth in (ours, theirs):
        keep &= np.isfinite(depth.log) & (depth.confidence > _CONFIDENT * np.median(depth.confidence))
    points = [points_of(depth, view.T_win_cam, keep) for view, depth in ((before, ours), (after, theirs))]
    return points[0], points[1], np.sqrt((ours.confidence * theirs.confidence)[keep]).astype(float)

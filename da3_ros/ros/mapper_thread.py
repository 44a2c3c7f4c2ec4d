"""The thread that owns the map: fuses keyframes and publishes what changed, at a limited rate."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, Queue
from typing import Protocol, TypeVar

from da3_ros.config import Config
from da3_ros.geometry.se3 import Array
from da3_ros.mapping.map import Map, SubmapChange
from da3_ros.ros.counters import Counters, Stopwatch
from da3_ros.ros.graph import GraphLog
from da3_ros.ros.pace import Pace
from da3_ros.ros.promise import promised
from da3_ros.types import FloatArray, FusedKeyframe, ImageArray, Integration, Trajectory

T = TypeVar("T")

# More keyframes than this waiting means the map cannot keep up; the oldest are left out and counted.
_MOST_WAITING = 64
_IDLE_S = 0.1


class MapOutputs(Protocol):
    """What the mapper publishes; called on its thread."""

    def map_listeners(self) -> tuple[int, int, int]:
        """Number of subscribers of map/points, map/updates and pose_graph."""
        ...

    def map_points(self, points: FloatArray, colors: ImageArray) -> None:
        """Publish the whole map."""
        ...

    def map_changes(self, changes: list[SubmapChange], revision: int, session: int) -> None:
        """Publish submaps that changed."""
        ...

    def graph(self, graph: GraphLog, anchors: dict[int, Array], sizes: dict[int, float], revision: int) -> None:
        """Publish the pose graph."""
        ...

    def path(self, trajectory: Trajectory) -> None:
        """Publish camera poses in map axes."""
        ...

    def path_took(self, seconds: float) -> None:
        """A path that was asked for is out, or of no use any more, and cost this."""
        ...

    def withdraw(self, session: int) -> None:
        """Withdraw the map, graph and path of the session before this one."""
        ...


class MapperThread(threading.Thread):
    """Owns the Map; everybody else posts work to it."""

    def __init__(self, config: Config, outputs: MapOutputs, counters: Counters, stopwatch: Stopwatch) -> None:
        super().__init__(name="da3 mapper", daemon=True)
        self._config, self._outputs, self._counters, self._stopwatch = config, outputs, counters, stopwatch
        self._work: Queue[Callable[[], None] | None] = Queue()
        self._map = Map(config.map)
        self._graph = GraphLog(0)
        self._anchors: dict[int, Array] = {}
        self._sizes: dict[int, float] = {}
        self._session = 0
        self._revision = 0
        self._listeners = (0, 0, 0)
        self._changed = False
        self._pace = Pace(config.node.map_rate_hz)
        self.points = 0  # in the map; read by the status

    def insert(self, session: int, change: Integration) -> None:
        """Fuse keyframes and move submaps; ``T_map_submap`` in the axes of the published map."""
        room = self._work.qsize() <= _MOST_WAITING
        if not room:
            self._counters.count("keyframes_dropped", len(change.fused), session)
        self._work.put(lambda: self._insert(session, change, fuse=room))

    def fuse(self, session: int, fused: tuple[FusedKeyframe, ...]) -> None:
        """Fuse keyframes where nothing else has changed (a cut)."""
        self._work.put(lambda: self._fuse(session, fused))

    def publish_path(self, session: int, path: Callable[[], Trajectory]) -> None:
        """Make a path and publish it from this thread."""

        def publish() -> None:
            begin = time.monotonic()
            try:
                if session == self._session:
                    self._outputs.path(path())
            finally:
                self._outputs.path_took(time.monotonic() - begin)

        self._work.put(publish)

    def reset(self, session: int) -> None:
        """Start an empty map."""
        self._work.put(lambda: self._reset(session))

    def save(self, path: Path) -> Future[int]:
        """Write the map; the future has the number of points, 0 where there was nothing to write."""
        return self.call(lambda: self._map.save(path) if len(self._map) else 0)

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run something on this thread; Da3Error comes back through the future."""
        future, run = promised(work)
        self._work.put(run)
        return future

    def stop(self) -> None:
        """End after the work that waits."""
        self._work.put(None)

    def run(self) -> None:
        """The thread."""
        while True:
            with contextlib.suppress(Empty):
                work = self._work.get(timeout=_IDLE_S)
                if work is None:
                    return
                work()
            if self._pace.due():
                begin = time.monotonic()
                self._publish()
                self._pace.took(time.monotonic() - begin)

    def _insert(self, session: int, change: Integration, *, fuse: bool) -> None:
        if session != self._session:
            return
        begin = time.monotonic()
        self._anchors.update(change.anchors)
        self._sizes.update(change.sizes)
        self._map.move(change.anchors, change.sizes)
        self._changed |= change.revision != self._revision
        self._revision, self._graph.loops = change.revision, change.loops
        self._fuse(session, change.fused, begin, fuse=fuse)

    def _fuse(
        self, session: int, fused: tuple[FusedKeyframe, ...], begin: float | None = None, *, fuse: bool = True
    ) -> None:
        if session != self._session or not fused:
            return
        begin = time.monotonic() if begin is None else begin
        self._changed = True
        self._graph.add(fused)
        if not fuse:
            return
        for keyframe in fused:
            self._map.insert(keyframe)
        self.points = len(self._map)
        self._stopwatch.add("map", time.monotonic() - begin)

    def _reset(self, session: int) -> None:
        self._session, self._map, self._revision, self.points = session, Map(self._config.map), 0, 0
        self._graph, self._anchors, self._changed = GraphLog(session), {}, False
        self._sizes = {}
        self._outputs.withdraw(session)

    def _publish(self) -> None:
        listeners = self._outputs.map_listeners()
        points, updates, graph = (
            bool(now) and (self._changed or now > before)
            for now, before in zip(listeners, self._listeners, strict=True)
        )
        if points and len(self._map):
            self._outputs.map_points(*self._map.points())
        if updates and len(self._map):
            # Somebody new gets every submap: the history that the middleware keeps is shorter than the map.
            changes = self._map.take_changes()
            changes = self._map.contents() if listeners[1] > self._listeners[1] else changes
            self._outputs.map_changes(changes, self._revision, self._session)
        if graph and len(self._graph):
            self._outputs.graph(self._graph, self._anchors, self._sizes, self._revision)
        self._listeners = listeners
        self._changed = False

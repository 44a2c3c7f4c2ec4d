"""The thread that owns Slam: every frame gets a pose at once, predictions are joined step by step as they come.

A frame waits for a little of an integration, and is followed by a little at least, so that neither starves.  Depth is
what it does when no frame waits for its pose and nothing is being joined (``DepthDesk``).
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.ros.body import Body
from da3_ros.ros.counters import Counters, Stopwatch
from da3_ros.ros.depth_desk import DepthDesk, DepthOutputs
from da3_ros.ros.inbox import Inbox
from da3_ros.ros.joining import Joining
from da3_ros.ros.mapper_thread import MapperThread
from da3_ros.ros.predictor_thread import Finished, PredictorThread, Say
from da3_ros.ros.promise import promised
from da3_ros.slam.slam import Slam
from da3_ros.types import Estimate, Frame, Priors, Status, Trajectory

T = TypeVar("T")

_JOIN_S = 0.008  # of an integration are done between two frames at least: under load it must not take for ever
_PATH_CHECK_S = 0.2  # somebody may begin to listen to the path when no frame comes any more


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A frame on its way to the tracker."""

    frame: Frame
    body: Body
    session: int  # a new number: forget everything before this frame
    segment: int  # a new number: the chain is cut before this frame
    reason: str  # why the segment began
    arrived: float  # monotonic time of the image message, s
    queued: float  # monotonic time at which it was handed over, s


class TrackOutputs(DepthOutputs, Protocol):
    """What the tracker publishes; called on its thread."""

    def begin_session(self) -> None:
        """Odometry starts anew."""
        ...

    def estimate(self, arrival: Arrival, estimate: Estimate, status: Status) -> None:
        """Publish odometry, TF and pose of one frame."""
        ...

    def wants_path(self, revision: tuple[int, ...]) -> bool:
        """Whether somebody waits for a path of this revision, one is due, and none is being made."""
        ...


class TrackerThread(threading.Thread):
    """Owns the Slam; everybody else posts frames, results and commands to its inbox."""

    def __init__(
        self,
        config: Config,
        outputs: TrackOutputs,
        mapper: MapperThread,
        counters: Counters,
        stopwatch: Stopwatch,
        say: Say,
    ) -> None:
        super().__init__(name="da3 tracker", daemon=True)
        self._config, self._outputs, self._mapper = config, outputs, mapper
        self._counters, self._stopwatch = counters, stopwatch
        self._inbox: Inbox[Arrival, Finished] = Inbox(config.node.mailbox)
        self._predictor = PredictorThread(config, self._inbox.put_result, say)
        self._predicting = False  # a window is out, or its prediction is being joined
        self._joining: Joining | None = None
        self._owed_s = 0.0  # steps of it, before the next frame
        self._stopping = False
        self._last_put = 0  # session of the newest frame handed over; executor thread
        self._slam = Slam(config)
        self._depth = DepthDesk(config, outputs, stopwatch)
        self._session = 0
        self._segment = 0
        self._body: Body | None = None
        self.status: Status = self._slam.status()  # latest snapshot, swapped by reference

    @property
    def predictor(self) -> PredictorThread:
        """The thread it hands windows to."""
        return self._predictor

    def put(self, arrival: Arrival) -> None:
        """Hand over a frame; an older one gives way when the tracker is behind."""
        if arrival.session != self._last_put:
            self._last_put = arrival.session
            self._inbox.clear_frames()  # of the session before, which does not count any more
        self._counters.count("mailbox_full", self._inbox.put_frame(arrival))

    def inform(self, session: int, frame_id: int, priors: Priors) -> None:
        """Tell what other sensors say of a frame that was handed over without it."""

        def run() -> None:
            if session > self._session:  # its first frame still waits
                self._reset(session)
            if session == self._session:
                self._slam.inform(frame_id, priors)

        self._inbox.put_command(run)

    def expect(self, width: int, height: int) -> None:
        """Images of this size are about to come, as far as is known: their network can be loaded."""
        self._predictor.prepare(width, height)

    def drop_waiting(self, cause: str) -> None:
        """Drop and count the frames that wait."""
        self._counters.count(cause, self._inbox.clear_frames())

    def reset(self, session: int) -> Future[None]:
        """Forget everything and start a session; done when the map is empty too."""
        done: Future[None] = Future()

        def run() -> None:
            self._reset(session)
            self._mapper.call(lambda: done.set_result(None))

        self._inbox.put_command(run)
        return done

    def trajectory(self, *, causal: bool) -> Future[Trajectory]:
        """Camera poses in map axes, of all frames: final, or as they were published."""
        return self.call(lambda: self._trajectory(causal=causal))

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run something on this thread; Da3Error comes back through the future."""
        future, run = promised(work)
        self._inbox.put_command(run)
        return future

    def stop(self) -> None:
        """End after the item under way."""

        def end() -> None:
            self._stopping = True

        self._inbox.put_command(end)

    def run(self) -> None:
        """The thread."""
        self._predictor.start()
        try:
            while not self._stopping:
                item = self._inbox.take(0.0 if self._joining or self._depth.waiting else _PATH_CHECK_S)
                if item is None and self._joining is None and self._depth.waiting:
                    self._depth.work()
                else:
                    self._work(item)
        finally:  # a bug here must not leave the predictor waiting for work
            self._predictor.stop()

    def _work(self, item: Callable[[], None] | Arrival | Finished | None) -> None:
        if isinstance(item, Arrival):
            self._on_frame(item)
        elif isinstance(item, Finished):
            self._on_prediction(item)
        elif item is not None:
            item()
        if self._depth.full:  # while a window is joined depth waits, but none is given up for that
            self._depth.work()
        self._join()
        self._request()
        self._publish_path()

    def _on_frame(self, arrival: Arrival) -> None:
        if arrival.session < self._session:
            return
        if arrival.session > self._session:
            self._reset(arrival.session)
        begins = self._body is None
        if self._body is None:
            self._body, self._segment = arrival.body, arrival.segment
            height, width = arrival.frame.image.shape[:2]
            self._predictor.prepare(width, height)
        begin = time.monotonic()
        self._stopwatch.add("queue", begin - arrival.queued)
        if arrival.segment != self._segment:
            self._segment = arrival.segment
            while self._joining is not None:
                self._owed_s = _JOIN_S  # it comes first, whatever waits
                self._join()
            self._depth.restart()
            self._mapper.fuse(self._session, tuple(self._slam.cut(arrival.reason)))
        self._owed_s = _JOIN_S
        estimate = self._slam.track(arrival.frame)
        if begins and self._slam.up is not None:  # later is too late: odometry must not turn
            self._body = self._body.levelled(self._slam.up)
        arrival = dataclasses.replace(arrival, body=self._body)
        self._stopwatch.add("track", time.monotonic() - begin)
        if estimate.keyframe:
            self._stopwatch.add("keyframe")
        self.status = self._slam.status()
        begin = time.monotonic()
        self._outputs.estimate(arrival, estimate, self.status)
        end = time.monotonic()
        self._stopwatch.add("publish", end - begin)
        self._stopwatch.add("image_to_odom", end - arrival.arrived)
        self._counters.count("accepted", session=arrival.session)
        if self._depth.wanted:
            self._depth.add(arrival.body, self._slam.sight())

    def _on_prediction(self, finished: Finished) -> None:
        if finished.session != self._session or self._body is None:
            self._predicting = False
            return
        self._stopwatch.add("predict", finished.seconds)
        if finished.prediction is None:
            assert finished.error is not None
            self._refuse(finished.error)
        else:
            self._joining, self._owed_s = Joining(self._slam, finished.prediction, self._stopwatch), 0.0

    def _join(self) -> None:
        """A step of the integration under way, and more while some are owed.  What does not fit is refused."""
        if self._joining is None or self._body is None:
            return
        if self._owed_s <= 0 and len(self._inbox):
            return  # a frame waits, while commands go before it
        try:
            integration = None
            while integration is None:
                begin = time.monotonic()
                integration = self._joining.advance()
                self._owed_s -= time.monotonic() - begin
                if self._owed_s <= 0:
                    break
        except PredictorError as error:
            self._refuse(error)
            return
        if integration is None:
            return
        self._joining, self._predicting = None, False
        self.status = self._slam.status()
        if integration.depth is not None:
            self._depth.predicted(self._body, integration.depth)
        world = self._body.T_world_slam
        anchors = {submap: world @ anchor for submap, anchor in integration.anchors.items()}
        self._mapper.insert(self._session, dataclasses.replace(integration, anchors=anchors))

    def _refuse(self, error: PredictorError) -> None:
        self._joining, self._predicting = None, False
        self._slam.refuse(error)
        self.status = self._slam.status()

    def _publish_path(self) -> None:
        if self._outputs.wants_path((self._session, self.status.frames, self.status.windows)):
            path, body = self._slam.path_later(), self._body
            self._mapper.publish_path(self._session, lambda: _in_map_axes(path(), body))

    def _request(self) -> None:
        if self._predicting or not self._predictor.ready.is_set():
            return
        window = self._slam.request()
        if window is not None:
            self._predicting = True
            self._predictor.submit(self._session, window)

    def _reset(self, session: int) -> None:
        if session == self._session:
            return
        self._session, self._slam, self._body = session, Slam(self._config), None
        if self._joining is not None:
            self._joining, self._predicting = None, False
        self.status = self._slam.status()
        self._outputs.begin_session()
        self._depth.restart()
        self._mapper.reset(session)

    def _trajectory(self, *, causal: bool) -> Trajectory:
        return _in_map_axes(self._slam.causal_trajectory() if causal else self._slam.trajectory(), self._body)


def _in_map_axes(slam: Trajectory, body: Body | None) -> Trajectory:
    if body is None or len(slam) == 0:
        return slam
    return Trajectory(slam.stamps_ns, body.camera_pose(slam.T_map_cam), slam.keyframe)

"""The node: a managed (lifecycle) ROS 2 node around Slam.

Threads: the executor turns messages into frames (``Intake``) and answers services; the tracker owns Slam; the
predictor owns the accelerator, and downloads, compiles and loads what runs on it; the mapper owns the map.  What
crosses threads is immutable.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from da3_ros.errors import ConfigError, Da3Error
from da3_ros.msg import EngineInfo, SlamStatus
from da3_ros.ros import messages, parameters, report, silence
from da3_ros.ros.counters import Counters, Stopwatch
from da3_ros.ros.engine_report import engine_message
from da3_ros.ros.fastdds import use_profile
from da3_ros.ros.intake import Intake
from da3_ros.ros.loading import Loading
from da3_ros.ros.mapper_thread import MapperThread
from da3_ros.ros.outputs import Outputs
from da3_ros.ros.predictor_thread import PredictorThread
from da3_ros.ros.services import Services
from da3_ros.ros.tracker_thread import TrackerThread
from da3_ros.types import State, Status, Trajectory

T = TypeVar("T")

NAME = "da3_slam"
_HOUSEKEEPING_HZ = 20.0
_FOLLOW_S = 0.5  # publishers are looked at this often, besides when the middleware reports one
_OPENING_S = 3.0  # a transition waits this long for the predictor to be found; managers give up after 5 s
_JOIN_S = 5.0


class SlamNode(LifecycleNode):
    """Configure loads, activate subscribes, deactivate stops the input, cleanup frees everything."""

    def __init__(self, **options: Any) -> None:
        """Read the parameters.

        Args:
            options: those of rclpy's Node: context, namespace, parameter_overrides, ...

        Raises:
            ConfigError: one line per parameter that cannot be used.
        """
        super().__init__(NAME, **options)
        self.config = parameters.configuration(self._parameter_overrides)
        parameters.declare(self, self.config)
        self.failure: str | None = None  # set once: the process has to end
        self._counters, self._stopwatch = Counters(), Stopwatch()
        self._watchdog = silence.Watchdog(self.config.node.silence_s)
        self._outputs: Outputs | None = None
        self._mapper: MapperThread | None = None
        self._tracker: TrackerThread | None = None
        self._intake: Intake | None = None
        self._busy: PredictorThread | None = None  # of the configuration before, until it has ended
        self._service_desk: Services | None = None
        self._active = False
        self._doubt = ""  # which prior gives no metres and why
        self._doubted: set[str] = set()  # what was said of priors since the activation
        self._session = 0  # of the last configuration
        self._follow_due = self._status_due = self._engine_due = 0.0
        self._last_state: tuple[object, ...] = ()
        self._last_engine: tuple[object, ...] = ()
        latched = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._status_publisher = self.create_publisher(SlamStatus, "~/status", latched)
        self._engine_publisher = self.create_publisher(EngineInfo, "~/engine", latched)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Housekeeping goes by the wall: a simulated clock that stands still must not silence the status.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / _HOUSEKEEPING_HZ, self._keep_house, clock=steady)
        self.create_timer(1.0 / self.config.node.map_tf_rate_hz, self._broadcast, clock=steady)

    # ------------------------------------------------------------ lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the predictor (in its thread) and advertise."""
        if self._busy is not None and self._busy.is_alive():  # two must never own one accelerator
            self.get_logger().error(
                "the predictor of before is still busy with its last window or step of loading; configure again later"
            )
            return TransitionCallbackReturn.FAILURE
        self._session += 1  # numbers are not used twice: consumers tell maps apart by them
        self._counters.begin(self._session)
        self._outputs = Outputs(self, self.config, self._stopwatch)
        self._mapper = MapperThread(self.config, self._outputs, self._counters, self._stopwatch)
        self._tracker = TrackerThread(
            self.config, self._outputs, self._mapper, self._counters, self._stopwatch, self._log_info
        )
        self._intake = Intake(
            *(self, self.config, self._session, self._counters, self._stopwatch),
            deliver=self._tracker.put,
            inform=self._tracker.inform,
            expect=self._tracker.expect,
        )
        self._service_desk = Services(self, self.config, self)
        self._mapper.start()
        self._tracker.start()
        self._tracker.predictor.opened.wait(_OPENING_S)
        if self._tracker.predictor.error is not None:
            self.get_logger().error(str(self._tracker.predictor.error))
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        assert self._intake is not None
        self._intake.open()
        self._active = True
        self._watchdog.restart()
        self._subscribe_truth()
        topics = ", ".join(self._intake.topics)
        self.get_logger().info(f"active: predictor {self.config.predictor}, listening to {topics}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the input; what was built stays."""
        self._stop_input()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        self._tear_down()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whatever state."""
        self._tear_down()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failed transition: free everything; the node can be configured again."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> bool:
        """Configure and activate, where the parameters ask for it; False where that failed."""
        if not self.config.node.autostart:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)

    def stop(self) -> None:
        """End: stop the input, finish what is under way, join the workers."""
        self._tear_down()
        self._publish_status()
        if self.failure is None:  # else ~/engine goes on saying what failed
            self._publish_engine(time.monotonic())

    def _stop_input(self) -> None:
        self._active, self._doubt = False, ""
        self._doubted.clear()
        if self._intake is not None:
            self._intake.close()
        if self._tracker is not None:
            self._tracker.drop_waiting("paused")
        if self._outputs is not None:
            self._outputs.forget()

    def _tear_down(self) -> None:
        self._stop_input()
        if self._service_desk is not None:
            self._service_desk.close()
        for thread in (self._tracker, self._mapper):
            if thread is not None:
                thread.stop()
                thread.join(_JOIN_S)
        if self._tracker is not None and self._tracker.predictor.ident is not None:
            self._tracker.predictor.join(_JOIN_S)
            self._busy = self._tracker.predictor
        if self._intake is not None:
            self._session = self._intake.session
            self._intake.destroy()
        if self._outputs is not None:
            self._outputs.close()
        self._service_desk = self._tracker = self._mapper = self._outputs = self._intake = None

    # ------------------------------------------------------------ services act on these

    def running(self) -> bool:
        """Whether the node is configured."""
        return self._tracker is not None

    def metric(self) -> bool:
        """Whether a unit of the map is a metre."""
        return self._tracker is not None and self._tracker.status.metric

    def reset(self) -> Future[None]:
        """Start a session."""
        assert self._intake is not None
        assert self._tracker is not None
        assert self._outputs is not None
        self._outputs.forget()
        self._watchdog.restart()
        return self._tracker.reset(self._intake.new_session())

    def pause(self, paused: bool) -> str:
        """Stop or resume taking images."""
        assert self._intake is not None
        assert self._tracker is not None
        if paused == self._intake.paused:
            return "the node is paused already" if paused else "the node is not paused"
        self._intake.pause(paused)
        if paused:
            self._tracker.drop_waiting("paused")
        self._watchdog.restart()
        return "paused: images are dropped and counted until resumed" if paused else "resumed"

    def trajectory(self, *, causal: bool) -> Future[Trajectory]:
        """Camera poses in map axes."""
        assert self._tracker is not None
        return self._tracker.trajectory(causal=causal)

    def save_map(self, path: Path) -> Future[int]:
        """Write the map; the number of points."""
        assert self._mapper is not None
        return self._mapper.save(path)

    def on_mapper(self, work: Callable[[], T]) -> Future[T]:
        """Run file work away from the executor."""
        assert self._mapper is not None
        return self._mapper.call(work)

    # ------------------------------------------------------------ timers

    def _broadcast(self) -> None:
        if self._active and self._outputs is not None:
            self._outputs.map_tf()

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._service_desk is not None:
            self._service_desk.poll()
        if self._tracker is not None and self._tracker.predictor.error is not None:
            self.failure = f"the predictor cannot be used: {self._tracker.predictor.error}"
        if self._active and self._intake is not None and self._tracker is not None:
            self._subscribe_truth()
            self._intake.poll()
            self._intake.follow(everything=now >= self._follow_due)
            self._watch(self._intake)
            self._doubt_priors(self._intake, self._tracker.status)
        if now >= self._follow_due:
            self._follow_due = now + _FOLLOW_S
        health, status = self._health(), self._slam_status()
        joined = (status.keyframes, status.breaks_detected) if status is not None else ()
        current = (report.state_of(status, health), report.reason_of(status, health), joined)
        if now >= self._status_due or current != self._last_state:
            self._status_due, self._last_state = now + 1.0, current
            self._publish_status()
        self._publish_engine(now)

    def _subscribe_truth(self) -> None:
        """As soon as the predictor is there and says that it needs truth."""
        assert self._intake is not None
        assert self._tracker is not None
        predictor = self._tracker.predictor.predictor
        if predictor is not None and predictor.needs_truth and not self._intake.has_truth:
            self._intake.need_truth()

    def _watch(self, intake: Intake) -> None:
        """Warn once, naming the cause, after some seconds without output."""
        assert self._outputs is not None
        if self._loading() is not None:
            self._watchdog.restart()  # it has a reason of its own, which the status names
            return
        silent = self._watchdog.silent(self._outputs.last_output)
        if not silent or intake.paused or intake.images is None:
            return
        status, now, since = self._slam_status(), time.monotonic(), self._watchdog.since
        image_age_s = None if intake.last_image is None else now - intake.last_image
        reason = silence.explain(
            silence.Facts(
                topic=intake.images.topic,
                publisher_problem=intake.images.problem(),
                clock_missing=bool(self.get_parameter("use_sim_time").value) and messages.now_ns(self) == 0,
                image_age_s=image_age_s,
                streaming=image_age_s is not None and image_age_s < self._watchdog.silence_s,
                drop=intake.last_drop if intake.last_drop_time > since else "",
                lost=status is not None and status.state is State.LOST,
                slam_reason=status.reason if status is not None else "",
            )
        )
        if self._watchdog.accuse(reason):
            self.get_logger().warning(f"no output for {self.config.node.silence_s:g} s: {reason}")

    def _doubt_priors(self, intake: Intake, status: Status) -> None:
        """Warn once about a prior that gives nothing, or that is not believed."""
        doubt = intake.priors.trouble() or status.doubt
        self._doubt, kind = doubt, doubt.partition(":")[0]
        if doubt and kind not in self._doubted:
            self._doubted.add(kind)
            self.get_logger().warning(doubt)

    # ------------------------------------------------------------ status

    def _loading(self) -> Loading | None:
        return None if self._tracker is None else self._tracker.predictor.loading

    def _slam_status(self) -> Status | None:
        return None if self._tracker is None else self._tracker.status

    def _health(self) -> report.Health:
        intake, loading = self._intake, self._loading()
        state: int | None = None
        if self.failure is not None:
            state = SlamStatus.STATE_FAILED
        elif self._tracker is None:
            state = SlamStatus.STATE_UNCONFIGURED
        elif loading is not None:
            state = SlamStatus.STATE_BUILDING_ENGINE
        elif not self._active or (intake is not None and intake.paused):
            state = SlamStatus.STATE_PAUSED
        return report.Health(
            session=intake.session if intake is not None else self._session,
            state=state,
            silence=self.failure or (self._watchdog.reason if self._active else ""),
            doubt=self._doubt,
            time_jumps=intake.gate.jumps if intake is not None else 0,
            map_points=self._mapper.points if self._mapper is not None else 0,
            path_length_m=self._outputs.path_length if self._outputs is not None else 0.0,
            simulated=self.config.predictor.startswith("simulated"),
            loading=loading,
            engine=None if self._tracker is None else self._tracker.predictor.engine,
        )

    def _publish_status(self) -> None:
        now = messages.now_ns(self)
        head = messages.header(now, self.config.node.map_frame)
        status = report.status_message(head, self._slam_status(), self._health(), self._counters, self._stopwatch)
        self._status_publisher.publish(status)
        name = f"{self.get_fully_qualified_name().lstrip('/')}: slam"
        silent = bool(self._watchdog.reason) and self._active
        diagnostics = report.diagnostics_message(messages.header(now, ""), name, status, silent=silent)
        self._diagnostics_publisher.publish(diagnostics)

    def _publish_engine(self, now: float) -> None:
        """On change of the state or the step, and each second while it is loading."""
        message = engine_message(
            messages.header(messages.now_ns(self), ""), None if self._tracker is None else self._tracker.predictor
        )
        current = (message.state, message.step, message.width_px, message.height_px)
        loading = message.state == EngineInfo.STATE_LOADING
        if current != self._last_engine or (loading and now >= self._engine_due):
            self._engine_due, self._last_engine = now + 1.0, current
            self._engine_publisher.publish(message)

    def _log_info(self, line: str) -> None:
        self.get_logger().info(line)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM (exit code 0), bad parameters or a dead worker (1)."""
    use_profile()
    # Our own handlers: publishers must outlive the signal, for the last status.
    try:
        rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a --ros-args that cannot be parsed, a parameter file that cannot be read
        first = str(error).strip().splitlines()[0].split(", at /")[0]  # without the place in rcl's source
        sys.stderr.write(f"{NAME}: the ROS arguments cannot be used ({first}); correct what follows --ros-args\n")
        return 1
    try:
        code = _run()
    finally:
        rclpy.try_shutdown()
    if any(isinstance(thread, PredictorThread) for thread in threading.enumerate()):
        # It is deep in a step of loading that nothing interrupts.  Everything else has ended; Python would now unwind
        # that thread in the middle of C++ code, which aborts the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run() -> int:
    try:
        node = SlamNode()
    except ConfigError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{NAME}: {line}\n")
        return 1
    asked_to_stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked_to_stop.append(number))
    threading.excepthook = lambda crash: _on_crash(node, crash.exc_type, crash.exc_value, crash.exc_traceback)
    sys.excepthook = lambda kind, error, trace: _on_crash(node, kind, error, trace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not node.start():
            return 1
        # Housekeeping wakes the executor twenty times a second, so a signal is seen soon.
        while not asked_to_stop and node.failure is None:
            executor.spin_once()
    except (ExternalShutdownException, Da3Error) as error:
        if isinstance(error, Da3Error):
            node.failure = str(error)
    finally:
        node.stop()
        executor.remove_node(node)
        node.destroy_node()
    if node.failure is not None:
        node.get_logger().fatal(node.failure)
        return 1
    return 0


def _on_crash(
    node: SlamNode, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """A bug in a worker: one line that says where; the whole trace at debug level."""
    last = traceback.extract_tb(trace)[-1] if trace is not None else None
    where = f" at {Path(last.filename).name}:{last.lineno}" if last is not None else ""
    thread = threading.current_thread().name
    node.get_logger().debug("".join(traceback.format_exception(kind, error, trace)))
    node.failure = f"{thread} died of {kind.__name__}: {error}{where}; this is a bug, please report it"


if __name__ == "__main__":
    sys.exit(main())

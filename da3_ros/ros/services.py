"""The services.  Each answers from the executor while the owning threads do the work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from da3_ros.config import Config
from da3_ros.errors import Da3Error
from da3_ros.files import reason
from da3_ros.sources.tum import write_tum
from da3_ros.srv import SaveMap, SaveTrajectory
from da3_ros.types import Trajectory

T = TypeVar("T")

TIMEOUT_S = 30.0


class Owner(Protocol):
    """What the services act on."""

    def running(self) -> bool:
        """Whether the node is configured."""
        ...

    def metric(self) -> bool:
        """Whether a unit of the map is a metre."""
        ...

    def reset(self) -> ThreadFuture[None]:
        """Start a session."""
        ...

    def pause(self, paused: bool) -> str:
        """Stop or resume taking images; returns what happened."""
        ...

    def trajectory(self, *, causal: bool) -> ThreadFuture[Trajectory]:
        """Camera poses in map axes."""
        ...

    def save_map(self, path: Path) -> ThreadFuture[int]:
        """Write the map; the number of points."""
        ...

    def on_mapper(self, work: Callable[[], T]) -> ThreadFuture[T]:
        """Run file work away from the executor."""
        ...


class Services:
    """~/reset, ~/pause, ~/save_map and ~/save_trajectory."""

    def __init__(self, node: Node, config: Config, owner: Owner) -> None:
        """Offer them."""
        self._node, self._owner = node, owner
        self._folder = output_folder(config)
        self._waiting: list[tuple[float, ThreadFuture[Any], Future[Any]]] = []
        group = ReentrantCallbackGroup()  # a service that waits must not hold up the images
        self._services = [
            node.create_service(Trigger, "~/reset", self._reset, callback_group=group),
            node.create_service(SetBool, "~/pause", self._pause, callback_group=group),
            node.create_service(SaveMap, "~/save_map", self._save_map, callback_group=group),
            node.create_service(SaveTrajectory, "~/save_trajectory", self._save_trajectory, callback_group=group),
        ]

    def poll(self) -> None:
        """Wake the services whose work is done, and those that have waited too long."""
        now = time.monotonic()
        for item in list(self._waiting):
            deadline, work, future = item
            if work.done() or now > deadline:
                self._waiting.remove(item)
                future.set_result(None)

    def close(self) -> None:
        """Withdraw them."""
        for service in self._services:
            self._node.destroy_service(service)

    async def _finished(self, work: ThreadFuture[T]) -> T:
        """The result of another thread's work.

        Raises:
            Da3Error: the work failed, or took too long.
        """
        future: Future[None] = Future()
        self._waiting.append((time.monotonic() + TIMEOUT_S, work, future))
        await future
        if not work.done():
            raise Da3Error(f"no answer within {TIMEOUT_S:.0f} s; the node is overloaded, try again")
        return work.result()

    async def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._owner.running():
            return _refused(response)
        try:
            await self._finished(self._owner.reset())
        except Da3Error as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, "a new session has begun; map, trajectory and counters are empty"
        return response

    async def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self._owner.running():
            return _refused(response)
        response.success, response.message = True, self._owner.pause(request.data)
        return response

    async def _save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        kinds, path = SaveMap.Response, self._path(request.path, "map.ply")
        response.result = kinds.RESULT_FAILED
        if not self._owner.running():
            return _refused(response)
        if path.suffix != ".ply":
            response.result = kinds.RESULT_BAD_FORMAT
            response.message = f"a map is written as .ply, not '{path.suffix}'; ask for another file name"
            return response
        if problem := writable(path):
            response.result, response.message = kinds.RESULT_BAD_PATH, problem
            return response
        try:
            count = await self._finished(self._owner.save_map(path))
        except Da3Error as error:
            response.message = str(error)
            return response
        if count == 0:
            response.result, response.message = kinds.RESULT_EMPTY, "the map is empty; nothing was written"
            return response
        response.success, response.result = True, kinds.RESULT_OK
        response.path, response.count, response.metric = str(path), count, self._owner.metric()
        response.message = f"{count} points written to {path}"
        return response

    async def _save_trajectory(
        self, request: SaveTrajectory.Request, response: SaveTrajectory.Response
    ) -> SaveTrajectory.Response:
        kinds, causal = SaveTrajectory.Response, request.kind == SaveTrajectory.Request.KIND_CAUSAL
        path = self._path(request.path, "trajectory_causal.tum" if causal else "trajectory.tum")
        response.result = kinds.RESULT_FAILED
        if not self._owner.running():
            return _refused(response)
        if request.kind not in (SaveTrajectory.Request.KIND_FINAL, SaveTrajectory.Request.KIND_CAUSAL):
            response.result = kinds.RESULT_BAD_OPTION
            response.message = f"kind {request.kind} is unknown; use KIND_FINAL (0) or KIND_CAUSAL (1)"
            return response
        if problem := writable(path):
            response.result, response.message = kinds.RESULT_BAD_PATH, problem
            return response
        try:
            trajectory = await self._finished(self._owner.trajectory(causal=causal))
            if request.keyframes_only:
                trajectory = _keyframes(trajectory)
            if len(trajectory):
                await self._finished(self._owner.on_mapper(lambda: write_tum(path, trajectory)))
        except Da3Error as error:
            response.message = str(error)
            return response
        if len(trajectory) == 0:
            response.result, response.message = kinds.RESULT_EMPTY, "there is no pose yet; nothing was written"
            return response
        response.success, response.result = True, kinds.RESULT_OK
        response.path, response.count, response.metric = str(path), len(trajectory), self._owner.metric()
        response.message = f"{len(trajectory)} poses written to {path}"
        return response

    def _path(self, text: str, default: str) -> Path:
        return (self._folder / Path(text or default).expanduser()).absolute()


def output_folder(config: Config) -> Path:
    """Where files go whose path is not absolute."""
    if config.node.output_dir:
        return Path(config.node.output_dir).expanduser().absolute()
    return Path(os.environ.get("ROS_HOME") or Path.home() / ".ros").absolute() / "da3_ros"


def writable(path: Path) -> str:
    """Create the folder of a file; a sentence where the file cannot be written, else empty."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot create the folder {path.parent}: {reason(error)}; choose another path"
    if path.is_dir():
        return f"{path} is a folder; add a file name"
    if not os.access(path.parent, os.W_OK):
        return f"the folder {path.parent} cannot be written to; choose another path"
    return ""


def _keyframes(trajectory: Trajectory) -> Trajectory:
    chosen = trajectory.keyframe if len(trajectory.keyframe) else np.ones(len(trajectory), bool)
    return Trajectory(trajectory.stamps_ns[chosen], trajectory.T_map_cam[chosen], chosen[chosen])


def _refused(response: Any) -> Any:
    response.success, response.message = False, "the node is not configured; configure it first"
    return response

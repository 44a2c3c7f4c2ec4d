"""The synthetic world as a source of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources.world.imu import SimulatedImu
from da3_ros.sources.world.laps import Laps
from da3_ros.sources.world.recording import Recording
from da3_ros.sources.world.render import Renderer
from da3_ros.sources.world.room import Extent, Placed, furnish
from da3_ros.sources.world.sensor import Sensor
from da3_ros.sources.world.spec import WorldSpec, parse
from da3_ros.sources.world.walk import NoWayError, Walk
from da3_ros.types import Frame, Priors, Truth

CLEARANCE = 0.3  # m, least distance between the camera and anything
_MARGIN = 0.12  # m, more than that is kept from the boxes around furniture
_FIRST_STAMP_NS = 1_000_000_000
_ATTEMPTS = 6


class WorldSource:
    """A walk through a procedural room; frames carry exact depth, pose and camera.

    The same specification gives the same bytes, frame by frame, in any order.
    """

    name: str
    camera: Pinhole

    def __init__(self, spec: WorldSpec) -> None:
        """Build the room and plan the motion.

        Raises:
            SourceError: the motion file cannot be used.
        """
        self.name = f"world:{spec.seed}"
        self._spec = spec
        self.camera = _camera(spec)
        pose: Callable[[Array], Array]
        if spec.motion is not None and spec.laps:
            raise SourceError(f"{self.name} can follow either motion or laps; leave one of them out")
        if spec.laps:
            self._count = spec.frames
            laps = Laps((self._count - 1) / spec.rate, spec.laps, self._rng("laps"), spec.shake)
            self._renderer = self._room_around(laps.path())
            pose = laps.pose
        elif spec.motion is None:
            self._count = spec.frames
            self._renderer, pose = self._stroll()
        else:
            recording = Recording(spec.motion)
            self._count = min(spec.frames, recording.count(spec.rate))
            self._renderer = self._room_around(recording.path())
            pose = recording.pose
        self._poses = pose(np.arange(self._count) / spec.rate)
        self._imu = None
        if spec.imu:
            self._imu = SimulatedImu(pose, (self._count - 1) / spec.rate, spec.imu, self._rng("imu"))
        self._sensor = Sensor(self.camera, self._rng("sensor"), noise=spec.noise, light=spec.light, lens=spec.lens)

    @classmethod
    def from_spec(cls, spec: str) -> WorldSource:
        """Build ``world:SEED?motion=FILE&frames=300&size=640x480&rate=15&...``; ``spec.WorldSpec`` has all options.

        Raises:
            SourceError: unknown option, bad value, or a motion file that cannot be used.
        """
        return cls(parse(spec))

    def __len__(self) -> int:
        """Number of frames."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames in order."""
        return map(self.frame, range(self._count))

    def frame(self, index: int) -> Frame:
        """Render frame ``index``, 0 <= index < len.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"{self.name} has {self._count} frames, no frame {index}")
        T_world_cam = self._poses[index].copy()
        picture, depth = self._renderer.render(self.camera, T_world_cam)
        image = self._sensor.expose(picture, index, index / self._spec.rate)
        passed_ns = index * round(1e9 / self._spec.rate)
        priors = None if self._imu is None else Priors(imu=self._imu.until(passed_ns, _FIRST_STAMP_NS))
        return Frame(index, _FIRST_STAMP_NS + passed_ns, image, self.camera, Truth(depth, T_world_cam), priors)

    @property
    def poses(self) -> Array:
        """Camera-to-world poses (N, 4, 4) of all frames, metres, OpenCV axes; costs no rendering."""
        return self._poses.copy()

    def clearance(self) -> Array:
        """Distance (N,) in metres from the camera to the nearest surface, for every frame."""
        return self._renderer.clearance(self._poses[:, :3, 3])

    def _rng(self, *purpose: str | int) -> np.random.Generator:
        """A generator of its own for each purpose, so that one option does not change what another draws."""
        words = [int.from_bytes(str(word).encode(), "little") for word in purpose]
        return np.random.default_rng([self._spec.seed, *words])

    def _windows(self, rng: np.random.Generator) -> int:
        drawn = int(rng.random() < 0.45)
        return drawn if self._spec.windows is None else self._spec.windows

    def _stroll(self) -> tuple[Renderer, Callable[[Array], Array]]:
        """A room and a walk in it; less furniture where the first try leaves no way."""
        spec = self._spec
        shape = self._rng("extent")
        wide, deep, high = shape.uniform(4.4, 6.4), shape.uniform(4.0, 5.6), shape.uniform(2.45, 2.85)
        extent = Extent(-wide / 2, wide / 2, -deep / 2, deep / 2, high)
        windows = self._windows(shape)
        for attempt in range(_ATTEMPTS):
            fullness = 1.0 - attempt / _ATTEMPTS
            room = furnish(extent, self._rng("room", attempt), windows, fullness, lambda item: True)
            renderer = Renderer(room, self._rng("light"), lit=spec.light > 0)
            try:
                walk = Walk(
                    extent,
                    room.placed,
                    renderer.free_path,
                    (self._count - 1) / spec.rate,
                    self._rng("walk"),
                    spec.shake,
                )
            except NoWayError:
                continue
            poses = walk.pose(np.arange(self._count) / spec.rate)
            if renderer.clearance(poses[:, :3, 3]).min() >= CLEARANCE:
                return renderer, walk.pose
        raise SourceError(f"{self.name} has no room to walk in; take another seed")

    def _room_around(self, path: Array) -> Renderer:
        """A room whose walls and furniture keep clear of a path (N, 3), with most of it before the camera."""
        low, high = path.min(axis=0), path.max(axis=0)
        shape = self._rng("extent")
        side = shape.uniform(1.2, 1.9, 2)
        extent = Extent(
            low[0] - side[0],
            high[0] + side[1],
            low[1] - shape.uniform(1.0, 1.6),
            high[1] + shape.uniform(1.7, 2.6),
            max(shape.uniform(2.45, 2.85), high[2] + 0.5),
        )
        dense = path[:: max(1, len(path) // 4000)]

        def keep(item: Placed) -> bool:
            return bool(item.distance(dense).min() > CLEARANCE + _MARGIN)

        windows = self._windows(shape)
        room = furnish(extent, self._rng("room", 0), windows, 1.0, keep)
        return Renderer(room, self._rng("light"), lit=self._spec.light > 0)


def _camera(spec: WorldSpec) -> Pinhole:
    """The camera of the specification: square pixels, principal point off the middle by less than 1.5 %."""
    width, height = spec.size
    focal = width / 2 / np.tan(np.radians(spec.fov) / 2)
    offset = np.random.default_rng([spec.seed, 77]).uniform(-0.012, 0.012, 2) * spec.lens
    cx, cy = (width - 1) / 2 + offset[0] * width, (height - 1) / 2 + offset[1] * height
    return Pinhole(width, height, float(focal), float(focal), float(cx), float(cy))

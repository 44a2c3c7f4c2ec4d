"""A source whose frames carry the priors that are asked for, and no others.

What a recording brings (a bag's ``depth_prior``, ``odom_prior`` and ``imu``, a file of odometry, the depth of a depth
camera, the IMU of a synthetic world) is taken as it is.  Exact depth and poses are ground truth: a simulated sensor
measures them, with its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from da3_ros.config import PriorConfig
from da3_ros.errors import ConfigError
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.sources.depth_points import points_of_image
from da3_ros.sources.pose_track import PoseTrack
from da3_ros.sources.simulated_depth import SimulatedDepthCamera
from da3_ros.sources.simulated_odometry import SimulatedOdometry
from da3_ros.sources.tum import read_tum
from da3_ros.types import DepthPoints, Frame, Priors, Source


class PriorSource:
    """Frames of a source, with priors.

    Raises:
        SourceError: the file of odometry cannot be read.
        ConfigError: the mount of the camera is no pose.
    """

    def __init__(self, source: Source, config: PriorConfig, seed: int) -> None:
        """Take frames from a source; ``seed`` is that of the simulated sensors."""
        self._source, self._config, self._seed = source, config, seed
        self.name = source.name
        self._file = _odometry_file(config)
        self.missing = ""  # what was asked for and no frame has had in the latest pass, one clause

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._source)

    @property
    def skipped(self) -> dict[str, int]:
        """What the source could not use in its latest pass, by cause."""
        return dict(getattr(self._source, "skipped", {}))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        depth = self._depth_of() if self._config.depth == "always" else None
        pose, imu = self._pose_of(), self._config.imu == "always"
        lacking = {"prior.depth": depth is not None, "prior.odometry": pose is not None, "prior.imu": imu}
        for frame in self._source:
            felt = frame.priors.imu if imu and frame.priors is not None else None
            priors = Priors(depth(frame) if depth else None, pose(frame) if pose else None, felt)
            found = priors.depth, priors.T_odom_cam, priors.imu
            lacking = {key: lacks and value is None for (key, lacks), value in zip(lacking.items(), found, strict=True)}
            self.missing = " and ".join(key for key, lacks in lacking.items() if lacks)
            yield replace(frame, priors=None if all(value is None for value in found) else priors)

    def _depth_of(self) -> Callable[[Frame], DepthPoints | None]:
        camera = SimulatedDepthCamera(self._seed)

        def measured(frame: Frame) -> DepthPoints | None:
            if frame.priors is not None and frame.priors.depth is not None:
                return frame.priors.depth
            if frame.truth is None or frame.truth.depth is None:
                return None
            depth = frame.truth.depth
            size = frame.image.shape[1], frame.image.shape[0]
            return points_of_image(depth if frame.truth.sensor else camera.measure(depth, frame.stamp_ns), size)

        return measured

    def _pose_of(self) -> Callable[[Frame], Array | None] | None:
        if self._file is not None:
            track = self._file
            return lambda frame: track.at(frame.stamp_ns)
        if self._config.odometry != "always":
            return None
        wheels = SimulatedOdometry(self._seed)

        def measured(frame: Frame) -> Array | None:
            if frame.priors is not None and frame.priors.T_odom_cam is not None:
                return frame.priors.T_odom_cam
            if frame.truth is None or frame.truth.T_world_cam is None:
                return None
            return wheels.measure(frame.truth.T_world_cam)

        return measured


def _odometry_file(config: PriorConfig) -> PoseTrack | None:
    if not config.odometry_file or config.odometry == "never":
        return None
    trajectory, T_body_cam, track = read_tum(config.odometry_file), _mount(config.odometry_mount), PoseTrack()
    for stamp, T in zip(trajectory.stamps_ns, trajectory.T_map_cam, strict=True):
        track.add(int(stamp), T @ T_body_cam)
    return track


def _mount(text: str) -> Array:
    if not text.strip():
        return np.eye(4)
    try:
        values = np.array([float(word) for word in text.replace(",", " ").split()])
        if values.shape != (7,):
            raise ValueError(f"it has {len(values)} numbers")
        return se3.from_quaternion(values[:3], values[3:])
    except ValueError as error:
        raise ConfigError(
            f"prior.odometry_mount '{text}' is no pose 'x y z qx qy qz qw' (metres, unit quaternion): {error}"
        ) from None

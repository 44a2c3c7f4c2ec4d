"""The values that cross module borders: frozen, slotted, with shapes and units beside each field.

Arrays are shared by reference and never written after construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array

ImageArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Tell = Callable[[str, float | None], None]  # what is being done, and the share of it that is done where that is known


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a simulator or a sensor rig knows about a frame; never read by ``slam`` or ``mapping``."""

    depth: FloatArray | None = None  # (H, W) z-depth in metres, NaN invalid, registered to the image
    T_world_cam: Array | None = None  # (4, 4) camera-to-world, OpenCV axes, metres
    sensor: bool = False  # depth comes from a real depth camera, with its noise and its holes


@dataclass(frozen=True, slots=True, eq=False)
class DepthPoints:
    """Metric depth of a frame at some of its pixels: a depth camera's, sampled, or a LiDAR's."""

    pixels: FloatArray  # (N, 2) in the image of the frame, px
    depth: FloatArray  # (N,) z-depth, metres


@dataclass(frozen=True, slots=True, eq=False)
class Inertial:
    """What an IMU measured, in the camera's axes (OpenCV); samples that an earlier frame had too do no harm."""

    stamps_ns: NDArray[np.int64]  # (N,) strictly increasing
    gyro: Array  # (N, 3) angular velocity of the camera, rad/s
    force: Array  # (N, 3) specific force, m/s^2: at rest it points up and is as large as gravity


@dataclass(frozen=True, slots=True, eq=False)
class Priors:
    """What other sensors than the camera say about a frame."""

    depth: DepthPoints | None = None
    T_odom_cam: Array | None = None  # (4, 4) camera pose, OpenCV axes, in the frame of some odometry, metres
    imu: Inertial | None = None  # of the last second or so


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One rectified camera image."""

    id: int  # counts up within a source or a node session
    stamp_ns: int  # capture time, integer nanoseconds
    image: ImageArray  # (H, W, 3) RGB
    camera: Pinhole | None  # at the size of the image; None = uncalibrated
    truth: Truth | None = None
    priors: Priors | None = None

    @property
    def bytes(self) -> int:
        """What it takes, image and truth (which a simulated predictor needs) together."""
        depth = self.truth.depth if self.truth else None
        return self.image.nbytes + (depth.nbytes if depth is not None else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The views of one prediction, oldest first; the first is the reference view."""

    number: int  # counts up within a session; a predictor may seed its randomness with it
    frames: tuple[Frame, ...]
    depth_views: tuple[int, ...]  # indices into frames whose depth is needed; cameras are needed for all


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """Ray maps of the views on a grid that covers the whole image."""

    rays: FloatArray  # (N, h, w, 6) direction (camera z = 1, rotated into the window frame) then origin
    confidence: FloatArray  # (N, h, w) in [0, 1), 0 = ignore


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Depth and cameras of one window, in window units and the window's own frame.

    Either ``rays`` or ``T_window_cam`` is present; where both are, ``T_window_cam`` wins.
    """

    window: Window
    depth: FloatArray  # (N, h, w) z-depth in window units, NaN where invalid or not asked for
    confidence: FloatArray  # (N, h, w) in [0, 1), 0 = invalid
    rays: Rays | None = None
    T_window_cam: Array | None = None  # (N, 4, 4) OpenCV axes
    cameras: tuple[Pinhole, ...] | None = None  # at the size of the depth; None = from the rays or the frames
    tokens: FloatArray | None = None  # (N, T, C) features of the views, for place recognition
    scale_sigma: float | None = None  # 1-sigma of log(metres per unit) where units claim to be metres, else None


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the network of a predictor."""

    model: str
    licence: str  # of the weights
    runtime: str  # tensorrt, tensorrt_rtx, onnxruntime, torch
    device: str  # cpu, cuda
    gpu: str  # name; empty on a CPU
    precision: str  # fp32, fp16, bf16
    size: tuple[int, int]  # (width, height) at which it sees the images, px; zeros before ``prepare``
    views: int  # most that it predicts together


@runtime_checkable
class Predictor(Protocol):
    """Views in; depth, confidence, rays or cameras, tokens out.  Owned by one thread.

    One that runs a network says so in an attribute ``engine`` (``Engine``), which the others lack.
    """

    @property
    def name(self) -> str:
        """Short, for reports."""
        ...

    @property
    def needs_truth(self) -> bool:
        """Whether ``predict`` reads the ``truth`` of the frames."""
        ...

    def prepare(self, width: int, height: int) -> None:
        """Make ready for images of this size, which may take minutes; ``predict`` does it where nobody has.

        Raises:
            Da3Error: it cannot be made ready.
        """
        ...

    def predict(self, window: Window) -> Prediction:
        """Predict one window.

        Raises:
            PredictorError: this window cannot be predicted; the predictor stays usable.
        """
        ...

    def close(self) -> None:
        """Free what it holds; idempotent."""
        ...


class Source(Protocol):
    """Frames in time order.  Iterating again starts again and yields the same frames."""

    @property
    def name(self) -> str:
        """Short, for reports: "world:7", "rgbd_room"."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; raises SourceError at the first that cannot be read."""
        ...

    def __len__(self) -> int:
        """Number of frames that iterating yields."""
        ...


class State(Enum):
    """What the system is doing."""

    INIT = 0
    TRACKING = 1
    WEAK = 2
    LOST = 3
    RELOCALISED = 4  # said once: what a gap or loss divided is one again


class Metre(Enum):
    """Who says what a metre is; by the names that users know."""

    PREDICTOR = "the predictor"
    DEPTH = "depth_prior"
    ODOMETRY = "odom_prior"


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Pose of one frame, as known right after that frame."""

    frame_id: int
    stamp_ns: int
    T_map_cam: Array  # (4, 4) in map units (metres when ``metric``)
    T_odom_cam: Array  # (4, 4) continuous: never corrected backwards
    sigma_rotation: float  # rad, 1-sigma per axis of the pose in odom since the last frame
    sigma_translation: float  # map units, 1-sigma per axis, likewise
    covariance: Array | None  # (6, 6) of ``T_map_cam exp(xi)``: rotation (rad), translation (map units); None: unknown
    state: State
    metric: bool  # map units are metres
    keyframe: bool
    segment: int  # increments when the chain was cut by a time gap or jump


@dataclass(frozen=True, slots=True, eq=False)
class DepthMap:
    """Depth of one frame in map units, ready to publish."""

    frame_id: int
    stamp_ns: int
    depth: FloatArray  # (h, w) z-depth in map units, NaN invalid
    confidence: FloatArray  # (h, w) in [0, 1)
    camera: Pinhole  # at the size of the depth


@dataclass(frozen=True, slots=True, eq=False)
class FusedKeyframe:
    """A keyframe that left the window: its depth is final and goes into the map once."""

    frame_id: int
    stamp_ns: int
    submap: int
    T_submap_cam: Array  # (4, 4) in the frame of its submap, map units
    camera: Pinhole  # at the size of the depth
    depth: FloatArray  # (h, w) map units, NaN invalid
    confidence: FloatArray  # (h, w) in [0, 1)
    image: ImageArray  # (h, w, 3) RGB at the size of the depth
    weak: bool = False  # the link to the keyframe before is weak: a break or a gap lies between


@dataclass(frozen=True, slots=True, eq=False)
class LoopEdge:
    """A loop in the pose graph: where one keyframe is as seen from another."""

    from_id: int  # frame ids of the keyframes
    to_id: int
    T_from_to: Array  # (4, 4) map units
    log_scale: float  # how much larger the map is at ``to`` than the loop says
    log_scale_sigma: float  # 1-sigma
    rotation_sigma: float  # rad, 1-sigma per axis
    translation_sigma: float  # map units, 1-sigma per axis
    residual: float  # distance from the keyframes' poses, sigma (Mahalanobis)


@dataclass(frozen=True, slots=True, eq=False)
class Integration:
    """What changed when a prediction was joined to the map."""

    depth: DepthMap | None  # of the newest view; None where the prediction was refused
    fused: tuple[FusedKeyframe, ...]  # keyframes that left the window, oldest first
    anchors: dict[int, Array]  # submap id -> T_map_submap (4, 4), all submaps
    revision: int  # increments when anchors of old submaps moved
    sizes: dict[int, float] = field(default_factory=dict)  # submap id -> factor on its size, all submaps
    loops: tuple[LoopEdge, ...] = ()  # all loops of the graph


@dataclass(frozen=True, slots=True)
class WindowRecord:
    """One line of the scale log: how a window was joined."""

    number: int
    stamp_ns: int  # of the newest view
    views: int
    log_scale: float  # log(map units per window unit)
    sigma: float  # 1-sigma of log_scale
    residual: float  # log-scale innovation against what was expected
    outcome: str  # "joined", "repaired", "weak" (new submap, weak link), "refused"


@dataclass(frozen=True, slots=True)
class Status:
    """Counters and health of a Slam, immutable snapshot."""

    state: State
    reason: str  # one sentence; empty when all is well
    metric: bool
    scale_source: Metre | None  # on whose word the scale rests most; None while units are those of the first window
    scale_sigma: float  # 1-sigma of the log scale; inf while nobody has claimed metres
    doubt: str  # which prior is not used and why, one sentence; empty when all is well
    scale_ratio: float  # map units per window unit of the last window
    seam_residual: float  # log, of the last window
    frames: int
    keyframes: int
    submaps: int
    windows: int
    breaks_detected: int
    breaks_repaired: int
    segments: int
    T_map_odom: Array  # (4, 4)
    loops: int = 0  # in the pose graph
    loops_tried: int = 0  # old places that were compared with the present
    revision: int = 0  # increments when loops have moved the map


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Camera poses over time."""

    stamps_ns: NDArray[np.int64]  # (N,) strictly increasing
    T_map_cam: Array  # (N, 4, 4)
    keyframe: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # (N,) or empty

    def __len__(self) -> int:
        """Number of poses."""
        return len(self.stamps_ns)

"""One frozen dataclass tree: the only home of a default.

Every leaf carries its description and its bounds; the command line (``--set``), the YAML files, the ROS parameters
and the table in the README are made from the tree, so they cannot disagree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from da3_ros.errors import ConfigError
from da3_ros.files import reason, write_atomic

T = TypeVar("T")


def param(
    default: T, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> T:
    """Declare a leaf: default, description with unit, bounds (inclusive) or choices."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    """When a tracked frame becomes a keyframe."""

    min_interval_s: float = param(0.08, "least time between keyframes, s", low=0)
    max_interval_s: float = param(2.0, "under motion, most time between keyframes, s", low=0)
    min_parallax: float = param(0.04, "insert at this rotation-compensated median parallax, share of the width", low=0)
    min_tracked: float = param(0.6, "insert when fewer of the reference's features are tracked", low=0, high=1)
    max_rotation_deg: float = param(12.0, "insert at this rotation from the reference, deg", low=0, high=180)
    still_parallax: float = param(0.01, "standing still: parallax below this share of the width", low=0)
    still_rotation_deg: float = param(3.0, "standing still: rotation below this, deg", low=0)


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """Camera-rate tracking against the latest keyframe."""

    features: int = param(300, "features followed", low=20, high=5000)
    width: int = param(480, "images are shrunk to this width for tracking, px", low=64)
    forward_backward_px: float = param(1.5, "largest forward-backward flow error, px of the shrunk image", low=0.01)
    inlier_px: float = param(2.0, "largest reprojection error of an inlier, px of the shrunk image", low=0.1)
    min_inliers: int = param(20, "fewer inliers than this: the state is WEAK", low=6)
    lost_after_s: float = param(1.0, "WEAK for longer than this: the state is LOST, s", low=0)


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """Which views are predicted together."""

    size: int = param(8, "most views in a window", low=1, high=64)
    overlap: int = param(6, "placed keyframes repeated in a window", low=1, high=63)
    stride: int = param(1, "new keyframes that make a window due", low=1, high=32)
    live: bool = param(True, "also predict frames between keyframes when the predictor is idle")


@dataclass(frozen=True, slots=True)
class SeamConfig:
    """Joining a window to the map over shared keyframes."""

    depth_views: int = param(3, "shared keyframes whose depth is compared", low=1, high=63)
    min_confidence: float = param(0.3, "pixels less confident than this are not compared", low=0, high=1)
    edge_ratio: float = param(0.1, "pixels next to a relative depth step above this are not compared", low=0)


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """The scale of each window, regularised."""

    break_log: float = param(0.25, "a log-scale residual above this may be a break", low=0)
    break_sigmas: float = param(3.0, "and above this many sigma it is one", low=0)
    smooth: bool = param(True, "solve the whole chain of scales for the final trajectory")


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """Adjustment of the last keyframes to the landmarks that they see in common."""

    enabled: bool = param(
        True, "adjust the last keyframes to followed features and predicted depth; false: keep the poses of the windows"
    )
    fixed: int = param(3, "keyframes that have left the window and still hold the others in place", low=1, high=20)
    pixel_sigma: float = param(1.0, "1-sigma of a followed feature, px of the shrunk image", low=0.01)
    aligned_sigma: float = param(0.3, "the same of one that was aligned with an older keyframe, px", low=0.01)
    depth_sigma: float = param(0.05, "1-sigma of predicted log depth within a patch", low=1e-4)
    depth_scale_sigma: float = param(0.01, "1-sigma of the log scale of a keyframe's depth", low=1e-4)
    rotation_deg: float = param(0.2, "1-sigma of the predicted rotation of a view, deg", low=1e-4)
    translation: float = param(0.01, "1-sigma of the predicted place of a view, share of the baseline", low=1e-4)


@dataclass(frozen=True, slots=True)
class DepthConfig:
    """Depth that goes out."""

    every_frame: bool = param(
        True, "for each frame at once, warped from the latest prediction; false: predicted frames only, later"
    )
    max_age_s: float = param(2.0, "no depth is warped from a frame older than this; 0: however old, s", low=0)


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Places seen again, and the pose graph that they correct."""

    enabled: bool = param(True, "look for places seen before, and close loops")
    min_gap_s: float = param(10.0, "a place is old after this time, s", low=0)
    min_gap_keyframes: int = param(15, "and after so many keyframes", low=1)
    every: int = param(3, "keyframes between two windows that compare the present with an old place", low=1)
    views: int = param(4, "most views of either side in such a window", low=1, high=32)
    min_overlap: float = param(0.3, "share of the present's pixels that an old view may see too", low=0, high=1)
    min_likeness: float = param(2.5, "how far a view must look more like the present than usual, sigma", low=0)
    min_agreement: float = param(0.25, "verified: share of pixels whose depths agree", low=0, high=1)
    min_inliers: int = param(25, "verified: matched features that fit one pose", low=6)
    max_distance: float = param(0.7, "verified: distance between the two views over the median depth", low=0)
    sigmas: float = param(5.0, "a loop that is off by more than this in the graph is taken out, sigma", low=1)
    memory_mb: int = param(256, "most memory for old views; the densest are thinned, MB", low=1)


@dataclass(frozen=True, slots=True)
class MapConfig:
    """The incremental map."""

    voxel: float = param(0.0, "voxel edge in map units (m); 0 = 1 % of the median depth of the first keyframe", low=0)
    min_confidence: float = param(0.5, "pixels less confident than this never enter the map", low=0, high=1)
    max_depth: float = param(8.0, "points farther than this never enter the map, map units (m)", low=0)
    max_points: int = param(1_000_000, "most voxels kept over all submaps; the least seen go first", low=1000)
    submap_keyframes: int = param(15, "keyframes in a submap", low=1)
    submap_length: float = param(5.0, "path length of a submap, map units (m)", low=0)


@dataclass(frozen=True, slots=True)
class SimulatedConfig:
    """Error model of the simulated predictor; each term is off at 0."""

    width: int = param(280, "width of the predicted depth, px; the height follows the image", low=16)
    window_log_scale: float = param(0.1, "per window: sigma of the log scale", low=0)
    log_scale_bias: float = param(0.0, "all windows: log scale added")
    metric: bool = param(True, "units claim to be metres up to window_log_scale; false: arbitrary units")
    random_gauge: bool = param(True, "per window: a random rigid frame instead of the reference view's")
    depth_patch: float = param(0.05, "patch-correlated log-depth error (6x8 grid), sigma", low=0)
    depth_pixel: float = param(0.02, "independent log-depth error per pixel, sigma", low=0)
    edge_bleed: float = param(0.5, "how far depth leaks across depth edges, 0..1", low=0, high=1)
    focal: float = param(0.02, "per window: relative focal error, sigma", low=0)
    rotation_deg: float = param(0.2, "per view: rotation error, sigma, deg", low=0)
    translation: float = param(0.01, "per view: translation error as a share of the baseline, sigma", low=0)
    break_probability: float = param(0.0, "per window: chance of a scale break", low=0, high=1)
    break_windows: tuple[int, ...] = param((), "windows (numbers) with a scale break")
    break_factor: float = param(2.0, "scale factor of a break", low=0.01)
    break_lasting: bool = param(False, "a break holds from its window on instead of for that window")
    bad_windows: tuple[int, ...] = param((), "windows (numbers) with useless poses and depth")
    wrong_loop_probability: float = param(
        0.0,
        "per window with views seconds apart: chance that the later ones are put to a wrong place",
        low=0,
        high=1,
    )
    frozen_probability: float = param(
        0.0, "per window: chance that its newest view is taken for the one before", low=0, high=1
    )
    delay_s: float = param(0.0, "time a prediction takes at least, s", low=0)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """How the network runs, where the predictor is one."""

    runtime: str = param(
        "auto",
        "what runs it; auto: the best that is usable here",
        choices=("auto", "tensorrt", "tensorrt_rtx", "onnxruntime", "torch"),
    )
    device: str = param("auto", "where it runs; auto: the GPU where one is usable", choices=("auto", "cpu", "cuda"))
    precision: str = param("auto", "auto: the fastest that is safe there", choices=("auto", "fp32", "fp16", "bf16"))
    size: str = param("auto", "images are resized to this WxH, px; auto: longest side 504 on a GPU, 280 on a CPU")
    reference: str = param(
        "first", "view in whose frame a window is predicted", choices=("first", "middle", "saddle_balanced")
    )
    pose: str = param("rays", "cameras from the rays, or from the camera head", choices=("rays", "head"))
    build: bool = param(True, "export graphs and compile engines that are missing; false: refuse to start")
    cache_mb: int = param(256, "most memory for the tokens of frames, MB", low=0)
    threads: int = param(0, "threads on a CPU; 0: the library's choice", low=0, high=1024)


@dataclass(frozen=True, slots=True)
class MetricConfig:
    """Metres from a network that sees them one view at a time."""

    model: str = param("", "such as da3metric-large; empty: none (the nested model brings its own)")
    interval_s: float = param(1.0, "least time between two views that it looks at, s", low=0)
    sigma: float = param(0.1, "1-sigma of the log scale that one view gives", low=0.001)


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Other sensors: depth cameras, LiDAR and wheels give metres, an IMU tells turns and which way is up."""

    depth: str = param(
        "auto",
        "depth_prior: measured depth; auto: in the node where it is published, offline never",
        choices=("auto", "always", "never"),
    )
    odometry: str = param(
        "auto",
        "odom_prior: poses in metres; auto: in the node where it is published, offline never",
        choices=("auto", "always", "never"),
    )
    imu: str = param(
        "auto",
        "imu: rates and accelerations; auto: in the node where it is published, offline never",
        choices=("auto", "always", "never"),
    )
    odometry_file: str = param("", "offline: odometry is in this file of poses (TUM form), whatever the source has")
    odometry_mount: str = param(
        "", "offline: where the camera sits in the body of that file, 'x y z qx qy qz qw'; empty: the poses are its own"
    )
    depth_shift: bool = param(False, "fit a shift of predicted depth too, for networks whose depth has one")
    depth_sigma: float = param(0.01, "least 1-sigma of the log scale that one keyframe gives", low=0)
    odometry_sigma: float = param(0.03, "least 1-sigma of the log length of a step of odometry", low=0)
    imu_tilt_deg: float = param(0.5, "least 1-sigma of what an accelerometer at rest takes for up, deg", low=0.01)
    tolerance_s: float = param(0.03, "node: most that the stamps of an image and its measured depth differ, s", low=0)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The ROS node only."""

    map_frame: str = param("map", "frame of the corrected pose, path and map")
    odom_frame: str = param("odom", "frame of continuous odometry")
    base_frame: str = param("", "body frame; empty: publish the camera itself")
    camera_frame: str = param("", "optical frame; empty: the image's frame_id")
    image_transport: str = param("auto", "how images come", choices=("auto", "raw", "compressed"))
    image_qos: str = param(
        "auto", "reliability asked of the image publisher; auto follows it", choices=("auto", "reliable", "best_effort")
    )
    publish_odom_tf: bool = param(True, "broadcast odom -> base")
    publish_map_tf: bool = param(True, "broadcast map -> odom")
    map_tf_rate_hz: float = param(20.0, "rate of map -> odom, Hz", low=0.1, high=200)
    map_tf_tolerance_s: float = param(0.1, "map -> odom is stamped this far ahead, s", low=0)
    tf_timeout_s: float = param(2.0, "how long to wait for base <- camera before saying so, s", low=0)
    path_rate_hz: float = param(2.0, "rate of the path, Hz", low=0.01, high=50)
    path_max_poses: int = param(2000, "most poses in the path; older ones are thinned", low=10)
    map_rate_hz: float = param(1.0, "rate of map/points and map/updates, Hz", low=0.01, high=10)
    map_max_points: int = param(500_000, "most points in one map/points message", low=100)
    min_confidence: float = param(0.3, "published depth below this confidence is NaN", low=0, high=1)
    mailbox: int = param(5, "frames waiting for the tracker; the oldest is dropped and counted", low=1, high=100)
    max_image_age_s: float = param(1.0, "frames older than this are dropped and counted; 0: never, s", low=0)
    max_gap_s: float = param(2.0, "a longer gap between frames starts a new segment, s", low=0.01)
    on_time_jump: str = param("reset", "when stamps jump backwards", choices=("reset", "continue", "ignore"))
    silence_s: float = param(5.0, "without output for this long, warn and name the cause, s", low=0.5)
    publish_when_lost: bool = param(False, "keep publishing odometry with a large covariance when lost")
    image_rectified: bool = param(False, "images are rectified already (image_rect): use P and do not undistort")
    output_dir: str = param("", "folder of saved maps and trajectories; empty: $ROS_HOME/da3_ros (~/.ros/da3_ros)")
    autostart: bool = param(True, "configure and activate at start")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    predictor: str = param(
        "simulated",
        "simulated, recorded:FILE to replay predictions, or a network: da3-tiny, da3-small, owner/name of the hub, a "
        "folder",
    )
    seed: int = param(0, "seed of everything random", low=0)
    keyframe: KeyframeConfig = field(default_factory=KeyframeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    seam: SeamConfig = field(default_factory=SeamConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    loops: LoopConfig = field(default_factory=LoopConfig)
    map: MapConfig = field(default_factory=MapConfig)
    simulated: SimulatedConfig = field(default_factory=SimulatedConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    metric: MetricConfig = field(default_factory=MetricConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    node: NodeConfig = field(default_factory=NodeConfig)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One parameter of the tree, as introspection sees it."""

    key: str  # dotted: "window.size"
    type: Any
    default: Any
    doc: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]


def leaves(config: Any = None, prefix: str = "") -> Iterator[Leaf]:
    """Yield every leaf in declaration order; ``default`` holds the value that ``config`` has."""
    config = Config() if config is None else config
    hints = get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            meta = f.metadata
            yield Leaf(prefix + f.name, hints[f.name], value, meta["doc"], meta["low"], meta["high"], meta["choices"])


def updated(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with dotted keys replaced.

    Raises:
        ConfigError: one sentence per unknown key, wrong type or value out of bounds, all at once.
    """
    config = with_values(config, values)
    if config.window.overlap + config.window.stride > config.window.size:
        raise ConfigError(
            f"window.overlap ({config.window.overlap}) + window.stride ({config.window.stride}) "
            f"exceed window.size ({config.window.size}); lower one of them"
        )
    return config


def with_values(tree: T, values: Mapping[str, Any]) -> T:
    """Return any tree of frozen dataclasses made of ``param`` leaves with dotted keys replaced.

    Raises:
        ConfigError: one sentence per unknown key, wrong type or value out of bounds, all at once.
    """
    known = {leaf.key: leaf for leaf in leaves(tree)}
    problems, checked = [], {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; did you mean '{close[0]}'?" if close else "; the README lists the keys"
            problems.append(f"unknown config key '{key}'{hint}")
            continue
        try:
            checked[key] = _coerce(known[key], value)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    replaced: T = _replace(tree, checked)
    return replaced


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Read ``key=value`` strings; values are YAML scalars or lists."""
    import yaml

    out: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{text}' is not an assignment; write --set key=value")
        try:
            out[key.strip()] = yaml.safe_load(value) if value.strip() else ""
        except yaml.YAMLError:
            raise ConfigError(f"the value of '{text}' is not YAML; quote it") from None
    return out


def load(path: str | Path, base: Config | None = None) -> Config:
    """Read a YAML file over ``base``; a plain tree and a ROS parameter file (``/**: ros__parameters:``) both work."""
    values = read_tree(path)
    with naming(path):
        return updated(base or Config(), values)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the file into every sentence of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def read_tree(path: str | Path) -> dict[str, Any]:
    """Dotted keys and values of a YAML file, plain or a ROS parameter file.

    Raises:
        ConfigError: it cannot be read, or is no mapping.
    """
    import yaml

    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {reason(error)}") from error
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        raise ConfigError(f"{path} is not valid YAML{where}; fix it or start from config/slam.yaml") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, as config/slam.yaml does")
    if len(tree) == 1:
        (inner,) = tree.values()
        if isinstance(inner, dict) and set(inner) == {"ros__parameters"}:
            tree = inner["ros__parameters"] or {}
    return dict(_flatten(tree))


def dump(config: Any, *, ros: bool = False, comments: bool = False) -> str:
    """Write the tree as YAML; ``ros`` wraps it as a parameter file, ``comments`` adds the descriptions."""
    lines = ["/**:", "  ros__parameters:"] if ros else []
    indent = "    " if ros else ""
    group = ""
    for leaf in leaves(config):
        *path, name = leaf.key.split(".")
        if path and path[0] != group:
            group = path[0]
            lines.append(f"{indent}{group}:")
        pad = indent + "  " * len(path)
        if comments:
            lines.append(f"{pad}# {describe(leaf)}")
        lines.append(f"{pad}{name}: {_yaml_scalar(leaf.default)}")
    return "\n".join(lines) + "\n"


def markdown(config: Config) -> str:
    """Write the tree as a table of keys, values and descriptions."""
    rows = (
        f"| `{leaf.key}` | `{_yaml_scalar(leaf.default)}` | {describe(leaf).replace('|', '/')} |"
        for leaf in leaves(config)
    )
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def save(config: Config, path: Path) -> None:
    """Write the resolved configuration."""
    write_atomic(path, dump(config, comments=True))


def describe(leaf: Leaf) -> str:
    """Description with bounds or choices, for comments, tables and ROS descriptors."""
    if leaf.choices:
        return f"{leaf.doc} ({' | '.join(leaf.choices)})"
    if leaf.low is not None and leaf.high is not None:
        return f"{leaf.doc} [{leaf.low:g}, {leaf.high:g}]"
    if leaf.low is not None:
        return f"{leaf.doc} [>= {leaf.low:g}]"
    return leaf.doc


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return repr(value)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _coerce(leaf: Leaf, value: Any) -> Any:
    wanted = leaf.type
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif wanted is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    elif wanted == tuple[int, ...]:
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            raise ConfigError(f"{leaf.key} must be a list of whole numbers, not {list(value)!r}")
        return value
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{leaf.key} must be of type {wanted.__name__}, not {value!r}")
    if leaf.choices and value not in leaf.choices:
        raise ConfigError(f"{leaf.key} must be one of {', '.join(leaf.choices)}, not '{value}'")
    if isinstance(value, float | int) and not isinstance(value, bool):
        low = -float("inf") if leaf.low is None else leaf.low
        high = float("inf") if leaf.high is None else leaf.high
        if not (low <= value <= high) or value in (float("inf"), -float("inf")):
            raise ConfigError(f"{leaf.key} must lie in [{low:g}, {high:g}], not {value:g}")
    return value


def _replace(node: Any, values: Mapping[str, Any]) -> Any:
    own = {k: v for k, v in values.items() if "." not in k}
    for f in dataclasses.fields(node):
        inner = {k.split(".", 1)[1]: v for k, v in values.items() if k.startswith(f.name + ".")}
        if inner:
            own[f.name] = _replace(getattr(node, f.name), inner)
    return dataclasses.replace(node, **own)

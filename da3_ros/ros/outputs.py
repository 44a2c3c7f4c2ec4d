"""Everything the node publishes.  Methods say on which thread they run; publishers are safe to share."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from da3_ros.config import Config
from da3_ros.geometry.se3 import Array
from da3_ros.mapping.map import SubmapChange
from da3_ros.msg import MapUpdate, PoseGraph
from da3_ros.ros import messages
from da3_ros.ros.body import Body
from da3_ros.ros.counters import Stopwatch
from da3_ros.ros.graph import GraphLog
from da3_ros.ros.odometry import BodyState, OdometryChain, odometry_message
from da3_ros.ros.pace import Pace
from da3_ros.ros.tracker_thread import Arrival
from da3_ros.types import (
    DepthMap,
    Estimate,
    FloatArray,
    ImageArray,
    State,
    Status,
    Trajectory,
)

_UPDATES_KEPT = 50  # of map/updates, for subscribers that lose their connection


class Outputs:
    """Publishers of one node, from configure to cleanup."""

    def __init__(self, node: Node, config: Config, stopwatch: Stopwatch) -> None:
        """Advertise everything."""
        self._node, self._config, self._stopwatch = node, config.node, stopwatch
        self._sim_time = bool(node.get_parameter("use_sim_time").value)
        self._depth = self._publisher(Image, "depth/image", 2)
        self._depth_info = self._publisher(CameraInfo, "depth/camera_info", 2)
        self._confidence = self._publisher(Image, "confidence/image", 2)
        self._preview = self._publisher(Image, "depth/preview", 1)
        self._odom = self._publisher(Odometry, "odom", 10)
        self._pose = self._publisher(PoseWithCovarianceStamped, "pose", 10)
        self._path = self._publisher(Path, "path", 1, latched=True)
        self._points = self._publisher(PointCloud2, "map/points", 1, latched=True)
        self._updates = self._publisher(MapUpdate, "map/updates", _UPDATES_KEPT, latched=True)
        self._graph = self._publisher(PoseGraph, "pose_graph", 1, latched=True)
        self._tf = self._publisher(TFMessage, "/tf", 100)
        self._chain = OdometryChain()
        self._latched: set[Publisher[Any]] = set()  # topics on which a message of this session is kept
        self._path_pace = Pace(config.node.path_rate_hz)
        self._path_known: tuple[tuple[int, ...], int] = ((), 0)  # revision published, subscribers then
        self._path_waits = False  # the mapper has one to make
        self._path_cache: dict[int, tuple[Array, PoseStamped]] = {}
        self._stamp_ns = 0
        self._metric = False
        self._correction: Array | None = None  # T_map_odom in ROS axes, swapped by reference
        self._map_tf_ns = 0
        self.last_output = time.monotonic()  # of odometry
        self.path_length = 0.0
        self._last_centre: Array | None = None

    # ------------------------------------------------------------ tracker thread

    def begin_session(self) -> None:
        """Odometry starts anew."""
        self._chain, self.path_length, self._last_centre = OdometryChain(), 0.0, None

    def estimate(self, arrival: Arrival, estimate: Estimate, status: Status) -> None:
        """Publish odometry, odom TF and pose of one frame."""
        body = arrival.body
        state = self._chain.advance(body, estimate)
        self._measure(state)
        self._metric = estimate.metric
        self._correction = body.correction(status.T_map_odom)
        self._stamp_ns = estimate.stamp_ns
        lost = estimate.state is State.LOST
        if lost and not self._config.publish_when_lost:
            return
        odom = odometry_message(state, self._config.odom_frame, body.frame_id)
        self._odom.publish(odom)
        if self._config.publish_odom_tf and not lost:
            odom_to_body = messages.transform(state.stamp_ns, self._config.odom_frame, body.frame_id, state.T_odom_body)
            self._tf.publish(TFMessage(transforms=[odom_to_body]))
        if self._pose.get_subscription_count():
            in_map = PoseWithCovariance(pose=messages.pose(state.T_map_body), covariance=state.map_covariance.ravel())
            head = messages.header(state.stamp_ns, self._config.map_frame)
            self._pose.publish(PoseWithCovarianceStamped(header=head, pose=in_map))
        self.last_output = time.monotonic()
        now = messages.now_ns(self._node)
        # A simulated clock moves in steps as long as what is measured.
        if now and not self._sim_time:
            self._stopwatch.add("end_to_end", (now - estimate.stamp_ns) / 1e9)

    def wants_depth(self) -> bool:
        """Whether somebody listens to depth, its camera_info, confidence or preview."""
        topics = (self._depth, self._depth_info, self._confidence, self._preview)
        return any(publisher.get_subscription_count() for publisher in topics)

    def depth(self, body: Body, depth: DepthMap) -> None:
        """Publish depth with its camera_info, confidence and preview, each where somebody listens."""
        head = messages.header(depth.stamp_ns, body.camera_frame)
        listens = [p.get_subscription_count() > 0 for p in (self._depth, self._depth_info, self._preview)]
        if any(listens):
            metres = messages.masked_depth(depth.depth, depth.confidence, self._config.min_confidence)
            if listens[0]:
                self._depth.publish(messages.image(head, metres, "32FC1"))
            if listens[0] or listens[1]:
                self._depth_info.publish(messages.camera_info(head, depth.camera))
            if listens[2]:
                self._preview.publish(messages.image(head, messages.preview(metres), "rgb8"))
        if self._confidence.get_subscription_count():
            confidence = depth.confidence.astype(np.float32, copy=False)
            self._confidence.publish(messages.image(head, confidence, "32FC1"))

    def wants_path(self, revision: tuple[int, ...]) -> bool:
        """Whether none is being made and one is due that is new, or new to somebody who listens."""
        if self._path_waits or not self._path_pace.due():
            return False
        listeners = self._path.get_subscription_count()
        known, before = self._path_known
        self._path_known = (known, listeners)
        if not listeners or (revision == known and listeners <= before):
            return False
        self._path_known = (revision, listeners)
        self._path_waits = True
        return True

    # ------------------------------------------------------------ mapper thread

    def path_took(self, seconds: float) -> None:
        """The path that was asked for is out, or of no use any more; pace the next by what it cost."""
        self._path_pace.took(seconds)
        self._path_waits = False

    def path(self, trajectory: Trajectory) -> None:
        """Publish the path: each pose with its own stamp; older poses are thinned beyond the cap."""
        head = messages.header(self._stamp_ns, self._config.map_frame)
        chosen = thinned(len(trajectory), self._config.path_max_poses)
        cache, poses = self._path_cache, []
        for i in chosen.tolist():
            stamp, T = int(trajectory.stamps_ns[i]), trajectory.T_map_cam[i]
            known = cache.get(stamp)
            if known is None or not np.array_equal(known[0], T):
                message = PoseStamped(header=messages.header(stamp, self._config.map_frame), pose=messages.pose(T))
                known = cache[stamp] = (T, message)
            poses.append(known[1])
        if len(cache) > 2 * self._config.path_max_poses:
            self._path_cache = {int(trajectory.stamps_ns[i]): cache[int(trajectory.stamps_ns[i])] for i in chosen}
        self._path.publish(Path(header=head, poses=poses))
        self._latched.add(self._path)

    def withdraw(self, session: int) -> None:
        """Replace what is kept for late subscribers by something empty: it is not of this session."""
        head = messages.header(messages.now_ns(self._node), self._config.map_frame)
        nothing = np.zeros((0, 3))
        empty = {
            self._path: Path(header=head),
            self._points: messages.point_cloud(head, nothing.astype(np.float32), nothing.astype(np.uint8)),
            self._graph: PoseGraph(header=head, session_id=session),
        }
        for publisher, message in empty.items():
            if publisher in self._latched:
                publisher.publish(message)
        self._latched.clear()
        self._path_cache.clear()

    def map_listeners(self) -> tuple[int, int, int]:
        """Number of subscribers of map/points, map/updates and pose_graph."""
        points, updates, graph = (
            publisher.get_subscription_count() for publisher in (self._points, self._updates, self._graph)
        )
        return points, updates, graph

    def graph(self, graph: GraphLog, anchors: dict[int, Array], sizes: dict[int, float], revision: int) -> None:
        """Publish the pose graph with submaps at ``anchors`` (``T_map_submap`` in ROS axes), grown by ``sizes``."""
        self._graph.publish(graph.message(self._config.map_frame, anchors, revision, metric=self._metric, sizes=sizes))
        self._latched.add(self._graph)

    def map_points(self, points: FloatArray, colors: ImageArray) -> None:
        """Publish the whole map, thinned evenly to the cap."""
        chosen = np.linspace(0, len(points) - 1, min(len(points), self._config.map_max_points)).astype(np.int64)
        if len(chosen) < len(points):
            points, colors = points[chosen], colors[chosen]
        head = messages.header(self._stamp_ns, self._config.map_frame)
        self._points.publish(messages.point_cloud(head, points, colors))
        self._latched.add(self._points)

    def map_changes(self, changes: list[SubmapChange], revision: int, session: int) -> None:
        """Publish the whole content of each submap that changed."""
        head = messages.header(self._stamp_ns, self._config.map_frame)
        for change in changes:
            local = messages.header(self._stamp_ns, f"submap_{change.submap}")
            self._updates.publish(
                MapUpdate(
                    header=head,
                    session_id=session,
                    submap_id=change.submap,
                    graph_revision=revision,
                    operation=MapUpdate.OPERATION_REPLACE,
                    t_map_submap=messages.pose(change.T_map_submap),
                    metric=self._metric,
                    points=messages.point_cloud(local, change.points, change.colors),
                )
            )

    # ------------------------------------------------------------ executor thread

    def map_tf(self) -> None:
        """Broadcast map -> odom, stamped slightly ahead so that look-ups at the latest image succeed."""
        correction = self._correction
        now = messages.now_ns(self._node)
        # The same stamp twice is an error to tf2, and happens while a simulated clock stands still.
        if correction is None or not self._config.publish_map_tf or now in (0, self._map_tf_ns):
            return
        self._map_tf_ns = now
        ahead = now + round(self._config.map_tf_tolerance_s * 1e9)
        map_to_odom = messages.transform(ahead, self._config.map_frame, self._config.odom_frame, correction)
        self._tf.publish(TFMessage(transforms=[map_to_odom]))

    def forget(self) -> None:
        """Stop broadcasting the last correction (reset, deactivation)."""
        self._correction = None

    def close(self) -> None:
        """Withdraw every publisher."""
        for publisher in (
            *(self._depth, self._depth_info, self._confidence, self._preview, self._odom, self._pose),
            *(self._path, self._points, self._updates, self._graph, self._tf),
        ):
            self._node.destroy_publisher(publisher)

    # ------------------------------------------------------------

    def _measure(self, state: BodyState) -> None:
        centre = state.T_odom_body[:3, 3]
        if self._last_centre is not None:
            self.path_length += float(np.linalg.norm(centre - self._last_centre))
        self._last_centre = centre

    def _publisher(self, kind: type, topic: str, depth: int, *, latched: bool = False) -> Publisher[Any]:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        return self._node.create_publisher(kind, topic, profile)


def thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most ``most`` of ``count`` poses: the newer half of the budget complete, older ones evenly."""
    if count <= most:
        return np.arange(count)
    recent = most // 2
    older = np.linspace(0, count - recent - 1, most - recent).astype(np.int64)
    return np.concatenate([older, np.arange(count - recent, count)])

"""The algorithm: track every frame, predict windows of keyframes, chain them with one scale.

    estimate = slam.track(frame)              camera rate, never waits for a prediction
    sight = slam.sight()                      whose depth shows that frame, for whoever wants to see it
    window = slam.request()                   what to predict next, if anything is due
    slam.integrate(predictor.predict(window)) joins the window to the map

One thread owns a Slam.  Offline these three calls simply follow each other (``process``).  Live, ``integrating`` does
the last in steps, and frames are tracked between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam import window as windows
from da3_ros.slam.chain import Chain
from da3_ros.slam.inertia import Inertia
from da3_ros.slam.intrinsics import Intrinsics
from da3_ros.slam.junction import Junction, Junctions, Method
from da3_ros.slam.keyframe import Depth, is_due
from da3_ros.slam.landmarks import Seen
from da3_ros.slam.loops import Loops
from da3_ros.slam.placing import Placing
from da3_ros.slam.poselog import PoseLog
from da3_ros.slam.priors import PriorClaims
from da3_ros.slam.schedule import Kind, Request, Schedule, Tracked
from da3_ros.slam.seam import Shared
from da3_ros.slam.sight import Sight, Sights
from da3_ros.slam.steps import Steps, completed
from da3_ros.slam.tracker import Sigma, Track, Tracker
from da3_ros.slam.ways import scaled
from da3_ros.slam.window import View
from da3_ros.types import (
    DepthMap,
    Estimate,
    Frame,
    FusedKeyframe,
    Integration,
    Prediction,
    Predictor,
    Priors,
    State,
    Status,
    Trajectory,
    Window,
    WindowRecord,
)


class Slam:
    """Poses, keyframes and scale of one camera."""

    def __init__(self, config: Config, method: Method | None = None) -> None:
        """Start at the identity; ``method`` is for comparisons."""
        self._config = config
        self._tracker = Tracker(config.tracker)
        self._schedule = Schedule(config.window, config.seam)
        self._chain = Chain(config)
        method = method or Method()
        self._junctions = Junctions(config, method, self._chain)
        self._priors = PriorClaims(config, self._chain, self._junctions, enabled=not method.plain)
        self._inertia = Inertia(np.deg2rad(config.prior.imu_tilt_deg), enabled=not method.plain)
        refine = config.refine.enabled and not method.plain
        self._placing = Placing(config, self._chain, self._tracker, self._schedule, self._inertia, refine=refine)
        enabled = config.loops.enabled and not method.plain
        self._loops = Loops(config, self._chain, enabled=enabled, shrink=self._tracker.shrink)
        self._intrinsics = Intrinsics()
        self._sights = Sights(config.depth)
        self._log = PoseLog()
        self._latest: Tracked | None = None
        self._T_map_odom = np.eye(4)
        self._T_odom_cam = np.eye(4)
        self._state, self._reason = State.INIT, self._loops.problem
        self._weak_since: int | None = None
        self._shown: int | None = None  # the frame whose own prediction came last
        self._placed = False  # the latest frame was tracked, or tracking was tried
        self._was_lost = False  # since the last keyframe: nothing but a prediction ties the next one to it
        self._last_keyframe_ns = 0
        self._released = 0  # keyframes that are not adjusted any more
        self._segment = 0
        self._segment_out = 0  # of the window that is out

    # ------------------------------------------------------------ camera rate

    def track(self, frame: Frame) -> Estimate:
        """Pose of this frame now; decides whether it becomes a keyframe.  Frames come in time order."""
        gray = self._tracker.shrink(frame.image)
        self._inertia.advance(frame)
        inertia, track = self._inertia, None
        if self._chain.newest:
            track = self._tracker.track(gray, frame.stamp_ns, inertia.turn, sure=inertia.sure)
        T_chain_cam = self._latest.T_chain_cam if self._latest else np.eye(4)
        if track:
            # Steps, not poses against the reference: a prediction may since have moved the frame before.
            step = track.step if self._placed else self._first_step(track, frame.stamp_ns)
            T_chain_cam = se3.normalized(self._latest.T_chain_cam @ step) if self._latest else step
            seen = self._placed and track.inliers >= self._config.tracker.min_inliers
            self._inertia.tracked(track.step if seen else None)
        else:
            step = se3.inverse(T_chain_cam) @ self._unseen(T_chain_cam)
            T_chain_cam = T_chain_cam @ step
        self._placed = track is not None
        gravity = self._inertia.gravity if self._inertia.sure else None
        if track and track.inliers:
            sigma = (track.sigma.rotation, track.sigma.translation)
            self._latest = Tracked(frame, gray, T_chain_cam, track.seen, sigma, gravity)
        else:
            self._latest = Tracked(frame, gray, T_chain_cam, Seen(), gravity=gravity)
        self._state = self._loops.announced(self._judge_tracking(track, frame.stamp_ns), frame.stamp_ns)
        keyframe = self._wants_keyframe(track, frame.stamp_ns)
        if keyframe:
            self._last_keyframe_ns = frame.stamp_ns
            self._schedule.add_keyframe(self._latest)
        elif track is None and self._schedule.renew_first(self._latest):
            # A predictor may load for minutes: the map must not begin with what the camera saw before.
            self._last_keyframe_ns = frame.stamp_ns
        else:
            self._schedule.offer_live(self._latest)
        return self._estimate(track, step, keyframe)

    def sight(self) -> Sight | None:
        """Depth of the latest frame, yet to be warped; None before the first prediction and where tracking is weak."""
        if self._state not in (State.TRACKING, State.RELOCALISED) or self._latest is None or self._chain.newest is None:
            return None
        return self._sights.of(self._latest, self._chain.newest)

    def request(self) -> Window | None:
        """The window to predict next; None while one is out or nothing is due."""
        window = self._schedule.next(self._chain.active, self._loops)
        if window is not None:
            self._segment_out = self._segment
        return window

    # ------------------------------------------------------------ when a prediction is there

    def integrate(self, prediction: Prediction) -> Integration:
        """Join a predicted window to the map.

        Raises:
            PredictorError: the prediction cannot be used and nothing changed; call ``refuse`` with the error.
        """
        return completed(self.integrating(prediction))

    def integrating(self, prediction: Prediction) -> Steps[Integration]:
        """The same in steps, named by what each did; the last, which has no name, keeps what leaves the window.

        Between two steps frames may be tracked, shown and informed of priors, and results asked for; ``request``,
        ``cut`` and ``finish`` come after the last.
        """
        steps = self._integrating(prediction)
        if not self._placed:
            return completed(steps)  # before the first keyframe has its landmarks there is nothing to track by
        return (yield from steps)

    def _integrating(self, prediction: Prediction) -> Steps[Integration]:
        frames = prediction.window.frames
        given, believed = [f.camera for f in frames], [self._intrinsics.of(f) for f in frames]
        views = windows.unpack(prediction, given, believed, self._schedule.new_views)
        request = self._schedule.take_back()
        if self._segment_out != self._segment:
            return self._integration([])  # the chain was cut while this window was out
        yield "unpack"
        self._intrinsics.observe(frames, [view.camera for view in views])
        if request.kind is Kind.LOOP:
            return (yield from self._close_loop(views))
        shared, new = self._shared(request, views), views[-len(request.new) :]
        junction = self._junctions.decide(request, prediction.scale_sigma, shared, new[0])
        self._reason = junction.verdict.reason
        if junction.refused:
            self._junctions.record(request, junction)
            if request.kind is Kind.KEYFRAME:
                self._schedule.repair(request)
            return self._integration([])
        if not junction.weak:
            for s in shared:
                s.keyframe.average(s.depth, junction.seam.log_scale)
        T_chain_cam = np.stack([junction.seam.S_chain_win.act_pose(view.T_win_cam) for view in new])
        for i, tracked in enumerate(request.new):
            if not np.isfinite(T_chain_cam[i]).all():
                T_chain_cam[i] = tracked.T_chain_cam  # nobody else knows
        if not junction.weak:
            T_chain_cam = self._placing.weigh(request, shared, new, T_chain_cam)
        if request.kind is Kind.LIVE:
            self._junctions.observe_scale(junction, prediction.scale_sigma)
            self._place_live(request, T_chain_cam[-1], new[-1].depth_scaled(junction.seam.log_scale))
            fused = []
        else:
            self._junctions.extend_scale(junction, prediction.scale_sigma, self._placing.drift)
            scale = self._priors.observe(request.new, new, junction)
            self._junctions.record(request, junction)
            fused = yield from self._place_keyframes(request, shared, new, T_chain_cam, junction, scale)
            self._loops.placed(request.new, prediction.tokens)
            self._level(request.new)
        return self._integration(fused, self._depth_map(request, new[-1], junction))

    def inform(self, frame_id: int, priors: Priors) -> None:
        """Hear what other sensors say of a frame that did not wait for them."""
        self._priors.inform(frame_id, priors)

    def refuse(self, error: PredictorError) -> None:
        """The prediction that is out failed: its keyframes stay ordinary tracked frames."""
        request = self._schedule.take_back()
        self._reason = str(error)
        if request.kind is not Kind.LOOP:
            self._junctions.record(request, None)

    def process(self, frame: Frame, predictor: Predictor) -> tuple[Estimate, list[Integration]]:
        """Offline: track, then predict what is due."""
        estimate = self.track(frame)
        return estimate, self.catch_up(predictor)

    def catch_up(self, predictor: Predictor) -> list[Integration]:
        """Offline: predict until nothing is due.  The causal pose of the latest frame then knows its own prediction."""
        assert self._latest is not None, "a frame was tracked"
        done = []
        while (window := self.request()) is not None:
            try:
                done.append(self.integrate(predictor.predict(window)))
            except PredictorError as error:
                self.refuse(error)
        self._log.revise_causal(self._latest.frame.id, self._T_map_latest())
        return done

    def cut(self, reason: str) -> list[FusedKeyframe]:
        """The chain is interrupted (time gap or jump): the next frame starts a segment where the last one ended.

        Returns the keyframes that are released for the map.
        """
        if self._chain.newest is None:
            return []
        self._tracker.forget()
        self._placing.clear()
        self._weak_since = None
        self._schedule.clear()
        self._priors.cut()
        self._segment += 1
        self._reason = reason
        self._end_way()
        self._log.cut()
        return self._chain.retire_all()

    # ------------------------------------------------------------ results

    def status(self) -> Status:
        """Snapshot of state and counters."""
        records, breaks = self._junctions.records, self._junctions.breaks
        return Status(
            state=self._state,
            reason=self._reason,
            metric=self._junctions.metric,
            scale_source=next(iter(self._chain.scale.sources), None),
            scale_sigma=self._chain.scale.sigma,
            doubt=self._priors.doubt or self._inertia.doubt,
            scale_ratio=self._junctions.scale_ratio,
            seam_residual=records[-1].residual if records else 0.0,
            frames=len(self._log),
            keyframes=len(self._chain.keyframes),
            submaps=len(self._chain.submaps),
            windows=self._schedule.requested,
            breaks_detected=breaks.detected,
            breaks_repaired=breaks.repaired,
            segments=self._segment + 1,
            T_map_odom=self._T_map_odom,
            loops=len(self._chain.graph.loops),
            loops_tried=self._loops.tried,
            revision=self._chain.revision,
        )

    @property
    def up(self) -> Array | None:
        """The direction (3,) opposite to gravity in the map; None while no IMU has shown it."""
        return self._chain.levelling.up

    @property
    def windows(self) -> Sequence[WindowRecord]:
        """How each window of keyframes was joined, and every window that was refused."""
        return self._junctions.records

    def causal_trajectory(self) -> Trajectory:
        """Every frame's pose as it was known right after the frame."""
        return self._log.causal()

    def path(self) -> Trajectory:
        """Every frame's pose in the live map, where ``status().T_map_odom`` leads too."""
        return self.path_later()()

    def path_later(self) -> Callable[[], Trajectory]:
        """The same as it is now, to be made on any thread and at any time."""
        ways, keyframes, latest = self._log.ways(), self._chain.filtered(), self._T_newest_latest()
        return lambda: ways.final(*keyframes, latest)

    def trajectory(self) -> Trajectory:
        """Every frame's pose given all that is known now, with the chain of scales smoothed."""
        return self._log.ways().final(*self._chain.final(), self._T_newest_latest())

    def finish(self) -> tuple[list[FusedKeyframe], dict[int, Array], dict[int, float]]:
        """At the end: the keyframes still in the window, and where and how large submaps are on the final trajectory.

        Returns:
            (keyframes for the map, submap -> T_map_submap (4, 4), submap -> factor on its size)
        """
        self._end_way()
        return self._chain.retire_all(), *self._chain.final_anchors()

    # ------------------------------------------------------------ tracking

    def _unseen(self, T_chain_cam: Array) -> Array:
        """Pose of a frame before the first prediction of a segment: where the one before was, turned by the gyro."""
        R, turn = T_chain_cam[:3, :3], self._inertia.turn
        if turn is not None and self._latest is not None:
            R = R @ turn
        if not self._chain.keyframes:
            R = self._chain.levelling.held(R, self._inertia.gravity)
        return se3.normalized(se3.make(R, T_chain_cam[:3, 3]))

    def _first_step(self, track: Track, stamp_ns: int) -> Array:
        """Motion (4, 4) of the first frame that has landmarks, whose track leads all the way from the reference.

        Where the frame before is nobody knew, unless it was predicted itself; it is put on this way by its time, and
        what was said of it moves along.  A gyro has turned it already.
        """
        reference, latest = self._chain.newest, self._latest
        assert reference is not None
        assert latest is not None
        T_ref_latest = self._T_reference_latest()
        if self._shown == latest.frame.id:
            return se3.inverse(T_ref_latest) @ track.T_ref_cam
        share = (latest.frame.stamp_ns - reference.stamp_ns) / max(stamp_ns - reference.stamp_ns, 1)
        between = se3.interpolate(np.eye(4), track.T_ref_cam, float(np.clip(share, 0, 1)))
        T_ref_latest = between if self._inertia.turn is None else se3.make(T_ref_latest[:3, :3], between[:3, 3])
        self._rebase(latest.T_chain_cam, reference.T_chain_cam @ T_ref_latest)
        self._log.correct(latest.frame.id, T_ref_latest)
        return se3.inverse(T_ref_latest) @ track.T_ref_cam

    def _judge_tracking(self, track: Track | None, stamp_ns: int) -> State:
        if track is None:
            return State.INIT
        if track.inliers >= self._config.tracker.min_inliers:
            self._weak_since = None
            return State.TRACKING
        self._weak_since = self._weak_since or stamp_ns
        lost = stamp_ns - self._weak_since > self._config.tracker.lost_after_s * 1e9
        self._was_lost |= lost
        return State.LOST if lost else State.WEAK

    def _wants_keyframe(self, track: Track | None, stamp_ns: int) -> bool:
        if track is None:  # before the first prediction of a segment one keyframe is enough
            return not self._schedule.waiting
        since_s = (stamp_ns - self._last_keyframe_ns) * 1e-9
        return is_due(self._config.keyframe, since_s, track, self._config.tracker.min_inliers)

    def _estimate(self, track: Track | None, step: Array, keyframe: bool) -> Estimate:
        assert self._latest is not None
        frame, reference = self._latest.frame, self._chain.newest
        T_map_cam = self._T_map_latest()
        self._T_odom_cam = se3.normalized(se3.inverse(self._T_map_odom) @ T_map_cam)
        scale = reference.scale if reference else 1.0
        doubt, sigma = self._placing.doubt, track.sigma if track else Sigma()
        self._log.append(frame.id, frame.stamp_ns, step, T_map_cam)
        return Estimate(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            T_map_cam=T_map_cam,
            T_odom_cam=self._T_odom_cam,
            sigma_rotation=doubt * sigma.step_rotation,
            sigma_translation=doubt * sigma.step_translation * scale,
            covariance=self._covariance(sigma, doubt),
            state=self._state,
            metric=self._junctions.metric,
            keyframe=keyframe,
            segment=self._segment,
        )

    def _covariance(self, sigma: Sigma, doubt: float) -> Array | None:
        reference = self._chain.newest
        if reference is None:
            return None
        assert self._latest is not None
        # While a window is joined, what is known is still of the keyframe before it.
        known = self._chain.certain or reference
        T_known_latest = se3.inverse(known.T_chain_cam) @ self._latest.T_chain_cam
        since = doubt * sigma.rotation, doubt * sigma.translation
        return self._chain.certainty.at(T_known_latest, reference.scale, *since)

    def _T_map_latest(self) -> Array:
        """Pose of the latest frame in the map: the reference's pose, then the way since at the reference's scale."""
        assert self._latest is not None
        T_chain_cam, reference = self._latest.T_chain_cam, self._chain.newest
        if reference is None:
            return self._chain.map_pose(T_chain_cam)
        return reference.T_map_cam @ scaled(se3.inverse(reference.T_chain_cam) @ T_chain_cam, reference.scale)

    # ------------------------------------------------------------ joining

    def _shared(self, request: Request, views: Sequence[View]) -> list[Shared]:
        placed = {k.frame_id: k for k in self._chain.active}
        frames = request.window.frames[: -len(request.new)]
        pairs = zip(frames, views, strict=False)
        return [Shared(placed[f.id], view.T_win_cam, view.depth) for f, view in pairs if view.posed]

    def _place_keyframes(
        self,
        request: Request,
        shared: Sequence[Shared],
        new: Sequence[View],
        T_chain_cam: Array,
        junction: Junction,
        scale: float,
    ) -> Steps[list[FusedKeyframe]]:
        depths = [view.depth_scaled(junction.seam.log_scale) for view in new]
        weak = junction.weak or self._was_lost
        self._was_lost = self._state is State.LOST
        placed = self._chain.place(request.new, T_chain_cam, depths, scale, weak=weak)
        for keyframe in placed:
            if keyframe.index and not (keyframe.weak or self._placing.refines):
                before = self._chain.keyframes[keyframe.index - 1]
                self._log.correct(keyframe.frame_id, se3.inverse(before.T_chain_cam) @ keyframe.T_chain_cam)
            self._log.place(keyframe.frame_id)
        T_joined = placed[-1].T_chain_cam
        self._rebase(request.new[-1].T_chain_cam, T_joined)
        yield "join"
        yield from self._placing.adjust(request, placed, shared, new, junction)
        self._chain.settle(placed, junction.seam, self._placing.step)
        self._rebase(T_joined, placed[-1].T_chain_cam)
        yield "move"
        yield from self._placing.extend(placed[-1], request.new[-1])
        # In one step with what the covariance of the newest keyframe becomes: frames are known from either by both.
        self._placing.follow(placed[-1], request.new[-1], self._T_reference_latest())
        return self._chain.retire()

    def _level(self, new: Sequence[Tracked]) -> None:
        """Keyframes were placed: what gravity says of their roll and pitch counts, and odometry does not feel it."""
        before = self._chain.keyframes[-len(new) - 1 : -len(new)]
        placed = self._chain.keyframes[-len(new) :]
        for last, keyframe in itertools.pairwise([*before, *placed]):
            turned = None if keyframe.weak else self._inertia.turned(last.stamp_ns, keyframe.stamp_ns)
            if turned is not None:
                rotation, sigma = turned
                step = last.T_chain_cam[:3, :3].T @ keyframe.T_chain_cam[:3, :3]
                keyframe.step = keyframe.step.measured(float(se3.rotation_angle(rotation.T @ step)), sigma)
        for keyframe in placed[:-1]:
            keyframe.gravity = None  # what they are turned by would have to turn those after them: the last one speaks
        for keyframe in placed:
            self._chain.level(keyframe)
        left = self._chain.keyframes[self._released : -len(self._chain.active)]
        self._released += len(left)
        if left:
            self._inertia.settled(left[-1], weak=any(keyframe.weak for keyframe in left))
        self._correct_odometry()

    def _place_live(self, request: Request, T_chain_cam: Array, depth: Depth) -> None:
        reference = self._chain.newest
        assert reference is not None, "live frames are predicted together with placed keyframes"
        T_ref_cam = se3.inverse(reference.T_chain_cam) @ T_chain_cam
        self._shown = request.new[0].frame.id
        if not self._placing.refines:
            self._log.correct(request.new[0].frame.id, T_ref_cam)
        self._sights.add_live(request.new[0].frame.stamp_ns, depth, reference, T_ref_cam)
        self._rebase(request.new[0].T_chain_cam, T_chain_cam)

    def _T_reference_latest(self) -> Array:
        assert self._latest is not None
        assert self._chain.newest is not None
        return se3.inverse(self._chain.newest.T_chain_cam) @ self._latest.T_chain_cam

    def _end_way(self) -> None:
        """No keyframe will follow: the log's last way leads to where the latest frame is."""
        T_newest_latest = self._T_newest_latest()
        if T_newest_latest is not None:
            assert self._latest is not None
            self._log.correct(self._latest.frame.id, T_newest_latest)

    def _T_newest_latest(self) -> Array | None:
        return self._T_reference_latest() if self._chain.newest and self._latest else None

    def _rebase(self, T_before: Array, T_chain_cam: Array) -> None:
        """The newest view of a window moved on the chain, from a pose (4, 4): what was tracked after it moves along.

        The published odometry does not: the difference goes into map -> odom.
        """
        assert self._latest is not None
        T_new_old = se3.normalized(T_chain_cam @ se3.inverse(T_before))
        self._latest = self._latest.moved(T_new_old)
        self._schedule.move(T_new_old)
        self._correct_odometry()

    def _close_loop(self, views: Sequence[View]) -> Steps[Integration]:
        """Compare an old place with the present; where it is the same, the map moves and odometry does not."""
        if (yield from self._loops.close(views)):
            self._correct_odometry()
        return self._integration([])

    def _correct_odometry(self) -> None:
        """The latest frame moved in the map: the difference goes into map -> odom."""
        self._T_map_odom = se3.normalized(self._T_map_latest() @ se3.inverse(self._T_odom_cam))

    def _depth_map(self, request: Request, view: View, junction: Junction) -> DepthMap:
        newest, frame = self._chain.newest, request.new[-1].frame
        assert newest is not None, "a window was just joined"
        depth = view.depth_scaled(junction.seam.log_scale)
        metres = np.exp(depth.log) * np.float32(newest.scale)
        return DepthMap(frame.id, frame.stamp_ns, metres, depth.confidence, depth.camera)

    def _integration(self, fused: Sequence[FusedKeyframe], depth: DepthMap | None = None) -> Integration:
        submaps = self._chain.submaps
        return Integration(
            depth, tuple(fused), submaps.anchors(), self._chain.revision, submaps.sizes(), self._loops.edges()
        )

"""What happens when keyframes get their place: landmarks are found in them, poses adjusted, the tracker told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.slam.chain import Chain
from da3_ros.slam.gyro_turns import turns
from da3_ros.slam.inertia import Inertia
from da3_ros.slam.junction import Junction
from da3_ros.slam.keyframe import Keyframe, Step, typical_depth
from da3_ros.slam.landmarks import Ids, Seen, among, in_camera
from da3_ros.slam.refinement import Refinement
from da3_ros.slam.schedule import Request, Schedule, Tracked
from da3_ros.slam.seam import Shared, agreeing
from da3_ros.slam.steps import Steps
from da3_ros.slam.tracker import Features, Tracker
from da3_ros.slam.window import View

_DRIFT = 0.5  # measured over 20 keyframes on synthetic worlds: 0.8 %, where seams say 1.6 %


@dataclass(frozen=True, slots=True, eq=False)
class _Fresh:
    """Landmarks of a window, where its newest keyframe sees them, and which frames have been given them since."""

    seen: Seen
    keyframe: Keyframe
    tracked: Tracked
    given: set[int] = field(default_factory=set)  # ids


class Placing:
    """Ties the refinement of the last keyframes to the chain and to the tracker."""

    def __init__(
        self, config: Config, chain: Chain, tracker: Tracker, schedule: Schedule, inertia: Inertia, *, refine: bool
    ) -> None:
        """Without ``refine`` keyframes stay where windows put them."""
        self._fixed = config.refine.fixed
        self._chain, self._tracker, self._schedule = chain, tracker, schedule
        self._inertia = inertia
        self._refinement = Refinement(config, enabled=refine)
        self._first_new = 0  # id of the first landmark that was found in the window that is being joined
        self._fresh: _Fresh | None = None

    @property
    def doubt(self) -> float:
        """Factor on what the tracker believes of its poses, as windows contradict landmarks."""
        return self._refinement.doubt

    def clear(self) -> None:
        """The chain was cut."""
        self._refinement.clear()
        self._fresh = None

    @property
    def refines(self) -> bool:
        """Landmarks count beside windows: they show how the camera moves from frame to frame, and windows do not."""
        return self._refinement.enabled

    @property
    def step(self) -> Step | None:
        """How well landmarks fix the way to the newest keyframe; None where there are too few."""
        return self._refinement.step

    @property
    def drift(self) -> float:
        """Share of a seam's error of scale by which the chain drifts: landmarks that live on hold it too."""
        return 1.0 if self._refinement.step is None else _DRIFT

    def weigh(self, request: Request, shared: Sequence[Shared], new: Sequence[View], T_chain_cam: Array) -> Array:
        """Poses (N, 4, 4) of a window's new frames, given where the window, the tracker and the gyro have them."""
        known = [s.keyframe for s in shared]
        depth = typical_depth(known)
        if not self.refines or depth is None or not all(view.posed for view in new):
            return T_chain_cam
        before = known[-1].stamp_ns
        turned = [self._inertia.turned(before, tracked.frame.stamp_ns) for tracked in request.new]
        return self._refinement.weigh(request, known, T_chain_cam, depth, turned)

    def adjust(
        self, request: Request, placed: Sequence[Keyframe], shared: Sequence[Shared], new: Sequence[View], by: Junction
    ) -> Steps[None]:
        """Find landmarks in keyframes that were just placed, and adjust the last keyframes to them."""
        self._first_new, self._fresh = self._refinement.landmarks.next_id, None
        waiting = [replace(t, T_chain_cam=k.T_chain_cam) for t, k in zip(request.new, placed, strict=True)]
        for i, keyframe in enumerate(placed):
            ids, aside = self._observe(keyframe, waiting[i])
            self._tracker.shift(ids, aside)
            self._schedule.shift(ids, aside)
            waiting = [replace(tracked, seen=tracked.seen.shifted(ids, aside)) for tracked in waiting]
            yield "align"
            if self.refines and i < len(placed) - 1:
                found = self._refinement.extend(keyframe, waiting[i].gray, _camera(keyframe, waiting[i]))
                yield "find"
                for j in range(i + 1, len(waiting)):
                    waiting[j] = self._carried(found, keyframe, waiting[i], waiting[j])
                    yield "align"
        lag, before = self._lag(), [k.T_chain_cam for k in self._chain.active]
        if self.refines:
            known = [] if by.weak else agreeing(shared, by.seam.S_chain_win)
            seen = [(k, view) for k, view in zip(placed, new, strict=True) if view.posed]
            poses = [*(s.T_win_cam for s in known), *(view.T_win_cam for _, view in seen)]
            keyframes = [*(s.keyframe for s in known), *(k for k, _ in seen)]
            self._refinement.measure(keyframes, poses, by.seam.S_chain_win.scale)
        if (yield from self._refinement.adjust(lag, _camera(placed[-1], request.new[-1]), turns(lag, self._inertia))):
            self._chain.moved(before)
        else:
            self._refinement.restart(placed[-1])
        self._refinement.forget(lag, self._tracker.followed)

    def extend(self, keyframe: Keyframe, tracked: Tracked) -> Steps[None]:
        """Find what is new in the newest placed keyframe, of this frame; keyframes that wait see what is new in any."""
        self._refinement.extend(keyframe, tracked.gray, _camera(keyframe, tracked))
        seen = self._refinement.landmarks.views[keyframe.index]
        self._fresh = _Fresh(seen.taken(seen.ids >= self._first_new), keyframe, tracked)
        yield "find"
        while self._complete():
            yield "find"

    def follow(self, keyframe: Keyframe, tracked: Tracked, T_ref_latest: Array) -> None:
        """Make a placed keyframe the tracker's reference, and have it follow what is new in it.

        Args:
            keyframe: the reference from now on.
            tracked: its frame.
            T_ref_latest: (4, 4) pose of the latest frame in it.
        """
        gray, camera, landmarks = tracked.gray, _camera(keyframe, tracked), self._refinement.landmarks
        points, covariance = in_camera(se3.inverse(keyframe.T_chain_cam), landmarks.points, landmarks.covariance)
        seen = landmarks.views[keyframe.index]
        new = seen.taken(~among(seen.ids, self._tracker.tried))
        self._tracker.refer(camera, T_ref_latest, landmarks.ids, points, covariance, landmarks.texture)
        rows, pixels = landmarks.rows(new.ids), new.pixels.astype(np.float32)
        alive, misses = np.ones(len(rows), bool), np.zeros(len(rows), np.int64)
        known = points[rows], covariance[rows], landmarks.texture[rows]
        self._tracker.add(gray, Features(new.ids, *known, pixels, alive, misses))
        while self._complete():  # keyframes that were tracked since ``extend``
            pass
        self._fresh = None

    def _complete(self) -> bool:
        """Carry the window's new landmarks into a keyframe that waits and was not given them; False where none is."""
        fresh = self._fresh
        if fresh is None:
            return False
        later = next((t for t in self._schedule.pending if t.frame.id not in fresh.given), None)
        if later is None:
            return False
        fresh.given.add(later.frame.id)
        self._schedule.renew(self._carried(fresh.seen, fresh.keyframe, fresh.tracked, later))
        return True

    def _observe(self, keyframe: Keyframe, tracked: Tracked) -> tuple[Ids, Array]:
        """Where the keyframe saw landmarks (N,): aside of where flow had brought them by pixels (N, 2)."""
        before = [k for k in self._lag() if k.index < keyframe.index]
        seen = self._refinement.observe(keyframe, tracked.seen, tracked.gray, _camera(keyframe, tracked), before)
        rows = np.searchsorted(tracked.seen.ids, seen.ids)
        return seen.ids, seen.pixels - tracked.seen.pixels[rows]

    def _carried(self, new: Seen, keyframe: Keyframe, tracked: Tracked, later: Tracked) -> Tracked:
        """A later keyframe that waits, with those of the landmarks that are new in a placed one that it sees too.

        It was tracked before anybody knew these landmarks.  Where predictions take longer than keyframes come, it would
        share hardly any with the keyframes before it.
        """
        landmarks = self._refinement.landmarks
        points = landmarks.points[landmarks.rows(new.ids)]
        expected = _camera(keyframe, tracked).project(se3.transform(se3.inverse(later.T_chain_cam), points))
        pixels, good = self._tracker.flow(tracked.gray, later.gray, new.pixels, expected)
        return replace(later, seen=later.seen.joined(Seen(new.ids[good], pixels[good].astype(float))))

    def _lag(self) -> list[Keyframe]:
        """The keyframes that are adjusted together, oldest first."""
        return self._chain.keyframes[-len(self._chain.active) - self._fixed :]


def _camera(keyframe: Keyframe, tracked: Tracked) -> Pinhole:
    """Of the keyframe's shrunk image."""
    assert keyframe.depth is not None, "it was just placed"
    height, width = tracked.gray.shape
    return keyframe.depth.camera.resized(width, height)

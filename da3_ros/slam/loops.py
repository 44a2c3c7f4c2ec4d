"""Closing loops: which old places to compare with the present, and which findings to believe.

    loops.placed(new, tokens)     keyframes were placed: remember what they look like, perhaps propose a place
    window = loops.window(number)       views of both sides, to be predicted together
    changed = yield from loops.close(views)   in steps: verify; corroborate; put into the graph; move the keyframes

A place is proposed by the current estimate (old views whose frustum holds what the present sees) or by appearance (old
views that look much more like the present than others do).  Appearance alone never closes a loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from da3_ros.config import Config
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam import appearance, graph
from da3_ros.slam.chain import Chain
from da3_ros.slam.graph import Loop
from da3_ros.slam.keyframe import Keyframe
from da3_ros.slam.places import Place, Places, thinned
from da3_ros.slam.schedule import Tracked
from da3_ros.slam.seam import Shared
from da3_ros.slam.steps import Steps, completed
from da3_ros.slam.verification import Side, compare
from da3_ros.slam.window import View
from da3_ros.types import FloatArray, Frame, ImageArray, LoopEdge, State, Window

_FEWEST = 5  # old views; among fewer nothing is usual
_ROWS, _COLUMNS = 9, 12  # of the present's points that are looked for in old views
_ROUGHLY = 0.3  # log ratio within which a point may be the one that an old view sees: the estimate has drifted
_MOMENT_NS = 100_000_000  # so long that whoever looks at the state now and then sees it
_MOST_LOOPS = 40  # in the graph: what bounds its time
_REMEMBERED = 100  # reasons
_WAITING = 20  # findings that wait for another that agrees
_AGREE = 3.5  # sigma between two findings that agree
_SURE = 4.5  # sigma under the graph's own uncertainty within which a finding needs no other
_VAGUE_TURN, _VAGUE_SHIFT = np.deg2rad(10.0), 0.3  # the graph knows too little to judge; share of the median depth


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two sides of a window that is to be predicted: indices of keyframes, ascending."""

    old: tuple[int, ...]
    chosen: int  # of the old ones
    new: tuple[int, ...]


class Loops:
    """Finds loops of one chain and keeps its graph; without ``enabled`` it does nothing."""

    def __init__(
        self, config: Config, chain: Chain, *, enabled: bool, shrink: Callable[[ImageArray], ImageArray]
    ) -> None:
        """Watch a chain; ``shrink`` makes of an image the grey one that features are matched in."""
        self._config, self._chain, self._shrink = config, chain, shrink
        self._enabled = enabled and find_spec("gtsam") is not None
        self.problem = (
            "" if self._enabled or not enabled else "loops stay open: GTSAM is not installed; pip install gtsam"
        )
        if self._enabled:
            import gtsam  # noqa: F401  (a second, which the first loop should not cost)
        self.places = Places(config.loops.memory_mb)
        self._chosen: int | None = None  # an old view that is to be compared with the present
        self._out: Comparison | None = None
        self._since = 0  # keyframes since the last comparison
        self._failures = 0  # comparisons in a row that showed different places
        self._waiting: list[Loop] = []
        self.tried = 0
        self.refused: deque[str] = deque(maxlen=_REMEMBERED)  # why comparisons closed no loop
        self._reunited = False  # a loop has joined what a weak link divided, and nobody has said so yet
        self._announced_ns: int | None = None
        self._edges: tuple[int, tuple[LoopEdge, ...]] = (0, ())  # revision, and those of it
        if self._enabled:
            chain.places = self.places

    # ------------------------------------------------------------ proposing

    @property
    def due(self) -> bool:
        """A comparison waits to be predicted."""
        return self._chosen is not None

    def placed(self, new: Sequence[Tracked], tokens: FloatArray | None) -> None:
        """Keyframes were placed.

        Args:
            new: the frames they were made of.
            tokens: (N, T, C) of the views of their window, the last of them theirs, where the predictor gives them.
        """
        if not self._enabled:
            return
        keyframes = self._chain.keyframes[-len(new) :]
        for i, (keyframe, tracked) in enumerate(zip(keyframes, new, strict=True)):
            own = None if tokens is None else tokens[i - len(new)]
            look = appearance.of_image(tracked.gray) if own is None else appearance.of_tokens(own)
            self.places.looks[keyframe.index] = look
        self._since += len(new)
        every = self._config.loops.every
        # Where a place was just seen again, a comparison that fails is worth another soon.
        if self._since >= (min(self._failures, every) if self._failures else every):
            self._chosen = self._propose(keyframes[-1])

    def window(self, number: int) -> Window | None:
        """Views of the proposed place and of the present, oldest first; None where there is too little of either."""
        chosen, self._chosen = self._chosen, None
        cfg, size = self._config.loops, self._config.window.size
        present = [k for k in self._chain.active if k.frame is not None][-cfg.views :][-max(size // 2, 1) :]
        if chosen is None or chosen not in self.places or not present or size < 2:
            return None
        self._since = 0
        kept = self.places.indices()
        kept = kept[self._old(kept, present[-1]) & self._together(kept, chosen)]
        nearest = kept[np.argsort(np.abs(kept - chosen), kind="stable")][: min(cfg.views, size - len(present))]
        old = sorted(int(k) for k in nearest)
        self._out = Comparison(tuple(old), chosen, tuple(k.index for k in present))
        self.tried += 1
        frames: list[Frame] = [self.places[k].frame() for k in old]
        frames += [k.frame for k in present if k.frame is not None]
        # Depth of the views that are nearest to the two that are compared.
        deep = {old.index(int(k)) for k in nearest[: self._config.seam.depth_views]}
        deep |= set(range(len(frames))[-min(self._config.seam.depth_views, len(present)) :])
        return Window(number, tuple(frames), tuple(sorted(deep)))

    def _propose(self, present: Keyframe) -> int | None:
        """The old view that most likely shows what the present does."""
        kept = self.places.indices()
        kept = kept[self._old(kept, present)] if len(kept) else kept
        if not len(kept):
            return None
        part = self._chain.graph.parts(np.array([k.weak for k in self._chain.keyframes]))
        tied = part[kept] == part[present.index]
        # What is not tied to the present has no place as seen from it. To be one map again matters more than accuracy,
        # but not so much that nothing else is tried.
        by_look = self._looking_alike(present, kept if tied.all() else kept[~tied])
        by_place = self._overlapping(present, kept[tied])
        first, second = (by_place, by_look) if tied.all() or self.tried % 2 else (by_look, by_place)
        return first if first is not None else second

    def _overlapping(self, present: Keyframe, kept: NDArray[np.int64]) -> int | None:
        overlap = self._overlap(present, kept)
        if not len(kept) or overlap.max() < self._config.loops.min_overlap:
            return None
        return int(kept[int(np.argmax(overlap))])

    def _looking_alike(self, present: Keyframe, kept: NDArray[np.int64]) -> int | None:
        own = self.places.looks[present.index]
        kept = np.array([k for k in kept if len(self.places.looks[int(k)]) == len(own)], np.int64)  # of one kind
        if len(kept) < _FEWEST:
            return None
        looks = np.stack([self.places.looks[int(k)] for k in kept])
        likeness = appearance.likeness(own, looks)
        best = int(np.argmax(likeness))
        return int(kept[best]) if likeness[best] >= self._config.loops.min_likeness else None

    def _old(self, kept: NDArray[np.int64], present: Keyframe) -> NDArray[np.bool_]:
        """Which places lie long enough back; behind a weak link all do, because nothing better leads to them."""
        cfg, keyframes = self._config.loops, self._chain.keyframes
        age = np.array([present.stamp_ns - keyframes[int(k)].stamp_ns for k in kept]) * 1e-9
        long_ago = (age >= cfg.min_gap_s) & (present.index - kept >= cfg.min_gap_keyframes)
        return long_ago | ~self._together(kept, present.index)

    def _together(self, kept: NDArray[np.int64], index: int) -> NDArray[np.bool_]:
        """Which places no weak link divides from a keyframe, loops left aside."""
        part = np.cumsum([k.weak for k in self._chain.keyframes])
        return np.asarray(part[kept] == part[index], bool)

    def _overlap(self, present: Keyframe, kept: NDArray[np.int64]) -> Array:
        """Share (N,) of the present's points that old views may see, by the current estimate."""
        assert present.depth is not None
        depth, camera = present.depth, present.depth.camera
        rows = np.linspace(0, depth.log.shape[0] - 1, _ROWS + 2)[1:-1].astype(int)
        columns = np.linspace(0, depth.log.shape[1] - 1, _COLUMNS + 2)[1:-1].astype(int)
        v, u = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
        log_z = depth.log[v, u].astype(float)
        known = np.isfinite(log_z)
        pixels = np.stack([u[known], v[known]], axis=1).astype(float)
        points = camera.unproject(pixels, np.exp(log_z[known])) * present.scale
        in_map = se3.transform(present.T_map_cam, points)
        reach = present.scale * float(np.exp(np.median(log_z[known]))) if known.any() else 0.0
        out = np.zeros(len(kept))
        for i, k in enumerate(kept):
            place = self.places[int(k)]
            away = float(np.linalg.norm(place.keyframe.T_map_cam[:3, 3] - present.T_map_cam[:3, 3]))
            if away <= self._config.loops.max_distance * min(reach, place.keyframe.scale * place.reach):
                out[i] = _seen(place, in_map).sum() / (_ROWS * _COLUMNS)
        return out

    # ------------------------------------------------------------ closing

    def close(self, views: Sequence[View]) -> Steps[bool]:
        """Judge the window that was out; returns whether the keyframes have moved."""
        comparison, self._out = self._out, None
        assert comparison is not None, "no comparison is out"
        if not all(view.posed for view in views):
            self.refused.append("the prediction does not say where all views are")
            return False
        sides = self._sides(comparison, views)
        if sides is None:
            return False
        found = compare(*sides, self._config.loops, self._config.seam, self._config.scale.break_log)
        yield "compare"
        if found.loop is None:
            self._failures += 1
            self.refused.append(found.reason)
            return False
        self._failures = 0
        return (yield from self.admitting(found.loop))

    def admit(self, loop: Loop) -> bool:
        """Put a verified loop into the graph where something else speaks for it; returns whether it was."""
        return completed(self.admitting(loop))

    def admitting(self, loop: Loop) -> Steps[bool]:
        """The same in steps.  Where a loop was put into the graph, keyframes have moved.

        One that the graph itself expects needs nothing else.  Otherwise another finding must agree, one in the graph or
        one that waits, which then counts too; alone it waits itself.
        """
        chain, nodes = self._chain, self._chain.nodes()
        tied = chain.graph.connected(nodes, loop.a, loop.b)
        if tied and not self._vague(nodes, loop.a, loop.b) and chain.graph.surprise(nodes, [loop]) < _SURE**2:
            agreed = [loop]
        else:
            others = [w for w in self._waiting if self._agree(nodes, w, loop)]
            self._waiting = [w for w in self._waiting if w not in others][-_WAITING:]
            if not others and not any(self._agree(nodes, known, loop) for known in chain.graph.loops):
                self._waiting.append(loop)
                self.refused.append("nothing else speaks for it")
                return False
            agreed = [*others, loop]
        yield "judge"
        before = list(chain.graph.loops)
        chain.graph.loops += agreed
        chain.graph.thin(_MOST_LOOPS)
        solution = chain.graph.solve(nodes, furthest=self._config.loops.sigmas)
        yield "solve"
        found = solution.T_map_cam, solution.scale, solution.covariance
        if not all(np.isfinite(values).all() for values in found):
            chain.graph.loops = before
            self.refused.append("the graph has no solution with it")
            return False
        chain.correct(solution)
        if not tied and chain.graph.connected(nodes, loop.a, loop.b):
            self._reunited = True
        return True

    def announced(self, state: State, stamp_ns: int) -> State:
        """``RELOCALISED`` instead of ``TRACKING`` for a moment after parts of the map have become one."""
        if state is not State.TRACKING:
            return state
        if self._reunited:
            self._reunited, self._announced_ns = False, stamp_ns
        said = self._announced_ns
        return State.RELOCALISED if said is not None and stamp_ns - said < _MOMENT_NS else state

    def edges(self) -> tuple[LoopEdge, ...]:
        """The loops of the graph, for publishing."""
        revision, _ = self._edges
        if revision != self._chain.revision:
            made = tuple(_edge(loop, self._chain.keyframes) for loop in self._chain.graph.loops)
            self._edges = self._chain.revision, made
        return self._edges[1]

    def _agree(self, nodes: graph.Nodes, first: Loop, second: Loop) -> bool:
        """Two findings of different times say the same; the chain knows well how their ends lie to each other."""
        known = all(
            self._chain.graph.connected(nodes, *ends) and not self._vague(nodes, *ends)
            for ends in (sorted((first.a, second.a)), sorted((first.b, second.b)))
        )
        return known and first.b != second.b and graph.gap(nodes, first, second) < _AGREE

    def _vague(self, nodes: graph.Nodes, a: int, b: int) -> bool:
        """The way along the chain is hardly known."""
        if a == b:
            return False
        turn, shift = graph.drift(nodes, a, b)
        return turn > _VAGUE_TURN or shift > _VAGUE_SHIFT * self._reach(self._chain.keyframes[b])

    def _reach(self, keyframe: Keyframe) -> float:
        """Median depth of a keyframe, chain units."""
        if keyframe.depth is not None:
            return keyframe.depth.median()
        return self.places[keyframe.index].reach if keyframe.index in self.places else 1.0

    def _sides(self, comparison: Comparison, views: Sequence[View]) -> tuple[Side, Side] | None:
        """Both sides with what the chain knows of them; None where the present has left the window meanwhile."""
        active = {k.index: k for k in self._chain.active}
        if any(k not in active for k in comparison.new) or any(k not in self.places for k in comparison.old):
            return None
        split = len(comparison.old)
        old, new = [], []
        for k, view in zip(comparison.old, views[:split], strict=True):
            place = self.places[k]
            keyframe = replace(place.keyframe, depth=place.depth())
            old.append(Shared(keyframe, view.T_win_cam, view.depth and thinned(view.depth)))
        for k, view in zip(comparison.new, views[split:], strict=True):
            depth = active[k].depth
            keyframe = replace(active[k], depth=depth and thinned(depth))
            new.append(Shared(keyframe, view.T_win_cam, view.depth and thinned(view.depth)))
        frame = active[comparison.new[-1]].frame
        assert frame is not None
        chosen = comparison.old.index(comparison.chosen)
        sides = []
        for shared, which, image, view in (
            (old, chosen, self.places[comparison.chosen].frame().image, views[chosen]),
            (new, len(new) - 1, frame.image, views[-1]),
        ):
            gray = self._shrink(image)
            sides.append(Side(shared, which, gray, view.camera.resized(gray.shape[1], gray.shape[0])))
        return sides[0], sides[1]


def _seen(place: Place, points: Array) -> NDArray[np.bool_]:
    """Which points (N, 3) of the map an old view may see."""
    keyframe, camera = place.keyframe, place.camera
    local = se3.transform(se3.inverse(keyframe.T_map_cam), points) / keyframe.scale
    pixels = np.nan_to_num(camera.project(local), nan=-1e6)
    column, row = (np.rint(np.clip(pixels[:, i], -1e6, 1e6)).astype(int) for i in (0, 1))
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    seen = place.log_depth[np.where(inside, row, 0), np.where(inside, column, 0)].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(inside & (np.abs(np.log(local[:, 2]) - seen) < _ROUGHLY), bool)


def _edge(loop: Loop, keyframes: Sequence[Keyframe]) -> LoopEdge:
    """A loop in map units, with what is left of it between the keyframes as they are."""
    a, b = keyframes[loop.a], keyframes[loop.b]
    T_a_b = se3.make(loop.S_a_b.rotation, a.scale * loop.S_a_b.translation)
    error = se3.inverse(T_a_b) @ se3.inverse(a.T_map_cam) @ b.T_map_cam
    stretch = float(np.log(b.scale / (a.scale * loop.S_a_b.scale)))
    off = [*(se3.log_so3(error[:3, :3]) / loop.sigma[0]), *(error[:3, 3] / (b.scale * loop.sigma[1]))]
    return LoopEdge(
        a.frame_id,
        b.frame_id,
        T_a_b,
        stretch,
        float(loop.sigma[2]),
        float(loop.sigma[0]),
        float(b.scale * loop.sigma[1]),
        float(np.linalg.norm([*off, stretch / loop.sigma[2]])),
    )

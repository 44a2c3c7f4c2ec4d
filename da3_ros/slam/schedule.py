"""What is predicted next: broken seams first, then keyframes, then comparisons with old places, then the live frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np

from da3_ros.config import SeamConfig, WindowConfig
from da3_ros.geometry import se3
from da3_ros.geometry.se3 import Array
from da3_ros.slam.gravity import Gravity
from da3_ros.slam.keyframe import Keyframe
from da3_ros.slam.landmarks import Ids, Seen
from da3_ros.slam.window import compose
from da3_ros.types import Frame, ImageArray, Window

_REPAIR_VIEWS = 2  # on either side of a broken seam
_PATIENCE = 4  # windows of keyframes that a comparison with an old place lets go first


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """A frame with its pose on the chain as the tracker saw it."""

    frame: Frame
    gray: ImageArray  # at the tracker's size
    T_chain_cam: Array  # (4, 4)
    seen: Seen  # landmarks that it was tracked by
    sigma: tuple[float, float] = (np.inf, np.inf)  # 1-sigma per axis of rotation, rad, and place, chain units
    gravity: Gravity | None = None  # by an IMU

    def moved(self, T_new_old: Array) -> Tracked:
        """The same frame after the chain below it moved."""
        return replace(self, T_chain_cam=se3.normalized(T_new_old @ self.T_chain_cam))


class Kind(Enum):
    """Why a window is predicted."""

    KEYFRAME = "keyframe"
    LIVE = "live"
    REPAIR = "repair"
    LOOP = "loop"


class Comparisons(Protocol):
    """Old places that wait to be compared with the present."""

    @property
    def due(self) -> bool:
        """One waits."""
        ...

    def window(self, number: int) -> Window | None:
        """Its views; None where it cannot be made any more."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A window that is out for prediction."""

    kind: Kind
    window: Window
    new: tuple[Tracked, ...]  # the last views of the window; none where it compares places

    @property
    def places(self) -> bool:
        """It places keyframes."""
        return self.kind in (Kind.KEYFRAME, Kind.REPAIR)


class Schedule:
    """Keyframes and live frames that wait for the predictor; at most one window is out."""

    def __init__(self, window: WindowConfig, seam: SeamConfig) -> None:
        """Start with nothing due."""
        self._window = window
        self._seam = seam
        self._pending: list[Tracked] = []
        self._repair: tuple[Tracked, ...] = ()
        self._live: Tracked | None = None
        self._out: Request | None = None
        self._overtaken = 0  # windows that went before the comparison that waits
        self.requested = 0  # windows handed out so far

    @property
    def waiting(self) -> bool:
        """A keyframe waits or is being predicted."""
        return bool(self._pending or self._repair) or (self._out is not None and self._out.places)

    @property
    def new_views(self) -> int:
        """How many of the last views of the window that is out are new."""
        return len(self._out.new) if self._out is not None else 0

    def add_keyframe(self, tracked: Tracked) -> None:
        """Queue a keyframe; when the predictor is too slow the oldest queued one is given up."""
        room = max(self._window.size - self._window.overlap, 1)
        self._pending = [*self._pending, tracked][-room:]
        self._live = None

    def renew_first(self, tracked: Tracked) -> bool:
        """Put a newer frame in the place of the keyframe that waits; False where none waits or it is due elsewhere.

        For the first keyframe of a segment: nothing connects it to those before, so that the newest is the best.
        """
        if not self._pending or (self._out is not None and self._out.places):
            return False
        self._pending = [tracked]
        return True

    def offer_live(self, tracked: Tracked) -> None:
        """Offer a frame between keyframes; only the newest counts."""
        self._live = tracked if self._window.live else None

    def repair(self, broken: Request) -> None:
        """Queue a second look at a broken seam, over fewer views."""
        self._repair = broken.new[:_REPAIR_VIEWS]
        self._pending = [*broken.new[_REPAIR_VIEWS:], *self._pending]

    def next(self, placed: Sequence[Keyframe], comparisons: Comparisons) -> Window | None:
        """Hand out the next window, or None while one is out or nothing is due."""
        if self._out is not None:
            return None
        due = bool(self._repair) or len(self._pending) >= self._window.stride
        if comparisons.due and (not due or self._overtaken >= _PATIENCE):
            self._overtaken = 0
            compared = comparisons.window(self.requested + 1)
            if compared is not None:
                self.requested += 1
                self._out = Request(Kind.LOOP, compared, ())
                return compared
        self._overtaken += comparisons.due
        if self._repair:
            kind, new, placed = Kind.REPAIR, self._repair, placed[-_REPAIR_VIEWS:]
            self._repair = ()
        elif self._pending and (len(self._pending) >= self._window.stride or not placed):
            kind, new = Kind.KEYFRAME, tuple(self._pending)
            self._pending = []
        elif self._live is not None and placed:
            kind, new, self._live = Kind.LIVE, (self._live,), None
        else:
            return None
        self.requested += 1
        window = compose(self.requested, placed, [t.frame for t in new], self._window, self._seam)
        self._out = Request(kind, window, new)
        return window

    def take_back(self) -> Request:
        """The window that was out, now that its prediction is there or has failed."""
        assert self._out is not None, "no window is out"
        request, self._out = self._out, None
        return request

    def move(self, T_new_old: Array) -> None:
        """The chain moved below the frames that wait, or are out for prediction."""
        if self._out is not None:
            self._out = replace(self._out, new=tuple(t.moved(T_new_old) for t in self._out.new))
        self._pending = [t.moved(T_new_old) for t in self._pending]
        self._repair = tuple(t.moved(T_new_old) for t in self._repair)
        self._live = self._live and self._live.moved(T_new_old)

    def shift(self, ids: Ids, pixels: Array) -> None:
        """Landmarks (N,) ascending lie aside by pixels (N, 2) in the frames that wait."""

        def shifted(tracked: Tracked) -> Tracked:
            return replace(tracked, seen=tracked.seen.shifted(ids, pixels))

        self._pending = [shifted(t) for t in self._pending]
        self._repair = tuple(shifted(t) for t in self._repair)
        self._live = self._live and shifted(self._live)

    @property
    def pending(self) -> Sequence[Tracked]:
        """The keyframes that wait."""
        return self._pending

    def renew(self, keyframe: Tracked) -> None:
        """A keyframe that waits sees more than was known when it was tracked."""
        self._pending = [keyframe if t.frame.id == keyframe.frame.id else t for t in self._pending]

    def clear(self) -> None:
        """Forget everything that waits (time gap); a window that is out must still be taken back."""
        self._pending, self._repair, self._live = [], (), None

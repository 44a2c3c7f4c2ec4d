"""Metres from other sensors than the camera: which of their claims on the chain's scale are believed.

Each claim is compared with the scale that is known so far.  One that departs from it by more than a break does
(``breaks.py``) is not believed; what then becomes of its source depends on whom it contradicts:

- only its own few claims before, or only a predictor, and by less than a factor of two: when three in a row agree,
  those before give way.  A sensor measures metres, a network guesses them, and its unit is learned from then on.
- anybody else: it stays unbelieved until it agrees again, and ``doubt`` says so.  Depth in millimetres and wheels of
  another robot contradict a network by more than a factor of two; wheels that slip contradict what they said before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from da3_ros.config import Config
from da3_ros.slam.chain import Chain
from da3_ros.slam.depth_prior import measure
from da3_ros.slam.junction import Junction, Junctions
from da3_ros.slam.keyframe import Depth, Keyframe
from da3_ros.slam.odometry_prior import OdometryPrior
from da3_ros.slam.schedule import Tracked
from da3_ros.slam.window import View
from da3_ros.types import Frame, Metre, Priors

_ROW = 3  # claims in a row: refused, they are no accident; agreeing, they are right against few
_NETWORK_ERRS = float(np.log(2.0))  # a network is off by less; what contradicts it by more has another unit
_REMEMBERED = 256  # frames whose late priors are kept


class Witness:
    """One source of claims."""

    def __init__(self, who: Metre, advice: str) -> None:
        """``advice`` ends the sentence of doubt: what to check."""
        self.who, self._advice = who, advice
        self._refused: list[float] = []  # residuals of the last claims, where they were refused in a row
        self._useless = 0  # times in a row that it could be compared with nothing
        self.doubt = ""

    def believed(self) -> None:
        """A claim was used."""
        self._refused, self._useless, self.doubt = [], 0, ""

    def refused(self, residual: float, rivals: Sequence[Metre]) -> None:
        """A claim departs from what is known."""
        self._refused = [*self._refused[1 - _ROW :], residual]
        self._useless = 0
        if len(self._refused) == _ROW and not self.doubt:
            other = " and ".join(who.value for who in rivals if who is not self.who) or "what it said before"
            ratio = float(np.exp(np.median(self._refused)))
            self.doubt = (
                f"{self.who.value} is not used: its metre is {max(ratio, 1 / ratio):.3g} times as "
                f"{'short' if ratio > 1 else 'long'} as that of {other}; {self._advice}"
            )

    def useless(self, why: str) -> None:
        """It cannot be compared with a keyframe."""
        self._useless += 1
        if self._useless == _ROW and not self.doubt:
            self.doubt = f"{self.who.value} is not used: {why}; {self._advice}"

    def insists(self, width: float) -> bool:
        """The last claims were all refused and agree with each other within a width (log)."""
        return len(self._refused) == _ROW and float(np.ptp(self._refused)) < width


class PriorClaims:
    """Hears what sensors say of keyframes and tells the chain's scale."""

    def __init__(self, config: Config, chain: Chain, junctions: Junctions, *, enabled: bool) -> None:
        """Start without a claim; where not ``enabled``, nobody is heard."""
        self._enabled = enabled
        self._config, self._chain, self._junctions = config, chain, junctions
        self._depth = Witness(Metre.DEPTH, "check its unit, its calibration and its stamps")
        self._wheels = Witness(Metre.ODOMETRY, "check its unit, whether wheels slip, and its frame")
        self._odometry = OdometryPrior(config.prior.odometry_sigma)
        self._late: dict[int, Priors] = {}  # frame -> what came after it
        self._used: set[int] = set()  # frames of the window whose depth was compared
        self._stood = -1  # last keyframe that odometry led to

    @property
    def doubt(self) -> str:
        """Which prior is not used and why; empty when all is well."""
        return self._depth.doubt or self._wheels.doubt

    def inform(self, frame_id: int, said: Priors) -> None:
        """Hear of a frame that was tracked without waiting for its priors, or with a part of them."""
        before = self._late.pop(frame_id, Priors())
        depth = before.depth if said.depth is None else said.depth
        self._late[frame_id] = Priors(depth, before.T_odom_cam if said.T_odom_cam is None else said.T_odom_cam)
        while len(self._late) > _REMEMBERED:
            del self._late[next(iter(self._late))]

    def cut(self) -> None:
        """The chain was interrupted."""
        self._odometry.forget()

    def observe(self, new: Sequence[Tracked], views: Sequence[View], junction: Junction) -> float:
        """Hear the claims of keyframes about to be placed, and late ones of those in the window.

        Returns:
            Map units per chain unit, with all that is known now.
        """
        if self._enabled:
            self._hear(new, views, junction)
        return float(np.exp(self._chain.scale.value))

    def _hear(self, new: Sequence[Tracked], views: Sequence[View], junction: Junction) -> None:
        active = self._chain.active
        self._used &= {k.frame_id for k in active}
        for keyframe in active:
            self._odometry.moved(keyframe.frame_id, keyframe.T_chain_cam)
            if keyframe.frame is not None and keyframe.depth is not None:
                self._hear_depth(keyframe.frame, keyframe.depth, keyframe.scale_row)
                self._hear_pose(keyframe, keyframe.frame)
        for tracked, view in zip(new, views, strict=True):
            self._hear_depth(tracked.frame, view.depth_scaled(junction.seam.log_scale), -1)

    def _said(self, frame: Frame) -> Priors:
        said, late = frame.priors or Priors(), self._late.get(frame.id, Priors())
        return Priors(late.depth or said.depth, said.T_odom_cam if late.T_odom_cam is None else late.T_odom_cam)

    def _hear_depth(self, frame: Frame, depth: Depth, row: int) -> None:
        """Compare depth once for each keyframe: another look at the same place is no other measurement."""
        points = self._said(frame).depth
        if points is None or frame.id in self._used:
            return
        self._used.add(frame.id)
        try:
            found = measure(points, (frame.image.shape[1], frame.image.shape[0]), depth, self._config)
        except ValueError as error:
            self._depth.useless(str(error))
        else:
            self._judge(self._depth, found.log_scale, found.sigma, row)

    def _hear_pose(self, keyframe: Keyframe, frame: Frame) -> None:
        """Go on by odometry to a keyframe, once it was refined; it is heard of once, in the order of time."""
        T_odom_cam = self._said(frame).T_odom_cam
        if T_odom_cam is None or frame.id <= self._stood:
            return
        self._stood = frame.id
        if keyframe.weak:
            self._odometry.forget()
        claim = self._odometry.add(keyframe.T_chain_cam, T_odom_cam, frame.id)
        if claim is not None:
            self._judge(self._wheels, *claim, -1)

    def _judge(self, witness: Witness, claim: float, sigma: float, row: int) -> None:
        """Believe a claim, or not."""
        scale, limits = self._chain.scale, self._config.scale
        if np.isfinite(scale.sigma):
            residual, noise = claim - scale.value, float(np.hypot(scale.sigma, sigma))
            limit = max(limits.break_log, limits.break_sigmas * noise)
            if abs(residual) > limit:
                witness.refused(residual, scale.sources)
                if not (witness.insists(limit) and self._overrules(witness, residual)):
                    return
                if Metre.PREDICTOR in scale.sources:  # the chain was in its metres, which are now something else
                    self._junctions.breaks.accept_new_metre(-residual, noise)
                scale.forget_claims()
        witness.believed()
        scale.observe(claim, sigma, witness.who, row)
        self._junctions.metric = True

    def _overrules(self, witness: Witness, residual: float) -> bool:
        """Whether what is known gives way to a source that insists on something else."""
        others = [who for who in self._chain.scale.sources if who is not witness.who]
        if not others:
            return self._chain.scale.claims <= _ROW
        return others == [Metre.PREDICTOR] and abs(residual) < _NETWORK_ERRS

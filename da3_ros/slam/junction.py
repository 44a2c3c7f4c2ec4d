"""How a predicted window is joined to the chain, and whether it may be.

A sound seam is used as it is.  A broken one is predicted again over fewer views; if that is broken too, the window
opens a new submap behind a weak link.  Every decision leaves a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from da3_ros.config import Config, SeamConfig
from da3_ros.geometry.sim3 import Sim3
from da3_ros.slam.breaks import BreakDetector, Verdict
from da3_ros.slam.chain import Chain
from da3_ros.slam.schedule import Kind, Request
from da3_ros.slam.seam import Seam, Shared, join
from da3_ros.slam.window import View
from da3_ros.types import Metre, WindowRecord

_WEAK_LINK_SIGMA = 0.5  # log scale across a weak link: almost unknown
_FEW_CLAIMS = 2  # so many claims of metres give way to two later ones that agree
_FIRST = Verdict(0.0, False, True, "")


@dataclass(frozen=True, slots=True)
class Method:
    """How windows are joined; comparisons replace it."""

    name: str = "ours"
    join: Callable[[Sequence[Shared], SeamConfig], Seam] = join
    plain: bool = False  # no claims of metres, no check for breaks, no refinement
    tracked: bool = False  # views stand where the tracker saw them, whatever the window says


@dataclass(frozen=True, slots=True, eq=False)
class Junction:
    """The decision on one window."""

    seam: Seam
    verdict: Verdict
    outcome: str  # joined | repaired | weak | refused

    @property
    def weak(self) -> bool:
        """The window opens a new submap behind a weak link."""
        return self.outcome == "weak"

    @property
    def refused(self) -> bool:
        """The window is not used."""
        return self.outcome == "refused"


class Junctions:
    """Decides on windows in turn, and keeps the scale of the chain up to date."""

    def __init__(self, config: Config, method: Method, chain: Chain) -> None:
        """Start with nothing joined."""
        self._config = config
        self._method = method
        self._chain = chain
        self._log_scale = 0.0  # of the last joined window
        self.breaks = BreakDetector(config.scale)
        self.metric = False  # some window or sensor claimed metres
        self.records: list[WindowRecord] = []

    @property
    def scale_ratio(self) -> float:
        """Map units per window unit of the last joined window."""
        return float(np.exp(self._log_scale + self._chain.scale.value))

    def decide(self, request: Request, claim_sigma: float | None, shared: Sequence[Shared], new: View) -> Junction:
        """Join a window over its shared keyframes; ``new`` is the first of its new views.

        ``claim_sigma`` is the window's 1-sigma of log(metres per unit), None for arbitrary units.
        """
        claim_sigma = None if self._method.plain else claim_sigma
        if not shared:
            outcome = "weak" if self._chain.keyframes else "joined"
            return Junction(self._continued(request, new, claim_sigma), _FIRST, outcome)
        seam = self._method.join(shared, self._config.seam)
        if self._method.plain and not np.isfinite(seam.log_scale):
            return Junction(self._continued(request, new, None), _FIRST, "weak")
        if self._method.tracked:
            seam = replace(seam, S_chain_win=_tracked(request, new, seam.log_scale))
        if self._method.plain:
            return Junction(seam, _FIRST, "joined")
        verdict = self.breaks.judge(seam, self._chain.scale, claim_sigma)
        if request.kind is not Kind.REPAIR:
            self.breaks.detected += verdict.broken
            if verdict.broken:
                self.breaks.refuse(verdict)
            return Junction(seam, verdict, "refused" if verdict.broken else "joined")
        if not verdict.broken:
            self.breaks.repaired += 1
            return Junction(seam, verdict, "repaired")
        if self.breaks.confirms(verdict):
            # The same jump over a sound seam, twice: two claims against those before.
            only_its_own = self._chain.scale.sources in ([], [Metre.PREDICTOR])
            if only_its_own and self._chain.scale.claims <= _FEW_CLAIMS:
                self._chain.scale.forget_claims()
            else:
                self.breaks.accept_new_metre(verdict.residual, claim_sigma or 0.0)
            return Junction(seam, verdict, "weak")
        return Junction(self._continued(request, new, claim_sigma), verdict, "weak")

    def extend_scale(self, junction: Junction, claim_sigma: float | None, share: float = 1.0) -> None:
        """Add a joined window of keyframes to the chain of scales; it drifts by a share of what the seam is off."""
        self._log_scale = junction.seam.log_scale
        self._chain.scale.add(junction.seam.sigma if junction.weak else share * junction.seam.sigma)
        self.observe_scale(junction, claim_sigma)

    def observe_scale(self, junction: Junction, claim_sigma: float | None) -> None:
        """Hear the claim of metres of a joined window."""
        if claim_sigma is None or self._method.plain:
            return
        self.metric = True
        claim = self.breaks.claim(junction.seam)
        if self.breaks.trusted:
            self._chain.scale.observe(claim, claim_sigma)
        else:
            self.breaks.learn_metre(claim - self._chain.scale.value, claim_sigma)

    def record(self, request: Request, junction: Junction | None) -> None:
        """Log a decision; None for a window that could not be predicted."""
        frames = request.window.frames
        seam = junction.seam if junction else None
        scale = self._chain.scale
        self.records.append(
            WindowRecord(
                number=request.window.number,
                stamp_ns=frames[-1].stamp_ns,
                views=len(frames),
                log_scale=seam.log_scale + scale.value if seam else float("nan"),
                sigma=float(np.hypot(seam.sigma, scale.sigma)) if seam and np.isfinite(scale.sigma) else 0.0,
                residual=junction.verdict.residual if junction else float("nan"),
                outcome=junction.outcome if junction else "refused",
            )
        )

    def _continued(self, request: Request, new: View, claim_sigma: float | None) -> Seam:
        """Without a usable seam: go on from the tracker's pose at the last known scale."""
        log_scale = self._log_scale if claim_sigma is None else self.breaks.log_scale_at(self._chain.scale.value)
        sigma = _WEAK_LINK_SIGMA if self._chain.keyframes else 0.0
        return Seam(log_scale, sigma, 0.0, _tracked(request, new, log_scale), 0.0, 0.0)


def _tracked(request: Request, new: View, log_scale: float) -> Sim3:
    """``S_chain_win`` that puts the first new view where the tracker saw it."""
    scale, T_chain_cam = float(np.exp(log_scale)), request.new[0].T_chain_cam
    rotation = T_chain_cam[:3, :3] @ new.T_win_cam[:3, :3].T
    return Sim3(scale, rotation, T_chain_cam[:3, 3] - scale * rotation @ new.T_win_cam[:3, 3])

"""Scale breaks: a window whose scale or poses cannot be believed is never chained on silently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.config import ScaleConfig
from da3_ros.slam.scale import ScaleChain
from da3_ros.slam.seam import Seam


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a seam looks like against what was expected."""

    residual: float  # log-scale innovation; 0 when nothing was expected
    broken: bool
    sound: bool  # the seam itself agrees: only the claim of metres is in doubt
    reason: str  # one clause, empty when not broken


class BreakDetector:
    """Compares each window's claim of metres with the chain's scale, and its views with each other.

    Detection is set where a miss is much rarer than a false alarm: a false alarm costs one more prediction.
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start trusting the predictor's metres."""
        self._config = config
        # After a lasting break: log of how much the predictor's metre has changed, and its variance.
        self._offset, self._offset_variance = 0.0, 0.0
        self._refused: float | None = None  # residual of the window that gets a second look
        self.detected = 0
        self.repaired = 0

    @property
    def trusted(self) -> bool:
        """Claims of metres still mean what they meant at the start."""
        return self._offset_variance == 0.0

    def claim(self, seam: Seam) -> float:
        """log(metres per chain unit) that a window with metric units claims."""
        return -seam.log_scale - self._offset

    def log_scale_at(self, scale: float) -> float:
        """log(chain units per window unit) at which a window's claim agrees with the chain's scale."""
        return -scale - self._offset

    def refuse(self, verdict: Verdict) -> None:
        """A window gets a second look."""
        self._refused = verdict.residual if verdict.sound else None

    def confirms(self, verdict: Verdict) -> bool:
        """Whether a second look saw the same jump over a sound seam."""
        first = self._refused
        return verdict.sound and first is not None and abs(verdict.residual - first) < 0.5 * abs(first)

    def judge(self, seam: Seam, scale: ScaleChain, claim_sigma: float | None) -> Verdict:
        """Tell whether a seam is broken; ``claim_sigma`` is None for windows in arbitrary units."""
        if not np.isfinite(seam.log_scale):
            return Verdict(float("nan"), True, False, "no pixel of the shared keyframes could be compared")
        if not seam.sane:
            return Verdict(
                0.0, True, False, f"the shared keyframes disagree by {seam.rotation_deg:.0f} deg on the window's pose"
            )
        if seam.spread > max(self._config.break_log, self._config.break_sigmas * seam.sigma):
            return Verdict(seam.spread, True, False, f"the shared keyframes disagree on scale by {_ratio(seam.spread)}")
        if claim_sigma is None:
            return Verdict(0.0, False, True, "")
        expected, sigma = scale.expect(seam.sigma)
        if not np.isfinite(sigma):
            return Verdict(0.0, False, True, "")
        residual = self.claim(seam) - expected
        noise = float(np.sqrt(sigma**2 + claim_sigma**2 + self._offset_variance))
        limit = max(self._config.break_log, self._config.break_sigmas * noise)
        broken = abs(residual) > limit
        return Verdict(residual, broken, True, f"the scale jumped by {_ratio(residual)}" if broken else "")

    def accept_new_metre(self, residual: float, claim_sigma: float) -> None:
        """A lasting break: the chain is right, the predictor's unit has changed by what one claim says."""
        self._offset += residual
        self._offset_variance = claim_sigma**2

    def learn_metre(self, residual: float, claim_sigma: float) -> None:
        """Another claim in the new unit.  It teaches the unit and no longer the chain, which its seams hold."""
        gain = self._offset_variance / (self._offset_variance + claim_sigma**2)
        self._offset += gain * residual
        self._offset_variance *= 1 - gain


def _ratio(log: float) -> str:
    return f"x{np.exp(abs(log)):.2f}"

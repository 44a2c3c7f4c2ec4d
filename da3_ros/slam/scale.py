"""The scale of the chain: what a chain unit is in metres, as it drifts.

Seams chain the windows without any prior, so the chain's unit performs a slow random walk with the seams' noise.
Windows whose units claim to be metres observe it, and so do other sensors (``priors.py``).
``s_k = log(metres per chain unit)`` at keyframe k has the factors

    (s_k - s_{k-1}) / sigma_rho_k        one per seam
    (s_k - z_k) / sigma_p                z_k = log(metres per chain unit), for each claim: of a window, of a prior

Online this is a scalar Kalman filter; afterwards all s_k come from one tridiagonal solve (its smoother).  Without any
claim s stays 0 and the map is in units of the first window.  The published map unit at keyframe k is exp(s_k) chain
units, so a change of s scales later increments and never what lies behind.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from da3_ros.geometry.se3 import Array
from da3_ros.types import Metre

_MIN_SIGMA = 1e-6  # keeps the tridiagonal solve well conditioned


class ScaleChain:
    """One value per keyframe, filtered online, smoothed on demand."""

    def __init__(self) -> None:
        """Start without knowledge: s = 0 until a window claims metres."""
        self._steps: list[float] = []  # sigma of the step into keyframe k
        self._information: list[float] = []  # sum of 1 / sigma_p^2 over the claims at keyframe k
        self._weighted: list[float] = []  # sum of z_k / sigma_p^2
        self._variance = np.inf  # nothing known before the first claim
        self._value = 0.0
        self._count = 0
        self._corrected: tuple[int, float, float] | None = None  # row, value, variance when loops moved it
        self._words: dict[Metre, float] = {}  # who has claimed -> sum of 1 / sigma_p^2

    def __len__(self) -> int:
        """Number of rows: one per joined window of keyframes."""
        return len(self._steps)

    @property
    def claims(self) -> int:
        """Number of claims that it rests on."""
        return self._count

    @property
    def sources(self) -> list[Metre]:
        """On whose word it rests, the weightiest first."""
        return sorted(self._words, key=lambda who: -self._words[who])

    def forget_claims(self) -> None:
        """Take back all claims: the next one decides."""
        self._count, self._variance, self._words, self._corrected = 0, np.inf, {}, None
        self._information = [0.0] * len(self._information)
        self._weighted = [0.0] * len(self._weighted)

    @property
    def value(self) -> float:
        """Filtered s at the latest keyframe."""
        return self._value

    @property
    def sigma(self) -> float:
        """1-sigma of ``value``; inf without any claim so far."""
        return float(np.sqrt(self._variance))

    def expect(self, step_sigma: float) -> tuple[float, float]:
        """Prediction of the next s and its 1-sigma, before its window is seen."""
        return self._value, float(np.sqrt(self._variance + step_sigma**2))

    def add(self, step_sigma: float) -> None:
        """Append keyframe k, to which a seam leads whose log scale has this 1-sigma."""
        self._variance += step_sigma**2
        self._steps.append(max(step_sigma, _MIN_SIGMA))
        self._information.append(0.0)
        self._weighted.append(0.0)

    def observe(self, claim: float, claim_sigma: float, who: Metre = Metre.PREDICTOR, row: int = -1) -> None:
        """Add a claim z, with its 1-sigma, at the latest keyframe's row, or where it comes late at an older one."""
        noise = max(claim_sigma, _MIN_SIGMA) ** 2
        self._count += 1
        self._words[who] = self._words.get(who, 0.0) + 1 / noise
        self._information[row] += 1 / noise
        self._weighted[row] += claim / noise
        newest = len(self._steps) - 1
        corrected = self._corrected[0] if self._corrected else -1
        if row in (-1, newest):
            self._hear(claim, noise)
            if corrected == newest:
                self._corrected = (newest, self._value, self._variance)
            return
        # What came since was filtered without it; what loops have said stands.
        self._value, self._variance = self._corrected[1:] if self._corrected else (0.0, np.inf)
        if row <= corrected:
            self._hear(claim, noise + sum(step**2 for step in self._steps[row + 1 : corrected + 1]))
            self._corrected = (corrected, self._value, self._variance)
        for i in range(corrected + 1, newest + 1):
            self._variance += self._steps[i] ** 2
            if self._information[i]:
                self._hear(self._weighted[i] / self._information[i], 1 / self._information[i])

    def _hear(self, claim: float, noise: float) -> None:
        """Filter a claim with this variance."""
        if np.isfinite(self._variance):
            gain = self._variance / (self._variance + noise)
            self._value += gain * (claim - self._value)
            self._variance = (1 - gain) * self._variance
        else:
            self._value, self._variance = claim, noise

    def correct(self, value: float) -> None:
        """Go on from another s at the latest keyframe: loops have moved it."""
        self._value = value
        self._corrected = (len(self._steps) - 1, self._value, self._variance)

    def claimed(self) -> Array:
        """Sum of 1 / sigma_p^2 and of z / sigma_p^2 over the claims of every row (K, 2)."""
        return np.stack([self._information, self._weighted], axis=1) if self._steps else np.zeros((0, 2))

    def smoothed(self) -> Array:
        """S of every keyframe given all windows: one tridiagonal solve."""
        count = len(self._steps)
        information = np.array(self._information)
        if count == 0 or information.sum() == 0:
            return np.zeros(count)
        if count == 1:  # LAPACK's tridiagonal solver wants two
            return np.array(self._weighted) / information
        link = 1.0 / np.array(self._steps[1:]) ** 2
        diagonal = information.copy()
        diagonal[1:] += link
        diagonal[:-1] += link
        banded = np.zeros((2, count))
        banded[1] = diagonal
        banded[0, 1:] = -link
        return np.asarray(solveh_banded(banded, np.array(self._weighted)))

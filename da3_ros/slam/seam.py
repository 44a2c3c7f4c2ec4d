"""Joining a window to the map over the keyframes they share.

Scale is the robust mean of per-pixel log-depth ratios, rotation a chordal mean, translation a mean of camera-centre
differences at that scale.  Each uses the measurement that is least noisy for it: point-map alignment mixes all
three and lets one-sided depth outliers into the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from da3_ros.config import SeamConfig
from da3_ros.geometry import robust, se3
from da3_ros.geometry.se3 import Array
from da3_ros.geometry.sim3 import Sim3
from da3_ros.slam.keyframe import Depth, Keyframe, typical_depth

_CELL = 8  # depth error is correlated over patches of about this many pixels
_SAMPLE = 4  # every fourth pixel in both axes is plenty: still four to a cell
_BAD_ROTATION_DEG = 10.0  # shared keyframes that disagree by more are no basis for a seam
_BAD_CENTRE = 0.3  # likewise, share of the median depth


@dataclass(frozen=True, slots=True, eq=False)
class Seam:
    """How one window sits on the map."""

    log_scale: float  # log(chain units per window unit)
    sigma: float  # its 1-sigma
    spread: float  # largest disagreement between shared keyframes, log
    S_chain_win: Sim3
    rotation_deg: float  # median disagreement of the shared keyframes' rotations
    centre: float  # median disagreement of their centres, share of the median depth

    @property
    def sane(self) -> bool:
        """The shared keyframes agree on one pose of the window."""
        return self.rotation_deg < _BAD_ROTATION_DEG and self.centre < _BAD_CENTRE


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A keyframe seen by the window: what the map has and what the window says."""

    keyframe: Keyframe
    T_win_cam: Array  # (4, 4) window units
    depth: Depth | None  # window units, where asked for


def join(shared: Sequence[Shared], config: SeamConfig) -> Seam:
    """Measure the seam.

    Args:
        shared: the keyframes that the map and the window have in common, at least one of them with depth.
        config: which pixels count.

    Returns:
        The seam; ``log_scale`` is NaN when no pixel could be compared.
    """
    ratios = [r for s in shared if (r := log_ratio(s, config)) is not None]
    if not ratios:
        return Seam(np.nan, np.nan, np.nan, Sim3.identity(), np.inf, np.inf)
    values, sigmas = np.array(ratios).T
    log_scale = float(values.mean())
    between = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    sigma = float(max(np.sqrt((sigmas**2).mean()), between) / np.sqrt(len(values)))
    spread = float(np.abs(values - np.median(values)).max())
    return Seam(log_scale, sigma, spread, *place(shared, float(np.exp(log_scale))))


def agreeing(shared: Sequence[Shared], S_chain_win: Sim3) -> list[Shared]:
    """Those whose pose in the window fits the seam no worse than three times what is usual among them."""
    if not shared:
        return []
    ours = np.stack([s.keyframe.T_chain_cam for s in shared])
    theirs = S_chain_win.act_pose(np.stack([s.T_win_cam for s in shared]))
    angle = se3.rotation_angle(np.swapaxes(ours[:, :3, :3], -1, -2) @ theirs[:, :3, :3])
    distance = np.linalg.norm(ours[:, :3, 3] - theirs[:, :3, 3], axis=1)
    return [s for s, fits in zip(shared, _usual(angle) & _usual(distance), strict=True) if fits]


def log_ratio(shared: Shared, config: SeamConfig) -> tuple[float, float] | None:
    """log(chain units per window unit) over one keyframe's pixels, and its 1-sigma; None without common pixels."""
    ours, theirs = shared.keyframe.depth, shared.depth
    if ours is None or theirs is None:
        return None
    step = (slice(None, None, _SAMPLE), slice(None, None, _SAMPLE))
    keep = ~(ours.edges(config.edge_ratio) | theirs.edges(config.edge_ratio))[step]
    c_ours, c_theirs = ours.confidence[step], theirs.confidence[step]
    keep &= (c_ours >= config.min_confidence) & (c_theirs >= config.min_confidence)
    keep &= np.isfinite(ours.log[step]) & np.isfinite(theirs.log[step])
    if keep.sum() < _CELL:
        return None
    difference = (ours.log[step][keep] - theirs.log[step][keep]).astype(float)
    location, spread = robust.tukey_location(difference, (c_ours * c_theirs)[keep].astype(float))
    cells = max(1.0, keep.sum() * _SAMPLE**2 / _CELL**2)
    return location, spread / np.sqrt(cells)


def place(shared: Sequence[Shared], scale: float) -> tuple[Sim3, float, float]:
    """Pose of the window at a given scale, and how far the shared keyframes disagree on it.

    Returns:
        (S_chain_win, median rotation disagreement in deg, median centre disagreement / median depth)
    """
    ours = np.stack([s.keyframe.T_chain_cam for s in shared])
    theirs = np.stack([s.T_win_cam for s in shared])
    candidates = ours[:, :3, :3] @ np.swapaxes(theirs[:, :3, :3], -1, -2)
    rotation = se3.chordal_mean(candidates)
    angles = se3.rotation_angle(np.swapaxes(candidates, -1, -2) @ rotation)
    rotation = se3.chordal_mean(candidates, _usual(angles).astype(float))
    offsets = ours[:, :3, 3] - scale * theirs[:, :3, 3] @ rotation.T
    middle = np.median(offsets, axis=0)
    distance = np.linalg.norm(offsets - middle, axis=1)
    translation = offsets[_usual(distance)].mean(axis=0)
    typical = typical_depth([s.keyframe for s in shared]) or 1.0
    angle = float(np.rad2deg(np.median(angles)))
    return Sim3(scale, rotation, translation), angle, float(np.median(distance)) / typical


def _usual(errors: Array) -> NDArray[np.bool_]:
    """Which errors (N,), not negative, are within three times what is usual among them."""
    return errors <= 3 * robust.mad_sigma(errors, 0.0) + 1e-12

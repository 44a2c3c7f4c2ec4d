"""Which view of a window its frame belongs to; chosen on the host, between ``encode`` and ``mix``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRATEGIES = ("first", "middle", "saddle_balanced")


def reference_first(views: int, reference: int) -> list[int]:
    """Order of the views with the reference view first and the others as they were."""
    return [reference, *(i for i in range(views) if i != reference)]


def choose_reference(chooser: NDArray[np.float32], strategy: str) -> int:
    """The reference view, from the class tokens (S, C) that ``Backbone.encode`` returns.

    ``saddle_balanced``, the released default, takes the view whose similarity to the others, feature norm and feature
    variance all lie nearest to the middle of their range; it may change from window to window.  With fewer than three
    views it is the first.
    """
    views = len(chooser)
    if strategy == "first" or views < 3:
        return 0
    if strategy == "middle":
        return views // 2
    assert strategy == "saddle_balanced"
    norm = np.linalg.norm(chooser, axis=1)
    unit = chooser / norm[:, None]
    similarity = ((unit @ unit.T).sum(axis=1) - 1) / (views - 1)
    score = np.zeros(views, np.float32)
    for metric in (similarity, norm, unit.var(axis=1, ddof=1)):
        score += np.abs((metric - metric.min()) / (np.ptp(metric) + 1e-8) - 0.5)
    return int(score.argmin())

"""Which windows are drawn at a step: small images, two views and large turns first.

Between views that hardly differ, looking at the same place is nearly right: three of four patches then lie within one
patch of their match, and a network that starts with them learns places and never looks at what is there.  Where views
are turned by a patch or more, only what is seen tells the match.
"""

from __future__ import annotations

from dataclasses import dataclass

from da3_ros.training.config import CurriculumConfig


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Limits within which windows are drawn."""

    size: tuple[int, int]  # width and height of the images, px
    most_views: int  # windows have 2 to this many
    parallax: tuple[float, float]  # least and most from a view to the one it is linked with, share of the depth
    rotation_deg: tuple[float, float]  # least and most between these two
    overlap: float  # least share of either that the other sees


def difficulty(config: CurriculumConfig, step: int) -> Difficulty:
    """Limits at a step; from ``config.ramp_steps`` on they are those of the task itself."""
    share = min(1.0, step / config.ramp_steps) if config.ramp_steps else 1.0

    def between(first: float, last: float) -> float:
        return first + share * (last - first)

    small = step < config.small_steps
    return Difficulty(
        size=(config.small_width, config.small_height) if small else (config.width, config.height),
        most_views=round(between(2, config.most_views)),
        parallax=(config.least_parallax, between(config.first_parallax, config.most_parallax)),
        rotation_deg=(
            between(config.first_least_rotation_deg, 0.0),
            between(config.first_rotation_deg, config.most_rotation_deg),
        ),
        overlap=between(config.first_overlap, config.least_overlap),
    )

"""Other ways from predictions to a trajectory, kept for comparison: one file each, run by the same command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from da3_ros.errors import ConfigError

if TYPE_CHECKING:
    from da3_ros.slam.junction import Method

CHUNKED = "chunked_irls"  # does not chain our windows: it has a runner of its own
METHODS = ("ours", "free_sim3", "pose_averaging", "pnp", CHUNKED)


def method(name: str) -> Method:
    """Look up a method that chains our windows by its name on the command line."""
    from da3_ros.slam.junction import Method

    if name == "ours":
        return Method()
    if name == "free_sim3":
        from da3_ros.evaluation.baselines import free_sim3

        return Method(name, free_sim3.join, plain=True)
    if name == "pose_averaging":
        from da3_ros.evaluation.baselines import pose_averaging

        return Method(name, pose_averaging.join, plain=True)
    if name == "pnp":
        return Method(name, plain=True, tracked=True)
    raise ConfigError(f"unknown method '{name}'; use one of {', '.join(METHODS)}")

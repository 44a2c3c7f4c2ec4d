"""Other ways to join windows, kept for comparison: one file each, run by the same command (``--method``)."""

from __future__ import annotations

from da3_ros.errors import ConfigError
from da3_ros.slam.junction import Method

METHODS = ("ours", "free_sim3")


def method(name: str) -> Method:
    """Look a method up by its name on the command line."""
    if name == "ours":
        return Method()
    if name == "free_sim3":
        from da3_ros.evaluation.baselines import free_sim3

        return Method(name, free_sim3.join, regularised=False)
    raise ConfigError(f"unknown method '{name}'; use one of {', '.join(METHODS)}")

"""ROS parameters from the configuration tree and back: one parameter per leaf, read once at start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from da3_ros.config import Config, Leaf, describe, leaves, updated

# Parameters that rclpy itself owns.
_FOREIGN = ("use_sim_time", "start_type_description_service")
_FOREIGN_PREFIXES = ("qos_overrides.",)
_INT_MAX = 2**63 - 1


def configuration(overrides: Mapping[str, Parameter[Any]]) -> Config:
    """The configuration under the parameters given at start (``-p``, ``--params-file``).

    Raises:
        ConfigError: one line per unknown name, wrong type and value out of bounds, all at once.
    """
    values = {}
    for name, parameter in overrides.items():
        if name in _FOREIGN or name.startswith(_FOREIGN_PREFIXES):
            continue
        # An empty sequence in a parameter file arrives without a type.
        empty = parameter.type_ == Parameter.Type.NOT_SET
        values[name] = () if empty else _plain(parameter.value)
    return updated(Config(), values)


def declare(node: Node, config: Config) -> None:
    """Declare every leaf read-only, with its description and bounds; all of them take effect at start only."""
    for leaf in leaves(config):
        value = list(leaf.default) if isinstance(leaf.default, tuple) else leaf.default
        node.declare_parameter(leaf.key, value, descriptor(leaf), ignore_override=True)


def descriptor(leaf: Leaf) -> ParameterDescriptor:
    """Description, range and choices as ``ros2 param describe`` shows them."""
    out = ParameterDescriptor(description=describe(leaf), read_only=True)
    if leaf.choices:
        out.additional_constraints = "one of: " + ", ".join(leaf.choices)
    if leaf.low is None and leaf.high is None:
        return out
    if leaf.type is float:
        low = -sys.float_info.max if leaf.low is None else float(leaf.low)
        high = sys.float_info.max if leaf.high is None else float(leaf.high)
        out.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif leaf.type is int:
        low_int = -_INT_MAX if leaf.low is None else int(leaf.low)
        high_int = _INT_MAX if leaf.high is None else int(leaf.high)
        out.integer_range = [IntegerRange(from_value=low_int, to_value=high_int)]
    return out


def _plain(value: Any) -> Any:
    """Arrays as lists; everything else as it is."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value

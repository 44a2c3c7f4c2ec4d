"""The synthetic world: procedural rooms, a hand-held camera in them, and everything known exactly."""

from da3_ros.sources.world.source import WorldSource

__all__ = ["WorldSource"]

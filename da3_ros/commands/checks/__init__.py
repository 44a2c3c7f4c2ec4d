"""The checks of ``da3 doctor``: each section is a function that yields what it has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from da3_ros.commands.checks import accelerator, libraries, models, python, ros, runtimes, store, topics
from da3_ros.commands.checks.finding import Finding

Section = tuple[str, Callable[[], Iterable[Finding]]]

SECTIONS: tuple[Section, ...] = (
    ("Python", python.check),
    ("ROS 2", ros.check),
    ("GPU", accelerator.check),
    ("What runs networks", runtimes.check),
    ("Graphs and engines", store.check),
    ("Models", models.check),
    ("Libraries", libraries.check),
)
TOPICS: tuple[Section, ...] = (("Topics", topics.check),)

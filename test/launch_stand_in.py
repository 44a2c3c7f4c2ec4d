"""Just enough of ``launch`` and ``launch_ros`` to load our launch files and to see which processes they would start."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


class Context:
    """Values of the arguments."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}


@dataclass
class Description:
    entities: list[Any]


@dataclass
class Argument:
    name: str
    default_value: str | None = None
    description: str = ""
    choices: tuple[str, ...] | None = None


class Function:
    def __init__(self, *, function: Any) -> None:
        self.function = function


@dataclass
class Ended:
    reason: str


@dataclass
class Configuration:
    name: str

    def perform(self, context: Context) -> str:
        return context.values[self.name]


@dataclass(frozen=True)
class Executable:
    executable: str
    package: str


@dataclass
class Exited:
    returncode: int


@dataclass
class Process:
    """A process of either kind."""

    cmd: list[Any] = field(default_factory=list)
    output: str = "log"
    on_exit: Any = None
    package: str = ""
    executable: str = ""
    name: str = ""
    namespace: str = ""
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)


_NAMES: dict[str, dict[str, Any]] = {
    "launch": {"LaunchContext": Context, "LaunchDescription": Description},
    "launch.actions": {
        "DeclareLaunchArgument": Argument,
        "ExecuteProcess": Process,
        "OpaqueFunction": Function,
        "Shutdown": Ended,
    },
    "launch.events": {},
    "launch.events.process": {"ProcessExited": Exited},
    "launch.substitutions": {"LaunchConfiguration": Configuration},
    "launch_ros": {},
    "launch_ros.actions": {"Node": Process},
    "launch_ros.substitutions": {"ExecutableInPackage": Executable},
}


@contextmanager
def stand_in() -> Iterator[None]:
    """Put the stand-in where the launch files import from."""
    before = {name: sys.modules.get(name) for name in _NAMES}
    try:
        for name, content in _NAMES.items():
            module = ModuleType(name)
            vars(module).update(content)
            sys.modules[name] = module
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class LaunchFile:
    """A launch file of ours."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with stand_in():
            spec.loader.exec_module(module)
        entities = module.generate_launch_description().entities
        self.arguments = {e.name: e for e in entities if isinstance(e, Argument)}
        self._functions = [e for e in entities if isinstance(e, Function)]
        assert len(self.arguments) + len(self._functions) == len(entities)

    def processes(self, values: Mapping[str, str]) -> list[Process]:
        """What would be started with these arguments."""
        context = Context()
        for name, argument in self.arguments.items():
            value = values.get(name, argument.default_value)
            assert value is not None, f"{name} must be given"
            assert argument.choices is None or value in argument.choices, f"{name} cannot be {value}"
            context.values[name] = value
        assert set(values) <= set(self.arguments)
        return [process for function in self._functions for process in function.function(context)]

"""Just enough of ``launch`` and ``launch_ros`` to load our launch files and to see which processes they would start.

The names, and the command lines that come out, are those of launch 3.7 and launch_ros 0.28; where these are installed
a test compares.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


@dataclass
class Context:
    """Values of the arguments."""

    launch_configurations: dict[str, str]
    is_shutdown: bool = False


@dataclass
class Description:
    entities: list[Any]


@dataclass
class Argument:
    name: str
    default_value: str | None = None
    description: str = ""
    choices: tuple[str, ...] | None = None


@dataclass
class Function:
    function: Callable[[Context], list[Any]]


@dataclass
class Ended:
    """Shutdown."""

    reason: str


@dataclass
class Said:
    """LogInfo."""

    msg: str


@dataclass
class Exited:
    """The event of a process that ended."""

    returncode: int


@dataclass
class Configuration:
    name: str

    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.name]


@dataclass
class Value:
    """A parameter whose type is not to be guessed from its text."""

    value: Any
    value_type: type

    def evaluate(self) -> Any:
        assert isinstance(self.value, self.value_type)
        return self.value


@dataclass
class Executable:
    executable: str
    package: str

    def __str__(self) -> str:
        from ament_index_python.packages import get_package_prefix

        return str(Path(get_package_prefix(self.package)) / "lib" / self.package / self.executable)


@dataclass(kw_only=True)
class Process:
    """ExecuteProcess."""

    cmd: list[Any] = field(default_factory=list)
    additional_env: dict[str, str] = field(default_factory=dict)
    output: str = "log"
    on_exit: Any = None
    respawn: bool = False
    respawn_delay: float | None = None
    sigterm_timeout: str = "5"

    def command(self, context: Context) -> list[str]:
        return [str(part) for part in self.cmd]


@dataclass(kw_only=True)
class Node(Process):
    package: str
    executable: str
    name: str | None = None
    namespace: str | None = None
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def command(self, context: Context) -> list[str]:
        out = [str(Executable(self.executable, self.package)), *self.arguments, "--ros-args"]
        if self.name is not None:
            out += ["-r", f"__node:={self.name}"]
        place = str(Path("/", context.launch_configurations.get("ros_namespace", ""), self.namespace or ""))
        if self.namespace is not None:
            out += ["-r", f"__ns:={place}"]
        for item in self.parameters:
            out += ["--params-file", self._file(item, place) if isinstance(item, dict) else str(item)]
        for ours, theirs in self.remappings:
            out += ["-r", f"{ours}:={theirs}"]
        return out

    def _file(self, values: Mapping[str, Any], place: str) -> str:
        """Parameters that are given one by one become a file, under the full name where that is known."""
        full = self.name is not None and self.namespace is not None
        plain = {name: v.evaluate() if isinstance(v, Value) else _typed(v) for name, v in values.items()}
        with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
            yaml.dump({str(Path(place, str(self.name))) if full else "/**": {"ros__parameters": plain}}, file)
        return file.name


def _typed(value: Any) -> Any:
    """A text is read as YAML."""
    return yaml.safe_load(value) if isinstance(value, str) else value


_NAMES: dict[str, dict[str, Any]] = {
    "launch": {"LaunchContext": Context, "LaunchDescription": Description},
    "launch.actions": {
        "DeclareLaunchArgument": Argument,
        "ExecuteProcess": Process,
        "LogInfo": Said,
        "OpaqueFunction": Function,
        "Shutdown": Ended,
    },
    "launch.events": {},
    "launch.events.process": {"ProcessExited": Exited},
    "launch.substitutions": {"LaunchConfiguration": Configuration},
    "launch_ros": {},
    "launch_ros.actions": {"Node": Node},
    "launch_ros.parameter_descriptions": {"ParameterValue": Value},
    "launch_ros.substitutions": {"ExecutableInPackage": Executable},
}


@contextmanager
def _in_place() -> Iterator[None]:
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


@dataclass
class Started:
    """A process as it would be started."""

    command: list[str]
    action: Process

    @property
    def program(self) -> str:
        return Path(self.command[0]).name

    @property
    def remappings(self) -> dict[str, str]:
        return dict(value.split(":=", 1) for value in self._after("-r"))

    @property
    def parameters(self) -> dict[str, Any]:
        """What remains after all parameter files, the last one winning; nested names with dots."""
        out: dict[str, Any] = {}
        for path in self._after("--params-file"):
            for section in yaml.safe_load(Path(path).read_text()).values():
                out.update(_flat(section["ros__parameters"]))
        return out

    def _after(self, option: str) -> list[str]:
        return [value for flag, value in zip(self.command, self.command[1:], strict=False) if flag == option]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return out


class LaunchFile:
    """A launch file of ours."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with _in_place():
            spec.loader.exec_module(module)
        self.path = path
        entities = module.generate_launch_description().entities
        self.arguments = {e.name: e for e in entities if isinstance(e, Argument)}
        self._functions = [e for e in entities if isinstance(e, Function)]
        assert len(self.arguments) + len(self._functions) == len(entities)

    def start(self, _outside: Mapping[str, str] | None = None, **values: str) -> list[Started]:
        """What would be started with these arguments, inside a launch file with these configurations."""
        context = Context(dict(_outside or {}))
        assert set(values) <= set(self.arguments)
        for name, argument in self.arguments.items():
            value = values.get(name, argument.default_value)
            assert value is not None, f"{name} must be given"
            assert argument.choices is None or value in argument.choices, f"{name} cannot be '{value}'"
            context.launch_configurations[name] = value
        actions = [action for function in self._functions for action in function.function(context)]
        return [Started(action.command(context), action) for action in actions]

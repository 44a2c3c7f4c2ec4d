#!/usr/bin/env python3
"""Create the environment in one command: Python packages, ROS 2, and this package's messages.

    python3 tools/bootstrap.py          (or: make setup)

Needs Python 3.10 to 3.14 and nothing else; ROS 2 comes from PyPI as wheels (x86-64 Linux), or from a native
installation when one is sourced. Variables:

    DA3_VENV        where the environment goes; default ~/.venvs/da3_ros. Never inside the source tree:
                    CMake refuses installed packages that lie within the package being built.
    DA3_ROS_DISTRO  kilted (default) or jazzy: take the wheels of this distribution.
    DA3_TORCH       what to tell "pip install" about torch instead of our own choice (torch_build.py), such as
                    'torch==2.9.1' or 'torch --index-url https://download.pytorch.org/whl/cu126'.

An environment keeps its distribution and its Python until another distribution is asked for.
Running this again is quick: each step is skipped while the hash of its inputs is unchanged. Afterwards the
environment's own Python and commands see ROS 2 and the messages with nothing sourced (da3_ros_env.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import system_packages
import torch_build
import workspace
from console import SetupError, run, say
from environment import (
    REPOSITORY,
    Environment,
    choose_environment,
    clean_variables,
    inherited,
    locked,
    use_supported_python,
)
from installer import install_optional, install_packages
from ros_wheels import BUILD_TOOLS, CMAKE, WHEELS, repair_exports
from stamps import Stamps, digest_of

# What the set-up can do without: title, what to give the installer, what is lost without it.
OPTIONAL = {
    "rtx": (
        "Installing TensorRT for RTX",
        ["-e", f"{REPOSITORY}[rtx]"],
        "no engines for it; the other runtimes work",
    ),
    # Only a yardstick, of which the network itself is enough: with its 150 dependencies it would rule out ours. In a
    # folder of its own, because it brings a command "da3" too.
    "official": (
        "Installing the official network for the tests",
        ["--no-deps", "--target", "{official}", "depth-anything-3==0.1.1"],
        "the tests that compare with it are skipped",
    ),
}


def main() -> int:
    """Run every step; return the exit code."""
    begin = time.monotonic()
    try:
        use_supported_python()
        env = choose_environment()
        system_packages.provide(env.root.parent / f"{env.root.name}-system-packages.log")
        with locked(env.root):
            changed = build(env)
    except SetupError as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"[setup] {error}: is DA3_VENV a folder that can be written to?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] stopped; run it again to go on.", file=sys.stderr)
        return 130
    origin = "native" if env.native else "from wheels"
    python = env.site_packages.parent.name
    state = f"ready after {time.monotonic() - begin:.0f} s" if changed else "up to date"
    say(f"{state}: {env.root} (ROS 2 {env.distro} {origin}, {python}). For a shell: . {env.root}/setup.bash")
    return 0


def build(env: Environment) -> bool:
    """Bring every part up to date; return whether anything had to be done."""
    changed = make_venv(env)
    stamps = Stamps(env.root / "da3_setup.json")
    changed |= torch_build.install_torch(env, stamps)
    changed |= install_python_packages(env, stamps)
    changed |= install_optional_packages(env, stamps)
    write_settings(env)
    workspace.forget_other_sources(env, stamps)
    changed |= workspace.build_tf2_msgs(env, stamps)
    changed |= workspace.build_messages(env, stamps)
    return changed


def make_venv(env: Environment) -> bool:
    """Create the virtual environment unless one of this kind is there."""
    kind = f"{'native' if env.native else 'wheels'} {env.distro}"
    present = env.kind.read_text() if env.kind.exists() else ""
    if env.python.exists() and present == kind:
        return False
    if present:
        say(f"{env.root} holds '{present}' and '{kind}' is wanted: making it anew")
    elif env.root.exists() and any(env.root.iterdir()):
        raise SetupError(f"{env.root} is no environment of ours: remove it, or set DA3_VENV to another folder.")
    command = [str(env.base_python), "-m", "venv", "--clear", str(env.root)]
    command += ["--system-site-packages"] if env.native else []
    run("Creating the environment", command, env.root.parent / f"{env.root.name}-venv.log")
    env.kind.write_text(kind)
    return True


def install_python_packages(env: Environment, stamps: Stamps) -> bool:
    """Install this package (editable), what it depends on, the build tools, and ROS 2 from wheels."""
    packages = BUILD_TOOLS if env.native else [*BUILD_TOOLS, *CMAKE, *WHEELS[env.distro]]
    digest = digest_of(packages, [REPOSITORY / "setup.py"], str(REPOSITORY))
    if stamps.fresh("packages", digest):
        return False
    install_packages(env.python, ["-e", f"{REPOSITORY}[dev]", *packages], env.logs, prefer_uv=not env.native)
    if not env.native:
        repair_exports(env.root, *include_folders(env.python))
    stamps.record("packages", digest)
    return True


def install_optional_packages(env: Environment, stamps: Stamps) -> bool:
    """Try to install what the rest can do without, once: a failure costs one line and is not repeated each time."""
    changed = False
    for step, (title, template, loss) in OPTIONAL.items():
        requirements = [word.format(official=env.official) for word in template]
        digest = digest_of(requirements, [REPOSITORY / "setup.py"])
        if stamps.fresh(step, digest):
            continue
        log = env.logs / f"{step}.log"
        if not install_optional(env.python, requirements, title, log, prefer_uv=not env.native):
            again = f"{env.python} -m pip install {' '.join(requirements)}"
            say(f"{title}: failed ({log}), so {loss}. To try again: {again}")
        stamps.record(step, digest)
        changed = True
    return changed


def include_folders(python: Path) -> tuple[str, str]:
    """Where the environment's Python and NumPy keep their C headers."""
    code = "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    output = subprocess.check_output([python, "-c", code], env=clean_variables(), text=True)
    python_include, numpy_include = output.splitlines()
    return python_include, numpy_include


def write_settings(env: Environment) -> None:
    """Write what makes a bare start of Python see ROS 2, and setup.bash for shells and colcon."""
    paths = {
        "AMENT_PREFIX_PATH": [str(env.install), *env.wheel_prefix, *inherited(env, "AMENT_PREFIX_PATH")],
        "LD_LIBRARY_PATH": [*library_folders(env), *inherited(env, "LD_LIBRARY_PATH")],
        "PYTHONPATH": [str(REPOSITORY), *inherited(env, "PYTHONPATH")] if env.native else [],
    }
    settings = {"prefix": str(env.root), "paths": {name: value for name, value in paths.items() if value}}
    write(env.settings, json.dumps(settings, indent=2) + "\n")
    site = env.site_packages
    write(site / "da3_ros_env.py", (REPOSITORY / "tools/da3_ros_env.py").read_text())
    write(site / "da3_ros_env.pth", f"import da3_ros_env\n{env.message_packages}\n{env.official}\n")
    for name in ("setup.bash", "local_setup.bash"):  # for people; for overlays, which chain the second
        write(env.root / name, setup_bash(env))


def library_folders(env: Environment) -> list[str]:
    """Folders with the shared libraries of our messages and of the wheels."""
    of_wheels = [*env.root.glob("lib"), *sorted(env.site_packages.glob("ros_*.libs"))]
    return [str(env.install / "lib"), *([] if env.native else map(str, of_wheels))]


def setup_bash(env: Environment) -> str:
    """Text of the file to source: an activated environment that is also an underlay for colcon."""
    lines = [
        "# Activates the environment and makes it an underlay for colcon workspaces.",
        f'. "{env.root}/bin/activate"',
        f"export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO={env.distro}",
    ]
    if env.native:  # the ros2 commands run under the system's Python
        lines.append(f'. "{env.install}/local_setup.bash"')
    else:
        for variable in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            value = f"{env.install}:{env.root}${{{variable}:+:${variable}}}"
            lines.append(f'export {variable}="{value}"')
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file unless it already has this content."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())

"""Which torch the environment gets: the one that is there, the build for CUDA, the one for CPUs, or none.

PyPI's torch for x86-64 Linux is the CUDA build with several gigabytes of NVIDIA's libraries: right for a machine
with an NVIDIA GPU, a waste on any other. uv, which installs the rest, does not look everywhere that pip does and
would not find out; so torch comes first, by pip, and no requirement of the rest names it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from console import SetupError, run, say
from environment import Environment, clean_variables
from installer import pip_command, pip_configuration, pip_settings
from stamps import Stamps, digest_of

TORCH = "torch==2.13.0"  # asked for where the choice is ours; setup.py accepts what satisfies() does
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
JETSON = Path("/etc/nv_tegra_release")
VARIABLE = "DA3_TORCH"


@dataclass(frozen=True)
class Plan:
    """What to do about torch."""

    arguments: tuple[str, ...] = ()  # of pip install; none: nothing to install
    advice: str = ""  # one line to print


def plan_torch(installed: str, wanted: str, gpu: bool, jetson: bool, pip_config: str) -> Plan:
    """Decide from what is there.

    `installed` is the version that the environment sees, `wanted` the user's own words for pip, `pip_config` the
    output of "pip config list"; whoever has told pip where to look has a reason, and is asked nothing else.
    """
    if wanted:
        return Plan(tuple(shlex.split(wanted)))
    if satisfies(installed):
        return Plan(advice=cpu_build_with_gpu(installed) if gpu and "+cpu" in installed else "")
    if jetson:
        return Plan(
            advice="the network cannot run: on a Jetson install NVIDIA's own build of torch 2.4 or later for this "
            f"Python, which PyPI's would not replace, or choose one with {VARIABLE}; then run this again."
        )
    if gpu or tells_where_to_look(pip_config):
        return Plan((TORCH,))
    return Plan((TORCH, "--extra-index-url", CPU_INDEX))


def satisfies(version: str) -> bool:
    """Whether this version of torch is 2.4 or later; NVIDIA's builds have names such as 2.5.0a0+872d972e41.nv24.8."""
    match = re.match(r"(\d+)\.(\d+)(.*)", version)
    if not match:
        return False
    release, rest = (int(match[1]), int(match[2])), match[3]
    before_release = re.match(r"(\.0)*(a|b|rc|\.dev)", rest)
    return release > (2, 4) or (release == (2, 4) and not before_release)


def cpu_build_with_gpu(installed: str) -> str:
    """The hint for those whose torch leaves their GPU alone."""
    return (
        f"torch {installed} cannot use the NVIDIA GPU of this machine: to change to the build that can, "
        "remove it (pip uninstall torch, in the environment) and run this again."
    )


def tells_where_to_look(pip_config: str) -> bool:
    """Whether pip has been given places to look for packages."""
    return not {"index-url", "extra-index-url", "find-links", "no-index"}.isdisjoint(pip_settings(pip_config))


def has_gpu() -> bool:
    """Whether NVIDIA's driver is at work; within WSL only nvidia-smi shows it."""
    if Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia").exists():
        return True
    program = shutil.which("nvidia-smi")
    if not program:
        return False
    try:
        return subprocess.run([program, "-L"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def torch_version(python: Path) -> str:
    """Version of the torch that this interpreter sees, its own or the system's; empty if there is none."""
    code = "import importlib.metadata as m; print(*(d.version for d in m.distributions(name='torch')))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=clean_variables(), check=False)
    return done.stdout.partition(" ")[0].strip()


def install_torch(env: Environment, stamps: Stamps) -> bool:
    """Install torch if there is none that will do; return whether anything had to be done."""
    installed, wanted = torch_version(env.python), os.environ.get(VARIABLE, "")
    pip = pip_command(env.python)
    pip_config = "" if wanted or satisfies(installed) else pip_configuration(pip)
    plan = plan_torch(installed, wanted, has_gpu(), JETSON.exists(), pip_config)
    if plan.advice:
        say(plan.advice)
    digest = digest_of([*plan.arguments, installed])
    if not plan.arguments or stamps.fresh("torch", digest):
        return False
    title = "Installing torch (large: up to some minutes)"
    try:
        run(title, [*pip, "install", *plan.arguments], env.logs / "torch.log", clean_variables())
    except SetupError as error:
        raise SetupError(f"{error} Another torch can be chosen, such as {VARIABLE}='torch>=2.4'.") from None
    stamps.record("torch", digest_of([*plan.arguments, torch_version(env.python)]))
    return True

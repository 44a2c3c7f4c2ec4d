"""Install Python packages: with uv where it can be had (much faster), else with pip, from the same places."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

from console import SetupError, run, say

# uv reads no pip configuration: pip's setting -> uv's variable, separator between several values.
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}


SECTIONS = ("global", "install", ":env:")  # of pip's configuration, the later over the earlier


def install_packages(python: Path, requirements: list[str], logs: Path, prefer_uv: bool) -> None:
    """Install `requirements` into the environment of `python`.

    A native environment shares the system's packages, which only pip takes into account: `prefer_uv` False.
    """
    pip = pip_command(python)
    if prefer_uv and install_with_uv(python, pip, requirements, logs):
        return
    run("Installing Python packages (minutes)", [*pip, "install", *requirements], logs / "pip.log")


def install_optional(python: Path, requirements: list[str], title: str, log: Path, prefer_uv: bool) -> bool:
    """Install what the rest can do without; return whether it worked. What went wrong is in the log alone."""
    pip = pip_command(python)
    uv = python.with_name("uv")
    with_uv = prefer_uv and uv.exists()
    command = [*uv_install(python), *requirements] if with_uv else [*pip, "install", *requirements]
    try:
        run(title, command, log, {**uv_variables(pip), **os.environ} if with_uv else None, show_failure=False)
    except SetupError:
        return False
    return True


def install_with_uv(python: Path, pip: list[str], requirements: list[str], logs: Path) -> bool:
    """Try uv; return whether it did the work."""
    try:
        run("Fetching the installer", [*pip, "install", "uv"], logs / "uv.log")
        variables = {**uv_variables(pip), **os.environ}
        command = [*uv_install(python), *requirements]
        run("Installing Python packages (up to some minutes)", command, logs / "packages.log", variables)
    except SetupError as error:
        say(f"{error} Trying pip instead.")
        return False
    return True


def pip_command(python: Path) -> list[str]:
    """The start of a pip command for the environment of `python`."""
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def uv_install(python: Path) -> list[str]:
    """The start of a uv command that installs into the environment of `python`."""
    return [str(python.with_name("uv")), "pip", "install", "--python", str(python)]


def pip_configuration(pip: list[str]) -> str:
    """What pip is told by files and variables, as it prints it."""
    return subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False).stdout


def pip_settings(configuration: str) -> dict[str, str]:
    """The settings that "pip install" would follow; several values of one are separated by white space."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in configuration.splitlines():
        name, separator, value = line.partition("=")
        section, _, setting = name.strip().rpartition(".")
        if separator and section in found:
            found[section][setting] = str(ast.literal_eval(value))
    return {setting: value for section in SECTIONS for setting, value in found[section].items()}


def uv_variables(pip: list[str]) -> dict[str, str]:
    """The configuration of pip as variables for uv."""
    # The first index that has a package is not the only one that counts: pip's rule, not uv's own.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_DOWNLOADS": "never"}
    for setting, value in pip_settings(pip_configuration(pip)).items():
        if setting in PIP_TO_UV:
            variable, separator = PIP_TO_UV[setting]
            variables[variable] = separator.join(value.split())
    return variables

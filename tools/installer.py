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


def install_packages(python: Path, requirements: list[str], logs: Path, prefer_uv: bool) -> None:
    """Install `requirements` into the environment of `python`.

    A native environment shares the system's packages, which only pip takes into account: `prefer_uv` False.
    """
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if prefer_uv and install_with_uv(python, pip, requirements, logs):
        return
    run("Installing Python packages (minutes)", [*pip, "install", *requirements], logs / "pip.log")


def install_with_uv(python: Path, pip: list[str], requirements: list[str], logs: Path) -> bool:
    """Try uv; return whether it did the work."""
    try:
        run("Fetching the installer", [*pip, "install", "uv"], logs / "uv.log")
        variables = {**uv_variables(pip), **os.environ}
        uv = str(python.with_name("uv"))
        command = [uv, "pip", "install", "--python", str(python), *requirements]
        run("Installing Python packages (up to some minutes)", command, logs / "packages.log", variables)
    except SetupError as error:
        say(f"{error} Trying pip instead.")
        return False
    return True


def uv_variables(pip: list[str]) -> dict[str, str]:
    """The configuration of pip as variables for uv."""
    # The first index that has a package is not the only one that counts: pip's rule, not uv's own.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_DOWNLOADS": "never"}
    output = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    for line in output.splitlines():
        name, separator, value = line.partition("=")
        setting = PIP_TO_UV.get(name.strip().rpartition(".")[2])
        if separator and setting:
            variables[setting[0]] = setting[1].join(str(ast.literal_eval(value)).split())
    return variables

"""The accelerator of this machine, found without loading any library that computes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = "name,compute_cap,memory.total,driver_version"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    compute_capability: str  # "8.9"
    memory: int  # bytes
    driver: str  # version; empty where not known


@functools.lru_cache(maxsize=1)
def find_gpu() -> Gpu | None:
    """The first GPU that CUDA may use; None without one."""
    # CUDA would put the fastest first; with this the driver's tool, torch and the libraries count alike.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if _visible() in ("", "-1"):
        return None
    return _from_driver() or _from_torch()


def _visible() -> str | None:
    """The first device that CUDA may use; None where nothing is said."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if told is None else told.split(",")[0].strip()


def _from_driver() -> Gpu | None:
    """Ask the driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    visible = _visible()
    if visible is not None:
        command += ["-i", visible]  # a number or the start of a UUID
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_query(done.stdout)


def parse_query(text: str) -> Gpu | None:
    """The first line that the driver's tool has printed; None where it tells of no GPU."""
    lines = text.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != 4 or not all(part.isdigit() for part in values[1].split(".")):
        return None
    memory = int(values[2]) * _MIB if values[2].isdigit() else 0
    return Gpu(values[0], values[1], memory, values[3])


def _from_torch() -> Gpu | None:
    """On machines without that tool, such as Jetsons; torch is loaded only where a device file is there."""
    if not any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu")):
        return None
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Gpu(found.name, f"{found.major}.{found.minor}", found.total_memory, "")

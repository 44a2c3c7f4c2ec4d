"""Peak of a process's resident memory, from the Linux kernel."""

from __future__ import annotations

from pathlib import Path


class Resident:
    """How much resident memory has grown at most since this was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self._start = _status("VmRSS")

    @property
    def peak(self) -> int:
        """Bytes of the whole process, at most since then."""
        return _status("VmHWM")

    @property
    def growth(self) -> int:
        """Bytes."""
        return self.peak - self._start


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"Linux tells {name} of every process")

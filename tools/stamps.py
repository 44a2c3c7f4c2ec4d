"""Skipping what is already done: hashes of inputs, kept inside the environment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


class Stamps:
    """Remembers, inside the environment, the inputs with which each step last succeeded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def fresh(self, step: str, digest: str) -> bool:
        """Whether the step succeeded with exactly these inputs."""
        return self.done.get(step) == digest

    def forget(self, *steps: str) -> None:
        """Let the steps run again."""
        for step in steps:
            self.done.pop(step, None)

    def record(self, step: str, digest: str) -> None:
        """Note that the step succeeded with these inputs."""
        self.done[step] = digest
        self.path.write_text(json.dumps(self.done, indent=2) + "\n")


def files_below(folder: Path) -> list[Path]:
    """All files of a folder in a fixed order, without Python's caches."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def digest_of(*inputs: str | list[str] | list[Path]) -> str:
    """One hash of texts, lists of texts, and the names and contents of files."""
    digest = hashlib.sha256()
    for item in inputs:
        for part in [item] if isinstance(item, str) else item:
            digest.update(str(part).encode() + b"\0")
            if isinstance(part, Path):
                digest.update(part.read_bytes() + b"\0")
    return digest.hexdigest()

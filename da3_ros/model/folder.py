"""A folder with a model, as far as it can be judged without loading it (and without torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from da3_ros.errors import ModelError
from da3_ros.files import reason
from da3_ros.model.layout import CONFIG, WEIGHTS, Part, read_config
from da3_ros.model.presets import NAMES, release
from da3_ros.model.safetensors_header import Header, read_header

CARD = "README.md"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_CARD_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says about itself."""

    path: Path
    name: str  # of the model
    parts: tuple[Part, ...]  # its networks: one, or the two of the nested model
    header: Header  # of the weights

    @property
    def licence(self) -> str:
        """Licence of a published model; else what its preset or the card beside it says."""
        if self.name in NAMES:
            return release(self.name).licence
        return self.parts[0].preset.licence or card_licence(self.path) or "unknown"


def open_folder(path: Path) -> ModelFolder:
    """Read the configuration and the table of contents of the weights.

    Raises:
        ModelError: this is no folder in the released layout; the sentence says what is wrong with it.
    """
    if not path.is_dir():
        if path.suffix in (*_PICKLES, ".safetensors", ".json"):
            raise ModelError(f"{path} is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
        raise ModelError(f"there is no folder {path}; give one that holds {CONFIG} and {WEIGHTS}")
    weights = path / WEIGHTS
    try:
        if not weights.exists():
            raise ModelError(_without_weights(path))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    name, parts = read_config(path)
    return ModelFolder(path, name, parts, read_header(weights))


def card_licence(path: Path) -> str | None:
    """Licence named at the head of the model card (README.md) in a folder, if there is one."""
    try:
        head = (path / CARD).read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        return None
    found = _CARD_LICENCE.search(head)
    return found[1] if found else None


def card_text(path: Path) -> str:
    """What the model card of a folder says, less its front matter; empty where there is none."""
    try:
        text = (path / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return _FRONT_MATTER.sub("", text).strip()


def _without_weights(path: Path) -> str:
    """A sentence about a folder in which the weights are missing."""
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    if f"{WEIGHTS}.index.json" in names:
        return f"{path} holds weights split into several files; save them as one {WEIGHTS}"
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        return (
            f"{path} holds only pickled weights ({pickles[0]}), which can run code when they are opened; convert them "
            f"to {WEIGHTS}"
        )
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return f"{path} has no {WEIGHTS}; rename {others[0]} if these are the weights of its {CONFIG}"
    return f"{path} has no {WEIGHTS}; a model is a folder with {CONFIG} and {WEIGHTS}, as 'da3 model download' makes"

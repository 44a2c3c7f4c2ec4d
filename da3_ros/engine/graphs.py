"""Graphs of one network at one image size: exported once, kept, and opened without torch from then on."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from da3_ros.engine.runtime import Host
from da3_ros.engine.signature import CAMERAS, SELF_TEST
from da3_ros.engine.store import Entry, Store, digest_of
from da3_ros.errors import EngineError, MissingDependencyError
from da3_ros.model.folder import ModelFolder
from da3_ros.model.layout import Part
from da3_ros.model.presets import Preset
from da3_ros.types import Tell

# ONNX Runtime has a fast kernel for the Attention operator of opset 23; TensorRT wants plain operators and fuses them.
OPSET_ATTENTION, OPSET_PLAIN = 23, 18

_SUFFIX = ".onnx"
_EXPORTER = "2"  # goes up whenever the same network gives other graphs
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Graphs:
    """An entry of the store with a graph per stage."""

    entry: Entry

    @property
    def stages(self) -> Mapping[str, Path]:
        """Stage -> file."""
        return self.entry.named(_SUFFIX)

    @property
    def digest(self) -> str:
        """Of all graphs together; engines made from them are known by it."""
        return " ".join(f"{name}:{file.sha256[:16]}" for name, file in self.entry.files.items() if _SUFFIX in name)

    def cameras(self) -> Host | None:
        """(2, C) learned camera tokens; None for networks that look at one view at a time."""
        if CAMERAS not in self.entry.files:
            return None
        cameras: Host = np.load(self.entry.path(CAMERAS), allow_pickle=False)
        return cameras

    def self_test(self) -> Mapping[str, Host]:
        """Images and what the network says of them in single precision (see ``parity``)."""
        with np.load(self.entry.path(SELF_TEST), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def open_graphs(
    store: Store,
    folder: ModelFolder,
    part: Part,
    size: tuple[int, int],
    *,
    precision: str,
    opset: int,
    build: bool,
    tell: Tell,
) -> Graphs:
    """Find the graphs of a network at an image size (width, height), or export them.

    Raises:
        EngineError: there are none and ``build`` forbids to make them.
        MissingDependencyError: a library that exporting needs is missing.
        ModelError: the weights cannot be loaded.
        OutputError: the store cannot be written.
    """
    fields = {
        "kind": "graphs",
        "network": part.preset.name,
        "weights": weights_digest(folder),
        "prefix": part.prefix,
        "sizes": _sizes_digest(part.preset),
        "size": "x".join(map(str, size)),
        "precision": precision,
        "opset": str(opset),
        "exporter": _EXPORTER,
    }
    what = f"graphs of {part.preset.name} at {fields['size']}"
    if not build:
        found = store.find(fields)
        if found is None:
            order = f"da3 engine build {shlex.quote(str(folder.path))} --size {fields['size']}"
            raise EngineError(f"there are no {what} yet; make them with '{order}', or allow network.build")
        return Graphs(found)

    def write(place: Path) -> Mapping[str, str]:
        try:
            from da3_ros.engine.export import write_graphs
        except (ImportError, OSError) as error:  # OSError: a shared library of theirs does not load
            raise MissingDependencyError(
                f"exporting {part.preset.name} needs torch, onnx and onnxscript ({error}); install them, or copy "
                f"{store.folder} from a machine where the graphs have been made"
            ) from error
        return write_graphs(place, folder, part, size, precision=precision, opset=opset, tell=tell)

    return Graphs(store.make(fields, write, tell, what=what))


def _sizes_digest(preset: Preset) -> str:
    """Of everything that makes the network: with sizes of one's own, the same weights can be another network."""
    sizes = {name: value for name, value in asdict(preset).items() if name not in ("repository", "revision", "longest")}
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(folder: ModelFolder) -> str:
    """SHA-256 of the weights; the hub's cache has it as the file's name."""
    stored = folder.header.path.resolve()
    return stored.name if _SHA256.fullmatch(stored.name) else digest_of(stored)

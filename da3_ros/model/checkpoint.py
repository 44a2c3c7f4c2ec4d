"""Networks from and to folders in the released layout, strictly: every tensor is accounted for.

Weights are mapped from the file, not copied, where they are wanted in the precision they have there: several processes
share one copy and nothing is read twice.  A file must therefore not be changed in place while a model is loaded from
it; ``write_checkpoint`` and the hub's cache put a new file in its place instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from da3_ros.errors import MissingDependencyError, ModelError, OutputError
from da3_ros.files import reason, write_atomic
from da3_ros.model.folder import ModelFolder, open_folder
from da3_ros.model.layout import CONFIG, WEIGHTS, Part, aliases, config_text, is_alias, ours, released, unread_shapes
from da3_ros.model.network import MonoNetwork, Network
from da3_ros.model.presets import PRESETS
from da3_ros.model.safetensors_header import Header

_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The networks of a folder, in evaluation mode, without gradients."""

    folder: ModelFolder
    network: Network | MonoNetwork
    metric: MonoNetwork | None  # of the nested model: the network that knows metres
    unread: tuple[str, ...]  # tensors of the file that no network of ours uses


def load(folder: Path | ModelFolder, *, expected: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
    """Load a model.

    Args:
        folder: in the released layout, or as ``open_folder`` has read it.
        expected: name the model must have.
        dtype: precision of the parameters; where the file has another, they are converted (and so copied).

    Raises:
        ModelError: the folder holds no model, another one than expected, or tensors that do not fit it.
        MissingDependencyError: safetensors is not installed.
    """
    opened = folder if isinstance(folder, ModelFolder) else open_folder(folder)
    if expected is not None and opened.name != expected:
        raise ModelError(
            f"{opened.path} holds {opened.name}, not {expected}; ask for {opened.name} or give another folder"
        )
    library = _library()
    networks: list[Network | MonoNetwork] = []
    left, unread = set(opened.header.tensors), set[str]()
    try:
        with library.safe_open(str(opened.header.path), framework="pt", device="cpu") as file:
            for part in opened.parts:
                network, used, ignored = _load_part(opened.header, file, part, dtype)
                networks.append(network)
                left -= used | ignored
                unread |= ignored
    except (OSError, library.SafetensorError) as error:
        raise ModelError(f"cannot read {opened.header.path}: {reason(error)}; download it again") from error
    if left:
        raise ModelError(
            f"{opened.header.path} holds {len(left)} tensors that {opened.name} does not have (first: {min(left)}); it "
            f"belongs to another network: use the weights that came with its {CONFIG}"
        )
    metric = networks[1] if len(networks) > 1 else None
    assert metric is None or isinstance(metric, MonoNetwork)
    return Model(opened, networks[0], metric, tuple(sorted(unread)))


def write_checkpoint(folder: Path, network: Network | MonoNetwork) -> None:
    """Write a network as the released ones are: every tensor that the official code has, those that nobody reads as 0.

    Raises:
        OutputError: the folder cannot be written; files that were there before are untouched.
        MissingDependencyError: safetensors is not installed.
    """
    library = _library()
    preset = network.preset
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, value in network.state_dict().items():
        key = "model." + released(name, preset)
        tensors[key] = value.detach().cpu().contiguous()
        metadata |= dict.fromkeys(aliases(key), key)  # as safetensors notes tensors that share their memory
    some = next(iter(tensors.values()))
    for name, shape in unread_shapes(preset).items():
        tensors["model." + name] = torch.zeros(shape, dtype=some.dtype)
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        library.torch.save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)
        write_atomic(folder / CONFIG, config_text(preset))  # small, so only once the large file has found its place
        temporary.replace(folder / WEIGHTS)
    except (OSError, library.SafetensorError) as error:
        raise OutputError(f"cannot write {folder / WEIGHTS}: {reason(error)}; choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _load_part(
    header: Header, file: Any, part: Part, dtype: torch.dtype
) -> tuple[Network | MonoNetwork, set[str], set[str]]:
    """One network; the tensors it uses; those below its prefix that nobody reads."""
    preset = part.preset
    with torch.device("meta"):
        network = Network(preset) if preset.any_view else MonoNetwork(preset)
    wanted = network.state_dict()
    used: dict[str, str] = {}  # our name -> name in the file
    unread: set[str] = set()
    copies: set[str] = set()
    for key in header.tensors:
        if key.startswith(part.prefix):
            below = key.removeprefix(part.prefix)
            name = ours(below, preset)
            if name is not None and name in wanted:
                used[name] = key
            elif is_alias(below):
                copies.add(key)
            elif name is None:
                unread.add(key)
    _check(header, part, wanted, used)
    state = {}
    for name, key in used.items():
        value = file.get_tensor(key)
        for copy in copies.intersection(aliases(key)):
            if not torch.equal(value, file.get_tensor(copy)):
                raise ModelError(
                    f"{header.path}: {copy} differs from {key}, yet the network shares one normalisation between them; "
                    "it belongs to another network"
                )
        if not _finite(value):
            raise ModelError(f"{header.path}: {key} holds values that are not finite; download the model again")
        state[name] = value.to(dtype)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False), {*used.values(), *copies}, unread


def _check(header: Header, part: Part, wanted: Mapping[str, Tensor], used: Mapping[str, str]) -> None:
    """Refuse missing, mis-shaped and mistyped tensors."""
    preset = part.preset
    missing = [part.prefix + released(name, preset) for name in wanted if name not in used]
    shaped = [
        (key, header.tensors[key].shape, tuple(wanted[name].shape))
        for name, key in used.items()
        if header.tensors[key].shape != tuple(wanted[name].shape)
    ]
    if missing or shaped:
        other = _resembles(header, part)
        if other is not None:
            raise ModelError(
                f"{header.path} holds the weights of {other}, but its {CONFIG} says {preset.name}; restore the "
                f"{CONFIG} that came with the weights"
            )
    if missing:
        raise ModelError(
            f"{header.path} lacks {len(missing)} tensors of {preset.name} (first: {min(missing)}); download it again"
        )
    if shaped:
        key, found, expected = shaped[0]
        raise ModelError(
            f"{header.path}: {len(shaped)} tensors do not have the shape that {preset.name} needs (first: {key}, "
            f"{found} instead of {expected}); use the weights that belong to its {CONFIG}"
        )
    for key in used.values():
        if header.tensors[key].dtype not in _FLOATS:
            raise ModelError(
                f"{header.path}: {key} is {header.tensors[key].dtype}; only {', '.join(_FLOATS)} can be loaded: "
                "convert the weights"
            )


def _resembles(header: Header, part: Part) -> str | None:
    """Another published network whose width, depth and kind the tensors have; None where they fit their own or none."""
    backbone = part.prefix + "backbone.pretrained."
    cls = header.tensors.get(f"{backbone}cls_token")
    blocks = sum(key.startswith(f"{backbone}blocks.") and key.endswith(".norm1.weight") for key in header.tensors)
    mixes = f"{backbone}camera_token" in header.tensors
    fitting = [
        preset.name
        for preset in PRESETS.values()
        if cls is not None and (preset.dim, preset.depth, preset.any_view) == (cls.shape[-1], blocks, mixes)
    ]
    return None if not fitting or part.preset.name in fitting else " or ".join(fitting)


def _finite(value: Tensor) -> bool:
    """Whether all values are finite; the sum tells at once, except where it overflows."""
    return bool(torch.isfinite(value.sum(dtype=torch.float32))) or bool(torch.isfinite(value).all())


def _library() -> ModuleType:
    """The safetensors library, wanted only here."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingDependencyError(
            f"loading models needs safetensors ({error}); install it with: pip install safetensors"
        ) from error
    return safetensors

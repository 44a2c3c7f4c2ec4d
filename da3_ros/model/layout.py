"""The released layout: ``config.json`` beside ``model.safetensors``, and what its tensors are called.

No library but the standard one is needed to read what is here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from da3_ros.errors import ModelError
from da3_ros.files import reason
from da3_ros.model.presets import NESTED, NESTED_PARTS, PRESETS, Preset

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_OWN_SIZES = "da3_ros"  # key of config.json under which a preset of one's own spells out its sizes

# Released name -> ours, below the prefix of a part; {dense} is the depth head of either kind of network.
_RENAMED = (
    ("backbone.pretrained.", "backbone."),
    *((f"head.{kept}.", f"neck.{kept}.") for kept in ("norm", "projects", "resize_layers")),
    *((f"head.scratch.layer{i + 1}_rn.", f"neck.layers.{i}.") for i in range(4)),
    *((f"head.scratch.refinenet{i}_aux.", f"rays.pyramid.refinenet{i}.") for i in range(1, 5)),
    ("head.scratch.output_conv1_aux.3.", "rays.output_conv1."),
    ("head.scratch.output_conv2_aux.3.0.", "rays.conv."),
    # The released network shares one LayerNorm among the four levels of its ray head, and safetensors keeps a shared
    # tensor under its first name only: level 3, the one that is used, finds its own under level 0.
    ("head.scratch.output_conv2_aux.0.2.", "rays.norm."),
    ("head.scratch.output_conv2_aux.3.5.", "rays.out."),
    *((f"head.scratch.refinenet{i}.", f"{{dense}}.pyramid.refinenet{i}.") for i in range(1, 5)),
    *((f"head.scratch.{kept}.", f"{{dense}}.{kept}.") for kept in ("output_conv1", "output_conv2", "sky_output_conv2")),
    ("cam_dec.", "camera."),
    ("cam_enc.", "camera_encoder."),
)
# The other names of that LayerNorm, in files that repeat shared tensors.
_ALIAS = re.compile(r"head\.scratch\.output_conv2_aux\.[123]\.2\.(weight|bias)")
# In released files and read by nobody: what the coarser levels of the ray head would put out, the unit of the coarsest
# fusion that has nothing to fuse (older files), and the Gaussian head.
_UNREAD = re.compile(
    r"head\.scratch\.(output_conv1_aux\.[012]\.|output_conv2_aux\.[012]\.[05]\.|refinenet4(_aux)?\.resConfUnit1\.)"
    r"|gs_head\.|gs_adapter\."
)


@dataclass(frozen=True, slots=True)
class Part:
    """One network of a checkpoint and where its tensors are."""

    preset: Preset
    prefix: str  # of the names of its tensors

    def reads(self, name: str) -> bool:
        """Whether this network uses a tensor of the file, under this or its other name."""
        below = name.removeprefix(self.prefix)
        return name.startswith(self.prefix) and (ours(below, self.preset) is not None or is_alias(below))


def dense(preset: Preset) -> str:
    """Our name of the head that gives depth."""
    return "depth" if preset.any_view else "head"


def ours(released: str, preset: Preset) -> str | None:
    """Our name of a released tensor (named without the prefix of its part); None where nobody reads it."""
    if _ALIAS.fullmatch(released) or _UNREAD.match(released):
        return None
    for theirs, mine in _RENAMED:
        if released.startswith(theirs):
            return mine.format(dense=dense(preset)) + released[len(theirs) :]
    return released


def released(name: str, preset: Preset) -> str:
    """The released name of one of our tensors: the inverse of ``ours``."""
    for theirs, mine in _RENAMED:
        start = mine.format(dense=dense(preset))
        if name.startswith(start):
            return theirs + name[len(start) :]
    return name


def aliases(released_name: str) -> tuple[str, ...]:
    """Other names under which a file may repeat this tensor (the shared LayerNorm of the ray head)."""
    if "output_conv2_aux.0.2." not in released_name:
        return ()
    return tuple(released_name.replace("aux.0.2.", f"aux.{level}.2.") for level in (1, 2, 3))


def is_alias(released_name: str) -> bool:
    """Whether this is such another name."""
    return _ALIAS.fullmatch(released_name) is not None


def unread_shapes(preset: Preset) -> dict[str, tuple[int, ...]]:
    """Released names and shapes of the tensors that released files hold and nobody reads (less the Gaussian head)."""
    if not preset.any_view:
        return {}
    full, half, hidden = preset.features, preset.features // 2, 32
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, out: int, into: int, kernel: int) -> None:
        shapes[f"head.scratch.{name}.weight"] = (out, into, kernel, kernel)
        shapes[f"head.scratch.{name}.bias"] = (out,)

    for level in range(3):
        widths = (full, half, full, half, full, half)
        for i, (into, out) in enumerate(pairwise(widths)):
            add(f"output_conv1_aux.{level}.{i}", out, into, 3)
        add(f"output_conv2_aux.{level}.0", hidden, half, 3)
        add(f"output_conv2_aux.{level}.5", 7, hidden, 1)
    return shapes


def read_config(folder: Path) -> tuple[str, tuple[Part, ...]]:
    """Name of the model in a folder, and its networks.

    Raises:
        ModelError: there is no readable ``config.json``, or it describes no network we know.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {CONFIG}; a model is a folder with {CONFIG} and {WEIGHTS}, as 'da3 model download' makes"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); download it again") from error
    name = config.get("model_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise ModelError(f"{path} has no model_name; restore the {CONFIG} that came with the weights")
    if name == NESTED:
        main, metric = (PRESETS[part] for part in NESTED_PARTS)
        return name, (Part(main, "model.da3."), Part(metric, "model.da3_metric."))
    if name in PRESETS:
        _compare(path, config.get("config"), PRESETS[name])
        return name, (Part(PRESETS[name], "model."),)
    if _OWN_SIZES in config:
        return name, (Part(_own_preset(path, name, config[_OWN_SIZES]), "model."),)
    raise ModelError(
        f"{path} names the model '{name}', which is none of {', '.join((*PRESETS, NESTED))} and gives no sizes under "
        f"'{_OWN_SIZES}'; restore the {CONFIG} that came with the weights"
    )


def config_text(preset: Preset) -> str:
    """The ``config.json`` of a network, as the released ones are written (the giant's without its Gaussian head)."""
    config: dict[str, Any] = {"model_name": preset.name, "config": _description(preset)}
    if PRESETS.get(preset.name) != preset:
        own = asdict(preset)
        for elsewhere in ("name", "repository", "revision", "parameters"):
            del own[elsewhere]
        if preset.longest is None:
            del own["longest"]
        config[_OWN_SIZES] = own
    return json.dumps(config, indent=2)


def _description(preset: Preset) -> dict[str, Any]:
    """The ``config`` of ``config.json``."""
    first = -1 if preset.alternate_from is None else preset.alternate_from
    any_view = preset.any_view
    wide = 2 * preset.dim
    official = {(384, 12, 6): "vits", (768, 12, 12): "vitb", (1024, 24, 16): "vitl", (1536, 40, 24): "vitg"}
    description: dict[str, Any] = {
        **_object("da3", "DepthAnything3Net"),
        "net": {
            **_object("dinov2.dinov2", "DinoV2"),
            "name": official.get((preset.dim, preset.depth, preset.heads), "custom"),
            "out_layers": list(preset.out_layers),
            "alt_start": first,
            "qknorm_start": first,
            "rope_start": first,
            "cat_token": any_view,
        },
        "head": {
            **(_object("dualdpt", "DualDPT") if any_view else _object("dpt", "DPT")),
            "dim_in": wide if any_view else preset.dim,
            "output_dim": 2 if any_view else 1,
            "features": preset.features,
            "out_channels": list(preset.out_channels),
        },
    }
    if any_view:
        description["cam_enc"] = {**_object("cam_enc", "CameraEnc"), "dim_out": preset.dim}
        description["cam_dec"] = {**_object("cam_dec", "CameraDec"), "dim_in": wide}
    return description


def _object(module: str, name: str) -> dict[str, Any]:
    return {"__object__": {"path": f"depth_anything_3.model.{module}", "name": name, "args": "as_params"}}


def _compare(path: Path, given: object, preset: Preset) -> None:
    """Refuse a description that contradicts the preset it names; what it leaves out is taken from the preset."""
    expected = _description(preset)
    for section in ("net", "head"):
        told = given.get(section) if isinstance(given, Mapping) else None
        for key, value in expected[section].items():
            if key != "__object__" and isinstance(told, Mapping) and key in told and told[key] != value:
                raise ModelError(
                    f"{path} calls itself {preset.name} but has {section}.{key} = {told[key]}, not {value}; restore "
                    f"the {CONFIG} that came with the weights"
                )


def _own_preset(path: Path, name: str, sizes: object) -> Preset:
    """A preset from the sizes in its own ``config.json``."""
    known = {field.name for field in fields(Preset)} - {"name", "repository", "revision", "parameters"}
    if not isinstance(sizes, Mapping) or not set(sizes) <= known:
        told = ", ".join(sorted(known))
        raise ModelError(f"{path} has something else under '{_OWN_SIZES}' than sizes; give only {told}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
    numbers = [v for key, value in values.items() for v in (value if isinstance(value, tuple) else [value])]
    try:
        if not all(isinstance(number, int | str | None) for number in numbers):
            raise TypeError("sizes are whole numbers")
        return Preset(name=name, repository="", **values)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} describes no network: {error}") from error

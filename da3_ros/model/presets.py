"""The published models: what they are made of (arXiv 2511.10647, table 1 and the released configurations), where they
are found and under which licence.

A revision is a commit of the repository, so that a name always means the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

from da3_ros.errors import ModelError

PATCH = 14  # pixels
APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"

_HEAD_QUARTERS = 4  # rotary positions turn a head's channels in four parts
_ENCODER_HEADS = 16  # of the camera encoder, for every size


@dataclass(frozen=True, slots=True)
class Preset:
    """One network."""

    name: str
    repository: str  # on the Hugging Face hub; empty for one of your own
    licence: str
    dim: int
    depth: int  # blocks
    heads: int
    out_layers: tuple[int, int, int, int]  # blocks whose output goes to the heads
    alternate_from: int | None  # first block with views mixed, RoPE and q/k norm; None: one view at a time
    features: int  # of the dense heads
    out_channels: tuple[int, int, int, int]
    swiglu: bool = False
    revision: str = "main"  # commit, branch or tag of the repository
    parameters: int | None = None  # in the released file, to be told before it is downloaded
    longest: int | None = None  # longer side of the images it was trained on, px, where it knows no others

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        first = self.alternate_from
        if min(self.dim, self.depth, self.heads, self.features, *self.out_channels) < 1:
            raise ValueError(f"no network can have these sizes (all must be positive): {self}")
        wrong: tuple[tuple[str, object], ...] = (
            ("dim must be a multiple of 4 heads", self.dim % (_HEAD_QUARTERS * self.heads)),
            ("out_layers must be four rising blocks", len(self.out_layers) != 4 or not self._rising()),
            ("out_channels must be four", len(self.out_channels) != 4),
        )
        if first is not None:
            embedded = (self.features // 2, self.features, *self.out_channels)
            wrong += (
                ("dim must be a multiple of 16", self.dim % _ENCODER_HEADS),
                ("views must mix before the first of out_layers", not 1 <= first <= self.out_layers[0] - 1 + first % 2),
                ("features must be a multiple of 8, out_channels of 4", any(c % 4 for c in embedded)),
            )
        for rule, broken in wrong:
            if broken:
                raise ValueError(f"no network can have these sizes ({rule}): {self}")

    def _rising(self) -> bool:
        chain = (-1, *self.out_layers, self.depth)
        return all(a < b for a, b in pairwise(chain))

    @property
    def any_view(self) -> bool:
        """Views are predicted together, with rays and cameras; else one at a time, with depth and sky."""
        return self.alternate_from is not None


class _Mono(TypedDict):
    licence: str
    dim: int
    depth: int
    heads: int
    out_layers: tuple[int, int, int, int]
    alternate_from: int | None
    features: int
    out_channels: tuple[int, int, int, int]
    parameters: int


_LARGE_CHANNELS = (256, 512, 1024, 1024)
_MONO: _Mono = {
    "licence": APACHE,
    "dim": 1024,
    "depth": 24,
    "heads": 16,
    "out_layers": (4, 11, 17, 23),
    "alternate_from": None,
    "features": 256,
    "out_channels": _LARGE_CHANNELS,
    "parameters": 334_171_394,
}

PRESETS = {
    p.name: p
    for p in (
        Preset(
            "da3-small",
            "depth-anything/DA3-SMALL",
            APACHE,
            384,
            12,
            6,
            (5, 7, 9, 11),
            4,
            64,
            (48, 96, 192, 384),
            revision="e08cab65ca0ec38e7826075418411ab90cab4da3",
            parameters=34_299_463,
        ),
        Preset(
            "da3-base",
            "depth-anything/DA3-BASE",
            APACHE,
            768,
            12,
            12,
            (5, 7, 9, 11),
            4,
            128,
            (96, 192, 384, 768),
            revision="f4a6c9b3c95e41c82048423d3493a81ec3fa810e",
            parameters=135_366_599,
        ),
        Preset(
            "da3-large",
            "depth-anything/DA3-LARGE-1.1",
            NON_COMMERCIAL,
            1024,
            24,
            16,
            (11, 15, 19, 23),
            8,
            256,
            _LARGE_CHANNELS,
            revision="0e109ae307c5982f319a67cf6f9f99ccdc0ec97c",
            parameters=410_941_767,
        ),
        Preset(
            "da3-giant",
            "depth-anything/DA3-GIANT-1.1",
            NON_COMMERCIAL,
            1536,
            40,
            24,
            (19, 27, 33, 39),
            13,
            256,
            _LARGE_CHANNELS,
            swiglu=True,
            revision="72ee9f89ce4e50d704e9d55ee9c646ec8dc25a19",
            parameters=1_355_674_125,
        ),
        Preset(
            "da3metric-large",
            "depth-anything/DA3METRIC-LARGE",
            **_MONO,
            revision="4010e39f3634a45bc60553321fb49fb760bd594e",
        ),
        Preset(
            "da3mono-large",
            "depth-anything/DA3MONO-LARGE",
            **_MONO,
            revision="f465978e618db8cc79c83b8bbf24964857db1875",
        ),
    )
}
# Ours, small enough for a CPU, in this package.  Trained by `da3 train`; a checkpoint of it spells out its sizes.
TINY = Preset("da3-tiny", "", APACHE, 160, 12, 5, (5, 7, 9, 11), 4, 24, (24, 40, 64, 96), longest=140)
# Two networks behind one name: the giant's depth, scaled to the metric network's metres.
NESTED = "da3nested-giant-large"
NESTED_REPOSITORY = "depth-anything/DA3NESTED-GIANT-LARGE-1.1"
NESTED_PARTS = ("da3-giant", "da3metric-large")
NAMES = (*PRESETS, NESTED)  # published
KNOWN = (TINY.name, *NAMES)


@dataclass(frozen=True, slots=True)
class Release:
    """Where a published model is found."""

    name: str
    repository: str
    revision: str
    licence: str
    parameters: int
    parts: tuple[Preset, ...]  # one network, or the two of the nested model


def preset(name: str) -> Preset:
    """Look a preset up by name.

    Raises:
        ModelError: there is no such preset.
    """
    if name not in PRESETS:
        raise ModelError(f"there is no model '{name}'; use one of {', '.join(NAMES)}, or a folder with a checkpoint")
    return PRESETS[name]


def release(name: str) -> Release:
    """Look a published model up by name, the nested one included.

    Raises:
        ModelError: there is no such model.
    """
    if name == NESTED:
        parts = tuple(PRESETS[part] for part in NESTED_PARTS)
        count = sum(part.parameters or 0 for part in parts)
        revision = "b2359bdf726fb44ef62acca04d629dcf158053e7"
        return Release(NESTED, NESTED_REPOSITORY, revision, NON_COMMERCIAL, count, parts)
    one = preset(name)
    return Release(name, one.repository, one.revision, one.licence, one.parameters or 0, (one,))

"""The published models and what they are made of (arXiv 2511.10647, table 1 and the released configurations)."""

from __future__ import annotations

from dataclasses import dataclass

from da3_ros.errors import ModelError

PATCH = 14  # pixels
APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclass(frozen=True, slots=True)
class Preset:
    """One network."""

    name: str
    repository: str  # on the Hugging Face hub
    licence: str
    dim: int
    depth: int  # blocks
    heads: int
    out_layers: tuple[int, int, int, int]  # blocks whose output goes to the heads
    alternate_from: int | None  # first block with views mixed, RoPE and q/k norm; None: one view at a time
    features: int  # of the dense heads
    out_channels: tuple[int, int, int, int]
    swiglu: bool = False

    @property
    def any_view(self) -> bool:
        """Views are predicted together, with rays and cameras; else one at a time, with depth and sky."""
        return self.alternate_from is not None


_LARGE_CHANNELS = (256, 512, 1024, 1024)
_MONO = {
    "licence": APACHE,
    "dim": 1024,
    "depth": 24,
    "heads": 16,
    "out_layers": (4, 11, 17, 23),
    "alternate_from": None,
    "features": 256,
    "out_channels": _LARGE_CHANNELS,
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
        ),
        Preset("da3metric-large", "depth-anything/DA3METRIC-LARGE", **_MONO),
        Preset("da3mono-large", "depth-anything/DA3MONO-LARGE", **_MONO),
    )
}
# Two networks behind one name: the giant's depth, scaled to the metric network's metres.
NESTED = "da3nested-giant-large"
NESTED_REPOSITORY = "depth-anything/DA3NESTED-GIANT-LARGE-1.1"
NESTED_PARTS = ("da3-giant", "da3metric-large")
NAMES = (*PRESETS, NESTED)


def preset(name: str) -> Preset:
    """Look a preset up by name.

    Raises:
        ModelError: there is no such preset.
    """
    if name not in PRESETS:
        raise ModelError(f"there is no model '{name}'; use one of {', '.join(NAMES)}, or a folder with a checkpoint")
    return PRESETS[name]

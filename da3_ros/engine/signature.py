"""Names of the stages and of what goes in and out of them; ``stages`` has what they do."""

from __future__ import annotations

from da3_ros.model.presets import Preset

LEVELS = 4
CAMERAS, SELF_TEST = "cameras.npy", "self_test.npz"  # files that lie beside exported stages
ONE_VIEW = ("encode", "enter", "look")  # stages that a window runs for one view at a time

_MIXING = ("encode", "enter", "mix", "neck", "depth", "rays", "camera")
_LOOKING = ("look",)

# Per stage the names of its inputs and outputs; the first axis of each is the number of views.
INPUTS = {
    "encode": ("images",),
    "enter": ("tokens", "cameras"),
    "mix": ("entered",),
    "neck": tuple(f"feature{i}" for i in range(LEVELS)),
    "depth": tuple(f"level{i}" for i in range(LEVELS)),
    "rays": tuple(f"level{i}" for i in range(LEVELS)),
    "camera": ("camera_feature",),
    "look": ("images",),
}
OUTPUTS = {
    "encode": ("tokens", "chooser"),
    "enter": ("entered",),
    "mix": (*(f"feature{i}" for i in range(LEVELS)), "camera_feature"),
    "neck": tuple(f"level{i}" for i in range(LEVELS)),
    "depth": ("depth", "confidence"),
    "rays": ("rays", "confidence"),
    "camera": ("cameras",),
    "look": ("depth", "sky"),
}


def names(preset: Preset) -> tuple[str, ...]:
    """Stages that a network has, in the order of their use."""
    return _MIXING if preset.any_view else _LOOKING

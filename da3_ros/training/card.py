"""The model card of a trained network: what it was trained on, how long, how good it is, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping

from da3_ros.model.presets import Preset
from da3_ros.training.config import TrainingConfig
from da3_ros.training.judge import Verdict
from da3_ros.training.state import State

_LIMITS = """limits: synthetic rooms; images of about the size it was trained at; no metres; its cameras are coarse:
  tracking has to carry the trajectory
"""


def card(
    preset: Preset,
    config: TrainingConfig,
    state: State,
    verdicts: Mapping[int, Verdict],
    size: tuple[int, int],
    worlds: int,
) -> str:
    """Markdown with the front matter of the hub.

    Args:
        preset: the network.
        config: of the run.
        state: where the run is.
        verdicts: held-out figures by the number of views of a window.
        size: width and height of the images at which it was judged, px.
        worlds: how many held-out worlds judged it.
    """
    moved = "some walked along recorded hand-held motion" if config.data.motions else "no recorded motion"
    told = f"""---
license: {preset.licence.lower()}
---
{preset.name}: a small Depth Anything 3 for demonstrations and tests. It has seen nothing but synthetic rooms: do not
steer a robot by it.

data: {len(state.worlds)} procedural worlds of {config.data.views} views each, every one drawn from its seed; {moved}
training: {state.step} of {config.steps} steps of {config.views_per_step} views at {size[0]}x{size[1]}, \
{state.minutes / 60:.1f} h on {config.threads} thread of a CPU (curve.svg)
"""
    for views, v in verdicts.items():
        seen = f"{worlds} worlds it never saw, {v.pairs} pairs, parallax of 5 to 30 %"
        told += f"""held out: windows of {views} views in {seen}
  depth, each view scaled to the true median: AbsRel {v.abs_rel:.3f}, delta1 {v.delta1:.3f}
    (one depth everywhere: {v.flat_abs_rel:.3f}, {v.flat_delta1:.3f})
  rotation, median: {v.rotation_deg:.1f} deg from rays, {v.known_rotation_deg:.1f} with the focal length known, \
{v.head_rotation_deg:.1f} from the camera head
    (a camera that never moves: {v.turned_deg:.1f})
  direction of translation, median: {v.translation_deg:.0f} deg from rays, {v.head_translation_deg:.0f} from the \
camera head (chance: 90)
  focal length from rays: {100 * v.focal:.1f} % off
"""
    return told + _LIMITS

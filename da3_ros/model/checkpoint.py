"""The released layout: ``config.json`` beside ``model.safetensors``, read strictly."""

from __future__ import annotations

import re

# Released name -> ours, in order; the first pattern that fits a key decides.
_RENAMED = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"backbone\.pretrained\.", "backbone."),
        (r"head\.(norm|projects|resize_layers)\.", r"neck.\1."),
        (r"head\.scratch\.layer(\d)_rn\.", lambda m: f"neck.layers.{int(m[1]) - 1}."),
        (r"head\.scratch\.(refinenet\d)_aux\.", r"rays.pyramid.\1."),
        (r"head\.scratch\.output_conv1_aux\.3\.", "rays.output_conv1."),
        (r"head\.scratch\.output_conv2_aux\.3\.0\.", "rays.conv."),
        # The released network shares one LayerNorm among the four levels of its ray head, and safetensors keeps a shared
        # tensor under its first name only: level 3, the one that is used, finds its own under level 0.
        (r"head\.scratch\.output_conv2_aux\.0\.2\.", "rays.norm."),
        (r"head\.scratch\.output_conv2_aux\.3\.5\.", "rays.out."),
        (r"head\.scratch\.(refinenet\d)\.", r"{dense}.pyramid.\1."),
        (r"head\.scratch\.(output_conv\d|sky_output_conv2)\.", r"{dense}.\1."),
        (r"cam_dec\.", "camera."),
        (r"cam_enc\.", "camera_encoder."),
    )
)
# Present in the released files and read by nobody: the outputs of the coarser levels of the ray head, the names under which
# files that do not merge shared tensors repeat the LayerNorm, and the Gaussian head.
_UNUSED = re.compile(
    r"head\.scratch\.(output_conv1_aux\.[012]\.|output_conv2_aux\.[012]\.[05]\.|output_conv2_aux\.[123]\.2\.)"
    r"|head\.scratch\.refinenet4(_aux)?\.resConfUnit1\.|gs_head\.|gs_adapter\."
)


def rename(key: str, *, dense: str) -> str | None:
    """Our name of a released key (without its ``model.`` prefix); None where nobody reads it."""
    if _UNUSED.match(key):
        return None
    for pattern, to in _RENAMED:
        if pattern.match(key):
            return pattern.sub(to, key, count=1).replace("{dense}", dense)
    return key

"""Where frames come from: bags, data sets, image folders, videos and the synthetic world.

Nothing heavy is imported here: the command line reaches this module before it knows what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from da3_ros.types import Source


def open_source(spec: str, frames: tuple[int | None, int | None] = (None, None), *, stride: int = 1) -> Source:
    """Open whatever ``spec`` names, by looking at what is there.

    Args:
        spec: ``world:SEED?key=value``, a bag (folder, ``.mcap``, ``.db3``), a 7-Scenes, TUM RGB-D, EuRoC or KITTI
            odometry sequence, a folder of images, or a video; options follow as ``PATH?key=value&key=value``.
        frames: (A, B) as a Python slice counts; the frames keep the ids they have in the whole source.
        stride: every so many frames.

    Returns:
        Rectified frames with whatever ground truth there is.

    Raises:
        SourceError: it is none of these, it has no such option, or it cannot be read.
    """
    from da3_ros.sources.detect import detect
    from da3_ros.sources.slicing import sliced

    return sliced(detect(spec), frames, stride)

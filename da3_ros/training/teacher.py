"""A larger network's word as the truth, for images that have none: windows of a recording become training worlds.

Each window of consecutive frames that the teacher predicts together is written as one small world in the cache, with
the teacher's depth, cameras and poses.  Units and frames differ from window to window and need not agree, as training
draws windows from within one world and normalises each by its own points.  Where frames carry measured depth, however
sparse, the teacher's depth is first aligned to it by a robust scale and shift (arXiv 2511.10647, section 3.3) and the
poses of the recording are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from da3_ros.errors import ModelError
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.depth_alignment import at_pixels
from da3_ros.geometry.rays import camera_from_rays, cameras_from_rays
from da3_ros.geometry.scale_shift import fit_scale_shift
from da3_ros.geometry.se3 import Array
from da3_ros.model import confidence
from da3_ros.model.network import MonoNetwork, Network
from da3_ros.model.preprocess import Preprocessor, fitted_size
from da3_ros.training.worlds import CachedWorld, Told, world_of, write_world
from da3_ros.types import FloatArray, Frame, ImageArray, Source

FIRST_TAUGHT_SEED = 2_000_000_000  # worlds of a teacher are numbered from here
_DOUBTED = 0.05  # least trusted share of the teacher's pixels of a window, which are left out


def taught_seeds(cache: Path) -> list[int]:
    """Numbers of a cache's worlds that a teacher made."""
    found = (int(path.parent.name) for path in cache.glob("*/world.json") if path.parent.name.isdigit())
    return sorted(number for number in found if number >= FIRST_TAUGHT_SEED)


def teach(
    source: Source,
    teacher: Network | MonoNetwork,
    cache: Path,
    tell: Told,
    *,
    views: int,
    size: tuple[int, int],
    longest: int = 504,
) -> list[int]:
    """Write worlds of ``views`` frames each from a recording.

    Args:
        source: frames, best at a stride at which neighbours overlap but differ.
        teacher: the network that is asked.
        cache: folder of worlds.
        tell: told of progress.
        views: frames that the teacher sees together.
        size: width and height of the images that are kept, px.
        longest: longer side of the images that the teacher sees, px.

    Returns:
        The numbers of the worlds; windows that say nothing (rays that form no camera) are left out.

    Raises:
        ModelError: the teacher does not predict views together.
        OutputError: the cache cannot be written.
    """
    if not isinstance(teacher, Network):
        raise ModelError(f"{teacher.preset.name} looks at one view at a time; a teacher must predict several together")
    written: list[int] = []
    first = max([FIRST_TAUGHT_SEED - 1, *taught_seeds(cache)]) + 1
    total = len(source) // views
    for number, frames in enumerate(_groups(source, views)):
        tell(number, total)
        world = taught_world(first + number, frames, teacher, size, longest)
        if world is not None:
            write_world(cache / str(world.seed), world)
            written.append(world.seed)
    tell(total, total)
    return written


def taught_world(
    seed: int, frames: Sequence[Frame], teacher: Network, size: tuple[int, int], longest: int
) -> CachedWorld | None:
    """One window of frames with the teacher's depth and cameras; None where its rays form no camera."""
    across, down = frames[0].image.shape[1::-1]
    width, height = fitted_size(across, down, longest)
    prepared = Preprocessor((width, height)).window([frame.image for frame in frames])
    with torch.no_grad():
        said = teacher(torch.from_numpy(prepared.images))
    weights = confidence.of_rays(said.ray_confidence.numpy())
    rays, given = said.rays.numpy(), frames[0].camera
    try:
        camera = _centred(cameras_from_rays(rays, weights, size)[0].camera) if given is None else given.resized(*size)
        fitted = [camera_from_rays(r, w, size, camera) for r, w in zip(rays, weights, strict=True)]
    except ValueError:
        return None
    depth = said.depth.numpy()
    trusted = said.depth_confidence.numpy()
    depth = np.where(trusted > np.quantile(trusted, _DOUBTED), depth, np.float32(np.nan))
    poses = np.stack([camera.T_frame_cam for camera in fitted])
    measured = _measured(frames, depth)
    if measured is not None:
        depth, poses = measured
    kept = np.stack([cv2.resize(d, size, interpolation=cv2.INTER_NEAREST_EXACT) for d in depth])
    images: list[ImageArray] = [cv2.resize(f.image, size, interpolation=cv2.INTER_AREA) for f in frames]
    return world_of(seed, camera, np.stack(images), kept, poses)


def aligned_depth(depth: FloatArray, measured: FloatArray) -> FloatArray:
    """Depth (H, W) of a teacher in the unit of measured depth of any size, NaN where nothing was measured.

    Raises:
        ValueError: the two agree on no scale and shift.
    """
    rows, columns = np.nonzero(np.isfinite(measured) & (measured > 0))
    across_down = np.stack([columns, rows], axis=1).astype(float)
    there = depth[tuple(at_pixels(across_down, measured.shape[::-1], depth.shape))]
    fit = fit_scale_shift(there, measured[rows, columns])
    out = fit(depth).astype(np.float32)
    out[~(out > 0)] = np.nan
    return out


def _measured(frames: Sequence[Frame], depth: FloatArray) -> tuple[FloatArray, Array] | None:
    """Depth aligned to what the frames measured, and their poses; None where any frame lacks either."""
    aligned, poses = [], []
    for frame, d in zip(frames, depth, strict=True):
        truth = frame.truth
        if truth is None or truth.depth is None or truth.T_world_cam is None:
            return None
        try:
            aligned.append(aligned_depth(d, truth.depth))
        except ValueError:
            return None
        poses.append(truth.T_world_cam)
    T = np.stack(poses)
    return np.stack(aligned), se3.inverse(T[:1]) @ T


def _centred(camera: Pinhole) -> Pinhole:
    """The same with its principal point in the middle."""
    return replace(camera, cx=camera.width / 2 - 0.5, cy=camera.height / 2 - 0.5)


def _groups(source: Source, views: int) -> Iterator[list[Frame]]:
    """Consecutive frames, ``views`` at a time; a shorter rest is left out."""
    frames = iter(source)
    while len(group := list(islice(frames, views))) == views:
        yield group

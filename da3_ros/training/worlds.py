"""Procedural worlds rendered once and kept on disk, as plain arrays that are mapped and not read.

A world is a folder: ``images.npy`` (N, H, W, 3) uint8, ``depth.npy`` (N, H, W) float16 metres with NaN for sky,
``poses.npy`` (N, 4, 4) camera-to-world, ``overlap.npy`` and ``parallax.npy`` (N, N), ``world.json``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import OutputError, SourceError
from da3_ros.files import reason
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array
from da3_ros.sources.world import WorldSource
from da3_ros.sources.world.spec import WorldSpec
from da3_ros.training.matches import View, patch_matches
from da3_ros.types import FloatArray, ImageArray

RENDERED = (224, 168)  # px; training cuts and shrinks windows out of it, which varies the focal length
_JUDGED = (336, 252)  # px, rendered with the sensor's own noise and shrunk to the size below, as a real frame is
JUDGED = (168, 126)  # px, of held-out worlds
_JUDGED_VIEWS = 40
_GRID = (9, 12)  # rows and columns of the points by which overlap is counted
_SHARE_RECORDED = 0.3  # of the worlds that are seen along a recorded motion, where there are any

Told = Callable[[int, int], None]  # worlds done, of how many


@dataclass(frozen=True, slots=True, eq=False)
class CachedWorld:
    """Views of one world; the large arrays are mapped from their files."""

    seed: int
    camera: Pinhole
    images: ImageArray  # (N, H, W, 3)
    depth: NDArray[np.float16]  # (N, H, W) z-depth, m, NaN for sky
    T_world_cam: Array  # (N, 4, 4)
    overlap: FloatArray  # (N, N) share of view i that view j sees too
    parallax: FloatArray  # (N, N) distance of the centres over the median depth of view i

    def __len__(self) -> int:
        """Number of views."""
        return len(self.images)

    def view(self, index: int) -> View:
        """The truth about one view."""
        return View(self.depth[index].astype(np.float32), self.T_world_cam[index], self.camera)


def drawn_spec(seed: int, views: int, motions: Sequence[Path]) -> WorldSpec:
    """A world to train on: motion, frame rate, field of view, light and lens are drawn from its seed."""
    rng = np.random.default_rng([seed, 5])
    motion = motions[int(rng.integers(len(motions)))] if motions and rng.random() < _SHARE_RECORDED else None
    return WorldSpec(
        seed,
        motion=motion,
        frames=views,
        size=RENDERED,
        rate=float(rng.uniform(1.8, 4.0) if motion else rng.uniform(3.0, 7.0)),
        fov=float(rng.uniform(56.0, 84.0)),
        noise=0.0,  # added when a window is loaded
        light=float(rng.uniform(0.4, 1.6)),
        lens=float(rng.uniform(0.0, 1.3)),
        shake=float(rng.uniform(0.5, 2.0)),
    )


def judging_spec(seed: int) -> WorldSpec:
    """A held-out world: everything as a user's world has it by default, at five frames a second."""
    return WorldSpec(seed, frames=_JUDGED_VIEWS, size=_JUDGED, rate=5.0)


def recorded_motions(folder: str) -> list[Path]:
    """Trajectory files of a folder, in order; none where no folder is named.

    Raises:
        SourceError: the folder holds none.
    """
    if not folder:
        return []
    found = sorted(path for path in Path(folder).expanduser().glob("*.txt"))
    if not found:
        raise SourceError(f"{folder} holds no recorded motion (*.txt in TUM form); name another folder, or none")
    return found


def render(cache: Path, specs: Iterable[WorldSpec], tell: Told) -> list[int]:
    """Render the worlds that the cache lacks.

    Returns:
        The seeds that are there now; a world that leaves no room to walk in is left out.

    Raises:
        OutputError: the cache cannot be written.
    """
    specs = list(specs)
    there = []
    for done, spec in enumerate(specs):
        tell(done, len(specs))
        folder = cache / str(spec.seed)
        if not (folder / "world.json").exists():
            try:
                source = WorldSource(spec)
            except SourceError:
                if spec.motion is not None and not spec.motion.exists():
                    raise
                continue
            write_world(folder, _rendered(spec, source))
        there.append(spec.seed)
    tell(len(specs), len(specs))
    return there


def open_world(folder: Path) -> CachedWorld:
    """Open a rendered world.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    try:
        about = json.loads((folder / "world.json").read_text())
        mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "depth")}
        small = {name: np.load(folder / f"{name}.npy") for name in ("poses", "overlap", "parallax")}
    except (OSError, ValueError) as error:
        raise SourceError(
            f"cannot read the rendered world {folder}: {reason(error)}; delete it to render anew"
        ) from error
    camera = Pinhole(*about["camera"])
    return CachedWorld(
        about["seed"], camera, mapped["images"], mapped["depth"], small["poses"], small["overlap"], small["parallax"]
    )


def open_worlds(cache: Path, seeds: Iterable[int] | None = None) -> list[CachedWorld]:
    """Open the worlds of a cache in the order of their seeds; of those asked for, the ones that are there."""
    wanted = None if seeds is None else set(seeds)
    found = sorted(int(path.parent.name) for path in cache.glob("*/world.json") if path.parent.name.isdigit())
    return [open_world(cache / str(seed)) for seed in found if wanted is None or seed in wanted]


def relations(views: Sequence[View]) -> tuple[FloatArray, FloatArray]:
    """Overlap and parallax (N, N) of all pairs, as in ``CachedWorld``."""
    count = len(views)
    overlap = np.zeros((count, count), np.float32)
    parallax = np.zeros((count, count), np.float32)
    for i, view in enumerate(views):
        middle = float(np.nanmedian(view.depth))
        for j, other in enumerate(views):
            overlap[i, j] = patch_matches(view, other, *_GRID).visible.mean()
            parallax[i, j] = np.linalg.norm(view.T_world_cam[:3, 3] - other.T_world_cam[:3, 3]) / middle
    return overlap, parallax


def world_of(seed: int, camera: Pinhole, images: ImageArray, depth: FloatArray, T_world_cam: Array) -> CachedWorld:
    """A world of views in memory; overlap and parallax are worked out."""
    views = [View(d.astype(np.float32), T, camera) for d, T in zip(depth, T_world_cam, strict=True)]
    overlap, parallax = relations(views)
    return CachedWorld(seed, camera, images, depth.astype(np.float16), T_world_cam, overlap, parallax)


def write_world(folder: Path, world: CachedWorld) -> None:
    """Write a world beside its place, then move it there.

    Raises:
        OutputError: the place cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {
        "images": world.images,
        "depth": world.depth,
        "poses": world.T_world_cam,
        "overlap": world.overlap,
        "parallax": world.parallax,
    }
    camera = world.camera
    about = {"seed": world.seed, "camera": [*camera.size, camera.fx, camera.fy, camera.cx, camera.cy]}
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        (temporary / "world.json").write_text(json.dumps(about))
        temporary.replace(folder)
    except OSError as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(f"cannot write the rendered world {folder}: {reason(error)}; choose another place") from error


def _rendered(spec: WorldSpec, source: WorldSource) -> CachedWorld:
    """Render all views of a world."""
    size = JUDGED if spec.size == _JUDGED else spec.size
    images = np.empty((len(source), size[1], size[0], 3), np.uint8)
    depth = np.empty((len(source), size[1], size[0]), np.float32)
    for i, frame in enumerate(source):
        assert frame.truth is not None
        assert frame.truth.depth is not None
        images[i] = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        depth[i] = cv2.resize(frame.truth.depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return world_of(spec.seed, source.camera.resized(*size), images, depth, source.poses)

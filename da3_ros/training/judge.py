"""How good a network is on worlds it was never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.rays import RayCamera, camera_from_rays, cameras_from_rays
from da3_ros.geometry.se3 import Array
from da3_ros.model.confidence import of_rays
from da3_ros.model.network import Network
from da3_ros.model.presets import PATCH
from da3_ros.training.batch import Batch, plain_batch
from da3_ros.training.curriculum import Difficulty
from da3_ros.training.passes import run
from da3_ros.training.windows import WindowSampler
from da3_ros.training.worlds import CachedWorld
from da3_ros.types import FloatArray

PARALLAX = (0.05, 0.30)  # of the pairs that are judged, share of the depth
_OVERLAP = 0.4
_ROTATION_DEG = (0.0, 40.0)
_SEED = 7


@dataclass(frozen=True, slots=True)
class Verdict:
    """Held-out figures; errors are medians over pairs or views, AbsRel and delta1 means over views."""

    abs_rel: float  # after scaling each view to the true median
    delta1: float  # share of pixels within a factor of 1.25 of the truth
    rotation_deg: float  # of cameras from rays, nothing known but that a window has one camera
    translation_deg: float  # angle between the directions
    known_rotation_deg: float  # of cameras from rays, the intrinsics known
    head_rotation_deg: float  # the same of the camera head
    head_translation_deg: float
    focal: float  # share by which the focal length is off
    matched: float  # share of visible patches whose attention is highest within one patch of the true match
    flat_abs_rel: float  # of a wall of one depth, as a yardstick
    flat_delta1: float
    turned_deg: float  # true rotation, which is the error of a camera that never moves
    same_place: float  # share of visible patches matched by the same place in the image
    pairs: int

    def row(self) -> dict[str, float]:
        """Name and value of each figure."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def text(self) -> str:
        """The figures in one line."""
        flat = f"one depth everywhere: {self.flat_abs_rel:.3f}, {self.flat_delta1:.3f}"
        rays = f"rotation {self.rotation_deg:.2f} deg ({self.known_rotation_deg:.2f} with K known)"
        return (
            f"depth AbsRel {self.abs_rel:.3f}, delta1 {self.delta1:.3f} ({flat}); "
            f"turned by {self.turned_deg:.2f} deg, cameras from rays: {rays}, "
            f"translation {self.translation_deg:.1f} deg, focal {100 * self.focal:.1f} %; "
            f"camera head: {self.head_rotation_deg:.2f} deg, {self.head_translation_deg:.1f} deg; "
            f"matched {100 * self.matched:.0f} % (by the same place: {100 * self.same_place:.0f} %); {self.pairs} pairs"
        )


@dataclass(slots=True)
class _Samples:
    """What the figures are made of."""

    abs_rel: list[float]
    delta1: list[float]
    rotation: list[float]
    translation: list[float]
    known_rotation: list[float]
    head_rotation: list[float]
    head_translation: list[float]
    focal: list[float]
    matched: list[float]
    flat_abs_rel: list[float]
    flat_delta1: list[float]
    turned: list[float]
    same_place: list[float]


def judge(
    network: Network, worlds: Sequence[CachedWorld], size: tuple[int, int], *, views: int = 2, per_world: int = 6
) -> Verdict:
    """Judge a network on windows of ``views`` views drawn from each world, always the same ones.

    Every view is paired with the reference view; cameras come from the rays in closed form.
    """
    limits = Difficulty(size, views, PARALLAX, _ROTATION_DEG, _OVERLAP)
    samples = _Samples(*([] for _ in fields(_Samples)))
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for world in worlds:
            sampler, rng = WindowSampler([world]), np.random.default_rng([_SEED, world.seed, views])
            for _ in range(per_world):
                window = sampler.draw(rng, views, limits)
                _measure(network, plain_batch(world, window.views, size), samples)
    network.train(was_training)

    def middle(values: list[float]) -> float:
        return float(np.median(values)) if values else float("nan")

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return Verdict(
        abs_rel=mean(samples.abs_rel),
        delta1=mean(samples.delta1),
        rotation_deg=middle(samples.rotation),
        translation_deg=middle(samples.translation),
        known_rotation_deg=middle(samples.known_rotation),
        head_rotation_deg=middle(samples.head_rotation),
        head_translation_deg=middle(samples.head_translation),
        focal=middle(samples.focal),
        matched=mean(samples.matched),
        flat_abs_rel=mean(samples.flat_abs_rel),
        flat_delta1=mean(samples.flat_delta1),
        turned_deg=middle(samples.turned),
        same_place=mean(samples.same_place),
        pairs=len(samples.rotation),
    )


def depth_errors(depth: Array, truth: Array, valid: Array) -> tuple[float, float]:
    """AbsRel and delta1 of one view (H, W) after scaling it to the true median."""
    found, true = depth[valid], truth[valid]
    found = found * np.median(true) / np.median(found)
    ratio = np.maximum(found / true, true / found)
    return float((np.abs(found - true) / true).mean()), float((ratio < 1.25).mean())


def pose_errors(T: Array, truth: Array) -> tuple[float, float]:
    """Angles in degrees between two rotations, and between two directions of translation, of (4, 4) poses."""
    rotation = float(np.degrees(se3.rotation_angle(T[:3, :3].T @ truth[:3, :3])))
    a, b = T[:3, 3], truth[:3, 3]
    cosine = float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    return rotation, float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _measure(network: Network, batch: Batch, samples: _Samples) -> None:
    passed = run(network, batch.images)
    for depth, truth, valid in zip(passed.depth.numpy(), batch.depth[0].numpy(), batch.valid[0].numpy(), strict=True):
        if not valid.any():  # nothing but sky
            continue
        abs_rel, delta1 = depth_errors(depth, truth, valid)
        samples.abs_rel.append(abs_rel)
        samples.delta1.append(delta1)
        abs_rel, delta1 = depth_errors(np.ones_like(depth), truth, valid)
        samples.flat_abs_rel.append(abs_rel)
        samples.flat_delta1.append(delta1)
    height, width = batch.images.shape[-2:]
    codes = batch.cameras[0].numpy().astype(float)
    weights = np.stack([of_rays(raw) for raw in passed.ray_confidence.numpy()])
    rays, size = passed.rays.numpy(), (width, height)
    calibrated: list[RayCamera | None] = []
    focals = []
    for i, code in enumerate(codes):
        fy, fx = np.array([height, width]) / 2 / np.tan(code[7:] / 2)
        known = Pinhole(width, height, float(fx), float(fy), width / 2 - 0.5, height / 2 - 0.5)
        calibrated.append(_calibrated(rays[i], weights[i], known))
        focals.append(np.sqrt(fx * fy))
    found = _of_one_camera(rays, weights, size, [i for i, fit in enumerate(calibrated) if fit is not None])
    for fit, focal in zip(found, focals, strict=True):
        samples.focal.append(1.0 if fit is None else abs(np.sqrt(fit.camera.fx * fit.camera.fy) / focal - 1))
    truth_poses = se3.from_quaternion(codes[:, :3], codes[:, 3:7])
    head = passed.cameras[0].numpy().astype(float)
    head_poses = se3.from_quaternion(head[:, :3], head[:, 3:7])
    for i in range(1, len(found)):
        rotation, translation = _relative_errors(found[0], found[i], truth_poses[i])
        samples.turned.append(pose_errors(np.eye(4), truth_poses[i])[0])
        samples.rotation.append(rotation)
        samples.translation.append(translation)
        samples.known_rotation.append(_relative_errors(calibrated[0], calibrated[i], truth_poses[i])[0])
        rotation, translation = pose_errors(se3.inverse(head_poses[0]) @ head_poses[i], truth_poses[i])
        samples.head_rotation.append(rotation)
        samples.head_translation.append(translation)
    _measure_attention(passed.attention[-1][0].numpy(), batch, samples)


def _of_one_camera(
    rays: FloatArray, weights: FloatArray, size: tuple[int, int], some: list[int]
) -> Sequence[RayCamera | None]:
    """The cameras, of one K, of some of N ray maps; None for the others."""
    found: list[RayCamera | None] = [None] * len(rays)
    try:
        for i, fit in zip(some, cameras_from_rays(rays[some], weights[some], size), strict=True):
            found[i] = fit
    except ValueError:  # they form none
        pass
    return found


def _calibrated(rays: FloatArray, weights: FloatArray, known: Pinhole) -> RayCamera | None:
    """The camera of a ray map, K known; None where the rays form none."""
    try:
        return camera_from_rays(rays, weights, known.size, known)
    except ValueError:
        return None


def _relative_errors(first: RayCamera | None, other: RayCamera | None, truth: Array) -> tuple[float, float]:
    """Errors in degrees of the pose between two cameras; where one is missing, the worst."""
    if first is None or other is None:
        return 180.0, 180.0
    return pose_errors(se3.inverse(first.T_frame_cam) @ other.T_frame_cam, truth)


def _measure_attention(log_attention: Array, batch: Batch, samples: _Samples) -> None:
    """Compare the place of the highest attention (S - 1, P, ...) in the reference view with the best of the target."""
    target = batch.attention[0].numpy()
    patches, columns = target.shape[-1], batch.images.shape[-1] // PATCH
    true, visible = target.argmax(axis=-1), batch.visible[0].numpy()
    if not visible.any():
        return
    for best, into in (
        (log_attention[..., 1 : 1 + patches].argmax(axis=-1), samples.matched),
        (np.arange(patches), samples.same_place),
    ):
        far = np.maximum(np.abs(best // columns - true // columns), np.abs(best % columns - true % columns))
        into.append(float((far <= 1)[visible].mean()))

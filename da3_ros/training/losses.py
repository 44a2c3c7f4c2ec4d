"""The losses of Depth Anything 3 (arXiv 2511.10647, sections 3.2 and 3.3) and those of the read-outs.

All l1, on targets in the unit of their window (see ``batch``).  Predictions are not rescaled: the network learns the
unit.  Depth D, rays (d, t), P = t + D d; c is a confidence of 1 and above, m marks valid pixels:

    depth      mean over m of  (c / mean c) |D' - D|,  c held fixed
    gradient   mean over m of  |dx D' - dx D| + |dy D' - dy D|
    rays       mean of  |(d', t') - (d, t)|
    certainty  mean of  c e - w log c,  for depth and rays, the error e held fixed
    origins    mean over views of  |mean t' - t|
    turns      mean over views of  |A' - A|,  A the least squares fit of d over pixels, as a camera is fitted
    points     mean over m of  |t' + D' d' - P|
    camera     mean of  |code' - code|

The paper has  c |D' - D| - w log c  as one term.  Its gradient grows as errors fall, c being w / e in the end, until
depth drowns the rays; split as above, pixels weigh the same relative to each other and depth as a whole stays put.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from da3_ros.model.presets import PATCH
from da3_ros.training.batch import Batch
from da3_ros.training.config import LossConfig
from da3_ros.training.passes import Passed
from da3_ros.training.readouts import Read

# Weight of the field of view within the camera loss.  One view tells little of it: its error stays large for long and,
# at the weight of the others, would hide what they have to say.
_FOV = 0.3
# Of a ray's direction and origin, which sum up to 2.  A small turn moves all directions sideways, as a shift of the
# principal point does, and tells itself from that only by how their third component changes over the image.  Origins
# are small numbers of either sign: at a small weight they stay at zero, where an undecided l1 error is least.
_RAY_WEIGHTS = (0.1, 0.1, 0.3, 0.5, 0.5, 0.5)
_DISPLACED = 3.0  # brings displacements, shares of the image, to the size of the other losses


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The parts, before weighting, and their weighted sum."""

    total: Tensor
    parts: dict[str, float]


def losses(config: LossConfig, batch: Batch, passed: Passed, read: Read, dense: Tensor | None) -> Losses:
    """All losses of a batch; ``dense`` are the indices of the views that passed the dense heads (None: all)."""
    depth, valid, rays = (
        x.flatten(0, 1) if dense is None else x.flatten(0, 1)[dense] for x in (batch.depth, batch.valid, batch.rays)
    )
    depth_error, ray_error = (passed.depth - depth).abs(), weighted_ray_error(passed.rays, rays)
    parts = {
        "depth": confident(passed.depth_confidence, depth_error, valid),
        "gradient": gradient_loss(passed.depth, depth, valid),
        "rays": ray_error.mean(),
        "origins": origin_loss(passed.rays, rays),
        "turns": turn_loss(passed.rays, rays),
        "certainty": certainty_loss(passed.depth_confidence, depth_error, valid, config.reward)
        + certainty_loss(passed.ray_confidence, ray_error, None, config.reward),
        "points": point_loss(passed, depth, valid, rays),
        "camera": camera_loss(passed.cameras, batch.cameras),
        "attention": torch.stack([attention_loss(log, batch) for log in passed.attention]).mean(),
        "place": torch.stack([place_loss(p, batch) for p in read.places]).mean(),
        "displacement": torch.stack([displacement_loss(d, batch) for d in read.displacements]).mean(),
        "patches": patch_loss(read, batch),
    }
    total = torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum()
    return Losses(total, {name: float(value.detach()) for name, value in parts.items()})


def early_losses(config: LossConfig, batch: Batch, log_attention: Tensor, log_depth: Tensor) -> Losses:
    """Losses of what there is before the first cross-view block: its attention, and log depth (B, S, P)."""
    parts = {
        "attention": attention_loss(log_attention, batch),
        "patches": log_depth_loss(log_depth, batch),
    }
    total = config.attention * parts["attention"] + config.patches * parts["patches"]
    return Losses(total, {name: float(value.detach()) for name, value in parts.items()})


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under a mask of the same shape; 0 where it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def confident(confidence: Tensor, error: Tensor, valid: Tensor) -> Tensor:
    """Mean of errors (N, H, W) weighted by their confidence, which learns nothing from it."""
    weight = confidence.detach() * valid
    return (weight * error).sum() / weight.sum().clamp(min=1)


def certainty_loss(confidence: Tensor, error: Tensor, valid: Tensor | None, reward: float) -> Tensor:
    """``c e - reward log c``, averaged over valid pixels, for c alone; least at c = reward / e."""
    value = confidence * error.detach() - reward * confidence.log()
    return value.mean() if valid is None else masked_mean(value, valid)


def gradient_loss(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Differences of neighbours (N, H, W), along rows and columns."""
    total = depth.new_zeros(())
    for dim in (1, 2):
        length = depth.shape[dim] - 1
        both = valid.narrow(dim, 1, length) & valid.narrow(dim, 0, length)
        error = depth.diff(dim=dim) - truth.diff(dim=dim)
        total = total + masked_mean(error.abs(), both)
    return total


def weighted_ray_error(rays: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error (...) of rays (..., 6); origins and the depth of directions count more."""
    error = (rays - truth).abs()
    return error @ error.new_tensor(_RAY_WEIGHTS)


def origin_loss(rays: Tensor, truth: Tensor) -> Tensor:
    """Mean origins of views (V, h, w, 6): what is wrong alike all over a view counts beside what is not."""
    return (rays[..., 3:].mean(dim=(1, 2)) - truth[..., 3:].mean(dim=(1, 2))).abs().mean()


def turn_loss(rays: Tensor, truth: Tensor) -> Tensor:
    """Linear part over the image of directions (V, h, w, 6): what of their error moves and turns the fitted camera."""
    height, width = rays.shape[1:3]
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    p = torch.stack([u, v, torch.ones_like(u)], dim=-1).flatten(0, 1)
    fit = torch.linalg.solve(p.T @ p, p.T)  # (3, h w)
    return (fit @ (rays - truth)[..., :3].float().flatten(1, 2)).abs().mean()


def point_loss(passed: Passed, depth: Tensor, valid: Tensor, rays: Tensor) -> Tensor:
    """Points (V, h, w) from predicted depth and rays against the true ones, at the resolution of the rays."""
    size = passed.rays.shape[1:3]

    def shrunk(x: Tensor, mode: str) -> Tensor:
        return nn.functional.interpolate(x[:, None], size, mode=mode)[:, 0]

    true_depth, good = shrunk(depth, "nearest-exact"), shrunk(valid.float(), "nearest-exact") > 0
    points = passed.rays[..., 3:] + shrunk(passed.depth, "bilinear")[..., None] * passed.rays[..., :3]
    truth = rays[..., 3:] + true_depth[..., None] * rays[..., :3]
    return masked_mean((points - truth).abs().mean(dim=-1), good)


def camera_loss(cameras: Tensor, truth: Tensor) -> Tensor:
    """Codes (..., 9): centre, quaternion, field of view."""
    error = (cameras - truth).abs()
    return error[..., :7].mean() + _FOV * error[..., 7:].mean()


def attention_loss(log_attention: Tensor, batch: Batch) -> Tensor:
    """Kullback-Leibler divergence of attention to the true match in the reference view, over visible patches."""
    target = batch.attention
    patches = target.shape[-1]
    log = log_attention[..., 1 : 1 + patches]  # of the reference view, without its camera token
    divergence = (torch.special.xlogy(target, target) - target * log).sum(dim=-1)
    return masked_mean(divergence, batch.visible)


def displacement_loss(displacement: Tensor, batch: Batch) -> Tensor:
    """Displacements (B, S - 1, P, 2) of visible patches, shares of the image."""
    return _DISPLACED * masked_mean((displacement - batch.displacement).abs().mean(dim=-1), batch.visible)


def place_loss(place: Tensor, batch: Batch) -> Tensor:
    """Places (B, S - 1, P, 2) of the matches of visible patches in the reference view, shares of the image."""
    rows, columns = batch.images.shape[-2] // PATCH, batch.images.shape[-1] // PATCH
    v, u = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    middles = torch.stack([u / columns, v / rows], dim=-1).flatten(0, 1)
    return displacement_loss(place - middles, batch)


def patch_loss(read: Read, batch: Batch) -> Tensor:
    """Depth (as its logarithm) and rays in the middle of each patch."""
    # A patch has an even number of rays along its side: its middle lies between the four innermost.
    rays = batch.rays
    rows, columns = batch.images.shape[-2] // PATCH, batch.images.shape[-1] // PATCH
    middles = nn.functional.adaptive_avg_pool2d(rays.flatten(0, 1).permute(0, 3, 1, 2), (rows, columns))
    truth = middles.flatten(2).transpose(1, 2).unflatten(0, rays.shape[:2])
    return 0.5 * log_depth_loss(read.log_depth, batch) + 2 * weighted_ray_error(read.rays, truth).mean()


def log_depth_loss(log_depth: Tensor, batch: Batch) -> Tensor:
    """Logarithm (B, S, P) of depth in the middle of each patch."""
    middle = slice(PATCH // 2, None, PATCH)
    depth, valid = batch.depth[..., middle, middle].flatten(2), batch.valid[..., middle, middle].flatten(2)
    return masked_mean((log_depth - depth.clamp(min=1e-3).log()).abs(), valid)

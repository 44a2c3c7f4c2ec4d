"""Everything that decides a training run: the only home of a default.

Read from YAML and shown with descriptions by the same rules as the configuration of SLAM.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from da3_ros.config import naming, param, read_tree, with_values
from da3_ros.errors import ConfigError
from da3_ros.model.presets import PATCH


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Worlds and how their views are varied."""

    cache: str = param("worlds", "folder of rendered worlds (relative: below the run's folder)")
    motions: str = param("", "folder of recorded hand-held motions in TUM form; empty: the worlds' own walks only")
    worlds: int = param(400, "worlds to train on", low=1, high=100_000)
    views: int = param(64, "views rendered per world", low=8, high=1000)
    taught_views: int = param(8, "frames that a teacher sees together", low=2, high=64)
    judged_worlds: int = param(12, "held-out worlds that judge the network during training", low=1, high=50)
    zoom: float = param(1.33, "largest zoom into a view, which lengthens its focal length", low=1, high=1.33)
    colour: float = param(1.0, "strength of colour, exposure and contrast changes, as a factor", low=0, high=3)
    noise: float = param(1.0, "strength of blur and noise, as a factor", low=0, high=3)


@dataclass(frozen=True, slots=True)
class CurriculumConfig:
    """Which windows are drawn, and when."""

    width: int = param(168, "width of the images, px", low=28)
    height: int = param(126, "height of the images, px", low=28)
    small_width: int = param(112, "width of the images at first, px", low=28)
    small_height: int = param(84, "height of the images at first, px", low=28)
    small_steps: int = param(4000, "steps with small images", low=0)
    within_steps: int = param(
        1500, "first steps, in which the blocks within views learn to match and no other does", low=0
    )
    ramp_steps: int = param(6000, "steps until motion and views have reached their full range", low=0)
    most_views: int = param(6, "views of the largest windows", low=2, high=12)
    least_parallax: float = param(0.01, "least parallax between linked views, share of the depth", low=0)
    first_parallax: float = param(0.35, "most parallax between linked views at first, share of the depth", low=0)
    most_parallax: float = param(0.35, "most parallax between linked views, share of the depth", low=0)
    first_least_rotation_deg: float = param(
        12.0, "least rotation between linked views at first, deg; falls to 0", low=0, high=180
    )
    first_rotation_deg: float = param(45.0, "most rotation between linked views at first, deg", low=0, high=180)
    most_rotation_deg: float = param(35.0, "most rotation between linked views, deg", low=0, high=180)
    first_overlap: float = param(0.4, "least overlap of linked views at first", low=0, high=1)
    least_overlap: float = param(0.4, "least overlap of linked views", low=0, high=1)


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the parts of the loss; the second half is there in training only."""

    depth: float = param(3.0, "depth, weighted by its confidence", low=0)
    gradient: float = param(0.5, "gradients of depth", low=0)
    rays: float = param(10.0, "rays", low=0)
    origins: float = param(15.0, "mean origin of a view's rays, which all are the same point", low=0)
    turns: float = param(15.0, "linear part over the image of ray directions, by which a camera is fitted", low=0)
    points: float = param(0.5, "points made of depth and rays", low=0)
    camera: float = param(15.0, "cameras of the camera head", low=0)
    certainty: float = param(0.1, "what teaches the confidences, which learn from nothing else", low=0)
    reward: float = param(0.2, "reward for confidence: for an error e the best confidence is this / e", low=0)
    attention: float = param(0.5, "attention of one head to the true match, in three cross-view blocks", low=0)
    place: float = param(1.0, "place of the match, read out of what that head brings", low=0)
    displacement: float = param(4.0, "displacement of a patch, read out of the tokens after these blocks", low=0)
    patches: float = param(3.0, "depth and rays of the middle of each patch, read out of the last features", low=0)


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW, with or without Muon, and its schedule."""

    muon: bool = param(True, "Muon for the matrices of the blocks (torch 2.9), AdamW for the rest; else AdamW for all")
    rate: float = param(6e-4, "largest learning rate", low=0)
    last_layers: float = param(0.3, "factor on it for the layers that say cameras, and for read-outs", low=0)
    dense: float = param(2.0, "factor on it for the dense heads", low=0)
    last_share: float = param(0.02, "learning rate at the end, as a share of the largest", low=0, high=1)
    warmup_steps: int = param(300, "steps over which the learning rate rises", low=0)
    weight_decay: float = param(0.05, "weight decay of matrices", low=0)
    clip: float = param(10.0, "largest norm of the network's gradient, and of the read-outs'", low=0)
    average: float = param(
        0.998, "decay of the running mean of the weights, which is judged and exported", low=0, high=1
    )


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A training run."""

    seed: int = param(1, "seed of everything random", low=0)
    steps: int = param(20_000, "steps of the whole schedule", low=1)
    views_per_step: int = param(24, "views per step, split into windows of equal size", low=2)
    dense_share: float = param(0.5, "share of the views that pass the dense heads at a step", low=0, high=1)
    known_camera_share: float = param(0.0, "share of the steps with cameras given", low=0, high=1)
    threads: int = param(1, "threads of torch", low=1)
    bf16: bool = param(False, "autocast to bfloat16; pays on processors that multiply in it")
    way_for_origins: int = param(
        0, "views on which, before the first step of a run from trained weights, a way for origins is fitted", low=0
    )
    save_every: int = param(200, "steps between checkpoints", low=1)
    judge_every: int = param(500, "steps between evaluations on held-out worlds", low=1)
    data: DataConfig = field(default_factory=DataConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


def load(path: Path | None) -> TrainingConfig:
    """Read a YAML file over the defaults; the defaults alone where there is no file.

    Raises:
        ConfigError: one sentence per problem.
    """
    if path is None:
        return TrainingConfig()
    values = read_tree(path)
    with naming(path):
        config = with_values(TrainingConfig(), values)
    sides = config.curriculum
    for side in (sides.width, sides.height, sides.small_width, sides.small_height):
        if side % PATCH:
            raise ConfigError(f"{path}: image sides must be multiples of {PATCH} pixels, not {side}")
    return config

"""How weights are moved: Muon for the matrices of the blocks, AdamW for everything else, under one schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from da3_ros.errors import ModelError
from da3_ros.model.network import Network
from da3_ros.training.config import OptimiserConfig
from da3_ros.training.readouts import Readouts

_BETAS = (0.9, 0.98)


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to ``last_share`` of the largest rate."""
    if step < config.warmup_steps:
        return config.rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.rate * (config.last_share + (1 - config.last_share) * 0.5 * (1 + math.cos(math.pi * share)))


class Optimiser:
    """AdamW, or with it Muon (Jordan et al. 2024) for the matrices of the blocks; matrices and kernels alone decay.

    Muon's steps are scaled to the root mean square that AdamW's have (Liu et al., arXiv 2502.16982, section 2.2), so
    that one rate and one decay serve both.

    A step of Adam moves every weight by the rate, and so the sum of hundreds of normalised features by a hundred times
    as much: more than a small turn's whole quaternion.  Layers that say such numbers go slower.  The dense heads,
    where many narrow layers follow each other, go faster.
    """

    def __init__(self, config: OptimiserConfig, network: Network, readouts: Readouts) -> None:
        """Take the parameters.

        Raises:
            ModelError: this torch has no Muon.
        """
        camera = network.camera
        slow = _ids([readouts, camera.fc_t, camera.fc_qvec, camera.fc_fov])
        fast = _ids([network.neck, network.depth, network.rays])
        of_blocks = {id(p) for p in network.backbone.blocks.parameters() if p.ndim == 2} if config.muon else set()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        matrices: list[nn.Parameter] = []
        for parameter in (*network.parameters(), *readouts.parameters()):
            if id(parameter) in of_blocks:
                matrices.append(parameter)
                continue
            factor = config.last_layers if id(parameter) in slow else config.dense if id(parameter) in fast else 1.0
            decay = config.weight_decay if parameter.ndim >= 2 and parameter.shape[0] > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
        parts = [{"params": ps, "factor": factor, "weight_decay": decay} for (factor, decay), ps in groups.items()]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(parts, lr=config.rate, betas=_BETAS, fused=True),
        ]
        if matrices:
            if not hasattr(torch.optim, "Muon"):
                raise ModelError(
                    f"optimiser.muon needs torch 2.9, and this is {torch.__version__}: update it or set it to false"
                )
            group = {"params": matrices, "factor": 1.0, "weight_decay": config.weight_decay}
            self._parts.append(torch.optim.Muon([group], lr=config.rate, adjust_lr_fn="match_rms_adamw"))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Parameters, with their factor on the rate and their decay."""
        return [group for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Move every parameter along its gradient, at this learning rate."""
        for group in self.groups:
            group["lr"] = rate * group["factor"]
        for part in self._parts:
            part.step()

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a state; factors and decay stay as configured now.

        Raises:
            ModelError: it is the state of other optimisers.
        """
        parts = saved.get("parts", [saved])  # runs before Muon have one
        if len(parts) != len(self._parts):
            raise ModelError(
                "optimiser.muon was another in the saved run; set it back, or start a new run from its weights"
            )
        here = [(group["factor"], group["weight_decay"]) for group in self.groups]
        try:
            for part, state in zip(self._parts, parts, strict=True):
                part.load_state_dict(state)
        except ValueError as error:
            raise ModelError(f"the saved run had other groups of weights ({error}); --start a run from them") from error
        for group, (factor, decay) in zip(self.groups, here, strict=True):
            group.update(factor=factor, weight_decay=decay)


def _ids(modules: Iterable[nn.Module]) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}

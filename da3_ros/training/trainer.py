"""The training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from da3_ros.config import leaves
from da3_ros.errors import ModelError, OutputError
from da3_ros.files import reason, write_atomic
from da3_ros.model.network import Network
from da3_ros.model.presets import Preset
from da3_ros.training import state as states
from da3_ros.training.batch import Batch, BatchMaker
from da3_ros.training.bounds import Bounds
from da3_ros.training.config import TrainingConfig
from da3_ros.training.curriculum import difficulty
from da3_ros.training.initial import initial_network
from da3_ros.training.losses import Losses, early_losses, losses
from da3_ros.training.optimiser import Optimiser, learning_rate
from da3_ros.training.origins import lay_way
from da3_ros.training.passes import first_look, run
from da3_ros.training.readouts import Readouts
from da3_ros.training.worlds import CachedWorld

LOG = "log.jsonl"
_LOG_EVERY = 20  # steps
_DENSE_DRAW = 11  # tells this draw of a step from those of its data

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Until:
    """When to stop."""

    minutes: float = math.inf  # of this sitting
    steps: int | None = None  # in all; None: the whole schedule


class Trainer:
    """A network in training.  One thread and one seed give the same bits, however often the run was resumed."""

    def __init__(
        self, config: TrainingConfig, preset: Preset, worlds: Sequence[CachedWorld], start: Network | None = None
    ) -> None:
        """Start a run, from nothing or from the weights of a trained network.

        Raises:
            ModelError: that network has other sizes.
        """
        self.config, self.preset = config, preset
        self.network = initial_network(preset, config.seed)
        self._bounds = Bounds(self.network.rays)
        keep_last_in_single(self.network)
        self._make = BatchMaker(worlds, config.data, config.seed)
        if start is not None:
            if _sizes(start.preset) != _sizes(preset):
                raise ModelError(f"{start.preset.name} has other sizes than {preset.name}; start from a {preset.name}")
            self.network.load_state_dict(start.state_dict())
            if config.way_for_origins:
                lay_way(self.network, lambda: self._views(config.way_for_origins))
        self.readouts = Readouts(preset)
        self.average = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self._seeds = [world.seed for world in worlds]
        self._optimiser = Optimiser(config.optimiser, self.network, self.readouts)
        self.step, self.minutes = 0, 0.0

    def _views(self, count: int) -> Iterator[Batch]:
        """At least so many views, as the first steps will have them."""
        each, limits = self.config.views_per_step, difficulty(self.config.curriculum, 0)
        for step in range(math.ceil(count / each)):
            yield self._make(step, limits, each)

    def resume(self, saved: states.State) -> None:
        """Go on from a state.

        Raises:
            ModelError: it is of a network of other sizes, or of other optimisers.
        """
        if any(saved.preset.get(name) != value for name, value in _sizes(self.preset).items()):
            raise ModelError("the saved run trains a network of other sizes; start a new run in another folder")
        self._optimiser.resume(saved.optimiser)
        self.network.load_state_dict(saved.network)
        self.readouts.load_state_dict(saved.readouts)
        self.average = saved.average
        self.step, self.minutes = saved.step, saved.minutes

    def state(self) -> states.State:
        """What is needed to go on."""
        return states.State(
            self.step,
            self.minutes,
            self.network.state_dict(),
            self.readouts.state_dict(),
            self.average,
            self._optimiser.state(),
            _sizes(self.preset),
            {leaf.key: leaf.default for leaf in leaves(self.config)},
            self._seeds,
        )

    def averaged(self) -> Network:
        """A copy of the network with the running mean of its weights."""
        network = Network(self.preset)
        network.load_state_dict(self.average)
        return network.eval().requires_grad_(False)

    def train(self, until: Until) -> Iterator[tuple[int, Losses, Row]]:
        """Do steps until it is time to stop, yielding after each its number, losses, and how it went."""
        last = self.config.steps if until.steps is None else min(until.steps, self.config.steps)
        started, before = time.monotonic(), self.minutes
        while self.step < last and time.monotonic() - started < 60 * until.minutes:
            begun = time.monotonic()
            limits = difficulty(self.config.curriculum, self.step)
            batch = self._make(self.step, limits, self.config.views_per_step)
            loaded = time.monotonic()
            rate = learning_rate(self.config.optimiser, self.step, self.config.steps)
            found, norm = self._learn(batch, rate)
            self.step += 1
            now = time.monotonic()
            self.minutes = before + (now - started) / 60
            row = {
                "rate": rate,
                "norm": norm,
                "views": batch.views / batch.images.shape[0],
                "views_per_s": batch.views / (now - begun),
                "loading": (loaded - begun) / (now - begun),
            }
            yield self.step, found, row

    def _learn(self, batch: Batch, rate: float) -> tuple[Losses, float]:
        """One step; returns its losses and the norm of the gradient before clipping."""
        found = self._early(batch) if self.step < self.config.curriculum.within_steps else self._whole(batch)
        self._optimiser.zero_grad()
        found.total.backward()
        # Each by itself: what is thrown away afterwards must not decide how much the network learns from a step.
        norm, other = (
            float(nn.utils.clip_grad_norm_(module.parameters(), self.config.optimiser.clip))
            for module in (self.network, self.readouts)
        )
        if math.isfinite(norm) and math.isfinite(other):  # a step that overflowed is left out
            self._optimiser.step(rate)
            self._bounds.keep()
        decay = min(self.config.optimiser.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.parameters()), 1 - decay)
        return found, norm

    def _early(self, batch: Batch) -> Losses:
        """What the blocks within views have to say."""
        with _precision(self.config.bf16):
            tokens, log_attention = first_look(self.network, batch.images)
            log_depth = self.readouts.early(tokens)
        return early_losses(self.config.loss, batch, log_attention, log_depth)

    def _whole(self, batch: Batch) -> Losses:
        """What the whole network has to say."""
        rng = np.random.default_rng([self.config.seed, self.step, _DENSE_DRAW])
        dense = _dense(rng, batch.views, self.config.dense_share)
        known = batch.cameras if rng.random() < self.config.known_camera_share else None
        with _precision(self.config.bf16):
            passed = run(self.network, batch.images, dense, known)
            read = self.readouts(passed)
        return losses(self.config.loss, batch, passed, read, dense)


class Log:
    """Losses (means since the last line) and verdicts, one JSON object per line."""

    def __init__(self, folder: Path) -> None:
        """Append to the log of a run."""
        self._path = folder / LOG
        self._rows: list[Row] = []

    def add(self, step: int, minutes: float, found: Losses, row: Row) -> Row | None:
        """Take one step in; returns the line that was written, where one was due."""
        self._rows.append({"loss": float(found.total.detach()), **found.parts, **row})
        if step % _LOG_EVERY:
            return None
        known = [key for key in self._rows[-1] if key in self._rows[0]]  # the first steps have fewer parts
        means = {key: float(np.mean([r[key] for r in self._rows])) for key in known}
        self._rows.clear()
        return self.write({"step": step, "minutes": minutes, **means})

    def write(self, row: dict[str, Any]) -> dict[str, Any]:
        """Append one line.

        Raises:
            OutputError: the log cannot be written.
        """
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(rounded) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {reason(error)}; choose another place") from error
        return rounded

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will do again.

        Raises:
            OutputError: the log cannot be written.
        """
        if self._path.exists():
            kept = [json.dumps(row) + "\n" for row in _rows(self._path) if row["step"] <= step]
            write_atomic(self._path, "".join(kept))


def read_log(folder: Path) -> list[Row]:
    """The lines of a run's log."""
    return _rows(folder / LOG)


def _rows(path: Path) -> list[Row]:
    """What can be read of a log: the last line of a run that was killed may be torn."""
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def _dense(rng: np.random.Generator, views: int, share: float) -> Tensor | None:
    """Random views that pass the dense heads; at least one."""
    count = max(1, round(share * views))
    return None if count == views else torch.from_numpy(np.sort(rng.permutation(views)[:count]))


def keep_last_in_single(network: Network) -> None:
    """Have the last layers compute in single precision whatever is around them, as they do where networks run."""
    for module in network.last_layers:
        module.forward = _in_single(module.forward)  # type: ignore[method-assign]


def _in_single(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run_in_single(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return run_in_single


def _precision(bf16: bool) -> AbstractContextManager[Any]:
    if not bf16:
        return nullcontext()
    # Fused attention on a CPU is four times slower in bfloat16 than plain products are.
    both = ExitStack()
    both.enter_context(torch.autocast("cpu", torch.bfloat16))
    both.enter_context(sdpa_kernel(SDPBackend.MATH))
    return both


def _sizes(preset: Preset) -> dict[str, Any]:
    words = ("name", "repository", "licence", "revision", "parameters", "longest")
    return {name: value for name, value in asdict(preset).items() if name not in words}

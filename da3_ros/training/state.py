"""A training run on disk, so that it can go on as if it had never stopped."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from da3_ros.errors import ModelError, OutputError
from da3_ros.files import reason

STATE = "state.pt"


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that the next step depends on besides the configuration."""

    step: int  # steps done; the data of a step follow from the seed and its number
    minutes: float  # spent so far
    network: dict[str, Any]
    readouts: dict[str, Any]
    average: dict[str, Any]  # running mean of the network's weights
    optimiser: dict[str, Any]
    preset: dict[str, Any]  # the sizes of the network
    config: dict[str, Any]  # as it was
    worlds: list[int]  # seeds


def save(path: Path, state: State) -> None:
    """Write a state; the file appears whole or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: getattr(state, name) for name in State.__dataclass_fields__}, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {reason(error)}; choose another place") from error


def load(path: Path) -> State:
    """Read a state.

    Raises:
        ModelError: there is none, or it is none of ours.
    """
    try:
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ModelError(f"there is no {path} to go on from; start without --resume") from None
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is not the state of a training run; start a new run in another folder") from error

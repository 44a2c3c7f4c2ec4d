"""From a network in training to a folder in the released layout."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from da3_ros.model.checkpoint import write_checkpoint
from da3_ros.model.network import Network
from da3_ros.training.bounds import make_room


def export(folder: Path, network: Network, *, half: bool = True, longest: int | None = None) -> None:
    """Write a network as ``model.checkpoint.load`` reads it, in half or single precision.

    Args:
        folder: where to.
        network: in single precision.
        half: write half precision.
        longest: longer side of the images that it was trained on, px, which it then asks for; None: as its preset.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = copy.deepcopy(network)
    make_room(written.rays)
    written = written.to(torch.float16 if half else torch.float32)
    if longest is not None:
        written.preset = replace(network.preset, longest=longest)
    write_checkpoint(folder, written)

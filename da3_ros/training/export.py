"""From a network in training to a folder in the released layout."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from da3_ros.model.checkpoint import write_checkpoint
from da3_ros.model.network import Network


def export(folder: Path, network: Network, *, half: bool = True) -> None:
    """Write a network as ``model.checkpoint.load`` reads it, in half or single precision.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_checkpoint(folder, copy.deepcopy(network).to(torch.float16) if half else network)

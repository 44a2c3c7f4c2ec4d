"""How torch uses the processor during training."""

from __future__ import annotations

import torch


def limit_threads(count: int) -> None:
    """Use so many threads."""
    torch.set_num_threads(count)

"""How torch uses the processor during training."""

from __future__ import annotations

import torch


def limit_threads(count: int) -> None:
    """Use so many threads; numbers too small to matter become 0, as they cost a hundred times the time of others."""
    torch.set_num_threads(count)
    torch.set_flush_denormal(True)

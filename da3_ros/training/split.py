"""Which worlds a network is trained on, and which only judge it."""

from __future__ import annotations

FIRST_TRAINING_SEED = 1_001  # seeds below belong to demos, tests and benchmarks
HELD_OUT_SEEDS = tuple(range(900_001, 900_051))  # never trained on


def training_seeds(count: int, first: int = FIRST_TRAINING_SEED) -> range:
    """Seeds of ``count`` worlds to train on.

    Raises:
        ValueError: they would reach into those of demos and tests, or into the held-out ones.
    """
    seeds = range(first, first + count)
    if first < FIRST_TRAINING_SEED or any(seed in seeds for seed in HELD_OUT_SEEDS):
        raise ValueError(
            f"seeds {first}..{first + count - 1} are not for training: they start at {FIRST_TRAINING_SEED}, and "
            f"{HELD_OUT_SEEDS[0]}..{HELD_OUT_SEEDS[-1]} are held out"
        )
    return seeds

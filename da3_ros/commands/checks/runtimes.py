"""What can run a network here, and what would."""

from __future__ import annotations

from collections.abc import Iterator

from da3_ros.commands.checks.finding import Finding, State
from da3_ros.engine.choice import choose, survey
from da3_ros.engine.gpu import find_gpu
from da3_ros.errors import MissingDependencyError


def check() -> Iterator[Finding]:
    """Every way to run one, best first; then the choice."""
    gpu = find_gpu()
    offers = survey(gpu)
    for offer in offers:
        if offer.usable:
            yield Finding(State.OK, offer.name, offer.why)
        elif offer.device == "cuda" and gpu is None:
            yield Finding(State.INFO, offer.name, offer.why)
        else:
            state = State.WRONG if "does not load" in offer.why and "not installed" not in offer.why else State.MISSING
            yield Finding(state, offer.name, offer.why)
    try:
        choice = choose(offers=offers)
    except MissingDependencyError:
        yield Finding(
            State.MISSING,
            "auto",
            "no network can run here (the simulated one can)",
            "pip install torch safetensors onnx onnxscript onnxruntime",
        )
        return
    yield Finding(State.OK, "auto", f"{choice.name}: {choice.why.split(';')[0]}")

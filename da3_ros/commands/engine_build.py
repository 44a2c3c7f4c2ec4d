"""``da3 engine build``."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from da3_ros.commands import options
from da3_ros.commands.engine_lines import date, megabytes, most_views, verdict

if TYPE_CHECKING:
    from da3_ros.engine.choice import Choice
    from da3_ros.engine.engines import Target
    from da3_ros.engine.store import Entry, Store


def run(arguments: argparse.Namespace) -> int:
    """Make what a model needs, try it, and tell what there is now."""
    from da3_ros.commands.progress import Steps
    from da3_ros.config import Config
    from da3_ros.engine.loader import open_loader

    views = Config().window.size if arguments.views is None else arguments.views
    options.require(1 <= views <= 64, f"--views must be 1 to 64, not {views}")
    choice, target = _wanted(arguments)
    if choice.runtime == "torch":
        sys.stdout.write("torch runs the weights of a model as they are: there is nothing to build for it\n")
        return 0
    _size(arguments, on_gpu=False)  # a mistake in it is told before a model is opened
    with Steps() as tell:
        loader = open_loader(arguments.model, choice=choice, tell=tell)
        size = _size(arguments, on_gpu=choice.device == "cuda", longest=loader.folder.parts[0].preset.longest)
        before = {(entry.key, entry.made) for entry in loader.store.entries()[0]}
        made = loader.make(size, views, target)
    shown = f"{size[0]}x{size[1]}"
    for entry in made:
        was_there = (entry.key, entry.made) in before
        took = f"there already, made {date(entry.made)}" if was_there else f"made in {entry.seconds:.1f} s"
        views_told = most_views(entry)
        most = f", up to {views_told} views" if views_told not in ("", "1") else ""
        _say(
            f"{entry.fields['kind']} of {entry.fields['network']} at {shown}, {choice.precision}{most}: "
            f"{megabytes(entry.size)} MB, {took}"
        )
        _say(f"  {entry.folder}")
    return _tried(loader.store, [e for e in made if e.fields["kind"] == ("engines" if choice.compiled else "graphs")])


def _wanted(arguments: argparse.Namespace) -> tuple[Choice, Target | None]:
    """What runs the model; and what engines are made for, where that is not the GPU at hand."""
    from da3_ros.engine.choice import ahead_of_time, choose
    from da3_ros.engine.engines import Target
    from da3_ros.engine.gpu import find_gpu

    capability = arguments.gpu
    if capability is None:
        choice = choose(arguments.runtime, arguments.device, arguments.precision)
        if not choice.compiled and find_gpu() is None and arguments.runtime == "auto" and arguments.device != "cpu":
            _say(
                "no NVIDIA GPU is here: making graphs for the CPU (--gpu CAPABILITY builds engines for a GPU elsewhere)"
            )
        return choice, None
    options.require(
        re.fullmatch(r"\d{1,2}\.\d", capability) is not None,
        f"--gpu takes a compute capability, such as 8.9 (see developer.nvidia.com/cuda-gpus), not '{capability}'",
    )
    options.require(
        arguments.runtime in ("auto", "tensorrt_rtx") and arguments.device != "cpu",
        "only TensorRT for RTX builds for a GPU that is not here; use --runtime tensorrt_rtx, or build on the machine "
        "that has the GPU",
    )
    choice = ahead_of_time(arguments.precision)
    return choice, Target(choice.runtime, capability, None)


def _size(arguments: argparse.Namespace, *, on_gpu: bool, longest: int | None = None) -> tuple[int, int]:
    from da3_ros.model.preprocess import network_size

    if arguments.size is not None:
        options.require(arguments.size != "auto", "--size is WxH; --image-size finds the size for a camera")
        return network_size(arguments.size, 0, 0, on_gpu=on_gpu)
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", arguments.image_size)
    options.require(
        found is not None and min(int(found[1]), int(found[2])) > 0,
        f"'{arguments.image_size}' is no size; write WIDTHxHEIGHT in pixels, such as 640x480",
    )
    assert found is not None
    return network_size("auto", int(found[1]), int(found[2]), on_gpu=on_gpu, longest=longest)


def _tried(store: Store, made: list[Entry]) -> int:
    """Verify what has not been before, where it can run here."""
    from da3_ros.engine import self_test
    from da3_ros.engine.verify import verify

    failed = False
    for entry in made:
        passed = self_test.passed(entry)
        if passed:
            _say(f"self-test of {entry.fields['network']}: passed before on {', '.join(sorted(passed))}")
            continue
        found = verify(store, entry)
        failed |= bool(found.problem)
        _say(f"self-test of {entry.fields['network']}: {verdict(found)}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

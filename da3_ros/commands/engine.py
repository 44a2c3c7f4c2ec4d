"""``da3 engine``: what takes long to make before a network can run, made beforehand and looked after."""

from __future__ import annotations

import argparse

_KEY = "name of an entry, as 'da3 engine list' shows it; its first characters are enough"
# As in config.NetworkConfig, which is not imported before a command is chosen.
_RUNTIMES = ("auto", "tensorrt", "tensorrt_rtx", "onnxruntime", "torch")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "engine",
        help="build, list, verify and remove graphs and engines of networks",
        description="A network runs as ONNX graphs or as TensorRT engines, for one image size. They are made when they "
        "are first needed, which takes seconds for graphs and minutes for engines; 'build' makes them beforehand. They "
        "are kept in DA3_CACHE (default ~/.cache/da3_ros), a folder that can be copied to another machine.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions)
    listing = actions.add_parser("list", help="what is there, made for what, and whether its self-test was passed")
    listing.set_defaults(run=_list)
    verify = actions.add_parser(
        "verify",
        help="check that what is there is whole and says what the network says",
        description="Check every checksum, and where an entry can be run on this machine, compare what it says with "
        "what the network says. Exit code 1 if anything is wrong.",
    )
    verify.add_argument("keys", nargs="*", metavar="KEY", help=f"{_KEY} (default: all)")
    verify.set_defaults(run=_verify)
    clean = actions.add_parser("clean", help="remove entries")
    clean.add_argument("keys", nargs="*", metavar="KEY", help=_KEY)
    clean.add_argument("--broken", action="store_true", help="what is damaged, and what killed processes have left")
    clean.add_argument("--all", action="store_true", help="everything")
    clean.set_defaults(run=_clean)


def _add_build(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = actions.add_parser(
        "build",
        help="make what a model needs at an image size",
        description="Make the graphs of a model and, for TensorRT, its engines, as the node would when it starts.",
    )
    add = build.add_argument
    add("model", metavar="MODEL", help="a published one ('da3 model list'), owner/name of the hub, or a folder")
    size = build.add_mutually_exclusive_group(required=True)
    size.add_argument("--image-size", metavar="WxH", help="of the camera's images, px; the network's follows from it")
    size.add_argument("--size", metavar="WxH", help="of the network's images, px (network.size of the node)")
    add("--views", type=int, metavar="N", help="most views in a window (default: that of window.size)")
    add("--runtime", default="auto", choices=_RUNTIMES, help="default auto: the best here ('da3 doctor' tells)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto: the GPU where one is usable")
    add(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "fp16", "bf16"),
        help="default auto: the fastest safe one",
    )
    add("--gpu", metavar="CAPABILITY", help="for a GPU that is not here, such as 8.9 (TensorRT for RTX only)")
    build.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> int:
    from da3_ros.commands.engine_build import run

    return run(arguments)


def _list(_: argparse.Namespace) -> int:
    from da3_ros.commands.engine_store import run_list

    return run_list()


def _verify(arguments: argparse.Namespace) -> int:
    from da3_ros.commands.engine_store import run_verify

    return run_verify(arguments.keys)


def _clean(arguments: argparse.Namespace) -> int:
    from da3_ros.commands.engine_store import run_clean

    return run_clean(arguments.keys, broken=arguments.broken, everything=arguments.all)

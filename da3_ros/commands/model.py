"""``da3 model``: what models there are, which of them are here, and what is in them."""

from __future__ import annotations

import argparse
import sys

from da3_ros.errors import MissingDependencyError, ModelError

_WHAT = "da3-tiny, a published model, a repository of the Hugging Face hub (owner/name), or a folder"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "model",
        help="list, download and inspect models",
        description="Models of Depth Anything 3: folders with config.json and model.safetensors. Downloads go to the "
        "cache that the Hugging Face tools share (HF_HOME) and stay at the revision they were downloaded at.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="published models, their size and licence, and which are here")
    listing.set_defaults(run=run_list)
    download = actions.add_parser("download", help="fetch a model into the cache")
    download.add_argument("name", metavar="NAME", help="a published model, or a repository of the hub (owner/name)")
    download.add_argument("--revision", metavar="REV", help="commit, branch or tag (default: the pinned one, or main)")
    download.add_argument("--update", action="store_true", help="ask whether the branch or tag has moved since")
    download.set_defaults(run=run_download)
    info = actions.add_parser("info", help="what a model on this machine holds")
    info.add_argument("name", metavar="MODEL", help=_WHAT)
    info.add_argument("--revision", metavar="REV", help="commit, branch or tag, of a repository")
    info.add_argument("--check", action="store_true", help="also load it, which checks every tensor (needs torch)")
    info.set_defaults(run=run_info)


def run_list(_: argparse.Namespace) -> int:
    """Print one line per published model."""
    from da3_ros.model import hub, presets
    from da3_ros.model.folder import open_folder

    _say(f"{'model':<23}{'parameters':>11}  {'licence':<17}{'views':<6}cached")
    own = open_folder(hub.resolve(presets.TINY.name).folder)
    _say(f"{own.name:<23}{_millions(own.header.parameters):>11}  {own.licence:<17}{'any':<6}comes with da3_ros")
    for name in presets.NAMES:
        known = presets.release(name)
        folder = hub.cached(known.repository, known.revision)
        views = "any" if known.parts[0].any_view else "one"
        state = f"yes, {folder.name[:12]}" if folder is not None else "no"
        _say(f"{name:<23}{_millions(known.parameters):>11}  {known.licence:<17}{views:<6}{state}")
    _say(f"cache: {hub.cache()}")
    return 0


def run_download(arguments: argparse.Namespace) -> int:
    """Fetch a model, then read what can be read without loading it."""
    from da3_ros.commands.progress import Progress
    from da3_ros.model import hub
    from da3_ros.model.folder import open_folder
    from da3_ros.model.presets import NAMES

    bars: dict[str, Progress] = {}

    def tell(file: str, done: int, total: int) -> None:
        if total >= 1_000_000:  # the small files are there at once
            if file not in bars:
                bars[file] = Progress(f"{file}: MB").__enter__()
            bars[file](done // 1_000_000, total // 1_000_000)

    try:
        found = hub.resolve(arguments.name, revision=arguments.revision, update=arguments.update, progress=tell)
    finally:
        for bar in bars.values():
            bar.__exit__()
    opened = open_folder(found.folder)
    if arguments.name in NAMES and opened.name != arguments.name:
        raise ModelError(
            f"{found.repository} at {found.commit} holds {opened.name}, not {arguments.name}; give another --revision"
        )
    _say(f"model: {opened.name}, {_millions(opened.header.parameters)} parameters, licence {_licence(opened.licence)}")
    if found.repository is not None:
        _say(f"from: {found.repository} at {found.commit}")
    _say(f"folder: {found.folder}")
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """Print what a model holds."""
    from da3_ros.model import hub
    from da3_ros.model.folder import card_text, open_folder

    found = hub.resolve(arguments.name, revision=arguments.revision, offline=True)
    opened = open_folder(found.folder)
    header = opened.header
    _say(f"model: {opened.name}")
    _say(f"folder: {found.folder}")
    if found.repository is not None:
        _say(f"repository: {found.repository} at {found.commit}")
    _say(f"licence: {_licence(opened.licence)}")
    for part in opened.parts:
        p = part.preset
        mixing = f"views mixed from block {p.alternate_from}" if p.any_view else "one view at a time, depth and sky"
        _say(f"network: {p.name} at '{part.prefix}': {p.depth} blocks of {p.dim}, {p.heads} heads; {mixing}")
    unread = [name for name in header.tensors if not any(part.reads(name) for part in opened.parts)]
    _say(f"parameters: {header.parameters:,} in {len(header.tensors)} tensors ({len(unread)} read by nobody)")
    _say(f"precision: {', '.join(header.dtypes)}")
    _say(f"weights: {header.path.name}, {header.size:,} bytes")
    if found.repository is None and (card := card_text(found.folder)):
        _say(f"\n{card}\n")
    if arguments.check:
        try:
            from da3_ros.model.checkpoint import load
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"--check loads the model, which needs torch ({error}); install it with: pip install torch safetensors"
            ) from error
        load(opened)
        _say("check: every tensor is there, of the right shape, and finite")
    return 0


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _licence(name: str) -> str:
    return f"{name} (non-commercial use only)" if "-NC" in name.upper() else name


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")

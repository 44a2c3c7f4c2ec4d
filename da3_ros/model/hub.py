"""Models by name: from a folder, from the cache that the Hugging Face tools share, or downloaded into it.

The cache is read without any library, so that a robot needs none; downloading is the hub's own client's business.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import io
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.errors import MissingDependencyError, ModelError
from da3_ros.files import reason
from da3_ros.model.folder import CARD, card_licence
from da3_ros.model.layout import CONFIG, WEIGHTS
from da3_ros.model.presets import KNOWN, NAMES, TINY, release

Progress = Callable[[str, int, int], None]  # file, bytes done, bytes in all

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHIPPED = Path(__file__).parent / "shipped" / TINY.name  # comes with this package


@dataclass(frozen=True, slots=True)
class Located:
    """A model on this machine."""

    folder: Path
    name: str  # as it was asked for
    repository: str | None  # on the hub; None for a local folder
    commit: str | None  # of the repository
    licence: str | None  # None: not known before the folder is read


def resolve(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    update: bool = False,
    progress: Progress | None = None,
) -> Located:
    """Find a model on this machine, or download it.

    What is in the cache is used as it is, however old: a model changes only when ``update`` asks for it or another
    ``revision`` is named.

    Args:
        name: ``da3-tiny``, which is here; a published model (``da3-small``); a repository of the hub
            (``owner/name``); or a folder.
        revision: commit, branch or tag of the repository; default that of the published model, else ``main``.
        offline: never use the network.
        update: ask the hub whether the branch or tag has moved.
        progress: told of each file while it is downloaded.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded; the sentence says what to do.
        MissingDependencyError: it must be downloaded and huggingface_hub is not installed.
    """
    folder = _SHIPPED if name == TINY.name else Path(name).expanduser()
    if name and name not in NAMES and folder.is_dir():
        if revision is not None:
            raise ModelError(f"{name} is a folder, which has no revision '{revision}'; leave the revision out")
        return Located(folder, name, None, None, None)
    repository, wanted, licence = _address(name, revision)
    found = cached(repository, wanted)
    if found is None or update:
        if offline:
            raise ModelError(
                f"{name} ({repository}, revision {wanted}) is not in the cache {cache()}; run "
                f"'da3 model download {name}' while online"
            )
        found = _download(repository, wanted, progress)
    return Located(found, name, repository, found.name, licence or card_licence(found))


def is_name(name: str) -> bool:
    """Whether this can name a model at all: a published one, an existing folder, or owner/name."""
    return name in KNOWN or Path(name).expanduser().is_dir() or _REPOSITORY.fullmatch(name) is not None


def cached(repository: str, revision: str) -> Path | None:
    """The folder of a complete model in the cache, or None."""
    home = cache() / f"models--{repository.replace('/', '--')}"
    try:
        commit = (home / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    folder = home / "snapshots" / commit
    return folder if all((folder / file).is_file() for file in (CONFIG, WEIGHTS)) else None


def cache() -> Path:
    """Where the hub's tools keep what they have downloaded."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(place)).expanduser()


def _address(name: str, revision: str | None) -> tuple[str, str, str | None]:
    """Repository, revision and licence of what is no folder here."""
    if name in NAMES:
        known = release(name)
        return known.repository, revision or known.revision, known.licence
    if Path(name).expanduser().is_file():
        raise ModelError(f"{name} is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(
            f"there is no model '{name}'; use one of {', '.join(KNOWN)}, a repository of the hub (owner/name), or a "
            f"folder with {CONFIG} and {WEIGHTS}"
        )
    return name, revision or "main", None


def _download(repository: str, revision: str, progress: Progress | None) -> Path:
    """Fetch the files of one commit; returns their folder, named after the commit."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingDependencyError(
            f"{repository} must be downloaded, which needs huggingface_hub ({error}); install it with: pip install "
            f"huggingface_hub  (or copy {CONFIG} and {WEIGHTS} into a folder and give that folder)"
        ) from error

    tells = "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters  # not in old versions

    def fetch(file: str, at: str) -> Path:
        options: dict[str, Any] = {"tqdm_class": _bar(file, progress)} if tells else {}
        with warnings.catch_warnings():
            # The client only warns, and then fills the disk.
            warnings.filterwarnings("error", message="Not enough free disk space")
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=at, **options))

    # Its versions speak HTTP through different libraries, whose errors are told by their common root.
    failures: tuple[type[Exception], ...] = (OSError, ValueError, UserWarning, *errors.HfHubHTTPError.__bases__)
    try:
        # Asked once, so that a mistake or a missing network shows at once: the client tries again for half a minute.
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, CONFIG, revision=revision))
        folder = fetch(CONFIG, revision).parent
        # Everything else from the same commit, whatever the branch does meanwhile.
        with contextlib.suppress(errors.EntryNotFoundError):  # no card, no licence: said so where it is shown
            fetch(CARD, folder.name)
        weights = fetch(WEIGHTS, folder.name)
    except failures as error:
        raise ModelError(_sentence(repository, revision, error)) from error
    _verify(weights)
    return folder


def _bar(file: str, progress: Progress | None) -> type[Any]:
    """A progress bar for the client that shows nothing but tells ``progress``."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **{**options, "disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if progress is not None:
                progress(file, int(self.n), int(self.total or 0))
            return shown

    return Bar


def _verify(weights: Path) -> None:
    """Compare large files with the checksum under which the cache stores them; a damaged one is removed."""
    stored = weights.resolve()
    if not _SHA256.fullmatch(stored.name):
        return  # this file system has no links, or the hub keeps no checksum of it
    digest = hashlib.sha256()
    with stored.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != stored.name:
        stored.unlink()
        weights.unlink()
        raise ModelError(f"{weights} was damaged on its way (its checksum is wrong) and has been removed; try again")


def _sentence(repository: str, revision: str, error: Exception) -> str:
    """What went wrong and what to do, by kind of failure."""
    from huggingface_hub import errors

    what = f"cannot download {repository} (revision {revision}): "
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if isinstance(error, errors.GatedRepoError):
        return f"{what}its owner wants to be asked first; accept the terms on {endpoint}/{repository} and log in"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what}there is no such repository on {endpoint}, or it is private; check the name, or log in"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what}there is no such commit, branch or tag; check the revision"
    if isinstance(error, errors.HFValidationError):
        return f"{what}this is no name of a repository; write owner/name"
    if os.environ.get("HF_HUB_OFFLINE"):
        return f"{what}it is not in the cache {cache()} and HF_HUB_OFFLINE forbids the network; unset it"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{what}it does not hold {CONFIG} and {WEIGHTS}; use a repository with a Depth Anything 3 model"
    if isinstance(error, UserWarning) or getattr(error, "errno", None) == errno.ENOSPC:
        return f"{what}the disk of {cache()} is too full; make room, or let HF_HOME name a folder on another disk"
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        return f"{what}{endpoint} answered {status}; try again later"
    if isinstance(error, PermissionError):
        return f"{what}cannot write into {cache()}: {reason(error)}; change its owner, or let HF_HOME name another"
    if getattr(error, "errno", None) is not None and not isinstance(error, ConnectionError):
        return f"{what}{reason(error)}; check {cache()}"
    told = str(error).strip().splitlines()
    return (
        f"{what}the connection to {endpoint} failed ({told[0] if told else type(error).__name__}); check the network, "
        "or copy the folder from a machine that has it"
    )

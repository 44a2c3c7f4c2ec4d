"""Published models that are here, and whether more can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator

from da3_ros.commands.checks import library
from da3_ros.commands.checks.finding import Finding, State
from da3_ros.commands.checks.library import Library
from da3_ros.model import hub, presets

_CLIENT = Library("huggingface_hub", ("huggingface_hub",), "1.0", "downloads of models")
_YES = {"1", "ON", "YES", "TRUE"}  # as that library reads it


def check() -> Iterator[Finding]:
    """Those in the cache, one line for the others, and what downloads them."""
    elsewhere = []
    for name in presets.NAMES:
        known = presets.release(name)
        folder = hub.cached(known.repository, known.revision)
        if folder is None:
            elsewhere.append(name)
        else:
            yield Finding(State.OK, name, f"here, licence {_licence(known.licence)}")
    if elsewhere:
        fix = f"'da3 model download {elsewhere[0]}' fetches one into {hub.cache()}"
        yield Finding(State.INFO, "not downloaded", ", ".join(elsewhere), fix)
    yield library.check(_CLIENT)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        yield Finding(State.INFO, "HF_HUB_OFFLINE", "is set: nothing is downloaded", "unset it to download models")


def _licence(name: str) -> str:
    return f"{name} (non-commercial use only)" if "-NC" in name else name

"""Models by name: the cache, downloads from a hub on this machine, and what is said when something is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from model_fake_hub import FakeHub, Repository, serve

from da3_ros.errors import ModelError
from da3_ros.model import hub
from da3_ros.model.layout import CONFIG, WEIGHTS
from da3_ros.model.presets import NAMES, PRESETS, release

ROOT = Path(hub.__file__).parents[2]
OLD, NEW = "a" * 40, "b" * 40
FILES = {
    CONFIG: b'{"model_name": "da3-tiny"}',
    WEIGHTS: bytes(range(256)) * 8,
    "README.md": b"---\nlicense: mit\n---\n",
}
NEWER = {**FILES, WEIGHTS: bytes(range(255, -1, -1)) * 8}

# Asks for each of the given models and prints what came of it, as one line of JSON; optionally without the library.
ASK = """
import json, sys
from da3_ros.errors import Da3Error
from da3_ros.model import hub
for name, options in json.loads(sys.argv[1]):
    if options.pop("without_library", False):
        sys.modules["huggingface_hub"] = None
    told = []
    try:
        found = hub.resolve(name, progress=lambda *x: told.append(x), **options)
        print(json.dumps({"folder": str(found.folder), "commit": found.commit, "licence": found.licence, "told": told}))
    except Da3Error as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache for every test."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def fake():
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with serve(FakeHub({"owner/model": Repository({OLD: FILES, NEW: NEWER}, {"main": OLD})})) as running:
        yield running


def ask(fake: FakeHub | None, *wishes: tuple[str, dict], **environment: str) -> list[dict]:
    """Results of asking for models in a process of its own: the client reads its address once, when it is imported."""
    url = {"HF_ENDPOINT": fake.url} if fake is not None else {}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(wishes)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **url, "NO_PROXY": "127.0.0.1", **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_download_then_use_offline(fake, home):
    first, again, offline = ask(fake, ("owner/model", {}), ("owner/model", {}), ("owner/model", {"offline": True}))
    folder = Path(first["folder"])
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert (first["commit"], first["licence"]) == (OLD, "mit")
    assert folder.is_relative_to(home / "hub")
    assert first["told"][-1] == [WEIGHTS, len(FILES[WEIGHTS]), len(FILES[WEIGHTS])]
    assert again == offline == {**first, "told": []}
    assert len(fake.asked) == len(FILES), "what is in the cache is not asked for again"


def test_a_model_moves_only_when_asked_to(fake):
    ask(fake, ("owner/model", {}))
    fake.repositories["owner/model"].branches["main"] = NEW
    stays, moves, kept = ask(
        fake, ("owner/model", {}), ("owner/model", {"update": True}), ("owner/model", {"revision": OLD})
    )
    assert (stays["commit"], moves["commit"], kept["commit"]) == (OLD, NEW, OLD)
    assert (Path(moves["folder"]) / WEIGHTS).read_bytes() == NEWER[WEIGHTS]
    assert ask(fake, ("owner/model", {}))[0]["commit"] == NEW


def test_all_files_are_of_one_commit(fake):
    """The branch moves between two files."""
    repository = fake.repositories["owner/model"]

    class Moving(dict):
        def get(self, file, *default):
            if file == CONFIG and any(asked.startswith("owner/model/") for asked in fake.asked):
                repository.branches["main"] = NEW
            return super().get(file, *default)

    repository.commits[OLD] = Moving(FILES)
    (found,) = ask(fake, ("owner/model", {}))
    assert (Path(found["folder"]) / WEIGHTS).read_bytes() == (FILES if found["commit"] == OLD else NEWER)[WEIGHTS]


def test_published_models_come_at_their_pinned_commit(fake):
    known = release("da3-small")
    fake.repositories[known.repository] = Repository({known.revision: FILES, NEW: NEWER}, {"main": NEW})
    (found,) = ask(fake, ("da3-small", {}))
    assert (found["commit"], found["licence"]) == (known.revision, "Apache-2.0")
    assert hub.cached(known.repository, known.revision) == Path(found["folder"])


def test_every_published_model_is_pinned():
    for name in NAMES:
        known = release(name)
        assert re.fullmatch("[0-9a-f]{40}", known.revision)
        assert known.parameters == sum(part.parameters for part in known.parts)
    assert len({p.revision for p in PRESETS.values()}) == len(PRESETS)


def test_a_broken_connection(fake):
    """Newer clients take it up again by themselves; with older ones a second try succeeds."""
    fake.repositories["owner/model"].cut_at = 1000
    first, second = ask(fake, ("owner/model", {}), ("owner/model", {}))
    assert (Path(second["folder"]) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert first["folder"] == second["folder"] if "folder" in first else "check the network" in first["error"]
    assert sum(WEIGHTS in asked for asked in fake.asked) == 2


@pytest.mark.parametrize(
    ("name", "options", "misbehaviour", "words"),
    [
        ("owner/nothing", {}, {}, "there is no such repository on http://127.0.0.1"),
        ("owner/model", {"revision": "v9"}, {}, "there is no such commit, branch or tag"),
        ("owner/model", {}, {"refused": (403, "GatedRepo")}, "its owner wants to be asked first; accept the terms on"),
        ("owner/model", {}, {"refused": (503, "")}, "answered 503; try again later"),
        (
            "owner/model",
            {},
            {"commits": {OLD: {"config.json": b"{}"}}},
            "it does not hold config.json and model.safeten",
        ),
        ("owner/model", {}, {"commits": {OLD: {"other.bin": b"{}"}}}, "it does not hold config.json and model.safeten"),
        ("owner/model", {}, {"claimed_size": 10**15}, "is too full; make room, or let HF_HOME name"),
        ("owner/model", {}, {"damaged": True}, "was damaged on its way"),
        ("owner/mo--del", {}, {}, "write owner/name"),
    ],
)
def test_what_can_go_wrong(fake, name, options, misbehaviour, words):
    for key, value in misbehaviour.items():
        setattr(fake.repositories["owner/model"], key, value)
    refused, after = ask(fake, (name, options), (name, {**options, "offline": True}))
    assert words in refused["error"]
    assert "\n" not in refused["error"]
    assert "is not in the cache" in after["error"], "half a model must not be taken for a whole one"


def test_after_damage_the_next_try_succeeds(fake):
    fake.repositories["owner/model"].damaged = True
    assert "damaged" in ask(fake, ("owner/model", {}))[0]["error"]
    fake.repositories["owner/model"].damaged = False
    assert ask(fake, ("owner/model", {}))[0]["commit"] == OLD


def test_no_network(fake):
    silent = FakeHub(url="http://127.0.0.1:9")  # the discard port: nobody listens
    (refused,) = ask(silent, ("da3-small", {}))
    assert "the connection to http://127.0.0.1:9 failed" in refused["error"]
    assert "copy the folder from a machine that has it" in refused["error"]


def test_the_network_may_be_forbidden(fake):
    (refused,) = ask(fake, ("owner/model", {}), HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids the network; unset it" in refused["error"]
    ask(fake, ("owner/model", {}))
    assert ask(fake, ("owner/model", {}), HF_HUB_OFFLINE="1")[0]["commit"] == OLD


def test_a_place_that_cannot_be_written(fake, home):
    home.write_text("a file where the cache should be")
    (refused,) = ask(fake, ("owner/model", {}))
    assert re.search("not a directory|file exists", refused["error"])
    assert str(home) in refused["error"]


def test_without_the_library(home):
    (refused,) = ask(None, ("da3-small", {"without_library": True}))
    assert refused["kind"] == "MissingDependencyError"
    assert "pip install huggingface_hub" in refused["error"]


def fill(home: Path, repository: str, commit: str, branch: str | None = None) -> Path:
    """A model in the cache, laid out as the hub's tools do."""
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    if branch is not None:
        (place / "refs").mkdir()
        (place / "refs" / branch).write_text(commit)
    return folder


def test_the_cache_is_read_without_the_library(home):
    known = release("da3-base")
    folder = fill(home, known.repository, known.revision)
    own = fill(home, "owner/model", NEW, "main")
    found, other = ask(None, ("da3-base", {"without_library": True}), ("owner/model", {}))
    assert Path(found["folder"]) == folder
    assert (Path(other["folder"]), other["licence"]) == (own, "mit")


def test_the_cache_is_where_the_library_has_it(home, monkeypatch):
    client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    fill(home, "owner/model", NEW, "main")
    found = client.try_to_load_from_cache("owner/model", CONFIG, cache_dir=home / "hub")
    assert Path(found).parent == hub.cached("owner/model", "main")
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    for environment in ({"HF_HOME": "/a"}, {"HF_HUB_CACHE": "/b"}, {"HF_HOME": "", "XDG_CACHE_HOME": "/c"}, {}):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value) if value else patch.delenv(name)
            theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            assert Path(theirs.strip()) == hub.cache()


def test_folders_come_first_but_for_published_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    (tmp_path / "da3-small").mkdir()
    assert hub.resolve("owner/model", offline=True).folder == Path("owner/model")
    assert hub.resolve("./da3-small", offline=True).folder == Path("da3-small")
    with pytest.raises(ModelError, match=r"is not in the cache .*; run 'da3 model download da3-small' while online"):
        hub.resolve("da3-small", offline=True)
    with pytest.raises(ModelError, match="is a folder, which has no revision"):
        hub.resolve("owner/model", revision="main")
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ModelError, match="is a file; give the folder"):
        hub.resolve("model.safetensors")
    for name in ("da3-smal", "a/b/c", "/nowhere/at/all", ""):
        with pytest.raises(
            ModelError, match=r"there is no model '.*'; use one of da3-tiny, da3-small, .*, or a folder"
        ):
            hub.resolve(name)

"""The store: whole or not at all, made once, and never trusted blindly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from da3_ros.engine.store import Entry, Store, default_folder, key_of, read_entry
from da3_ros.errors import EngineError, OutputError

FIELDS = {"kind": "graphs", "network": "da3-tiny", "size": "56x42", "precision": "fp32"}
KEY = key_of(FIELDS)
WHAT = "graphs of da3-tiny at 56x42"
# A process that makes the entry: says so, and takes until it is told to go on.
MAKER = """
import sys
from pathlib import Path
from da3_ros.engine.store import Store
import test_engine_store as here

def write(place):
    print("writing", flush=True)
    (place / "a.onnx").write_bytes(b"of " + sys.argv[2].encode())
    sys.stdin.readline()
    return {}

entry = Store(Path(sys.argv[1])).make(here.FIELDS, write, lambda what, _: print(what, flush=True), what=here.WHAT)
print("has", entry.path("a.onnx").read_text(), flush=True)
"""


class Maker:
    """Counts how often the content is made."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content, self.count, self.told = content, 0, list[str]()

    def __call__(self, place: Path) -> dict[str, str]:
        self.count += 1
        (place / "a.onnx").write_bytes(self.content)
        (place / "b.npy").write_bytes(b"more")
        return {"torch": "2.4"}

    def made(self, store: Store) -> Entry:
        return store.make(FIELDS, self, lambda what, _: self.told.append(what), what=WHAT)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def maker() -> Maker:
    return Maker()


def process(folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def test_an_entry_is_made_once_and_found_again(store, maker):
    assert store.find(FIELDS) is None
    assert not store.folder.exists()  # looking makes nothing
    made = maker.made(store)
    assert made.key == KEY
    assert made.path("a.onnx").read_bytes() == b"content"
    assert made.size == len(b"content") + len(b"more")
    assert made.about == {"torch": "2.4"}
    assert store.find(FIELDS) == made
    assert maker.made(store) == made
    assert maker.count == 1
    assert store.entries() == ([made], [])


def test_the_key_depends_on_every_field_and_not_on_their_order():
    assert key_of(dict(reversed(FIELDS.items()))) == KEY
    others = {key_of(FIELDS | {name: "other"}) for name in FIELDS} | {key_of(FIELDS | {"more": "x"})}
    assert len(others | {KEY}) == len(FIELDS) + 2


def test_two_processes_make_it_once(store):
    first = process(store.folder, "first")
    assert first.stdout.readline() == "writing\n"
    second = process(store.folder, "second")
    assert second.stdout.readline() == f"waiting for another process that is making {WHAT}\n"
    assert first.communicate("go on\n", timeout=30)[0] == "has of first\n"
    assert second.communicate(timeout=30)[0] == "has of first\n"


def test_a_killed_process_leaves_nothing_that_counts(store, maker):
    victim = process(store.folder, "victim")
    assert victim.stdout.readline() == "writing\n"
    assert store.sweep() == 0  # it is at work
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=30)
    (left,) = store.leftovers()
    assert store.find(FIELDS) is None
    assert store.entries() == ([], [])
    assert maker.made(store).path("a.onnx").read_bytes() == b"content"
    assert not left.exists()
    left.mkdir()
    (left / "a").write_bytes(b"123")
    assert store.sweep() == 3
    assert not store.leftovers()


def test_a_failed_attempt_leaves_nothing(store, maker):
    def fail(place: Path) -> dict[str, str]:
        (place / "half").write_bytes(b"half")
        raise EngineError("cannot be compiled")

    with pytest.raises(EngineError, match="cannot be compiled"):
        store.make(FIELDS, fail, lambda *_: None, what=WHAT)
    assert not store.leftovers()
    assert store.find(FIELDS) is None
    assert maker.made(store).size


def side_car(folder: Path, **changes: object) -> None:
    told = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps(told | changes))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "a.onnx").write_bytes(b"CONTENT"), "a.onnx is damaged"),
        (lambda f: (f / "a.onnx").write_bytes(b"con"), "a.onnx is damaged"),
        (lambda f: (f / "b.npy").unlink(), "b.npy cannot be read"),
        (lambda f: (f / "entry.json").unlink(), "is no entry of ours"),
        (lambda f: (f / "entry.json").write_text("{"), "is no entry of ours"),
        (lambda f: (f / "entry.json").write_text("[1, 2]"), "is no entry of ours"),
        (lambda f: (f / "entry.json").write_bytes(b"\xff\xfe"), "is no entry of ours"),
        (lambda f: side_car(f, files={"a.onnx": {"size": float("inf"), "sha256": ""}}), "is no entry of ours"),
        (lambda f: side_car(f, files={}), "lists no files of its own"),
        (lambda f: side_car(f, files={"../a": {"size": 1, "sha256": ""}}), "lists no files of its own"),
        (lambda f: side_car(f, format=99), "describes another content than its name says"),
        (lambda f: side_car(f, fields=FIELDS | {"size": "70x42"}), "describes another content than its name says"),
    ],
)
def test_damage_is_refused_with_one_sentence_and_made_anew(store, maker, damage, sentence):
    folder = maker.made(store).folder
    damage(folder)
    with pytest.raises(EngineError, match=sentence) as refused:
        store.find(FIELDS)
    assert str(refused.value).endswith(f"; remove it with 'da3 engine clean {KEY}'")
    assert "\n" not in str(refused.value)
    assert maker.made(store).path("a.onnx").read_bytes() == b"content"
    assert maker.count == 2
    assert [told for told in maker.told if sentence in told and told.endswith(": making it anew")]
    assert store.find(FIELDS) is not None


def test_an_entry_under_another_name_is_refused(store, maker):
    folder = maker.made(store).folder
    moved = folder.rename(folder.parent / ("0" * len(KEY)))
    with pytest.raises(EngineError, match="describes another content than its name says"):
        read_entry(moved)
    entries, (sentence,) = store.entries()
    assert entries == []
    assert str(moved) in sentence


def test_what_is_not_ours_is_neither_judged_nor_removed(store, maker):
    maker.made(store)
    photos = store.folder / "photos"
    photos.mkdir()
    assert store.entries()[1] == []
    for name in ("photos", "", ".", "..", f"../{store.folder.name}/{KEY}", f".{KEY}.lock"):
        with pytest.raises(EngineError, match="there is no entry"):
            store.remove(name)
    assert photos.is_dir()
    assert store.find(FIELDS) is not None


def test_remove(store, maker):
    entry = maker.made(store)
    (entry.folder / "kernels.cache").write_bytes(b"x" * 100)  # what comes later counts too
    size = sum(path.stat().st_size for path in entry.folder.iterdir())
    assert store.remove(KEY) == size
    assert list(store.folder.iterdir()) == []
    with pytest.raises(EngineError, match="there is no entry"):
        store.remove(KEY)


def test_removing_waits_for_who_is_making_it(store, maker):
    maker.made(store)
    (store.folder / KEY / "a.onnx").write_bytes(b"damaged")  # so that it is made anew
    busy = process(store.folder, "busy")
    assert "damaged" in busy.stdout.readline()
    assert busy.stdout.readline() == "writing\n"
    told = []

    def tell(what: str, _: float | None) -> None:
        told.append(what)
        busy.stdin.write("go on\n")
        busy.stdin.flush()

    assert store.remove(KEY, tell) > 0
    assert told == [f"waiting for another process that is making {KEY}"]
    busy.communicate(timeout=30)
    assert store.find(FIELDS) is None
    assert not store.leftovers()


def test_a_store_that_cannot_be_written_is_still_read(maker, tmp_path):
    """A file where the folder of locks would be: nothing can be written there, whoever asks."""
    place = tmp_path / "a file"
    place.write_text("")
    with pytest.raises(OutputError, match=r"cannot write into .*a file: .*; let DA3_CACHE name another folder"):
        maker.made(Store(place))
    store = Store(tmp_path / "store")
    entry = maker.made(store)
    lock = store.folder / f".{KEY}.lock"
    lock.unlink()
    lock.mkdir()  # the lock cannot be opened for writing
    assert maker.made(store) == entry
    (entry.folder / "a.onnx").write_bytes(b"damaged")
    with pytest.raises(OutputError, match="cannot write into"):
        maker.made(store)
    (entry.folder / "note.json").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*note\.json"):
        entry.note("note", {})


def test_an_unreadable_store_is_told_of(tmp_path):
    place = tmp_path / "a file"
    place.write_text("")
    with pytest.raises(EngineError, match=r"cannot read .*a file.*; let DA3_CACHE name another folder"):
        Store(place).entries()


def test_notes(store, maker):
    entry = maker.made(store)
    assert entry.noted("self_tests") is None
    entry.note("self_tests", {"onnxruntime": {"depth": 1e-6}})
    assert entry.noted("self_tests") == {"onnxruntime": {"depth": 1e-6}}
    assert store.find(FIELDS) == entry  # notes are no part of it
    for content in (b"", b"[1]", b"{", b"\xff"):
        (entry.folder / "self_tests.json").write_bytes(content)
        assert entry.noted("self_tests") is None


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DA3_CACHE", "~/engines")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / "engines"
    monkeypatch.delenv("DA3_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert Store().folder == tmp_path / ".cache" / "da3_ros"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_folder() == tmp_path / "x" / "da3_ros"

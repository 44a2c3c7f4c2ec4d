"""``da3 engine build|list|verify|clean`` as a person uses them, with a tiny network on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
for needed in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")
from tiny_model import tiny_model  # noqa: E402

from da3_ros.cli import main  # noqa: E402
from da3_ros.engine import self_test  # noqa: E402
from da3_ros.engine.choice import choose  # noqa: E402
from da3_ros.engine.gpu import find_gpu  # noqa: E402
from da3_ros.engine.loader import Loader  # noqa: E402
from da3_ros.engine.store import Store, key_of, read_entry  # noqa: E402
from da3_ros.errors import EngineError  # noqa: E402
from da3_ros.model.folder import open_folder  # noqa: E402
from da3_ros.model.preprocess import network_size  # noqa: E402

ON_CPU = ("--runtime", "onnxruntime", "--device", "cpu")
LABEL = re.compile(r"onnxruntime cpu fp32 \d+\.\d+")


def da3(*words: object) -> int:
    """Run one command in this process; the exit code, also of a usage error."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny-mono"), mono=True)


@pytest.fixture(scope="session")
def building(model, tmp_path_factory) -> tuple[Path, str]:
    """A store in which the graphs of the model at 56x42 have been built, which nobody changes; what was printed."""
    folder = tmp_path_factory.mktemp("built")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("DA3_CACHE", str(folder))
        assert da3("engine", "build", model, "--size", "56x42", *ON_CPU) == 0
    return folder, printed.getvalue()


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Store:
    """Where the commands look; empty."""
    monkeypatch.setenv("DA3_CACHE", str(tmp_path / "store"))
    return Store()


@pytest.fixture
def filled(store, building) -> Store:
    """The same store where the commands look, and its self-test still to be run."""
    shutil.copytree(building[0], store.folder)
    for note in store.folder.glob("*/self_tests.json"):
        note.unlink()
    return store


def only(store: Store) -> str:
    ((entry,), broken) = store.entries()
    assert not broken
    return entry.key


def test_an_empty_store(capsys, store):
    for action in ("list", "verify"):
        assert da3("engine", action) == 0
        assert capsys.readouterr().out == (
            f"{store.folder} holds no graphs and no engines yet; 'da3 engine build MODEL --image-size WxH' makes some\n"
        )
    assert da3("engine", "clean", "--all") == 0
    assert capsys.readouterr().out == f"0 bytes freed in {store.folder}\n"


def test_build_makes_it_and_tries_it(building):
    folder, out = building
    key = only(Store(folder))
    assert re.search(r"^graphs of da3metric-tiny at 56x42, fp32: \d\.\d MB, made in \d+\.\d s$", out, re.MULTILINE)
    assert f"  {folder / key}\n" in out
    assert re.search(
        r"^self-test of da3metric-tiny: passed on onnxruntime cpu fp32 \S+ \S+ \(differs by", out, re.MULTILINE
    )
    (where,) = self_test.passed(read_entry(folder / key))
    assert LABEL.match(where)


def test_build_finds_what_is_there(capsys, filled, model):
    key = only(filled)
    for said in ("passed on onnxruntime cpu fp32", "passed before on onnxruntime cpu fp32"):
        assert da3("engine", "build", model, "--size", "56x42", *ON_CPU) == 0
        captured = capsys.readouterr()
        assert "MB, there already, made 20" in captured.out
        assert f"self-test of da3metric-tiny: {said}" in captured.out
        assert "exporting" not in captured.err
    assert only(filled) == key
    # What opens the network finds everything.
    loader = Loader(open_folder(model), choose("onnxruntime", "cpu"), build=False)
    loader.looker((56, 42)).close()


def test_the_size_follows_from_the_camera():
    assert network_size("auto", 640, 480, on_gpu=False) == (280, 210)
    assert network_size("auto", 640, 480, on_gpu=True) == (504, 378)
    assert network_size("56x42", 640, 480, on_gpu=True) == (56, 42)
    assert network_size("auto", 640, 480, on_gpu=True, longest=112) == (112, 84)


def test_the_size_that_is_built_is_the_one_that_the_predictor_asks_for(filled, model):
    """Forbidden to build, it names the size it was asked for."""
    loader = Loader(open_folder(model), choose("onnxruntime", "cpu"), build=False)
    with pytest.raises(EngineError, match="at 280x210 yet"):
        loader.make(network_size("auto", 1280, 960, on_gpu=False), 8)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "one of the arguments --image-size --size is required"),
        (("--size", "100x70"), "the network cannot take 100x70: sides must be multiples of 14; try 98x70"),
        (("--size", "auto"), "--size is WxH; --image-size finds the size for a camera"),
        (("--image-size", "640"), "'640' is no size; write WIDTHxHEIGHT in pixels, such as 640x480"),
        (("--image-size", "0x480"), "'0x480' is no size"),
        (("--size", "56x42", "--views", "0"), "--views must be 1 to 64, not 0"),
        (("--size", "56x42", "--gpu", "ada"), "--gpu takes a compute capability, such as 8.9"),
        (
            ("--size", "56x42", "--gpu", "8.9", "--runtime", "tensorrt"),
            "only TensorRT for RTX builds for a GPU that is",
        ),
        (("--size", "56x42", "--gpu", "8.9", "--device", "cpu"), "only TensorRT for RTX builds for a GPU that is not"),
    ],
)
def test_mistakes(capsys, store, model, words, sentence):
    assert da3("engine", "build", model, *words) == 2
    assert sentence in capsys.readouterr().err
    assert not store.folder.exists()


def test_torch_needs_nothing(capsys, store):
    assert da3("engine", "build", "no such model", "--size", "56x42", "--runtime", "torch") == 0
    assert capsys.readouterr().out.endswith("there is nothing to build for it\n")
    assert not store.folder.exists()


def test_what_may_not_be_built_says_how_to(store, model):
    loader = Loader(open_folder(model), choose("onnxruntime", "cpu"), build=False)
    with pytest.raises(EngineError, match=f"make them with 'da3 engine build {model} --size 56x42'"):
        loader.looker((56, 42))


def test_list(capsys, filled):
    (filled.folder / ("0" * 24)).mkdir()
    (filled.folder / f".{'1' * 24}.99").mkdir()
    key = only_sound(filled)
    assert da3("engine", "list") == 0
    heading, line, broken, unfinished, total = capsys.readouterr().out.splitlines()
    assert heading.split()[:5] == ["key", "kind", "network", "size", "precision"]
    assert line.split()[:5] == [key, "graphs", "da3metric-tiny", "56x42", "fp32"]
    assert line.endswith("not run")
    assert broken.startswith(f"broken: {filled.folder / ('0' * 24)} is no entry of ours")
    assert unfinished.startswith("unfinished: ")
    assert re.fullmatch(rf"1 entry, \d\.\d MB in {filled.folder}", total)
    assert da3("engine", "verify", key) == 0
    capsys.readouterr()
    assert da3("engine", "list") == 0
    assert LABEL.search(capsys.readouterr().out.splitlines()[1].partition("passed: ")[2])


def only_sound(store: Store) -> str:
    ((entry,), _) = store.entries()
    return entry.key


def test_verify(capsys, filled):
    key = only(filled)
    assert da3("engine", "verify") == 0
    first, depth, sky, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"OK    {key} graphs of da3metric-tiny: whole; self-test passed on onnxruntime cpu fp32")
    assert re.fullmatch(r" +depth +\d\S* of 0\.01", depth)
    assert re.fullmatch(r" +sky +\d\S* of 0\.01", sky)
    assert last == "1 entry verified, none wrong"
    assert da3("engine", "verify", key[:5]) == 0


def test_where_nothing_can_be_noted_the_test_is_repeated(capsys, filled, model):
    key = only(filled)
    (filled.folder / key / "self_tests.json").mkdir()
    assert da3("engine", "verify") == 0
    loader = Loader(open_folder(model), choose("onnxruntime", "cpu"))
    loader.looker((56, 42)).close()
    assert not self_test.passed(read_entry(filled.folder / key))


def test_verify_lists_every_problem(capsys, filled):
    key = only(filled)
    (filled.folder / ("0" * 24)).mkdir()
    (filled.folder / key / "look.onnx").write_bytes(b"damaged")
    assert da3("engine", "verify") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"WRONG {'0' * 24}: {filled.folder / ('0' * 24)} is no entry of ours")
    assert lines[1].startswith(f"WRONG {key} graphs of da3metric-tiny: {filled.folder / key}/look.onnx is damaged")
    assert lines[2] == "2 entries verified, 2 wrong"


def altered(store: Store, key: str, **fields: str) -> str:
    """Give an entry other fields, and the name that goes with them, or other files with the checksums they have."""
    folder = store.folder / key
    told = json.loads((folder / "entry.json").read_text())
    told["fields"] |= fields
    for name in told["files"]:
        store._describe(folder, told["fields"], told["about"], told["seconds"])
        told["files"][name] = json.loads((folder / "entry.json").read_text())["files"][name]
    (folder / "entry.json").write_text(json.dumps(told))
    return folder.rename(store.folder / key_of(told["fields"])).name


def test_graphs_that_say_something_else_are_found_out(capsys, filled, model, tmp_path):
    """Whole, as far as checksums tell, and of another network."""
    import numpy as np

    key = only(filled)
    assert da3("engine", "verify") == 0
    assert self_test.passed(read_entry(filled.folder / key))
    capsys.readouterr()
    test = filled.folder / key / "self_test.npz"
    with np.load(test) as arrays:
        right = dict(arrays)
    right["depth"] *= 1.2
    np.savez(test, **right)
    key = altered(filled, key)
    assert da3("engine", "verify") == 1
    out = capsys.readouterr().out
    assert re.search(r"WRONG \w+ graphs of da3metric-tiny: onnxruntime cpu fp32 \S+ \S+ gives another depth than", out)
    assert not self_test.passed(read_entry(filled.folder / key))  # what it had passed is forgotten
    loader = Loader(open_folder(model), choose("onnxruntime", "cpu"))
    with pytest.raises(EngineError, match="gives another depth than the network does"):
        loader.looker((56, 42))


def test_graphs_that_cannot_be_loaded(capsys, filled):
    key = only(filled)
    (filled.folder / key / "look.onnx").write_bytes(b"no graph")
    altered(filled, key)
    assert da3("engine", "verify") == 1
    assert re.search(r"WRONG \w+ graphs of da3metric-tiny: .*look\.onnx .*ONNX Runtime", capsys.readouterr().out)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_engines_for_a_gpu_that_is_not_here(capsys, store, model):
    assert da3("engine", "build", model, "--size", "28x28", "--gpu", "8.6") == 0
    captured = capsys.readouterr()
    assert "on tensorrt_rtx cuda fp16" in captured.err
    assert re.search(r"^engines of da3metric-tiny at 28x28, fp16: \d+\.\d MB, made in", captured.out, re.MULTILINE)
    engines, graphs = sorted(store.entries()[0], key=lambda entry: entry.fields["kind"])
    assert (engines.fields["gpu"], engines.fields["compute_capability"]) == ("any", "8.6")
    if find_gpu() is None:
        assert "self-test of da3metric-tiny: not run here: no NVIDIA GPU was found\n" in captured.out
    assert da3("engine", "list") == 0
    assert "any (8.6)" in capsys.readouterr().out
    # What engines are compiled from is tried without a GPU.
    assert da3("engine", "verify", graphs.key) == 0
    assert "self-test passed on onnxruntime cpu fp16" in capsys.readouterr().out
    # Of another version of the library.
    other = altered(store, engines.key, version="0.1")
    assert da3("engine", "verify", other) == 0
    assert "they were made by tensorrt_rtx 0.1; " in capsys.readouterr().out
    store.remove(graphs.key)
    assert da3("engine", "clean", "--all") == 0
    assert not [path for path in store.folder.iterdir() if path.suffix != ".lock"]


def test_clean_never_removes_everything_by_accident(capsys, filled):
    assert da3("engine", "clean") == 2
    assert re.search(
        r"name the entries to remove .* or give --broken, or --all: 1 entry, \d\.\d MB", capsys.readouterr().err
    )
    for words, sentence in (
        (["nonsense"], "there is no entry 'nonsense'"),
        ([""], "there is no entry ''"),
        ([only(filled), "--all"], "not both"),
    ):
        assert da3("engine", "clean", *words) == 2
        assert sentence in capsys.readouterr().err
    assert da3("engine", "clean", "--broken") == 0
    assert capsys.readouterr().out == f"0 bytes freed in {filled.folder}\n"
    assert only(filled)


def test_clean(capsys, filled):
    key = only(filled)
    size = sum(path.stat().st_size for path in (filled.folder / key).iterdir())
    assert da3("engine", "clean", key[:6]) == 0
    removed, total = capsys.readouterr().out.splitlines()
    assert removed.startswith(f"removed {key}: ")
    assert total == f"{size:,} bytes freed in {filled.folder}"
    assert filled.entries() == ([], [])


def test_clean_broken(capsys, filled):
    key = only(filled)
    shutil.copytree(filled.folder / key, filled.folder / ("0" * 24))
    (filled.folder / "photos").mkdir()
    (filled.folder / f".{'1' * 24}.99").mkdir()
    (filled.folder / f".{'1' * 24}.99" / "half").write_bytes(b"x" * 1000)
    assert da3("engine", "clean", "--broken") == 0
    out = capsys.readouterr().out
    assert f"removed {'0' * 24}: " in out
    assert key not in out
    assert not filled.leftovers()
    assert (filled.folder / "photos").is_dir()
    assert only(filled) == key
    (filled.folder / key / "look.onnx").write_bytes(b"damaged")
    assert da3("engine", "clean", "--broken") == 0
    assert filled.entries() == ([], [])

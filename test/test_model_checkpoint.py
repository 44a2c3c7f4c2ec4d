"""Folders with models: what is read, what is refused and with which words, what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402

from da3_ros.errors import MissingDependencyError, ModelError, OutputError  # noqa: E402
from da3_ros.model import checkpoint, layout, presets  # noqa: E402
from da3_ros.model.folder import open_folder  # noqa: E402
from da3_ros.model.network import MonoNetwork, Network  # noqa: E402
from da3_ros.model.presets import APACHE, PRESETS, Preset  # noqa: E402
from da3_ros.model.safetensors_header import read_header  # noqa: E402

TINY = Preset("da3-tiny", "", APACHE, 32, 6, 2, (1, 2, 3, 5), 1, 16, (8, 8, 16, 16))
TINY_MONO = Preset("da3mono-tiny", "", APACHE, 32, 4, 2, (0, 1, 2, 3), None, 16, (8, 8, 16, 16))
# SHA-256 of the released config.json, and bytes of a released model.safetensors.
RELEASED_CONFIG = {
    "da3-small": "a486e29e82b7ab4a7d4cefc1ea4526cfe2ae438a572c8ca98917cfbcde7447d2",
    "da3-base": "5e34115ebc17bd2d8d43033c5f72e9446ac8833fd61d3fa160b7e67e0bb5b7b5",
    "da3-large": "744dcaf53859490ed92fc6cb98d68d3daf624b8c54533aaf604bdb53f06321f5",
    "da3metric-large": "a336f3e76fe375aaae17a9aed9130c9f2aa061535d317ec57dcb2f1f02e1dd53",
}
RELEASED_SMALL_BYTES = 137_248_940
SHARED = "model.head.scratch.output_conv2_aux.{}.2.{}"


def network(preset: Preset = TINY, seed: int = 0) -> Network | MonoNetwork:
    """A network with random weights, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    made = (Network if preset.any_view else MonoNetwork)(preset).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint.write_checkpoint(folder, network())
    return folder


@pytest.fixture
def edit(tiny, tmp_path):
    """Writes a copy of the tiny model with its tensors changed; gives the folder."""

    def write(change) -> Path:
        tensors = load_file(tiny / layout.WEIGHTS)
        change(tensors)
        save_file(tensors, tmp_path / layout.WEIGHTS)
        (tmp_path / layout.CONFIG).write_bytes((tiny / layout.CONFIG).read_bytes())
        return tmp_path

    return write


def hollow(folder: Path, preset: Preset, model_name: str) -> Path:
    """A folder with every tensor of a published network, as a file with a hole where the numbers would be."""
    with torch.device("meta"):
        made = Network(preset) if preset.any_view else MonoNetwork(preset)
    header, end = {}, 0
    for name, value in made.state_dict().items():
        header["model." + layout.released(name, preset)] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [end, end := end + 4 * value.numel()],
        }
    text = json.dumps(header).encode()
    with (folder / layout.WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (folder / layout.CONFIG).write_text(json.dumps({"model_name": model_name}))
    return folder


def refusal(folder: Path, **options) -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(ModelError) as caught:
        checkpoint.load(folder, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert re.search(r"[;:] ", sentence), f"it should say what to do: {sentence}"
    return sentence


# What is written


@pytest.mark.parametrize("name", RELEASED_CONFIG)
def test_configuration_is_the_released_one_to_the_byte(name):
    text = layout.config_text(PRESETS[name])
    assert hashlib.sha256(text.encode()).hexdigest() == RELEASED_CONFIG[name]


def test_weights_have_the_released_size_to_the_byte(tmp_path):
    with torch.device("meta"):
        shapes = Network(PRESETS["da3-small"])
    checkpoint.write_checkpoint(tmp_path, shapes.to_empty(device="cpu"))
    assert (tmp_path / layout.WEIGHTS).stat().st_size == RELEASED_SMALL_BYTES
    header = read_header(tmp_path / layout.WEIGHTS)
    assert len(header.tensors) == 437
    assert header.parameters == PRESETS["da3-small"].parameters


@pytest.mark.parametrize("preset", [TINY, TINY_MONO], ids=lambda p: p.name)
def test_round_trip(preset, tmp_path):
    written = network(preset)
    checkpoint.write_checkpoint(tmp_path, written)
    model = checkpoint.load(tmp_path, expected=preset.name)
    assert model.network.preset == preset
    assert model.metric is None
    assert not model.network.training
    assert not any(p.requires_grad for p in model.network.parameters())
    x = torch.randn(2, 3, 56, 70)
    before, after = written(x), model.network(x)
    assert torch.equal(before.depth if preset.any_view else before[0], after.depth if preset.any_view else after[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(written.state_dict().values(), model.network.state_dict().values(), strict=True)
    )
    assert len(model.unread) == (42 if preset.any_view else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [layout.CONFIG, layout.WEIGHTS]


def test_names_go_there_and_back():
    for preset in (TINY, TINY_MONO):
        for name in network(preset).state_dict():
            assert layout.ours(layout.released(name, preset), preset) == name


def test_a_model_can_be_written_over_the_file_it_is_mapped_from(tmp_path):
    checkpoint.write_checkpoint(tmp_path, network())
    model = checkpoint.load(tmp_path)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    checkpoint.write_checkpoint(tmp_path, network(seed=1))
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert not torch.equal(checkpoint.load(tmp_path).network.backbone.cls_token, before["backbone.cls_token"])


def test_no_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        checkpoint.write_checkpoint(tmp_path / "file" / "model", network())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """Files may not grow beyond 100 kB here; a full disk fails at the same point."""
    checkpoint.write_checkpoint(tmp_path, network())
    before = (tmp_path / layout.WEIGHTS).read_bytes()
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*model.safetensors"):
            checkpoint.write_checkpoint(tmp_path, network(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / layout.WEIGHTS).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [layout.CONFIG, layout.WEIGHTS]


# What is read


def test_weights_are_mapped_not_copied(tmp_path):
    """Over 100 MB of weights add next to nothing to the memory that is this process's own."""
    wide = dataclasses.replace(TINY, name="wide", dim=512, heads=8)
    with torch.device("meta"):
        shapes = Network(wide)
    made = shapes.to_empty(device="cpu")
    for parameter in made.parameters():
        parameter.data.zero_()
    checkpoint.write_checkpoint(tmp_path, made)
    del made
    size = (tmp_path / layout.WEIGHTS).stat().st_size
    assert size > 120_000_000

    def own() -> int:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        return 1024 * int(re.search(r"^Anonymous:\s+(\d+)", rollup, re.MULTILINE)[1])

    before = own()
    model = checkpoint.load(tmp_path)
    assert own() - before < size / 10
    assert float(model.network.backbone.pos_embed.abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision(edit, dtype):
    folder = edit(lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    single, half = checkpoint.load(folder).network, checkpoint.load(folder, dtype=dtype).network
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {dtype}
    assert all(torch.equal(a, b.float()) for a, b in zip(single.parameters(), half.parameters(), strict=True))
    assert torch.equal(single.rays.norm.weight, network().rays.norm.weight.to(dtype).float())


def test_level_three_takes_its_norm_from_level_zero(tiny):
    """In the files that share it and in those that repeat it."""
    assert SHARED.format(0, "weight") in read_header(tiny / layout.WEIGHTS).tensors
    assert SHARED.format(3, "weight") not in read_header(tiny / layout.WEIGHTS).tensors
    loaded = checkpoint.load(tiny).network.rays.norm
    assert torch.equal(loaded.weight, network().rays.norm.weight)
    assert torch.equal(loaded.bias, network().rays.norm.bias)


def repeat(tensors, factor=1.0):
    for kind in ("weight", "bias"):
        for level in (1, 2, 3):
            tensors[SHARED.format(level, kind)] = tensors[SHARED.format(0, kind)] * (factor if level == 3 else 1)


def test_a_shared_norm_may_be_repeated(edit):
    model = checkpoint.load(edit(repeat))
    assert torch.equal(model.network.rays.norm.weight, network().rays.norm.weight)
    assert len(model.unread) == 42


def test_a_shared_norm_must_be_the_same(edit):
    assert "shares one normalisation" in refusal(edit(lambda tensors: repeat(tensors, 1.01)))


def test_a_shared_norm_must_be_there(edit):
    def drop(tensors):
        del tensors[SHARED.format(0, "weight")]

    assert SHARED.format(0, "weight") in refusal(edit(drop))


def test_what_nobody_reads_may_be_missing_or_more(edit):
    """Files without the coarser ray levels; files with the unit that fuses nothing and with a Gaussian head."""

    def change(tensors):
        for key in [key for key in tensors if "output_conv1_aux.1." in key]:
            del tensors[key]
        tensors["model.head.scratch.refinenet4_aux.resConfUnit1.conv1.weight"] = torch.zeros(16, 16, 3, 3)
        tensors["model.gs_head.projects.0.weight"] = torch.zeros(3)

    assert len(checkpoint.load(edit(change)).unread) == 42 - 10 + 2


def test_nested_models_hold_two_networks(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, TINY.name, TINY)
    monkeypatch.setitem(PRESETS, TINY_MONO.name, TINY_MONO)
    monkeypatch.setattr(layout, "NESTED_PARTS", (TINY.name, TINY_MONO.name))
    main, metric = network(TINY), network(TINY_MONO)
    tensors = {}
    for prefix, part in (("model.da3.", main), ("model.da3_metric.", metric)):
        tensors |= {prefix + layout.released(k, part.preset): v for k, v in part.state_dict().items()}
    save_file(tensors, tmp_path / layout.WEIGHTS)
    (tmp_path / layout.CONFIG).write_text(json.dumps({"model_name": presets.NESTED}))
    model = checkpoint.load(tmp_path, expected=presets.NESTED)
    assert torch.equal(model.network.rays.out.weight, main.rays.out.weight)
    assert torch.equal(model.metric.head.sky_output_conv2[0].weight, metric.head.sky_output_conv2[0].weight)
    assert open_folder(tmp_path).licence == presets.NON_COMMERCIAL
    assert "Gaussian" not in repr(model.unread)


def test_the_official_code_reads_what_we_write(tmp_path):
    """Strictly, and with equal outputs."""
    import model_official as yardstick
    from safetensors.torch import load_model

    mine = yardstick.same(yardstick.official("da3-small", seed=2), "da3-small")
    checkpoint.write_checkpoint(tmp_path, mine)
    theirs = nn_with(yardstick.official("da3-small", seed=3))
    missing, unexpected = load_model(theirs, tmp_path / layout.WEIGHTS, strict=True)
    assert not missing
    assert not unexpected
    x = yardstick.images(2, 70, 98)
    found = yardstick.differences(yardstick.official_window(theirs.model, x), yardstick.our_window(mine, x))
    assert max(found.values()) <= yardstick.TOLERANCE


def test_we_read_what_the_official_code_writes(tmp_path):
    import model_official as yardstick
    from safetensors.torch import save_model

    official = yardstick.official("da3-small", seed=2)
    save_model(nn_with(official), str(tmp_path / layout.WEIGHTS))
    (tmp_path / layout.CONFIG).write_text(json.dumps({"model_name": "da3-small"}))
    model = checkpoint.load(tmp_path)
    x = yardstick.images(2, 70, 98)
    found = yardstick.differences(yardstick.official_window(official, x), yardstick.our_window(model.network, x))
    assert max(found.values()) <= yardstick.TOLERANCE


def nn_with(network: torch.nn.Module) -> torch.nn.Module:
    """As the official interface holds its network, which gives the tensors their prefix."""
    holder = torch.nn.Module()
    holder.model = network
    return holder


# What is refused


def drop_one(tensors):
    del tensors["model.cam_dec.fc_t.weight"]


def add_one(tensors):
    tensors["model.head.new.weight"] = torch.zeros(3)


def add_elsewhere(tensors):
    tensors["optimizer.step"] = torch.zeros(1)


def reshape_one(tensors):
    tensors["model.cam_dec.fc_t.weight"] = torch.zeros(3, 5)


def retype_one(tensors):
    tensors["model.cam_dec.fc_t.weight"] = tensors["model.cam_dec.fc_t.weight"].to(torch.float64)


def spoil(value):
    def change(tensors):
        tensors["model.cam_dec.fc_t.weight"][1, 2] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_one, "lacks 1 tensors of da3-tiny (first: model.cam_dec.fc_t.weight)"),
        (add_one, "holds 1 tensors that da3-tiny does not have (first: model.head.new.weight)"),
        (add_elsewhere, "(first: optimizer.step)"),
        (reshape_one, "(first: model.cam_dec.fc_t.weight, (3, 5) instead of (3, 64))"),
        (retype_one, "model.cam_dec.fc_t.weight is F64"),
        (spoil(float("nan")), "model.cam_dec.fc_t.weight holds values that are not finite"),
        (spoil(float("-inf")), "model.cam_dec.fc_t.weight holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(edit, change, words):
    assert words in refusal(edit(change))


def test_large_values_are_finite_though_their_sum_is_not(edit):
    checkpoint.load(edit(lambda tensors: tensors["model.cam_dec.fc_t.weight"].fill_(3e38)))


def test_another_model_than_expected(tiny):
    assert "holds da3-tiny, not da3-small" in refusal(tiny, expected="da3-small")


@pytest.mark.parametrize(("held", "said"), [("da3-small", "da3-base"), ("da3-base", "da3-small")])
def test_configuration_of_another_model(held, said, tmp_path):
    sentence = refusal(hollow(tmp_path, PRESETS[held], said))
    assert f"holds the weights of {held}, but its config.json says {said}" in sentence


def test_a_hollow_file_would_fit(tmp_path):
    """The file of the test above is refused for its configuration alone."""
    checkpoint.load(hollow(tmp_path, PRESETS["da3-small"], "da3-small"))


def config(name="da3-small", **changed):
    given = json.loads(layout.config_text(PRESETS[name]))
    for section, values in changed.items():
        given["config"][section] |= values
    return given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{not json", "is not JSON"),
        ("[]", "has no model_name"),
        ("{}", "has no model_name"),
        ('{"model_name": "da4"}', "names the model 'da4', which is none of"),
        (json.dumps(config(net={"out_layers": [2, 5, 8, 11]})), "net.out_layers = [2, 5, 8, 11], not [5, 7, 9, 11]"),
        (json.dumps(config(head={"features": 128})), "head.features = 128, not 64"),
        ('{"model_name": "own", "da3_ros": {"dim": 30}}', "describes no network"),
        ('{"model_name": "own", "da3_ros": {"sides": 30}}', "has something else under 'da3_ros' than sizes"),
        ('{"model_name": "own", "da3_ros": 3}', "has something else under 'da3_ros' than sizes"),
    ],
)
def test_configurations_that_make_no_sense(tiny, tmp_path, given, words):
    (tmp_path / layout.WEIGHTS).symlink_to(tiny / layout.WEIGHTS)
    (tmp_path / layout.CONFIG).write_text(given)
    assert words in refusal(tmp_path)


def test_sizes_of_ones_own_that_make_no_network(tiny, tmp_path):
    (tmp_path / layout.WEIGHTS).symlink_to(tiny / layout.WEIGHTS)
    given = json.loads((tiny / layout.CONFIG).read_text())
    for wrong in (
        {"dim": 33},
        {"out_layers": [1, 2, 3, 6]},
        {"out_layers": [0, 2, 3, 5]},
        {"heads": 0},
        {"dim": "32"},
        {"dim": 32.0},
    ):
        (tmp_path / layout.CONFIG).write_text(json.dumps({**given, "da3_ros": {**given["da3_ros"], **wrong}}))
        assert "describes no network" in refusal(tmp_path)


class Bomb:
    """What a hostile pickle does when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "ran")


def test_pickles_are_never_opened(tmp_path):
    proof = tmp_path / "ran"
    models = {
        "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb(proof))),
        "zip": lambda path: torch.save(Bomb(proof), path),
        "old": lambda path: torch.save(Bomb(proof), path, _use_new_zipfile_serialization=False),
    }
    for name, write in models.items():
        folder = tmp_path / name
        folder.mkdir()
        write(folder / layout.WEIGHTS)
        (folder / layout.CONFIG).write_text(layout.config_text(PRESETS["da3-small"]))
        assert "pickled weights" in refusal(folder)
        (folder / layout.WEIGHTS).rename(folder / "pytorch_model.bin")
        assert "holds only pickled weights (pytorch_model.bin)" in refusal(folder)
        assert "give the folder" in refusal(folder / "pytorch_model.bin")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty or cut short"),
        (b"\x10\x00", "is empty or cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 137248940\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>Not Found</html>", "is a web page"),
        (b"\x00" * 64, "is not a safetensors file"),
        (b"GGUF" + b"\x03" * 60, "is not a safetensors file"),
        (struct.pack("<Q", 50) + b'{"a": 1', "is cut short"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "is not a safetensors file"),
        (struct.pack("<Q", 2) + b"{}" + b"\x00" * 9, "has 9 bytes more than its header tells of"),
    ],
)
def test_other_files(tiny, tmp_path, content, words):
    (tmp_path / layout.WEIGHTS).write_bytes(content)
    (tmp_path / layout.CONFIG).write_bytes((tiny / layout.CONFIG).read_bytes())
    assert words in refusal(tmp_path)


def test_folders_that_lack_something(tiny, tmp_path):
    assert "there is no folder" in refusal(tmp_path / "nowhere")
    assert "has no model.safetensors" in refusal(tmp_path)
    (tmp_path / "weights.safetensors").symlink_to(tiny / layout.WEIGHTS)
    assert "rename weights.safetensors" in refusal(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert "split into several files" in refusal(tmp_path)
    (tmp_path / layout.WEIGHTS).symlink_to(tiny / layout.WEIGHTS)
    assert "has no config.json" in refusal(tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tiny, tmp_path, fraction):
    whole = (tiny / layout.WEIGHTS).read_bytes()
    (tmp_path / layout.WEIGHTS).write_bytes(whole[: int(fraction * len(whole))])
    (tmp_path / layout.CONFIG).write_bytes((tiny / layout.CONFIG).read_bytes())
    assert "cut short" in refusal(tmp_path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_is_refused_or_harmless(tiny, tmp_path, data):
    """Whatever bytes of the table of contents are changed: one sentence, or a header that still says the same."""
    content = bytearray((tiny / layout.WEIGHTS).read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / layout.WEIGHTS).write_bytes(content)
    (tmp_path / layout.CONFIG).write_bytes((tiny / layout.CONFIG).read_bytes())
    refused = None
    try:
        model = checkpoint.load(tmp_path)
    except ModelError as error:
        refused = str(error)
    if refused is None:
        assert model.network.state_dict().keys() == network().state_dict().keys()
    else:
        assert "\n" not in refused


def test_without_the_library(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(MissingDependencyError, match="pip install safetensors"):
        checkpoint.load(tiny)


def test_licence_of_a_folder(tiny, tmp_path):
    assert open_folder(tiny).licence == APACHE
    nameless = dataclasses.replace(TINY, licence="")
    checkpoint.write_checkpoint(tmp_path, network(nameless))
    assert open_folder(tmp_path).licence == "unknown"
    (tmp_path / "README.md").write_text("---\ntags:\n- depth\nlicense: mit\n---\n# A model\n")
    assert open_folder(tmp_path).licence == "mit"


def test_reading_a_folder_needs_no_heavy_library(tiny):
    code = (
        "import sys; from pathlib import Path; from da3_ros.model.folder import open_folder; "
        f"print(open_folder(Path({str(tiny)!r})).name); "
        "print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"
    )
    root = Path(layout.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["da3-tiny", "[]"]


def test_presets_refuse_impossible_sizes():
    for changed in ({"heads": 3}, {"out_layers": (5, 4, 3, 2)}, {"alternate_from": 0}, {"alternate_from": 2}):
        with pytest.raises(ValueError, match="no network can have these sizes"):
            dataclasses.replace(TINY, **changed)

"""``da3 model list|download|info`` as a person uses them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
from model_fake_hub import FakeHub, Repository, serve  # noqa: E402

from da3_ros.commands import model as command  # noqa: E402
from da3_ros.errors import ModelError  # noqa: E402
from da3_ros.model import checkpoint, hub, layout  # noqa: E402
from da3_ros.model.folder import open_folder  # noqa: E402
from da3_ros.model.network import Network  # noqa: E402
from da3_ros.model.presets import APACHE, TINY, Preset, release  # noqa: E402

COMMIT = "c" * 40
# Should it ever hang, it says where.
RUN = """
import faulthandler, sys
faulthandler.dump_traceback_later(50, exit=True)
from test_model_command import run
sys.exit(run(*sys.argv[1:]))
"""


def run(*arguments: str) -> int:
    """The command, with a parser of its own."""
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    parsed = parser.parse_args(["model", *arguments])
    return parsed.run(parsed)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    preset = Preset("da3-tiny", "", APACHE, 32, 6, 2, (1, 2, 3, 5), 1, 16, (8, 8, 16, 16))
    checkpoint.write_checkpoint(folder, Network(preset))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_list(capsys, home, tiny):
    known = release("da3-base")
    place = home / "hub" / "models--depth-anything--DA3-BASE" / "snapshots"
    place.mkdir(parents=True)
    (place / known.revision).symlink_to(tiny)
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "model",
        "da3-tiny",
        "da3-small",
        "da3-base",
        "da3-large",
        "da3-giant",
        "da3metric-large",
        "da3mono-large",
        "da3nested-giant-large",
        "cache:",
    ]
    assert lines[2].split() == ["da3-small", "34.3", "M", "Apache-2.0", "any", "no"]
    assert lines[3].split()[-2:] == ["yes,", known.revision[:12]]
    assert lines[8].split() == ["da3nested-giant-large", "1689.8", "M", "CC-BY-NC-4.0", "any", "no"]


def test_the_one_that_comes_with_the_package(capsys, home):
    assert run("info", "da3-tiny", "--check") == 0
    out = capsys.readouterr().out
    for words in (
        "precision: F16",
        "check: every tensor",
        "data: ",
        "training: ",
        "held out: windows of 2 views",
        "limits: ",
    ):
        assert words in out
    assert "license:" not in out
    opened = open_folder(hub.resolve("da3-tiny", offline=True).folder)
    assert opened.header.size <= 16_000_000
    assert opened.parts[0].preset == TINY
    assert (opened.path / "curve.svg").is_file()
    assert not home.exists()


def test_info_of_a_folder(capsys, tiny):
    assert run("info", str(tiny)) == 0
    out = capsys.readouterr().out
    size = (tiny / layout.WEIGHTS).stat().st_size
    for words in (
        "model: da3-tiny\n",
        f"folder: {tiny}\n",
        "licence: Apache-2.0\n",
        "network: da3-tiny at 'model.': 6 blocks of 32, 2 heads; views mixed from block 1\n",
        "tensors (42 read by nobody)\n",
        "precision: F32\n",
        f"weights: model.safetensors, {size:,} bytes\n",
    ):
        assert words in out
    assert "check:" not in out


def test_info_with_check(capsys, tiny, tmp_path):
    assert run("info", str(tiny), "--check") == 0
    assert "check: every tensor is there" in capsys.readouterr().out
    content = bytearray((tiny / layout.WEIGHTS).read_bytes())
    content[-4:] = b"\xff" * 4  # the last number is not finite
    (tmp_path / layout.WEIGHTS).write_bytes(content)
    (tmp_path / layout.CONFIG).write_bytes((tiny / layout.CONFIG).read_bytes())
    assert run("info", str(tmp_path)) == 0
    with pytest.raises(ModelError, match="values that are not finite"):
        run("info", str(tmp_path), "--check")


def test_info_of_what_is_not_here():
    with pytest.raises(ModelError, match="run 'da3 model download da3-large' while online"):
        run("info", "da3-large")


def test_download(tiny, home):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    files = {name: (tiny / name).read_bytes() for name in (layout.CONFIG, layout.WEIGHTS)}
    assert len(files[layout.WEIGHTS]) > 1_000_000
    known = release("da3-large")
    repositories = {
        "owner/model": Repository({COMMIT: files}, {"main": COMMIT}),
        known.repository: Repository({known.revision: files}),
    }
    with serve(FakeHub(repositories)) as hub:
        done, wrong = (
            subprocess.run(
                [sys.executable, "-c", RUN, "download", name],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                cwd=Path(__file__).parent,
                env={**os.environ, "HF_ENDPOINT": hub.url, "PYTHONPATH": str(Path(layout.__file__).parents[2])},
            )
            for name in ("owner/model", "da3-large")
        )
    assert done.returncode == 0, done.stderr
    assert "model.safetensors: MB 1/1" in done.stderr
    assert "model: da3-tiny, 0.3 M parameters, licence Apache-2.0\n" in done.stdout
    assert f"from: owner/model at {COMMIT}\n" in done.stdout
    folder = Path(done.stdout.splitlines()[-1].removeprefix("folder: "))
    assert folder.is_relative_to(home)
    assert checkpoint.load(folder).folder.name == "da3-tiny"
    assert wrong.returncode != 0
    assert f"{known.repository} at {known.revision} holds da3-tiny, not da3-large" in wrong.stderr


def test_non_commercial_licences_are_told():
    assert command._licence("CC-BY-NC-4.0") == "CC-BY-NC-4.0 (non-commercial use only)"
    assert command._licence("Apache-2.0") == "Apache-2.0"

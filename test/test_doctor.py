"""``da3 doctor``: every line of it, with libraries that are there, missing and broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ros_missing

from da3_ros.cli import main
from da3_ros.commands.checks import SECTIONS, library
from da3_ros.commands.checks.finding import Finding, State
from da3_ros.commands.checks.library import Library
from da3_ros.engine.gpu import find_gpu
from da3_ros.model.presets import release

LINE = re.compile(r"  (OK|-|missing|wrong) +(\S.*)")
NEEDS_ROS = pytest.mark.skipif(bool(ros_missing()), reason=ros_missing() or "-")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch) -> None:
    """Nothing of this machine's own caches."""
    monkeypatch.setenv("DA3_CACHE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def sections(out: str) -> dict[str, list[tuple[str, str]]]:
    """(state, rest) of each line, by section; every line must be one of these."""
    found: dict[str, list[tuple[str, str]]] = {}
    *lines, _ = out.splitlines()
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            found[line] = []
        else:
            list(found.values())[-1].append((match[1], match[2]))
    return found


def doctor(capsys, *words: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    code = main(["doctor", *words])
    return code, sections(capsys.readouterr().out)


def line_of(lines: list[tuple[str, str]], name: str) -> tuple[str, str]:
    """(state, what was found) of a check."""
    (found,) = [(state, rest.removeprefix(name).strip()) for state, rest in lines if rest.startswith(f"{name} ")]
    return found


def elsewhere(tmp_path: Path, modules: dict[str, str], *words: str, **variables: str) -> tuple[int, str]:
    """The command in a process that finds these modules before the real ones; exit code and what it printed."""
    place = tmp_path / "broken"
    place.mkdir()
    for name, source in modules.items():
        (place / f"{name}.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "da3_ros.cli", "doctor", *(words or ("--no-topics",))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{Path(__file__).parents[1]}", **variables},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_here(capsys, tmp_path):
    begin = time.monotonic()
    code, found = doctor(capsys, "--no-topics")
    assert time.monotonic() - begin < 20  # two seconds where nobody else is at work
    assert list(found) == list(SECTIONS)
    assert all(found.values())
    assert code == 0
    for name in ("python", "da3_ros", "numpy", "scipy", "psutil", "PyYAML"):
        assert line_of(found["Python"], name)[0] == "OK"
    if find_gpu() is None:
        assert found["GPU"] == [
            ("-", "GPU                    none that NVIDIA's driver tells of; networks run on the CPU")
        ]
        assert line_of(found["What runs networks"], "tensorrt cuda") == ("-", "no NVIDIA GPU was found")
    state, told = line_of(found["Graphs and engines"], "folder")
    assert state == "OK"
    assert re.fullmatch(rf"{tmp_path / 'store'}, \d+\.\d GB free", told)
    assert line_of(found["Graphs and engines"], "entries")[1].startswith("0, 0.0 MB")
    assert not (tmp_path / "store").exists()  # looking makes nothing
    state, told = line_of(found["Models"], "not downloaded")
    assert state == "-"
    assert "da3-small, da3-base" in told
    assert "'da3 model download da3-small' fetches one" in told


@NEEDS_ROS
def test_ros_here(capsys):
    _, found = doctor(capsys, "--no-topics")
    lines = found["ROS 2"]
    assert re.fullmatch(r"\d+\.\d+\.\d+ \(\w+\)", line_of(lines, "rclpy")[1])
    assert line_of(lines, "messages of da3_ros") == ("OK", "built")
    assert line_of(lines, "RMW")[1].startswith("rmw_")
    assert line_of(lines, "domain")[0] == "-"


def test_a_model_that_is_here(capsys, tmp_path, monkeypatch):
    for name in ("da3-small", "da3-large"):
        known = release(name)
        folder = (
            tmp_path / "hub" / "hub" / f"models--{known.repository.replace('/', '--')}" / "snapshots" / known.revision
        )
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_text("")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, found = doctor(capsys, "--no-topics")
    assert line_of(found["Models"], "da3-small") == ("OK", "here, licence Apache-2.0")
    assert line_of(found["Models"], "da3-large") == ("OK", "here, licence CC-BY-NC-4.0 (non-commercial use only)")
    assert line_of(found["Models"], "HF_HUB_OFFLINE")[0] == "-"


def test_a_store_with_something_broken(capsys, tmp_path):
    (tmp_path / "store" / ("0" * 24)).mkdir(parents=True)
    (tmp_path / "store" / f".{'1' * 24}.7").mkdir()
    code, found = doctor(capsys, "--no-topics")
    state, told = line_of(found["Graphs and engines"], "entry")
    assert state == "wrong"
    assert told.endswith(f"remove it with 'da3 engine clean {'0' * 24}'")
    assert line_of(found["Graphs and engines"], "unfinished")[0] == "-"
    assert code == 0  # it is made anew when it is needed


def test_a_store_that_cannot_be(capsys, tmp_path):
    (tmp_path / "store").write_text("a file")
    _, found = doctor(capsys, "--no-topics")
    state, told = line_of(found["Graphs and engines"], "folder")
    assert state == "wrong"
    assert told == f"{tmp_path / 'store'} cannot be written; change its owner, or let DA3_CACHE name another folder"
    assert line_of(found["Graphs and engines"], "entries")[0] == "wrong"


def test_broken_libraries(tmp_path):
    """Each is a line, whatever it raises, and the rest goes on."""
    code, out = elsewhere(
        tmp_path,
        {
            "scipy": "raise OSError('libopenblas.so.0: cannot open shared object file')",
            "rosbags": "raise RuntimeError('two lines\\nof it')",
            "rclpy": "raise ImportError('the C extension was built for another Python')",
            "onnxruntime": "raise ImportError('numpy.core.multiarray failed to import')",
        },
    )
    found = sections(out)
    assert code == 1
    assert list(found) == list(SECTIONS)
    state, told = line_of(found["Python"], "scipy")
    assert state == "wrong"
    assert (
        "does not load: libopenblas.so.0: cannot open shared object file; pip install --force-reinstall scipy" in told
    )
    assert line_of(found["Libraries"], "rosbags")[0] == "wrong"
    assert "does not load: two lines;" in line_of(found["Libraries"], "rosbags")[1]
    state, told = line_of(found["ROS 2"], "rclpy")
    assert state == "wrong"
    assert told.startswith("does not load: the C extension was built for another Python; the ROS 2 of another Python?")
    assert line_of(found["What runs networks"], "onnxruntime cpu")[0] == "wrong"
    assert out.splitlines()[-1].startswith("2 of what is needed are missing or not working")


def test_without_numpy(tmp_path):
    """Even what everything is made of."""
    code, out = elsewhere(tmp_path, {"numpy": "raise ImportError('no C extensions')"})
    found = sections(out)
    assert code == 1
    assert list(found) == list(SECTIONS)
    assert line_of(found["Python"], "numpy")[0] == "wrong"
    assert line_of(found["What runs networks"], "this section") == ("wrong", "cannot be checked: no C extensions")


def test_a_library_that_is_missing():
    needed = library.check(Library("no_such_module", ("no-such-package",)))
    assert needed == Finding(
        State.MISSING, "no-such-package", "not installed", "pip install no-such-package", needed=True
    )
    assert needed.stops
    optional = library.check(Library("no_such_module", ("no-such-package",), use="figures"))
    assert (optional.found, optional.stops) == ("not installed (figures)", False)


def test_a_library_that_is_too_old():
    found = library.check(Library("yaml", ("PyYAML",), "999.1"))
    assert found.state is State.WRONG
    assert found.fix == "pip install 'PyYAML>=999.1'"
    assert library.check(Library("yaml", ("PyYAML",), "1.0.0rc1")).state is State.OK


def test_a_shared_library_that_does_not_load(tmp_path, monkeypatch):
    package = tmp_path / "half"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('never imported')")
    (package / "half.so").write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path)
    found = library.check(Library("half", ("half",), use="halves", native="*.so"))
    assert found.state is State.WRONG
    assert "does not load: " in found.found
    assert "half.so: file too short" in found.found or "invalid ELF header" in found.found


@NEEDS_ROS
def test_nobody_on_the_ros_graph(capsys, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    code, found = doctor(capsys)
    assert found["Topics"] == [("-", "ROS graph              no other node was heard within 2 s")]
    assert code == 0


@NEEDS_ROS
def test_cameras_and_nodes(capsys, bench, monkeypatch):
    """A calibrated camera, one without camera_info, and our node, whose own depth is no camera."""
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    monkeypatch.setenv("ROS_DOMAIN_ID", str(bench.domain))
    kept = [
        bench.ears.create_publisher(kind, topic, 1)
        for kind, topic in (
            (Image, "/front/image_raw"),
            (CompressedImage, "/front/image_raw/compressed"),
            (CameraInfo, "/front/camera_info"),
            (Image, "/rear/image"),
        )
    ]
    bench.start()
    code, found = doctor(capsys)
    lines = found["Topics"]
    assert line_of(lines, "/da3_slam") == ("OK", "a node of da3_ros is up")
    assert line_of(lines, "/front/image_raw") == ("OK", "images of /ears, calibrated by /front/camera_info")
    assert line_of(lines, "/front/image_raw/compressed")[1].startswith("compressed images of /ears, calibrated by")
    state, told = line_of(lines, "/rear/image")
    assert state == "-"
    assert told.startswith("images of /ears, no camera_info beside it; ")
    assert not [rest for _, rest in lines if "depth/image" in rest]
    assert code == 0
    assert len(kept) == 4

"""Which torch the set-up takes, and what of pip's configuration it follows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tools"))
import installer  # noqa: E402
import torch_build  # noqa: E402
from console import SetupError, run  # noqa: E402
from torch_build import CPU_INDEX, TORCH, Plan, plan_torch, satisfies  # noqa: E402

# As "pip config list" prints it.
PLAIN = "global.cert='/etc/ssl/certs/ca-certificates.crt'\n:env:.default-timeout='180'\n"
PLACES = [
    "global.index-url='https://mirror.example/simple'",
    "global.extra-index-url='https://a.example/simple https://b.example/simple'",
    ":env:.find-links='/srv/wheels'",
    "install.find-links='/srv/wheels'",
    "global.no-index='true'",
]
NVIDIA = "2.5.0a0+872d972e41.nv24.8"


def plan(installed="", wanted="", gpu=False, jetson=False, pip_config=PLAIN) -> Plan:
    return plan_torch(installed, wanted, gpu, jetson, pip_config)


def test_a_machine_without_gpu_gets_the_cpu_build():
    assert plan() == plan(pip_config="") == Plan((TORCH, "--extra-index-url", CPU_INDEX))


@pytest.mark.parametrize("line", PLACES)
@pytest.mark.parametrize("gpu", [False, True])
def test_who_has_told_pip_where_to_look_is_asked_nothing_else(line, gpu):
    assert plan(pip_config=PLAIN + line, gpu=gpu) == Plan((TORCH,))


def test_settings_of_other_commands_are_no_places_for_this_one():
    assert CPU_INDEX in plan(pip_config="download.find-links='/srv/wheels'").arguments


def test_a_machine_with_a_gpu_gets_the_default_build():
    assert plan(gpu=True) == Plan((TORCH,))


@pytest.mark.parametrize("version", ["2.4.0", "2.4.1+cpu", "2.13.0+cu130", "3.0", NVIDIA])
@pytest.mark.parametrize("jetson", [False, True])
def test_what_will_do_is_kept(version, jetson):
    assert plan(version, jetson=jetson) == Plan()


@pytest.mark.parametrize("version", ["", "2.3.1", "1.13.1+cpu", "2.4.0a0+git12", "2.4.0rc1", "2.4.dev1", "no version"])
def test_what_will_not_do_is_replaced(version):
    assert not satisfies(version)
    assert plan(version).arguments


def test_a_jetson_is_left_alone():
    """PyPI's torch would replace the one that NVIDIA made for it."""
    for gpu in (False, True):
        found = plan("2.3.0", gpu=gpu, jetson=True, pip_config=PLACES[0])
        assert found.arguments == ()
        assert "NVIDIA's own build" in found.advice
        assert "\n" not in found.advice


@pytest.mark.parametrize("installed", ["", "2.3.1", "2.13.0", NVIDIA])
@pytest.mark.parametrize("jetson", [False, True])
def test_ones_own_choice_counts(installed, jetson):
    found = plan(installed, "torch==2.9.1 --index-url 'https://x.example/cu 126'", jetson=jetson)
    assert found == Plan(("torch==2.9.1", "--index-url", "https://x.example/cu 126"))


def test_a_cpu_build_beside_a_gpu_is_kept_and_told():
    found = plan("2.13.0+cpu", gpu=True)
    assert found.arguments == ()
    assert "cannot use the NVIDIA GPU" in found.advice
    assert plan("2.13.0+cpu").advice == ""


def test_what_is_asked_for_is_what_setup_py_accepts():
    assert satisfies(TORCH.partition("==")[2])
    text = (REPOSITORY / "setup.py").read_text()
    assert re.findall(r"\btorch\b *[<=>~]+[^\"']*", text) == ["torch>=2.4"]
    assert satisfies("2.4")
    assert not satisfies("2.3.99")


def test_version_that_an_interpreter_sees():
    try:
        import torch
    except ImportError:
        wanted = ""
    else:
        wanted = torch.__version__
    assert torch_build.torch_version(Path(sys.executable)) == wanted


def test_pip_settings_follow_pips_order():
    text = (
        ":env:.find-links='/from/variable'\nglobal.find-links='/from/file'\nglobal.timeout='9'\ninstall.timeout='7'\n"
    )
    assert installer.pip_settings(text) == {"find-links": "/from/variable", "timeout": "7"}
    assert installer.pip_settings("") == installer.pip_settings("WARNING: nothing\n") == {}


def test_uv_is_told_what_pip_is_told(monkeypatch):
    text = (
        "global.constraint='/a/one.txt /a/two.txt'\nglobal.find-links='/w /v'\n"
        "global.extra-index-url='https://a.example https://b.example'\nglobal.disable-pip-version-check='1'\n"
    )
    monkeypatch.setattr(installer, "pip_configuration", lambda _: text)
    assert installer.uv_variables([]) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CONSTRAINT": "/a/one.txt /a/two.txt",
        "UV_FIND_LINKS": "/w,/v",
        "UV_INDEX": "https://a.example https://b.example",
    }


def test_an_optional_package_that_fails_says_nothing_itself(tmp_path, monkeypatch, capfd):
    """Its log has the details; whoever asked for it prints the one line."""
    monkeypatch.setattr(installer, "pip_command", lambda _: [sys.executable, "-c", "raise SystemExit('no such wheel')"])
    log = tmp_path / "log"
    assert not installer.install_optional(tmp_path / "python", ["x"], "Trying", log, prefer_uv=True)
    out, err = capfd.readouterr()
    assert (out, err) == ("[setup] Trying ...\n", "")
    assert "no such wheel" in log.read_text()
    with pytest.raises(SetupError, match="failed; mend what"):
        run("Trying", [sys.executable, "-c", "raise SystemExit('no such wheel')"], log)
    assert "no such wheel" in capfd.readouterr().err

"""What runs the network: every choice, and every sentence of a refusal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from da3_ros.engine.choice import RUNTIMES, Offer, ahead_of_time, choose, library, survey
from da3_ros.engine.gpu import Gpu, find_gpu, parse_query
from da3_ros.engine.store import Store
from da3_ros.errors import MissingDependencyError

NO_GPU = "no NVIDIA GPU was found"
ORDER = ("tensorrt cuda", "tensorrt_rtx cuda", "torch cuda", "onnxruntime cuda", "onnxruntime cpu", "torch cpu")
ADA = Gpu("NVIDIA RTX 4090", "8.9", 24_564 << 20, "550.54")


def offers(*usable: str, why: str = "is not installed: pip install it") -> list[Offer]:
    """All of them, of which some are usable."""
    out = []
    for name in ORDER:
        runtime, device = name.split()
        reason = "1.0" if name in usable else NO_GPU if device == "cuda" else why
        out.append(Offer(runtime, device, name in usable, reason))
    return out


@pytest.mark.parametrize(
    ("usable", "asked", "chosen"),
    [
        (ORDER, (), "tensorrt cuda fp16"),
        (ORDER[1:], (), "tensorrt_rtx cuda fp16"),
        (ORDER[2:], (), "torch cuda bf16"),
        (ORDER[3:], (), "onnxruntime cuda fp16"),
        (ORDER[4:], (), "onnxruntime cpu fp32"),
        (ORDER[5:], (), "torch cpu fp32"),
        (ORDER, ("auto", "cpu"), "onnxruntime cpu fp32"),
        (ORDER, ("torch",), "torch cuda bf16"),
        (ORDER, ("torch", "cpu"), "torch cpu fp32"),
        (ORDER, ("auto", "auto", "bf16"), "torch cuda bf16"),
        (ORDER[4:], ("auto", "auto", "bf16"), "torch cpu bf16"),
        (ORDER, ("tensorrt", "auto", "fp32"), "tensorrt cuda fp32"),
        (ORDER, ("onnxruntime", "cuda", "fp32"), "onnxruntime cuda fp32"),
    ],
)
def test_choice(usable, asked, chosen):
    assert choose(*asked, offers=offers(*usable)).name == chosen


def test_only_tensorrt_is_compiled():
    for name in ORDER:
        assert choose(*name.split(), offers=offers(*ORDER)).compiled == name.startswith("tensorrt")


def test_why():
    assert choose(offers=offers(*ORDER)).why == "the best that can be used here"
    assert choose("torch", "cpu", offers=offers(*ORDER)).why == "as asked for"
    passed = "tensorrt cuda, tensorrt_rtx cuda, torch cuda, onnxruntime cuda: no NVIDIA GPU was found"
    assert choose(offers=offers("torch cpu")).why == (
        f"the best that can be used here; {passed}; onnxruntime cpu: is not installed: pip install it"
    )


@pytest.mark.parametrize(
    ("usable", "asked", "sentence"),
    [
        (ORDER, ("tensorrt", "cpu"), "tensorrt does not run on cpu; use --runtime auto, or the other device"),
        ((), ("auto", "cuda"), f"the network cannot run here ({', '.join(ORDER[:4])}: {NO_GPU}); see 'da3 doctor'"),
        ((), ("torch", "cpu"), "(torch cpu: is not installed: pip install it); see 'da3 doctor'"),
        (("onnxruntime cpu",), ("tensorrt",), f"the network cannot run here (tensorrt cuda: {NO_GPU})"),
        (("onnxruntime cpu",), ("auto", "auto", "fp16"), "fp16 is not to be had here (onnxruntime cpu: fp32); use"),
        (ORDER[4:], ("auto", "auto", "fp16"), "(onnxruntime cpu: fp32; torch cpu: fp32, bf16); use --precision auto"),
    ],
)
def test_refusals(usable, asked, sentence):
    with pytest.raises(MissingDependencyError) as refused:
        choose(*asked, offers=offers(*usable))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_survey_without_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    find_gpu.cache_clear()
    try:
        assert find_gpu() is None
    finally:
        find_gpu.cache_clear()
    found = survey(None)
    assert [offer.name for offer in found] == list(ORDER)
    assert {offer.runtime for offer in found} == set(RUNTIMES)
    assert all((offer.usable, offer.why) == (False, NO_GPU) for offer in found if offer.device == "cuda")


def seen_without(tmp_path: Path, modules: dict[str, str], gpu: str = "None") -> dict[str, str]:
    """Reasons of a survey in a process that finds these modules before the real ones."""
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
    code = (
        "from da3_ros.engine.choice import survey\n"
        "from da3_ros.engine.gpu import Gpu\n"
        f"for o in survey({gpu}): print(o.name, '|', o.usable, '|', o.why)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}",
            "DA3_CACHE": str(tmp_path / "store"),
        },
    )
    lines = [line.split(" | ") for line in done.stdout.splitlines()]
    return {name: f"{usable} {why}" for name, usable, why in lines}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_broken_library_is_a_reason_and_no_crash(tmp_path):
    found = seen_without(
        tmp_path,
        {
            "tensorrt": "raise OSError('libnvinfer.so.10: cannot open shared object file')",
            "tensorrt_rtx": "raise RuntimeError('CUDA driver is too old')",
            "torch": "raise OSError('libcudart.so.12: cannot open shared object file')",
            "onnxruntime": "raise ImportError('numpy.core.multiarray failed to import\\nmore')",
        },
        gpu="Gpu('NVIDIA RTX 4090', '8.9', 0, '550')",
    )
    assert found["tensorrt cuda"] == (
        "False TensorRT is not installed or does not load: pip install tensorrt "
        "(libnvinfer.so.10: cannot open shared object file)"
    )
    assert found["tensorrt_rtx cuda"].endswith("pip install tensorrt-rtx-cu12 (CUDA driver is too old)")
    assert found["torch cuda"] == (
        "False torch does not load (libcudart.so.12: cannot open shared object file): install it anew"
    )
    broken = "False ONNX Runtime does not load (numpy.core.multiarray failed to import): install it anew"
    assert found["onnxruntime cpu"] == found["onnxruntime cuda"] == broken


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed")
def test_graphs_run_without_what_has_made_them(monkeypatch, tmp_path):
    monkeypatch.setenv("DA3_CACHE", str(tmp_path))
    monkeypatch.setattr("da3_ros.engine.choice._EXPORT", ("no_such_module",))

    def on_cpu() -> Offer:
        (found,) = [offer for offer in survey(None) if offer.name == "onnxruntime cpu"]
        return found

    assert on_cpu().why == (
        f"graphs cannot be exported without no_such_module: pip install no_such_module, or copy {tmp_path} from a "
        "machine where they have been made"
    )

    def write(place: Path) -> dict[str, str]:
        (place / "a.onnx").write_bytes(b"graph")
        return {}

    Store().make({"kind": "graphs"}, write, lambda *_: None, what="graphs")
    assert on_cpu().usable


def test_a_library_that_is_not_there(monkeypatch):
    for name, package in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx-cu12")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingDependencyError, match=f"is not installed or does not load: pip install {package}"):
            library(name)
    with pytest.raises(MissingDependencyError, match="pip install tensorrt-rtx-cu12"):
        ahead_of_time()
    with pytest.raises(MissingDependencyError, match="tensorrt_rtx has no bf16, only fp16, fp32; use --precision auto"):
        ahead_of_time("bf16")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NVIDIA RTX 4090, 8.9, 24564, 550.54\n", ADA),
        ("NVIDIA RTX 4090, 8.9, 24564, 550.54\nTesla T4, 7.5, 15360, 550.54\n", ADA),
        (
            "NVIDIA GeForce RTX 5090, 12.0, 32607, 570.86",
            Gpu("NVIDIA GeForce RTX 5090", "12.0", 32_607 << 20, "570.86"),
        ),
        # Jetsons share their memory with the CPU.
        ("Orin (nvgpu), 8.7, [N/A], 540.4.0\n", Gpu("Orin (nvgpu)", "8.7", 0, "540.4.0")),
        ("NVIDIA Thor, 11.0, [Not Supported], 580.00\n", Gpu("NVIDIA Thor", "11.0", 0, "580.00")),
        # Without a compute capability nothing is known: torch is asked instead.
        ("Orin (nvgpu), [N/A], [N/A], [N/A]\n", None),
        ("No devices were found\n", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", None),
        ("", None),
        ("\n\n", None),
        (", , , ", None),
    ],
)
def test_what_the_driver_says(text, found):
    assert parse_query(text) == found

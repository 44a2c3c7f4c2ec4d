"""Engines: built by TensorRT for RTX without a GPU, and run by a stand-in for it where there is none."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
import tensorrt_stand_in as stand_in
import torch
from small_networks import GRID, SMALL, made

from da3_ros.engine import tensorrt_runtime
from da3_ros.engine.gpu import Gpu, find_gpu
from da3_ros.engine.staged import StagedNetwork
from da3_ros.engine.stages import OUTPUTS
from da3_ros.engine.tensorrt_build import build
from da3_ros.engine.tensorrt_inspect import (
    Layer,
    engine_layers,
    graph_layers,
    not_single,
    read_layers,
    single_precision_nodes,
)
from da3_ros.engine.tensorrt_runtime import TensorRTRuntime
from da3_ros.engine.torch_runtime import TorchRuntime
from da3_ros.errors import EngineError, PredictorError

try:
    import tensorrt_rtx
except ImportError:
    tensorrt_rtx = None

needs_rtx = pytest.mark.skipif(tensorrt_rtx is None, reason="TensorRT for RTX is not installed")
needs_gpu = pytest.mark.skipif(find_gpu() is None, reason="there is no NVIDIA GPU")

MIXING = ("encode", "enter", "mix", "neck", "depth", "rays", "camera")
HEADS = ("depth", "rays", "camera")
PROFILES = [(1, 1, 1), (2, 4, 4), (5, 8, 8)]


@pytest.fixture
def graphs(exported):
    """Graphs by stage and precision: fp16 has the widths of da3-small."""

    def get(stage, precision="fp32"):
        name = "mono" if stage == "look" else "wide" if precision == "fp16" else "even"
        return exported.stage(name, stage, 18, precision)

    return get


def build_for(path, profiles=PROFILES, **how):
    return build(tensorrt_rtx, path, profiles, compute_capability="8.9", **how)


# --- building -----------------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("stage", "precision"), [*((stage, "fp16") for stage in MIXING), ("depth", "fp32"), ("look", "fp16")]
)
def test_builds_for_a_gpu_that_is_not_here(graphs, stage, precision):
    engine, timings = build_for(graphs(stage, precision))
    assert len(engine) > 10_000
    assert timings == b""  # this library chooses kernels where it runs


@needs_rtx
def test_says_which_gpus_it_can_build_for(graphs):
    with pytest.raises(EngineError, match=r"compute capability 1\.0; it knows 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        build(tensorrt_rtx, graphs("camera"), PROFILES, compute_capability="1.0")


@needs_rtx
def test_a_graph_that_cannot_be_compiled(graphs):
    with pytest.raises(EngineError, match=r"tensorrt_rtx \S+ cannot compile camera-fp32\.onnx: .*profile"):
        build_for(graphs("camera"), [(4, 2, 1)])


@needs_rtx
@pytest.mark.parametrize("content", [None, b"", b"no graph" * 40])
def test_a_file_that_is_no_graph(tmp_path, content):
    path = tmp_path / "camera.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"camera\.onnx"):
        build_for(path)


@needs_rtx
def test_progress_rises_to_one_while_other_threads_go_on(graphs):
    shares, ticks, done = [], [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        build_for(graphs("depth"), progress=shares.append)
    finally:
        done.set()
        thread.join()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 2
    assert len(ticks) > 10


@needs_rtx
def test_a_build_that_is_told_to_stop(graphs):
    shares = []
    with pytest.raises(EngineError, match=r"compiling depth-fp32\.onnx was stopped"):
        build_for(graphs("depth"), progress=lambda share: shares.append(share) is not None)
    assert len(shares) == 1


@needs_rtx
@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError])
def test_what_progress_raises_ends_the_build_and_comes_out(graphs, error, capfd):
    calls = []

    def progress(share):
        calls.append(share)
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build_for(graphs("depth"), progress=progress)
    assert len(calls) == 1
    assert capfd.readouterr() == ("", "")  # the bindings print what gets through to them


# --- precision ----------------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.parametrize("stage", [*HEADS, "look"])
def test_last_layers_are_in_single_precision(graphs, stage):
    nodes = single_precision_nodes(stage, graphs(stage, "fp16"))
    layers = graph_layers(tensorrt_rtx, graphs(stage, "fp16"))
    assert nodes
    assert not_single(nodes, layers) == []
    if stage != "camera":  # the other layers are in half precision, so the check tells the two apart
        assert any(output.dtype == "fp16" for layer in layers for output in layer.outputs)


@needs_rtx
@pytest.mark.parametrize("stage", ["depth", "rays"])
def test_a_graph_all_in_half_precision_is_found_out(graphs, stage):
    path = graphs(stage, "half")
    found = not_single(single_precision_nodes(stage, path), graph_layers(tensorrt_rtx, path))
    assert any("fp16" in phrase for phrase in found)
    for output in OUTPUTS[stage]:
        assert any(f"gives {output} in fp16" in phrase for phrase in found)


@needs_rtx
def test_exp_of_depth_belongs_to_what_is_checked(graphs):
    nodes = single_precision_nodes("depth", graphs("depth", "fp16"))
    assert sum("exp" in node for node in nodes) == 2
    assert sum("conv" in node for node in nodes) == 2


def test_stages_without_a_head_have_nothing_to_check(graphs):
    assert single_precision_nodes("camera", graphs("camera")) != frozenset()
    assert single_precision_nodes("neck", Path("not read")) == frozenset()


def test_a_graph_whose_weights_lost_their_names_is_not_called_right(graphs):
    with pytest.raises(EngineError, match="cannot be checked"):
        single_precision_nodes("rays", graphs("camera"))


def test_reads_what_the_inspector_says():
    told = [
        {
            "Name": "conv + exp",
            "Metadata": "[ONNX Layer: node_conv]\u001e[ONNX Layer: node_exp]",
            "Outputs": [{"Name": "depth", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
        },
        {
            "Name": "mye",
            "Metadata": "[ONNX Layer: node_add]",
            "Outputs": [{"Name": "confidence", "Format/Datatype": "Float"}],
        },
        {"Name": "reformat", "Outputs": [{"Name": "x", "Format/Datatype": "Half"}]},
    ]
    layers = read_layers(json.dumps({"Layers": told}))
    assert layers[0].nodes == ("node_conv", "node_exp")
    assert [layer.outputs[0].dtype for layer in layers] == ["fp16", "fp32", "fp16"]
    nodes = {"node_exp", "node_add", "node_gone"}
    assert not_single(nodes, layers) == ["conv + exp gives depth in fp16", "node_gone is in no layer"]


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["conv", "exp"]}'])
def test_an_engine_that_tells_nothing_of_its_layers(text):
    with pytest.raises(EngineError, match="no details"):
        read_layers(text)


def test_a_node_in_no_layer_is_not_called_right():
    assert not_single({"node_exp"}, [Layer("other", ("node_add",), ())]) == ["node_exp is in no layer"]


# --- running ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(graphs, tmp_path):
    """Opens runtimes over the stand-in."""
    with contextlib.ExitStack() as stack:

        def open_runtime(names=MIXING, precision="fp32", profiles=PROFILES, cache=None, **failure):
            engines = {}
            for stage in names:
                engines[stage] = tmp_path / f"{stage}.engine"
                content = stand_in.engine_bytes(graphs(stage, precision), profiles, **failure)
                engines[stage].write_bytes(content)
            runtime = TensorRTRuntime(stand_in, engines, precision=precision, runtime_cache=cache, device="cpu")
            stack.callback(runtime.close)
            return runtime

        yield open_runtime


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 3, *GRID.image)).astype(np.float32) for _ in range(count)]


def features(count, seed=2):
    return np.random.default_rng(seed).standard_normal((count, 2 * SMALL["even"].dim)).astype(np.float32)


def camera_tokens(network):
    return network.backbone.camera_tokens(2).detach().numpy()


def test_a_window_is_what_torch_says(opened):
    network = made("even")
    tokens = camera_tokens(network)
    ours, torchs = (StagedNetwork(r, tokens, 1 << 20) for r in (opened(), TorchRuntime(network, GRID)))
    for first, count in ((0, 3), (1, 5), (2, 2), (1, 8)):  # of a sliding window: frames come back
        keys = list(range(first, first + count))
        new = [image if not ours.knows(key) else None for key, image in zip(keys, images(count, first), strict=True)]
        wanted = {"depth_views": [0, count - 1], "ray_views": range(count), "reference": "middle"}
        found, right = (staged.predict(keys, new, **wanted) for staged in (ours, torchs))
        np.testing.assert_allclose(found.cameras, right.cameras, atol=1e-4)
        for name in ("depth", "rays"):
            for view, values in getattr(right, name).items():
                for value, other in zip(values, getattr(found, name)[view], strict=True):
                    np.testing.assert_allclose(other, value, rtol=1e-4, atol=1e-4)


def test_its_name(opened):
    assert opened(["camera"]).name == "tensorrt_stand_in cpu fp32"


def test_takes_the_narrowest_profile_and_makes_each_context_once(opened):
    runtime = opened(["camera"], profiles=[(1, 8, 8), (1, 1, 1), (2, 3, 4)])
    engine = runtime._engines["camera"]
    for views, profile in ((1, 1), (2, 2), (4, 2), (5, 0), (8, 0), (4, 2), (1, 1)):
        assert engine.profile(views) == profile
        (out,) = runtime.run("camera", [runtime.upload(features(views))])
        assert out.shape == (views, 9)
    assert len(engine._engine.contexts) == 3


def test_more_views_than_any_profile_has(opened):
    runtime = opened(["camera"])
    with pytest.raises(PredictorError, match=r"'camera' takes at most 8 views, not 9; lower window\.size"):
        runtime.run("camera", [runtime.upload(features(9))])


def test_values_follow_the_types_of_the_engine(opened):
    runtime = opened(["depth"], precision="fp16")
    assert runtime._engines["depth"].dtypes["level0"] == torch.float16
    assert runtime._engines["depth"].dtypes["depth"] == torch.float32
    rows, columns = GRID.rows, GRID.columns
    sizes = [(4 * rows, 4 * columns), (2 * rows, 2 * columns), (rows, columns), ((rows + 1) // 2, (columns + 1) // 2)]
    levels = [runtime.upload(np.ones((2, SMALL["wide"].features, *size), np.float32)) for size in sizes]
    depth, confidence = runtime.run("depth", levels)
    assert depth.dtype == confidence.dtype == torch.float32
    assert depth.shape == (2, *GRID.image)


def test_half_precision_comes_to_the_host_as_single(opened):
    runtime = opened(["look"], precision="fp16")
    depth, _ = runtime.run("look", [runtime.upload(images(1)[0])])
    host = runtime.fetch(depth.half())
    assert host.dtype == np.float32
    np.testing.assert_allclose(host, depth.numpy(), rtol=1e-3)


def test_outputs_that_are_kept_are_not_overwritten(opened):
    runtime = opened(["encode"])
    one, two = (runtime.run("encode", [runtime.upload(image)]) for image in images(2))
    before = [value.clone() for value in one]
    assert not {value.data_ptr() for value in one} & {value.data_ptr() for value in two}
    runtime.run("encode", [runtime.upload(images(3)[2])])
    assert all(torch.equal(value, kept) for value, kept in zip(one, before, strict=True))


def test_other_outputs_live_in_one_buffer_and_what_was_fetched_does_not(opened):
    runtime = opened(["camera"])
    (large,) = runtime.run("camera", [runtime.upload(features(8))])
    fetched = runtime.fetch(large)
    before = fetched.copy()
    (small,) = runtime.run("camera", [runtime.upload(features(2, seed=3))])
    assert small.data_ptr() == large.data_ptr()
    assert small.shape == (2, 9)
    np.testing.assert_array_equal(fetched, before)
    again = [runtime.fetch(small) for _ in range(2)]
    assert not np.shares_memory(*again)
    again[0][...] = 0  # the caller's own
    assert np.abs(again[1]).max() > 0
    assert np.abs(runtime.fetch(small)).max() > 0


def test_a_buffer_grows(opened):
    runtime = opened(["camera"])
    for views in (1, 8, 3):
        (found,) = runtime.run("camera", [runtime.upload(features(views))])
        (alone,) = runtime.run("camera", [runtime.upload(features(views)[:1])])
        np.testing.assert_allclose(runtime.fetch(found)[0], runtime.fetch(alone)[0], atol=1e-6)


def test_uploaded_values_are_copies(opened):
    runtime = opened(["camera"])
    array = features(2)
    array.flags.writeable = False
    value = runtime.upload(array)
    np.testing.assert_array_equal(runtime.fetch(value), array)
    assert value.data_ptr() != array.ctypes.data
    assert runtime.size(value) == array.nbytes


def test_joins_and_picks_views(opened):
    runtime = opened(["camera"])
    values = [runtime.upload(features(1, seed)) for seed in range(3)]
    joined = runtime.join(values)
    assert runtime.join(values[:1]) is values[0]
    assert runtime.pick(joined, [0, 1, 2]) is joined
    np.testing.assert_array_equal(runtime.fetch(runtime.pick(joined, [2, 0])), joined[[2, 0]])


def test_an_engine_that_cannot_be_read(tmp_path):
    path = tmp_path / "camera.engine"
    with pytest.raises(EngineError, match=r"camera\.engine cannot be read .*'da3 engine clean' and build it anew"):
        TensorRTRuntime(stand_in, {"camera": path}, precision="fp32", device="cpu")
    path.write_bytes(b"damaged")
    with pytest.raises(
        EngineError,
        match=r"tensorrt_stand_in 0\.0 cannot load .*camera\.engine: magic tag .*'da3 engine clean' and build it anew",
    ):
        TensorRTRuntime(stand_in, {"camera": path}, precision="fp32", device="cpu")


def test_an_engine_of_another_stage(graphs, tmp_path):
    path = tmp_path / "depth.engine"
    path.write_bytes(stand_in.engine_bytes(graphs("camera"), PROFILES))
    with pytest.raises(EngineError, match="is not the stage 'depth'"):
        TensorRTRuntime(stand_in, {"depth": path}, precision="fp32", device="cpu")


def test_another_image_size_is_refused(opened):
    runtime = opened(["camera"])
    with pytest.raises(PredictorError, match=r"refuses camera_feature .* for 'camera': .* outside the profile"):
        runtime.run("camera", [runtime.upload(np.zeros((1, 4), np.float32))])


@pytest.mark.parametrize(
    ("call", "says", "sentence"),
    [
        ("create_execution_context", "cudaMalloc failed", r"memory .* 'camera' with 2 views .*lower window\.size"),
        ("execute_async_v3", "Error Code 2: OutOfMemory", r"memory .*'camera'.*lower window\.size"),
        ("execute_async_v3", "illegal instruction", r"refuses to execute for 'camera': illegal instruction"),
    ],
)
def test_what_fails_on_the_gpu_is_one_sentence(opened, call, says, sentence):
    runtime = opened(["camera"], fail=call, says=says)
    with pytest.raises(PredictorError, match=sentence) as caught:
        runtime.run("camera", [runtime.upload(features(2))])
    assert "\n" not in str(caught.value)


def test_torch_running_out_of_memory_is_one_sentence(opened, monkeypatch):
    runtime = opened(["encode"])
    value = runtime.upload(images(1)[0])

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")

    monkeypatch.setattr(tensorrt_runtime.torch, "empty", fail)
    with pytest.raises(PredictorError, match=r"^the GPU's memory does not suffice for 'encode' with 1 view; lower"):
        runtime.run("encode", [value])


def test_compiled_kernels_are_kept_and_a_damaged_file_is_replaced(opened, tmp_path):
    cache = tmp_path / "store" / "kernels.cache"
    runtime = opened(["camera"], cache=cache)
    runtime.run("camera", [runtime.upload(features(1))])
    runtime.close()
    runtime.close()
    written = cache.read_bytes()
    assert b"camera_feature" in written
    for damage, kept in ((b"damaged", written), (written + b" another", written + b" another"), (b"", written)):
        cache.write_bytes(damage)
        again = opened(["camera"], cache=cache)
        again.run("camera", [again.upload(features(1))])
        again.close()
        assert set(cache.read_bytes().split()) == set(kept.split())


def test_a_store_that_cannot_be_written_does_not_matter(opened, tmp_path):
    (tmp_path / "file").write_text("")
    runtime = opened(["camera"], cache=tmp_path / "file" / "kernels.cache")
    runtime.run("camera", [runtime.upload(features(1))])
    runtime.close()


def test_without_use_no_cache_is_written(opened, tmp_path):
    opened(["camera"], cache=tmp_path / "kernels.cache").close()
    assert not (tmp_path / "kernels.cache").exists()


@needs_rtx
@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(graphs, tmp_path):
    path = tmp_path / "camera.engine"
    path.write_bytes(build_for(graphs("camera"))[0])
    with pytest.raises(PredictorError, match=r"^tensorrt_rtx \S+ needs an NVIDIA GPU, and there is none here; use"):
        TensorRTRuntime(tensorrt_rtx, {"camera": path}, precision="fp32")


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr(tensorrt_runtime, "find_gpu", lambda: Gpu("RTX 4090", "8.9", 24 << 30, "470.1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda, sentence in (
        (None, "built without CUDA and cannot use the RTX 4090"),
        ("12.8", "driver 470.1 is too old"),
    ):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        with pytest.raises(PredictorError, match=sentence):
            TensorRTRuntime(stand_in, {}, precision="fp16")


@needs_gpu
@needs_rtx
def test_on_a_gpu_a_window_is_what_torch_says(graphs, tmp_path):
    network, engines = made("wide"), {}
    for stage in MIXING:
        engines[stage] = tmp_path / f"{stage}.engine"
        engines[stage].write_bytes(build(tensorrt_rtx, graphs(stage, "fp16"), PROFILES)[0])
    cache = tmp_path / "kernels.cache"
    right = StagedNetwork(TorchRuntime(network, GRID), camera_tokens(network), 1 << 20)
    for _ in range(2):  # the second time with the kernels of the first
        runtime = TensorRTRuntime(tensorrt_rtx, engines, precision="fp16", runtime_cache=cache)
        ours = StagedNetwork(runtime, camera_tokens(network), 1 << 20)
        for count in (2, 5):
            window = list(range(count)), images(count)
            found, told = (s.predict(*window, depth_views=[0], ray_views=[0]) for s in (ours, right))
            np.testing.assert_allclose(found.depth[0][0], told.depth[0][0], rtol=0.02)
            np.testing.assert_allclose(found.cameras, told.cameras, atol=0.02)
        ours.close()
        assert cache.stat().st_size > 0


@needs_gpu
@needs_rtx
@pytest.mark.parametrize("stage", HEADS)
def test_on_a_gpu_compiled_heads_end_in_single_precision(graphs, stage):
    path = graphs(stage, "fp16")
    runtime = tensorrt_rtx.Runtime(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(build(tensorrt_rtx, path, PROFILES)[0])
    assert not_single(single_precision_nodes(stage, path), engine_layers(tensorrt_rtx, engine)) == []

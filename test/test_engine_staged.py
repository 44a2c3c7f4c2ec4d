"""Stages on torch and ONNX Runtime: what they say of a window is what the whole network says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
for needed in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason=f"graphs cannot be made and run without {needed}")

from small_networks import GRID, SMALL, made  # noqa: E402

from da3_ros.engine.export import example  # noqa: E402
from da3_ros.engine.look import Looker  # noqa: E402
from da3_ros.engine.onnx_runtime import OnnxRuntime  # noqa: E402
from da3_ros.engine.staged import HEAD_VIEWS, StagedNetwork  # noqa: E402
from da3_ros.engine.stages import names  # noqa: E402
from da3_ros.engine.torch_runtime import TorchRuntime  # noqa: E402
from da3_ros.errors import ModelError, PredictorError  # noqa: E402
from da3_ros.model.grid import Grid  # noqa: E402
from da3_ros.model.reference import STRATEGIES, choose_reference  # noqa: E402

slow = pytest.mark.slow  # exporting the stages takes a minute
OPSETS = (pytest.param(18, marks=slow), 23)
pytestmark = pytest.mark.timeout(600)
TOLERANCE = 1e-5  # of an output's standard deviation


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def pictures(views: int):
    return np.random.default_rng(views).standard_normal((views, 3, *GRID.image)).astype(np.float32)


@pytest.fixture(params=["torch", "onnx 23"])  # older graphs: stage by stage below
def opened(request, exported):
    """Opens a runtime for a network."""

    def get(name: str):
        kind, _, opset = request.param.partition(" ")
        if kind == "torch":
            return TorchRuntime(made(name), GRID)
        return OnnxRuntime(exported.every_stage(name, int(opset)), threads=1)

    return get


def staged(name: str, runtime) -> StagedNetwork:
    return StagedNetwork(runtime, made(name).backbone.camera_tokens(2).numpy(), 1 << 30)


def whole(net, images, strategy: str = "first"):
    """Outputs of the network in one go, per view, and the reference view."""
    x = torch.from_numpy(images)
    with torch.inference_mode():
        position = net.backbone.positions_at(x.shape[-2] // 14, x.shape[-1] // 14)
        reference = choose_reference(net.backbone.encode(x, position)[1].numpy(), strategy)
        out = net(x, reference)
    values = {
        "depth": out.depth,
        "depth confidence": out.depth_confidence,
        "rays": out.rays,
        "ray confidence": out.ray_confidence,
        "cameras": out.cameras,
    }
    return reference, {key: value.numpy() for key, value in values.items()}


def by_output(out, depth_views, ray_views):
    return {
        "depth": np.stack([out.depth[i][0] for i in depth_views]),
        "depth confidence": np.stack([out.depth[i][1] for i in depth_views]),
        "rays": np.stack([out.rays[i][0] for i in ray_views]),
        "ray confidence": np.stack([out.rays[i][1] for i in ray_views]),
        "cameras": out.cameras,
    }


def assert_close(found, right, runtime=None, spread=None):
    """By the largest difference; with ONNX Runtime by the root mean square; ``spread`` has other standard deviations.

    Where the exponential at the end is large, both libraries differ by 1e-4 from what double precision gives.
    Confidences are exponentials too: where one is larger than their standard deviation, float's own error grows with it
    and is not the same on every processor.
    """
    assert found.keys() == right.keys()
    for key, value in right.items():
        assert found[key].shape == value.shape
        std = value.std() if spread is None else spread[key]
        assert std > 1e-3, f"{key} says nothing: it is the same everywhere"
        error = np.abs(found[key] - value)
        if isinstance(runtime, OnnxRuntime):
            assert error.max() <= 100 * TOLERANCE * std, key
            error = np.sqrt(np.mean(error**2))
        elif "confidence" in str(key):
            std = np.maximum(std, value)
        assert (error <= TOLERANCE * std).all(), key


@pytest.mark.parametrize("views", [1, 2, 3, 4, HEAD_VIEWS + 1, 8])
def test_equal_to_the_whole_network(opened, views):
    images, every, runtime = pictures(views), range(views), opened("even")
    out = staged("even", runtime).predict(every, list(images[:, None]), depth_views=every, ray_views=every)
    reference, right = whole(made("even"), images)
    assert out.reference == reference
    assert_close(by_output(out, every, every), right, runtime)


@pytest.mark.parametrize("views", [1, 2, 5])
def test_equal_where_views_start_to_mix_at_an_odd_block(views):
    images, every = pictures(views), range(views)
    net = staged("odd", TorchRuntime(made("odd"), GRID))
    out = net.predict(every, list(images[:, None]), depth_views=every, ray_views=every)
    assert_close(by_output(out, every, every), whole(made("odd"), images)[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_views_are_in_their_order_whichever_is_the_reference(opened, strategy):
    images, every, runtime = pictures(5), range(5), opened("even")
    net = staged("even", runtime)
    out = net.predict(every, list(images[:, None]), reference=strategy, depth_views=every, ray_views=every)
    reference, right = whole(made("even"), images, strategy)
    assert out.reference == reference
    assert_close(by_output(out, every, every), right, runtime)


def test_the_strategies_differ_here():
    """Or the test above would show nothing."""
    assert len({whole(made("even"), pictures(5), strategy)[0] for strategy in STRATEGIES}) == len(STRATEGIES)


@pytest.mark.parametrize(
    ("depth_views", "ray_views"), [((4,), (0, 1, 2, 3, 4)), ((3, 0), (2,)), ((), (1,)), ((2,), ()), ((), ())]
)
def test_only_what_is_wanted_comes_out(opened, depth_views, ray_views):
    images, runtime = pictures(5), opened("even")
    out = staged("even", runtime).predict(range(5), list(images[:, None]), depth_views=depth_views, ray_views=ray_views)
    _, right = whole(made("even"), images)
    assert out.depth.keys() == set(depth_views)
    assert out.rays.keys() == set(ray_views)
    spread = {key: value.std() for key, value in right.items()}
    assert_close({"cameras": out.cameras}, {"cameras": right["cameras"]}, runtime)
    for found, *keys in ((out.depth, "depth", "depth confidence"), (out.rays, "rays", "ray confidence")):
        for view, values in found.items():
            alone = {key: right[key][view] for key in keys}
            assert_close(dict(zip(keys, values, strict=True)), alone, runtime, spread)


@pytest.mark.parametrize("views", [1, 3, 8])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("stage", names(SMALL["even"]))
def test_onnx_runtime_equals_torch_stage_by_stage(exported, stage, opset, views):
    runtime = OnnxRuntime({stage: exported.stage("even", stage, opset)}, threads=1)
    values = example(stage, SMALL["even"], GRID, views)
    right = TorchRuntime(made("even"), GRID).run(stage, values)
    found = runtime.run(stage, [value.numpy() for value in values])
    assert_close(dict(enumerate(found)), {i: value.numpy() for i, value in enumerate(right)}, runtime)


@pytest.mark.parametrize("library", ["torch", pytest.param("onnx", marks=slow)])
def test_a_network_of_single_views(exported, library):
    images = pictures(2)
    runtime = TorchRuntime(made("mono"), GRID)
    if library == "onnx":
        runtime = OnnxRuntime(exported.every_stage("mono", 23), threads=1)
    looker = Looker(runtime)
    with torch.inference_mode():
        depth, sky = made("mono")(torch.from_numpy(images))
    for i in range(2):
        found = looker.look(images[i : i + 1])
        assert_close({"depth": found[0], "sky": found[1]}, {"depth": depth[i].numpy(), "sky": sky[i].numpy()}, runtime)


def test_equal_to_the_official_network():
    import model_official as yardstick

    official = yardstick.official("da3-small")
    mine = yardstick.same(official, "da3-small")
    x = yardstick.images(3, 126, 168)
    net = StagedNetwork(TorchRuntime(mine, Grid.of(126, 168)), mine.backbone.camera_tokens(2).numpy(), 1 << 30)
    out = net.predict(
        range(3), list(x.numpy()[:, None]), reference="saddle_balanced", depth_views=range(3), ray_views=range(3)
    )
    found = by_output(out, range(3), range(3))
    right = yardstick.official_window(official, x)
    renamed = {"depth confidence": "confidence", "cameras": "codes"}
    assert_close(found, {key: right[renamed.get(key, key)] for key in found})


def wrong_values():
    """Per stage values of which one has a dimension, or all a rank, that does not fit."""
    for stage in names(SMALL["even"]):
        values = [value.numpy() for value in example(stage, SMALL["even"], GRID, 2)]
        last = values[-1]
        yield stage, [*values[:-1], last[..., :-1]]
        yield stage, [*values[:-1], last[0]]
        yield stage, [*values, last]
        yield stage, values[1:]


def test_values_that_do_not_fit_are_refused_in_a_sentence(opened):
    runtime = opened("even")
    refused = []
    for stage, values in wrong_values():
        try:
            runtime.run(stage, [runtime.upload(np.ascontiguousarray(value)) for value in values])
        except PredictorError as error:
            refused.append((stage, str(error)))
        else:
            assert isinstance(runtime, TorchRuntime), "graphs have shapes; torch takes whatever its layers can take"
    assert len(refused) >= 20
    for stage, sentence in refused:
        assert stage in sentence
        assert len(sentence.splitlines()) == 1


def test_a_window_of_another_size_is_refused(opened):
    with pytest.raises(PredictorError):
        staged("even", opened("even")).predict(["a"], [np.zeros((1, 3, 56, 56), np.float32)])


def test_a_closed_network_is_refused_in_a_sentence(opened):
    net = staged("even", opened("even"))
    net.predict([0], [pictures(1)])
    net.close()
    net.close()
    assert not net.knows(0)
    with pytest.raises(PredictorError, match="closed"):
        net.predict([0], [pictures(1)])


@pytest.mark.parametrize("content", [b"not a graph", b"", None, "half"])
def test_a_graph_that_cannot_be_read_is_refused_in_a_sentence(exported, tmp_path, content):
    path = tmp_path / "camera.onnx"
    if content == "half":
        whole_graph = exported.stage("even", "camera", 18).read_bytes()
        content = whole_graph[: len(whole_graph) // 2]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)) as caught:
        OnnxRuntime({"camera": path})
    assert len(str(caught.value).splitlines()) == 1

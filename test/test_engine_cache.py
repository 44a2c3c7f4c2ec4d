"""What is kept of frames: nothing it gives differs from what is computed anew, and it stays within its bytes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from da3_ros.benchmarks.network_rows import network  # noqa: E402
from da3_ros.engine.staged import StagedNetwork  # noqa: E402
from da3_ros.engine.token_cache import Encoded, TokenCache  # noqa: E402
from da3_ros.engine.torch_runtime import TorchRuntime  # noqa: E402
from da3_ros.errors import PredictorError  # noqa: E402
from da3_ros.model.grid import Grid  # noqa: E402
from da3_ros.model.presets import Preset  # noqa: E402
from da3_ros.model.reference import STRATEGIES  # noqa: E402

PRESET = Preset("tiny", "", "none", 32, 7, 2, (3, 4, 5, 6), 2, 16, (8, 8, 16, 16))
GRID = Grid(3, 4)
VIEWS, STEPS = 8, 10
TOKENS = (1 + GRID.rows * GRID.columns) * PRESET.dim * 4  # bytes of one frame's tokens
CHOOSER = PRESET.dim * 4
FRAME = 2 * TOKENS + CHOOSER  # of a frame with one part
NETWORK = network(PRESET)
IMAGES = np.random.default_rng(0).standard_normal((VIEWS + STEPS, 1, 3, *GRID.image)).astype(np.float32)


class Counting(TorchRuntime):
    """Counts what is run."""

    def __init__(self) -> None:
        super().__init__(NETWORK, GRID)
        self.runs: list[str] = []

    def run(self, stage, values):
        self.runs.append(stage)
        return super().run(stage, values)


def opened(cache_bytes: int = 1 << 30) -> tuple[StagedNetwork, Counting]:
    runtime = Counting()
    return StagedNetwork(runtime, NETWORK.backbone.camera_tokens(2).numpy(), cache_bytes), runtime


def predict(net: StagedNetwork, keys, reference="first"):
    images = [None if net.knows(key) else IMAGES[key] for key in keys]
    return net.predict(keys, images, reference=reference, depth_views=[len(keys) - 1], ray_views=range(len(keys)))


def assert_same(a, b):
    assert a.reference == b.reference
    assert np.array_equal(a.cameras, b.cameras)
    assert np.array_equal(a.descriptors, b.descriptors)
    for mine, theirs in ((a.depth, b.depth), (a.rays, b.rays)):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(x, y) for view in mine for x, y in zip(mine[view], theirs[view], strict=True))


@pytest.mark.parametrize("reference", STRATEGIES)
@pytest.mark.parametrize("frames_kept", [1000, VIEWS + 2, 0])
def test_a_sliding_window_is_as_if_computed_anew(reference, frames_kept):
    net, _ = opened(frames_kept * FRAME)
    for step in range(STEPS):
        keys = range(step, step + VIEWS)
        fresh, _ = opened()
        assert_same(predict(net, keys, reference), predict(fresh, keys, reference))


def test_a_sliding_window_encodes_one_frame_a_step():
    net, runtime = opened()
    for step in range(STEPS):
        runtime.runs.clear()
        predict(net, range(step, step + VIEWS))
        assert runtime.runs.count("encode") == (1 if step else VIEWS)
        # The new frame, and the one that has become the reference.
        assert runtime.runs.count("enter") == (2 if step else VIEWS)


def test_a_frame_that_was_let_go_is_encoded_again_to_the_same_bits():
    net, runtime = opened(cache_bytes=0)
    first = predict(net, [0, 1])
    predict(net, [2, 3])
    assert not net.knows(0)
    runtime.runs.clear()
    assert_same(predict(net, [0, 1]), first)
    assert runtime.runs.count("encode") == 2


def test_a_view_in_both_parts_is_kept_in_both():
    net, runtime = opened()
    alone, both = predict(net, [0, 1]), predict(net, [1, 0])
    runtime.runs.clear()
    assert_same(predict(net, [0, 1]), alone)
    assert_same(predict(net, [1, 0]), both)
    assert "encode" not in runtime.runs
    assert "enter" not in runtime.runs
    assert net.cache.size == 2 * (FRAME + TOKENS)


def held(net: StagedNetwork, keys) -> int:
    """Bytes of all that is kept of these frames, shared storage counted whole."""
    total = 0
    for key in keys:
        found = net.cache.get(key)
        values = [found.tokens, *found.entered.values()]
        total += sum(value.untyped_storage().nbytes() for value in values)
        assert found.chooser.base is None, "a piece of something larger keeps all of it"
        total += found.chooser.nbytes
    return total


def test_sizes_add_up_to_what_is_held():
    net, _ = opened()
    assert net.cache.size == 0
    for step in range(4):
        predict(net, range(step, step + 4))
    kept = [key for key in range(10) if net.knows(key)]
    assert kept == list(range(7))
    assert net.cache.size == held(net, kept) == 7 * FRAME + 3 * TOKENS  # three have changed their part


def test_the_least_recently_used_frames_give_way():
    net, _ = opened(cache_bytes=4 * FRAME)
    predict(net, [0, 1, 2])
    predict(net, [3, 4])
    predict(net, [0])  # used again
    predict(net, [5])
    assert [key for key in range(6) if net.knows(key)] == [0, 3, 4, 5]
    assert net.cache.size == 4 * FRAME


def test_frames_of_the_window_at_hand_stay_whatever_the_budget():
    net, _ = opened(cache_bytes=0)
    predict(net, range(5))
    assert all(net.knows(key) for key in range(5))
    predict(net, range(2, 6))
    assert [key for key in range(6) if net.knows(key)] == [2, 3, 4, 5]


def test_the_same_frame_twice_in_a_window_is_encoded_once():
    net, runtime = opened()
    images = [IMAGES[0], IMAGES[0]]
    net.predict(["a", "a"], images)
    assert runtime.runs.count("encode") == 1
    assert len(net.cache) == 1


def test_clearing_and_closing_free():
    net, _ = opened()
    predict(net, range(3))
    net.cache.clear()
    assert (net.cache.size, len(net.cache), net.knows(0)) == (0, 0, False)
    predict(net, range(3))
    net.close()
    assert (net.cache.size, len(net.cache), net.knows(0)) == (0, 0, False)


def test_what_was_computed_before_a_failure_is_kept():
    net, runtime = opened()
    wrong = np.zeros((1, 3, 56, 56), np.float32)
    with pytest.raises(PredictorError):
        net.predict([0, 1], [IMAGES[0], wrong])
    assert net.knows(0)
    assert not net.knows(1)
    runtime.runs.clear()
    fresh, _ = opened()
    assert_same(predict(net, [0, 1]), predict(fresh, [0, 1]))
    assert runtime.runs.count("encode") == 1


def test_hits_and_misses_are_counted():
    cache = TokenCache(10)
    assert cache.get("a") is None
    cache.put("a", Encoded(None, np.zeros(1, np.float32), size=8))
    assert cache.get("a") is not None
    cache.grew(cache.get("a"), 4)
    assert (cache.hits, cache.misses, cache.size) == (2, 1, 12)
    cache.trim(needed=0)
    assert (cache.size, len(cache)) == (0, 0)


def test_the_budget_holds_when_windows_fail():
    net, working = opened(cache_bytes=100_000)
    working._stages = {name: stage for name, stage in working._stages.items() if name != "mix"}
    for start in range(60):
        with pytest.raises(PredictorError, match="'mix'"):
            net.predict(range(start, start + 3), [IMAGES[i % len(IMAGES)] for i in range(start, start + 3)])
    assert net.cache.size <= 100_000
    assert len(net.cache) < 60

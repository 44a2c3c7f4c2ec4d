"""Metres from the metric network: as the official code couples the two, and where that would fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.model import nested

SHAPE = (3, 40, 60)


def window(seed: int = 0, shape: tuple[int, int, int] = SHAPE, sky_rows: int = 12, metres_per_unit: float = 2.7):
    """Depth and confidence of a window, depth of the metric network in metres, and the sky head's output."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 8, shape)
    depth = truth / metres_per_unit * rng.lognormal(0, 0.05, shape)
    confidence = 1 + rng.exponential(1, shape)
    sky = np.where(np.arange(shape[1])[:, None] < sky_rows, 0.8, 0.05) * np.ones(shape)
    return tuple(x.astype(np.float32) for x in (depth, confidence, truth * rng.lognormal(0, 0.05, shape), sky))


@pytest.fixture(scope="module")
def official():
    """The steps of the official network that come after its two parts; they use nothing of the network itself."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for name in ("depth_anything_3", "addict", "omegaconf", "einops"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from addict import Dict
    from depth_anything_3.model.da3 import DepthAnything3Net, NestedDepthAnything3Net

    def couple(depth, confidence, raw_metric, sky, K):
        tensors = [torch.from_numpy(x.copy())[None] for x in (depth, confidence, raw_metric, sky, K)]
        views = len(depth)
        out = Dict(depth=tensors[0], depth_conf=tensors[1], intrinsics=tensors[4].float())
        out.extrinsics = torch.ones(1, views, 3, 4)
        metric = Dict(depth=tensors[2], sky=tensors[3])
        for step in ("_apply_metric_scaling", "_apply_depth_alignment", "_handle_sky_regions"):
            out = getattr(NestedDepthAnything3Net, step)(None, out, metric)
        assert float(out.extrinsics[0, 0, 0, 3]) == pytest.approx(out.scale_factor)
        return out.depth[0].numpy(), out.depth_conf[0].numpy(), out.scale_factor

    def mono(depth, sky):
        out = Dict(depth=torch.from_numpy(depth.copy())[None], sky=torch.from_numpy(sky)[None])
        return DepthAnything3Net._process_mono_sky_estimation(None, out).depth[0].numpy()

    return couple, mono


def intrinsics(views: int) -> np.ndarray:
    K = np.tile(np.eye(3), (views, 1, 1))
    K[:, 0, 0], K[:, 1, 1] = 400 + 30 * np.arange(views), 420
    return K


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sky_rows", [0, 12, 30])
def test_as_the_official_code_couples(official, seed, sky_rows):
    couple, _ = official
    depth, confidence, metric, sky = window(seed, sky_rows=sky_rows)
    K = intrinsics(len(depth))
    raw = (metric * 300 / ((K[:, 0, 0] + K[:, 1, 1]) / 2)[:, None, None]).astype(np.float32)
    wanted, wanted_confidence, scale = couple(depth, confidence, raw, sky, K)
    found = nested.couple(depth, confidence, nested.metres(raw, K), sky)
    assert found.reason == ""
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert np.abs(found.depth / wanted - 1).max() < 1e-4
    assert np.array_equal(found.confidence, wanted_confidence)
    assert found.depth.dtype == found.confidence.dtype == np.float32
    assert found.sky.mean() == pytest.approx(sky_rows / SHAPE[1])


def test_far_sky_is_at_200_metres(official):
    couple, _ = official
    depth, confidence, metric, sky = window(metres_per_unit=0.01)
    K = np.tile(np.diag([300.0, 300.0, 1.0]), (3, 1, 1))
    metric *= 100
    wanted, _, _ = couple(depth, confidence, metric, sky, K)
    found = nested.couple(depth, confidence, nested.metres(metric, K), sky)
    assert (found.depth[found.sky] == 200).all()
    assert np.abs(found.depth / wanted - 1).max() < 1e-4


@pytest.mark.parametrize("sky_rows", [0, 12, 40])
def test_sky_of_single_views_is_the_official_one(official, sky_rows):
    _, mono = official
    depth, _, _, sky = window(sky_rows=sky_rows)
    assert np.abs(nested.mono_depth(depth, sky) / mono(depth, sky) - 1).max() < 1e-5


def test_large_windows_are_thinned_repeatably(official):
    """Where the official code draws pixels at random and never gives the same twice."""
    couple, _ = official
    depth, confidence, metric, sky = window(shape=(4, 210, 280))
    K = np.tile(np.diag([300.0, 300.0, 1.0]), (4, 1, 1))
    first, second = (nested.couple(depth, confidence, nested.metres(metric, K), sky) for _ in range(2))
    assert first.scale == second.scale
    assert np.array_equal(first.depth, second.depth)
    assert first.scale == pytest.approx(couple(depth, confidence, metric, sky, K)[2], rel=2e-3)


def test_all_sky_is_no_failure():
    depth, confidence, metric, sky = window(sky_rows=SHAPE[1])
    found = nested.couple(depth, confidence, metric, sky)
    assert found.scale is None
    assert "only 0 confident pixels are not sky" in found.reason
    assert found.sky.all()
    assert np.array_equal(found.depth, depth)
    assert (found.confidence == 1).all()


def test_one_view_of_sky_among_others():
    depth, confidence, metric, sky = window()
    sky[1] = 1
    found = nested.couple(depth, confidence, metric, sky)
    assert found.scale == pytest.approx(2.7, rel=0.05)
    assert found.sky[1].all()
    assert np.unique(found.depth[1]).size == 1


@pytest.mark.parametrize(("ground", "works"), [(10, False), (12, False), (30, True)])
def test_few_pixels(ground, works):
    """Of the pixels that are not sky the more confident half has a say, and eleven are needed."""
    depth, confidence, metric, sky = window(sky_rows=SHAPE[1])
    sky.reshape(-1)[:ground] = 0
    found = nested.couple(depth, confidence, metric, sky)
    assert (found.scale is not None) == works
    assert bool(found.reason) != works
    assert np.isfinite(found.depth).all()


def test_views_whose_camera_is_unknown_have_no_say():
    depth, confidence, metric, sky = window()
    K = np.tile(np.diag([300.0, 300.0, 1.0]), (3, 1, 1))
    K[1] = np.nan
    metric[1] *= 50
    found = nested.couple(depth, confidence, nested.metres(metric, K), sky)
    assert found.scale == pytest.approx(2.7, rel=0.05)
    assert np.isfinite(found.depth).all()
    K[:] = np.nan
    assert nested.couple(depth, confidence, nested.metres(metric, K), sky).scale is None


def test_inputs_are_left_alone():
    given_arrays = window()
    before = [x.copy() for x in given_arrays]
    nested.couple(*given_arrays)
    nested.mono_depth(given_arrays[0], given_arrays[3])
    assert all(np.array_equal(a, b) for a, b in zip(given_arrays, before, strict=True))


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 0.5), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0])
)
def test_whatever_comes_in(seed, share_of_sky, share_of_damage, damage):
    """Never a failure; a scale, where there is one, is a finite positive number."""
    rng = np.random.default_rng(seed)
    depth, confidence, metric, sky = window(seed, (2, 5, 7), sky_rows=0)
    sky[rng.random(sky.shape) < share_of_sky] = 1
    for array in (depth, confidence, metric, sky):
        array[rng.random(array.shape) < share_of_damage] = damage
    found = nested.couple(depth, confidence, metric, sky)
    assert found.scale is None or (np.isfinite(found.scale) and found.scale > 0)
    assert (found.scale is None) == bool(found.reason)
    assert found.depth.shape == depth.shape
    nested.mono_depth(depth, sky)

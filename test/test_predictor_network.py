"""The network as a predictor: what comes out is what the network says, whatever was predicted before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tiny_model import tiny_model  # noqa: E402

from da3_ros import config as configuration  # noqa: E402
from da3_ros.config import Config  # noqa: E402
from da3_ros.errors import ModelError, PredictorError  # noqa: E402
from da3_ros.model import camera_code, confidence  # noqa: E402
from da3_ros.model.checkpoint import load  # noqa: E402
from da3_ros.model.preprocess import Preprocessor  # noqa: E402
from da3_ros.predictors import open_predictor  # noqa: E402
from da3_ros.predictors.recorded import RecordedPredictor, RecordingPredictor  # noqa: E402
from da3_ros.slam.window import unpack  # noqa: E402
from da3_ros.types import Frame, Predictor, Window  # noqa: E402

SIZE = (84, 56)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def metric_folder(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "metric", mono=True)


@pytest.fixture
def frames(walk) -> tuple[Frame, ...]:
    return tuple(replace(frame, truth=None) for frame in walk[:40:4])


def opened(folder: Path, **values: object) -> Predictor:
    values = {"network__size": "84x56", "network__runtime": "torch", **values}
    changes = {key.replace("__", "."): value for key, value in values.items()}
    return open_predictor(configuration.updated(Config(), {"predictor": str(folder), **changes}))


def window(frames, depth_views=None) -> Window:
    views = (len(frames) - 1,) if depth_views is None else depth_views
    return Window(1, tuple(frames), tuple(views))


def whole(folder: Path, frames, reference: int = 0):
    """The network in one go."""
    prepare = Preprocessor(SIZE)
    images = torch.from_numpy(np.stack([prepare.frame(frame.image) for frame in frames]))
    with torch.inference_mode():
        return load(folder).network(images, reference)


def test_it_says_what_the_network_says(folder, frames):
    out = opened(folder).predict(window(frames[:5], (1, 4)))
    right = whole(folder, frames[:5])
    assert out.depth.shape == out.confidence.shape == (5, 56, 84)
    excess = right.depth_confidence.numpy() - 1
    middle = max(np.median(excess[[1, 4]]), 0.25)
    for view in range(5):
        if view in (1, 4):
            assert np.allclose(out.depth[view], right.depth[view], rtol=1e-4)
            assert np.allclose(out.confidence[view], excess[view] / (excess[view] + middle), atol=1e-4)
        else:
            assert np.isnan(out.depth[view]).all()
            assert (out.confidence[view] == 0).all()
    assert np.allclose(out.rays.rays, right.rays, atol=1e-3 * float(right.rays.std()))
    assert out.rays.confidence.shape == (5, 32, 48)
    assert ((out.rays.confidence >= 0) & (out.rays.confidence < 1)).all()
    assert out.scale_sigma is None
    assert out.T_window_cam is None
    assert out.tokens.shape[:2] == (5, 1)


@pytest.mark.parametrize("level", [0.3, 1.0, 40.0])
def test_confidence_is_relative_to_the_window(level):
    rng = np.random.default_rng(3)
    raw = (1 + level * np.exp(rng.standard_normal((2, 30, 40)))).astype(np.float32)
    raw[0, 0, 0], raw[0, 0, 1], raw[0, 0, 2] = np.nan, np.inf, 0.5
    found = confidence.of_depth(raw)
    assert np.median(found) == pytest.approx(0.5, abs=0.02)
    assert ((found >= 0) & (found < 1)).all()
    assert (found[0, 0, :3] == 0).all()
    order = np.argsort(raw[1], axis=None)
    assert (np.diff(found[1].ravel()[order]) >= 0).all(), "the order stays"


def test_a_faint_window_has_little_confidence():
    assert (confidence.of_depth(np.full((1, 4, 4), 1.05, np.float32)) < 0.2).all()


def test_what_is_not_finite_does_not_make_the_rest_look_sure():
    raw = np.full((1, 10, 10), 5.0, np.float32)
    raw[0, :7] = np.nan
    found = confidence.of_depth(raw)
    assert (found[0, :7] == 0).all()
    assert np.allclose(found[0, 7:], 0.5)


def test_the_camera_head_gives_poses_instead(folder, frames):
    out = opened(folder, network__pose="head").predict(window(frames[:3]))
    right = camera_code.decode(whole(folder, frames[:3]).cameras.numpy(), *SIZE)
    assert out.rays is None
    assert np.allclose(out.T_window_cam, right.T_window_cam, atol=1e-4, equal_nan=True)
    if right.valid.all():
        assert np.allclose([camera.matrix for camera in out.cameras], right.K, rtol=1e-4)


@pytest.mark.parametrize("reference", ["first", "middle", "saddle_balanced"])
def test_the_reference_view_is_chosen(folder, frames, reference):
    out = opened(folder, network__reference=reference).predict(window(frames[:5]))
    agreeing = [
        view for view in range(5) if np.allclose(out.rays.rays, whole(folder, frames[:5], view).rays, atol=1e-4)
    ]
    assert len(agreeing) == 1
    assert reference == "saddle_balanced" or agreeing == [{"first": 0, "middle": 2}[reference]]


def test_what_was_predicted_before_changes_nothing(folder, frames):
    sliding = opened(folder)
    for start in range(5):
        kept = sliding.predict(window(frames[start : start + 4]))
    fresh = opened(folder).predict(window(frames[4:8]))
    assert np.array_equal(kept.depth, fresh.depth, equal_nan=True)
    assert np.array_equal(kept.rays.rays, fresh.rays.rays)


def test_frames_with_one_number_and_stamp_are_told_apart(folder, frames):
    predictor = opened(folder)
    first = predictor.predict(window(frames[:2]))
    disguised = replace(frames[5], id=frames[1].id, stamp_ns=frames[1].stamp_ns)
    second = predictor.predict(window([frames[0], disguised]))
    assert not np.allclose(first.depth[1], second.depth[1])


@pytest.mark.parametrize(("size", "expected"), [("auto", (210, 280)), ("56x42", (42, 56))])
def test_images_are_fitted(folder, frames, size, expected):
    out = opened(folder, network__size=size).predict(window(frames[:1]))
    assert out.depth.shape[1:] == expected


def test_another_size_of_image_opens_the_network_again(folder, frames):
    predictor = opened(folder, network__size="auto")
    predictor.prepare(160, 120)
    tall = replace(frames[0], image=np.ascontiguousarray(np.swapaxes(frames[0].image, 0, 1)))
    assert predictor.predict(window(frames[:1])).depth.shape == (1, 210, 280)
    assert predictor.predict(window([tall])).depth.shape == (1, 280, 210)
    with pytest.raises(PredictorError, match="one size"):
        predictor.predict(window([frames[0], tall]))
    assert predictor.predict(window(frames[:1])).depth.shape == (1, 210, 280), "it stays usable"


@pytest.mark.parametrize("level", [0, 127, 255])
def test_constant_images_give_defined_output(folder, frames, level):
    flat = [replace(frame, image=np.full_like(frame.image, level)) for frame in frames[:3]]
    out = opened(folder).predict(window(flat))
    assert (np.isfinite(out.depth[-1]) | np.isnan(out.depth[-1])).all()
    assert np.isfinite(out.rays.rays).all()


def test_wrong_sizes_are_named(folder):
    with pytest.raises(PredictorError, match="try 98x56"):
        opened(folder, network__size="100x56").prepare(160, 120)
    with pytest.raises(PredictorError, match="WIDTHxHEIGHT"):
        opened(folder, network__size="small").prepare(160, 120)


def test_what_gives_no_poses_is_no_predictor(metric_folder):
    with pytest.raises(ModelError, match=r"no poses.*metric\.model"):
        opened(metric_folder)


def test_typing_errors_are_answered_with_what_there_is():
    with pytest.raises(PredictorError, match="da3-small, da3-base"):
        open_predictor(configuration.updated(Config(), {"predictor": "da3-smal"}))


def test_an_image_says_how_long_its_metres_last(folder, metric_folder, frames):
    predictor = opened(folder, metric__model=str(metric_folder), metric__interval_s=0.5, metric__sigma=0.2)
    claims = [predictor.predict(window(frames[i : i + 2])) for i in range(4)]  # 15 Hz, every fourth frame
    assert [claim.scale_sigma is not None for claim in claims] == [True, False, True, False]
    assert claims[0].scale_sigma >= 0.2
    plain = opened(folder).predict(window(frames[:2]))
    ratio = claims[0].depth[1] / plain.depth[1]
    known = np.isfinite(ratio)
    assert known.any()
    assert np.ptp(ratio[known]) < 1e-4 * ratio[known].mean(), "one scale for the whole window"
    assert np.allclose(claims[0].rays.rays[..., 3:], plain.rays.rays[..., 3:] * ratio[known].mean(), rtol=1e-3)


def test_a_second_look_at_a_view_claims_its_metres_again(folder, metric_folder, frames):
    """A scale break is looked at again over fewer views: without a claim nothing could confirm it."""
    predictor = opened(folder, metric__model=str(metric_folder), metric__interval_s=10.0)
    assert predictor.predict(window(frames[:4])).scale_sigma is not None
    again = predictor.predict(window(frames[2:4]))
    assert again.scale_sigma is not None
    fresh = opened(folder, metric__model=str(metric_folder)).predict(window(frames[2:4]))
    assert np.allclose(again.depth[-1], fresh.depth[-1], rtol=1e-5, equal_nan=True)
    assert predictor.predict(window(frames[2:5])).scale_sigma is None


def test_sky_stays_away_in_later_windows(folder, tmp_path, frames):
    """The metric network here sees sky wherever its head is positive, which with random weights is about half."""
    predictor = opened(folder, metric__model=str(tiny_model(tmp_path / "m", mono=True)), metric__interval_s=10.0)
    first = predictor.predict(window(frames[:2], (0, 1)))
    hidden = np.isnan(first.depth[1])
    assert 0 < hidden.mean() < 1
    later = predictor.predict(window(frames[1:4], (0, 1, 2)))
    assert np.array_equal(np.isnan(later.depth[0]), hidden)
    assert (later.confidence[0][hidden] == 0).all()
    assert np.isfinite(later.depth[2]).all(), "a view that was never looked at has no sky"


def test_without_calibration_there_are_no_metres(folder, metric_folder, frames):
    blind = [replace(frame, camera=None) for frame in frames[:2]]
    assert opened(folder, metric__model=str(metric_folder)).predict(window(blind)).scale_sigma is None


def test_a_network_without_metres_is_refused_as_metric_model(folder):
    with pytest.raises(ModelError, match="da3metric-large"):
        opened(folder, metric__model=str(folder)).prepare(160, 120)


def test_a_recorded_network_needs_no_network(folder, frames, tmp_path):
    recorder = RecordingPredictor(opened(folder), tmp_path / "said")
    said = recorder.predict(window(frames[:3]))
    recorder.complete()
    recorder.close()
    replayed = RecordedPredictor(tmp_path / "said").predict(window(frames[:3]))
    assert np.array_equal(said.depth, replayed.depth, equal_nan=True)
    assert np.array_equal(said.rays.rays, replayed.rays.rays)


def test_rays_that_form_no_camera_are_refused_and_not_a_crash(folder, frames):
    predictor = opened(folder)
    out = predictor.predict(window(frames[:3]))
    given = [frame.camera for frame in frames[:3]]
    try:
        views = unpack(out, given, given)
    except PredictorError:
        return
    assert all(np.isfinite(view.T_win_cam).all() for view in views)

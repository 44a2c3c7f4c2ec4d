"""``da3 predict``: images in, one file of arrays out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tiny_model import tiny_model  # noqa: E402

from da3_ros.cli import main  # noqa: E402
from da3_ros.engine import fit  # noqa: E402
from da3_ros.engine.choice import choose  # noqa: E402
from da3_ros.engine.fit import require_fit  # noqa: E402
from da3_ros.errors import PredictorError  # noqa: E402
from da3_ros.model.presets import PRESETS  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def metric_model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "metric", mono=True)


@pytest.fixture
def images(walk, tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, frame in enumerate(walk[:12:4]):
        cv2.imwrite(str(folder / f"{i}.png"), frame.image[:, :, ::-1])
    return folder


def predict(model: Path | str, out: Path, *arguments: object) -> dict[str, np.ndarray]:
    command = ["predict", *map(str, arguments), "--model", str(model), "--runtime", "torch", "--out", str(out)]
    assert main(command) == 0
    with np.load(out, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_a_folder_of_images(model, images, tmp_path, capsys):
    out = predict(model, tmp_path / "out" / "p.npz", images, "--size", "84x56")
    assert out["depth"].shape == out["confidence"].shape == out["depth_confidence_raw"].shape == (3, 56, 84)
    assert out["rays"].shape == (3, 32, 48, 6)
    assert out["ray_confidence_raw"].shape == (3, 32, 48)
    assert out["T_world_cam"].shape == (3, 4, 4)
    assert out["K"].shape == (3, 3, 3)
    assert ((out["confidence"] >= 0) & (out["confidence"] < 1)).all()
    assert (out["depth_confidence_raw"] >= 1).all()
    assert out["unit"] == "window units"
    assert 0 <= out["reference"] < 3
    assert [Path(name).name for name in out["images"]] == ["0.png", "1.png", "2.png"]
    told = capsys.readouterr()
    assert "3 images at 84x56" in told.out
    assert "torch cpu fp32" in told.err


def test_the_network_that_comes_with_the_package_sees_depth(walk, images, tmp_path):
    out = predict("da3-tiny", tmp_path / "p.npz", images)
    assert out["depth"].shape == (3, 112, 140)  # what it was trained on
    for depth, frame in zip(out["depth"], walk[:12:4], strict=True):
        true = cv2.resize(frame.truth.depth, (140, 112), interpolation=cv2.INTER_NEAREST)
        valid = np.isfinite(true)
        logs = np.log(depth[valid]), np.log(true[valid])
        assert np.corrcoef(*logs)[0, 1] > 0.3


def test_sizes_as_released(model, images, tmp_path):
    assert predict(model, tmp_path / "p.npz", images / "0.png")["depth"].shape == (1, 378, 504)


@pytest.mark.parametrize(("reference", "view"), [("first", 0), ("middle", 1)])
def test_the_reference_view_is_the_world(model, images, tmp_path, reference, view):
    arguments = (images, "--size", "84x56", "--reference", reference, "--pose", "head")
    assert predict(model, tmp_path / "p.npz", *arguments)["reference"] == view


def test_a_calibration_scales_with_the_image(model, images, tmp_path):
    camera = tmp_path / "camera.yaml"
    camera.write_text("{fx: 150, fy: 160, cx: 79.5, cy: 49.5}")
    out = predict(model, tmp_path / "p.npz", images, "--size", "84x56", "--camera", camera, "--pose", "head")
    expected = [[150 * 84 / 160, 0, 80 * 84 / 160 - 0.5], [0, 160 * 56 / 120, 50 * 56 / 120 - 0.5], [0, 0, 1]]
    assert np.allclose(out["K"], expected)


def test_grey_and_sixteen_bit_images(model, tmp_path):
    ramp = np.linspace(0, 255, 80 * 60).reshape(60, 80)
    files = [tmp_path / name for name in ("grey.png", "deep.png", "flat.png")]
    for file, image in zip(files, (ramp.astype(np.uint8), (257 * ramp).astype(np.uint16), 0 * ramp), strict=True):
        cv2.imwrite(str(file), image)
    out = predict(model, tmp_path / "p.npz", *files, "--size", "84x56")
    assert np.isfinite(out["rays"]).all()
    assert np.isfinite(out["depth"]).any(axis=(1, 2)).all()
    alike = predict(model, tmp_path / "a.npz", files[0], "--size", "84x56")["depth"]
    assert np.allclose(alike, predict(model, tmp_path / "b.npz", files[1], "--size", "84x56")["depth"], rtol=0.05)


def test_a_model_of_single_views_gives_depth_and_sky(metric_model, images, tmp_path, capsys):
    plain = predict(metric_model, tmp_path / "p.npz", images, "--size", "84x56")
    assert {"depth", "sky"} <= set(plain)
    assert not {"rays", "T_world_cam", "confidence"} & set(plain)
    assert plain["sky"].dtype == bool
    assert np.isnan(plain["depth"][plain["sky"]]).all()


def test_it_draws_a_picture(model, images, tmp_path):
    picture = tmp_path / "p.png"
    predict(model, tmp_path / "p.npz", images, "--size", "84x56", "--picture", picture)
    height, width = cv2.imread(str(picture)).shape[:2]
    assert (width, height) == (3 * 380, 3 * 285)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing.png",), "nothing.png"),
        (("empty",), "holds no images"),
        (("images/0.png", "wide.png"), "one size, not"),
        (("text.png",), "not an image"),
        (("images", "--size", "100x100"), "multiples of 14"),
        (("images", "--size", "big"), "WIDTHxHEIGHT"),
        (("images", "--out", "images"), "it is a folder"),
        (("images", "--threads", "-1"), "--threads"),
        (("images", "--picture", "p.xyz"), "names no picture format"),
        (("images", "--camera", "text.png"), "text.png"),
        (("images", "--device", "cuda"), "no NVIDIA GPU"),
        (("images", "--model", "text.png"), "text.png is a file"),
        (("images", "--model", "no-such-model"), "there is no model 'no-such-model'"),
    ],
)
def test_mistakes_get_one_sentence(model, images, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    cv2.imwrite("wide.png", np.zeros((60, 200, 3), np.uint8))
    assert main(["predict", "--model", str(model), *arguments]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("da3: ")]
    assert len(told) == 1
    assert sentence in told[0]


def test_views_beyond_memory_are_refused_with_the_number_that_fits(monkeypatch):
    monkeypatch.setattr(fit, "free_bytes", lambda device: 8 << 30)
    choice = choose("torch", "cpu")
    with pytest.raises(
        PredictorError, match=r"64 views of 1400x1400 need about .* 8\.0 GiB are free: at most \d+ would"
    ):
        require_fit(PRESETS["da3-large"], (1400, 1400), 64, choice)
    with pytest.raises(PredictorError, match="not even one would fit"):
        require_fit(PRESETS["da3-large"], (7000, 7000), 64, choice)
    require_fit(PRESETS["da3-small"], (280, 210), 1, choice)


def test_what_is_free_is_less_than_what_there_is():
    assert 0 < fit.free_bytes("cpu") < psutil.virtual_memory().total

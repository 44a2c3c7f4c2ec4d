"""Images to what the network takes: as the official code does it, and in one step."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.errors import PredictorError
from da3_ros.geometry.camera import Pinhole
from da3_ros.model import preprocess
from da3_ros.model.preprocess import Preprocessor


def image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Detail at every scale, and all values."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3))
    waves = 127 + 127 * np.sin(np.arange(width)[None, :, None] / (5, 17, 60))
    return ((noise + waves) / 2).astype(np.uint8)


@pytest.fixture(scope="module")
def official():
    """The official InputProcessor; of torchvision, which it wants, the three transforms it uses."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    pytest.importorskip("depth_anything_3", reason="the official modules are not installed")

    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = (torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (mean, std))

        def __call__(self, x):
            return x.clone().sub_(self.mean).div_(self.std)

    class ToTensor:
        def __call__(self, x):
            return torch.from_numpy(np.array(x)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)

    transforms = types.ModuleType("torchvision.transforms")
    transforms.Normalize, transforms.ToTensor = Normalize, ToTensor
    torchvision = types.ModuleType("torchvision")
    torchvision.transforms = transforms
    stand_ins = {
        "torchvision": torchvision,
        "torchvision.transforms": transforms,
        "imageio": types.ModuleType("imageio"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            if name not in sys.modules:
                patch.setitem(sys.modules, name, module)
        from depth_anything_3.utils.io.input_processor import InputProcessor

        yield InputProcessor()


SIZES = [
    (640, 480),
    (1280, 720),
    (1920, 1080),
    (752, 480),
    (1241, 376),
    (480, 640),
    (504, 504),
    (504, 378),
    (505, 379),
    (503, 377),
    (518, 518),
    (100, 75),
    (320, 240),
    (333, 1000),
    (200, 199),
    (1008, 27),
    (504, 441),  # 441 / 14 = 31.5: halves go up
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_as_the_official_code_does_it(official, width, height):
    pixels = image(width, height)
    K = np.array([[0.9 * width, 0, 0.4 * width], [0, 0.8 * height, 0.6 * height], [0, 0, 1]])
    wanted, _, wanted_K = official([pixels], None, K[None], num_workers=1)
    camera = Pinhole(width, height, K[0, 0], K[1, 1], K[0, 2] - 0.5, K[1, 2] - 0.5)
    found = Preprocessor().window([pixels], [camera])
    assert found.images.shape == tuple(wanted.shape)
    assert np.array_equal(found.images, wanted.numpy()), "to the last bit"
    # The official code puts the centre of the first pixel at 0.5, OpenCV at 0.
    corner = found.cameras[0].matrix + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    assert np.abs(corner - wanted_K[0].numpy()).max() < 1e-3
    assert found.cameras[0].size == found.images.shape[:1:-1]
    assert Preprocessor().size_of(width, height) == found.images.shape[:1:-1]


def test_fixed_size_is_the_official_one_where_that_takes_one_step():
    for width, height in ((640, 480), (504, 378), (252, 189)):
        pixels = image(width, height)
        assert np.array_equal(Preprocessor((504, 378)).frame(pixels), Preprocessor().frame(pixels))


def test_arrays_are_what_a_runtime_wants():
    for preprocessor in (Preprocessor(), Preprocessor((280, 210))):
        prepared = preprocessor.window([image(640, 480, seed) for seed in range(3)])
        assert prepared.images.dtype == np.float32
        assert prepared.images.flags.c_contiguous
        assert prepared.cameras == (None, None, None)
    assert prepared.images.shape == (3, 3, 210, 280)


def test_colours_are_normalised_per_channel():
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[:] = (255, 128, 0)
    found = Preprocessor((28, 28)).frame(pixels)
    expected = (np.array([1, 128 / 255, 0]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert np.abs(found - expected[:, None, None]).max() < 1e-6


@settings(deadline=None, max_examples=60)
@given(st.integers(30, 900), st.integers(30, 700), st.integers(1, 40), st.integers(1, 30), st.booleans())
def test_pixels_and_cameras_move_together(width, height, columns, rows, fixed):
    """A ramp tells for every pixel where it was; the resized camera must see it in the same direction."""
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    ramp = np.stack([255 * u / width, 255 * v / height, 0 * u], axis=-1).astype(np.uint8)
    camera = Pinhole(width, height, 0.7 * width, 0.9 * height, 0.45 * width, 0.6 * height)
    preprocessor = Preprocessor((14 * columns, 14 * rows) if fixed else None)
    found = preprocessor.window([ramp], [camera])
    (small,) = found.cameras
    assert small.size == preprocessor.size_of(width, height) == found.images.shape[:1:-1]
    colours = found.images[0] * np.reshape([0.229, 0.224, 0.225], (3, 1, 1)) + np.reshape(
        [0.485, 0.456, 0.406], (3, 1, 1)
    )
    # Back to the pixel that was there; the ramp's steps are rounded down, by half a step on average.
    seen = np.stack([colours[0] * width, colours[1] * height], axis=-1) + np.array([width, height]) / 510
    rays = small.directions()
    expected = rays[..., :2] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    inner = np.s_[small.height // 4 : -(small.height // 4) or None, small.width // 4 : -(small.width // 4) or None]
    error = (seen - expected)[inner] / (width, height)
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.004, "less than a step of the ramp, and no drift"
    assert np.abs(error).max() < 0.016


@pytest.mark.parametrize(
    "given_image",
    [
        image(70, 56).mean(axis=2).astype(np.uint8),
        image(70, 56).mean(axis=2).astype(np.uint8)[:, :, None],
        np.dstack([image(70, 56).mean(axis=2).astype(np.uint8)] * 3 + [np.full((56, 70), 9, np.uint8)]),
        np.repeat(image(70, 56).mean(axis=2).astype(np.uint8)[:, :, None], 3, axis=2).astype(np.uint16) * 256 + 77,
        (image(70, 56).mean(axis=2).astype(np.uint16) * 256 + 200),
        np.asfortranarray(np.repeat(image(70, 56).mean(axis=2).astype(np.uint8)[:, :, None], 3, axis=2)),
        np.repeat(image(70, 56).mean(axis=2).astype(np.uint8)[::-1, :, None], 3, axis=2)[::-1],
    ],
    ids=["grey", "grey with an axis", "RGBA", "16 bits", "grey of 16 bits", "column-major", "a view"],
)
def test_other_kinds_of_images(given_image):
    grey = image(70, 56).mean(axis=2).astype(np.uint8)
    wanted = Preprocessor((70, 56)).frame(np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(Preprocessor((70, 56)).frame(given_image), wanted)
    assert np.array_equal(
        Preprocessor().frame(given_image), Preprocessor().frame(np.repeat(grey[:, :, None], 3, axis=2))
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((10, 10, 2), np.uint8), "shape (10, 10, 2) is no image"),
        (np.zeros((0, 10, 3), np.uint8), "shape (0, 10, 3) is no image"),
        (np.zeros((2, 10, 10, 3), np.uint8), "shape (2, 10, 10, 3) is no image"),
        (np.zeros(3, np.uint8), "shape (3,) is no image"),
        (np.zeros((10, 10, 3), np.float32), "an image of float32 has no known range"),
        (np.zeros((10, 10, 3), bool), "an image of bool has no known range"),
        (np.zeros((10, 10, 3), np.int32), "an image of int32 has no known range"),
    ],
)
def test_what_is_no_image(wrong, words):
    for preprocessor in (Preprocessor(), Preprocessor((28, 28))):
        with pytest.raises(PredictorError) as caught:
            preprocessor.frame(wrong)
        assert words in str(caught.value)


def test_windows_that_do_not_fit_together():
    camera = Pinhole(640, 480, 500, 500, 320, 240)
    with pytest.raises(PredictorError, match="at least one image"):
        Preprocessor().window([])
    with pytest.raises(PredictorError, match="must have one size, not 320x240, 640x480; resize"):
        Preprocessor((28, 28)).window([image(640, 480), image(320, 240)])
    with pytest.raises(PredictorError, match="2 images with 1 cameras"):
        Preprocessor().window([image(640, 480)] * 2, [camera])
    with pytest.raises(PredictorError, match="calibrated for 640x480 pixels does not fit an image of 320x240"):
        Preprocessor().window([image(320, 240)], [camera])


@pytest.mark.parametrize(
    ("size", "words"),
    [((500, 378), "try 504x378"), ((0, 14), "try 14x14"), ((7, 14), "try 14x14"), ((-14, 14), "try 14x14")],
)
def test_sizes_that_do_not_split_into_patches(size, words):
    with pytest.raises(PredictorError, match=words):
        Preprocessor(size)


def test_very_flat_images_keep_one_row_of_patches():
    """Where the official code makes a side of one pixel and fails."""
    assert preprocess.fitted_size(5000, 20) == (504, 14)
    assert Preprocessor().frame(image(5000, 20)).shape == (3, 14, 504)


def test_longest_side_can_be_chosen():
    assert Preprocessor(longest=280).size_of(640, 480) == (280, 210)
    with pytest.raises(PredictorError, match="at least 14 pixels"):
        Preprocessor(longest=13)

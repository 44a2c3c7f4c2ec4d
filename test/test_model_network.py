"""The network against the official one: equal, and unequal as soon as any detail is wrong."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import model_official as yardstick
import torch
from torch import nn

from da3_ros.model import backbone, camera_code, grid, network, positions
from da3_ros.model.presets import PRESETS
from da3_ros.model.reference import choose_reference

HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # from OpenCV's pixel centres to the official ones
large = pytest.mark.skipif(
    not os.environ.get("DA3_LARGE"), reason="takes minutes; set DA3_LARGE=1 to run it (smaller sizes have run)"
)


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=2)  # the large ones are gigabytes
def pair(name: str):
    official = yardstick.official(name)
    return official, yardstick.same(official, name)


def assert_equal(name: str, views: int, height: int, width: int):
    official, mine = pair(name)
    x = yardstick.images(views, height, width)
    found = yardstick.differences(yardstick.official_window(official, x), yardstick.our_window(mine, x))
    assert max(found.values()) <= yardstick.TOLERANCE, found


@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("name", ["da3-small", "da3-base"])
def test_equal_to_the_official_network(name, views):
    assert_equal(name, views, 126, 168)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("name", ["da3-small", "da3-base"])
def test_equal_at_the_size_of_the_position_embedding(name, views):
    assert_equal(name, views, 518, 518)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("size", [(126, 168), pytest.param((518, 518), marks=large)])
@pytest.mark.parametrize("name", ["da3-large", "da3metric-large"])
def test_equal_for_large_networks(name, views, size):
    assert_equal(name, views, *size)


@large
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_equal_for_the_giant():
    assert_equal("da3-giant", 3, 70, 98)


def cameras(views: int, width: int, height: int, seed: int = 3):
    """World-to-camera matrices and intrinsics as the official network takes them."""
    rng = np.random.default_rng(seed)
    from da3_ros.geometry import se3

    T = se3.exp(rng.normal(0, 0.4, (views, 6)))
    K = np.tile(np.diag([width * 0.8, width * 0.9, 1.0]), (views, 1, 1)) * rng.uniform(0.8, 1.2, (views, 1, 1))
    K[:, :, 2] = (width / 2, height / 2, 1)
    return T, K


@pytest.mark.parametrize("views", [1, 2, 4])
def test_equal_with_known_cameras(views):
    from depth_anything_3.model.utils.transform import extri_intri_to_pose_encoding
    from depth_anything_3.utils.geometry import affine_inverse

    official, mine = pair("da3-small")
    x = yardstick.images(views, 112, 154)
    T_cam_world, K = cameras(views, 154, 112)
    # The official encoder wants what its interface makes of poses: the first is the origin, distances are about 1.
    codes, unit = camera_code.encode(np.linalg.inv(T_cam_world), K - HALF, 154, 112)
    relative = T_cam_world @ np.linalg.inv(T_cam_world[0])
    relative[:, :3, 3] /= unit
    theirs = torch.from_numpy(relative).float(), torch.from_numpy(K).float()
    rounded = extri_intri_to_pose_encoding(affine_inverse(theirs[0][None]), theirs[1][None], (112, 154))[0].numpy()
    assert np.abs(codes - rounded).max() < 1e-6
    # From here on with their rounding, which the network amplifies.
    known = yardstick.official_window(official, x, theirs)
    found = yardstick.differences(known, yardstick.our_window(mine, x, codes=rounded))
    assert max(found.values()) <= yardstick.TOLERANCE, found
    unknown = yardstick.our_window(mine, x, 0)
    assert yardstick.differences(known, unknown)["depth"] > 1e-3, "the cameras must matter"


def test_equal_to_the_official_forward():
    """Its own entry point, which turns rays into nothing and codes into world-to-camera poses."""
    official, mine = pair("da3-small")
    x = yardstick.images(3, 112, 154, seed=5)
    with torch.no_grad():
        out = official(x[None])
    found = yardstick.our_window(mine, x)
    T_cam_world = np.linalg.inv(np.concatenate([found["poses"], np.tile([[[0, 0, 0, 1]]], (3, 1, 1))], axis=1))[:, :3]
    for theirs, ours in ((out.depth, found["depth"]), (out.depth_conf, found["confidence"])):
        assert np.abs(theirs[0].numpy() - ours).max() <= yardstick.TOLERANCE * ours.std()
    assert np.abs(out.extrinsics[0].numpy() - T_cam_world).max() <= 1e-5


@pytest.mark.parametrize("views", [2, 3, 5, 16])
def test_reference_view_is_the_official_choice(views):
    from depth_anything_3.model.reference_view_selector import select_reference_view

    generator = torch.Generator().manual_seed(views)
    for _ in range(20):
        tokens = torch.randn(views, 1, 24, generator=generator) * torch.rand(views, 1, 1, generator=generator)
        for strategy in ("first", "middle", "saddle_balanced"):
            # With fewer than three views the official network does not ask.
            official = int(select_reference_view(tokens[None], strategy)) if views >= 3 else 0
            assert choose_reference(tokens[:, 0].numpy(), strategy) == official


def test_views_that_are_all_the_same_have_a_reference():
    assert choose_reference(np.ones((4, 24), np.float32), "saddle_balanced") == 0


# Mistakes, each of which somebody made or nearly made. A mistake changes our network, or the numbers it is given.

Mistake = Callable[[pytest.MonkeyPatch, network.Network], None]
MISTAKES: dict[str, Mistake] = {}


def mistake(words: str) -> Callable[[Mistake], Mistake]:
    def add(function: Mistake) -> Mistake:
        MISTAKES[words] = function
        return function

    return add


def epsilon(norms: list[nn.LayerNorm], value: float) -> None:
    assert norms
    for norm in norms:
        assert norm.eps != value
        norm.eps = value


def replaced(monkeypatch, owner: object, name: str, change: Callable) -> None:
    """Replace ``owner.name`` by what ``change`` makes of the original's result and arguments."""
    original = getattr(owner, name)

    def new(*arguments, **options):
        return change(original(*arguments, **options), *arguments, **options)

    monkeypatch.setattr(owner, name, new)


@mistake("the ray head's norm is left as it was made: its tensor has another name in the file")
def _(_patch, net):
    with torch.no_grad():
        net.rays.norm.weight.fill_(1)
        net.rays.norm.bias.fill_(0)


@mistake("the first view is always the reference")
def _(patch, _net):
    patch.setattr(yardstick, "choose_reference", lambda *_: 0)


@mistake("views are not put back into their order")
def _(patch, _net):
    patch.setattr(network, "sorted", lambda values, **_: list(values), raising=False)


def mixed(change: Callable) -> Mistake:
    """A mistake in what ``mix`` makes of the last blocks; ``change`` gets norm, within, across."""

    def install(patch, net):
        def mix(self, entered, table):
            x = within = entered
            features = []
            first = self.preset.alternate_from
            for i in range(first + 1 - first % 2, self.preset.depth):
                if i % 2:
                    x = self.blocks[i](x.flatten(0, 1)[None], table.across(x.shape[0]))[0].view_as(x)
                else:
                    x = within = self.blocks[i](x, table.within)
                if i in self.preset.out_layers:
                    features.append(change(self.norm, within, x)[:, 1:])
            return features, torch.cat([within[:, 0], x[:, 0]], dim=-1)

        patch.setattr(backbone.Backbone, "mix", mix)

    return install


MISTAKES["the local half is normed, not the global one"] = mixed(lambda n, a, b: torch.cat([n(a), b], -1))
MISTAKES["both halves are normed"] = mixed(lambda n, a, b: torch.cat([n(a), n(b)], -1))
MISTAKES["neither half is normed"] = mixed(lambda _, a, b: torch.cat([a, b], -1))
MISTAKES["the halves are swapped"] = mixed(lambda n, a, b: torch.cat([n(b), a], -1))
MISTAKES["the last block twice, not the last local one"] = mixed(lambda n, _, b: torch.cat([b, n(b)], -1))


@mistake("the camera feature is normed")
def _(patch, net):
    def change(result, *_):
        features, camera = result
        half = camera.shape[-1] // 2
        return features, torch.cat([camera[:, :half], net.backbone.norm(camera[:, half:])], dim=-1)

    replaced(patch, net.backbone, "mix", change)


@mistake("epsilon of the blocks' norms is PyTorch's default")
def _(_patch, net):
    epsilon([norm for block in net.backbone.blocks for norm in (block.norm1, block.norm2)], 1e-5)


@mistake("epsilon of the final norm is that of the blocks")
def _(_patch, net):
    epsilon([net.backbone.norm], 1e-6)


@mistake("epsilon of the query and key norms is that of the blocks")
def _(_patch, net):
    norms = [n for block in net.backbone.blocks for n in (block.attn.q_norm, block.attn.k_norm)]
    epsilon([norm for norm in norms if isinstance(norm, nn.LayerNorm)], 1e-6)


@mistake("queries and keys are not normed")
def _(_patch, net):
    for block in net.backbone.blocks:
        block.attn.q_norm = block.attn.k_norm = nn.Identity()


@mistake("LayerScale is left out")
def _(patch, _net):
    patch.setattr(backbone.Scale, "forward", lambda _, x: x)


@mistake("GELU is approximated")
def _(patch, _net):
    patch.setattr(backbone.Mlp, "forward", lambda m, x: m.fc2(nn.functional.gelu(m.fc1(x), approximate="tanh")))


def positioned(**options: object) -> Mistake:
    def install(patch, _net):
        original = nn.functional.interpolate

        def interpolate(x, *arguments, mode="nearest", **given):
            if mode == "bicubic":
                rows, columns = (int(37 * factor) for factor in given["scale_factor"])
                given = {"size": (rows, columns), "antialias": False} if "size" in options else {**given, **options}
            return original(x, *arguments, mode=mode, **given)

        patch.setattr(nn.functional, "interpolate", interpolate)

    return install


MISTAKES["the position embedding is resized with antialiasing"] = positioned(antialias=True)
MISTAKES["the position embedding is resized to a size, without the extra tenth"] = positioned(size=None)


@mistake("the position embedding takes columns for rows")
def _(patch, net):
    original = net.backbone.positions_at
    patch.setattr(net.backbone, "positions_at", lambda rows, columns: original(columns, rows))


@mistake("the camera token's slots are swapped")
def _(_patch, net):
    net.backbone.camera_token.data = net.backbone.camera_token.data.flip(1)


@mistake("every view has the reference view's camera token")
def _(_patch, net):
    net.backbone.camera_token.data[:, 1] = net.backbone.camera_token.data[:, 0]


@mistake("the camera token is added to the class token, not put in its place")
def _(patch, net):
    replaced(patch, net.backbone, "enter", lambda _, tokens, camera, table: entered(net, tokens, camera, table))


def entered(net, tokens, camera, table):
    x = tokens.clone()
    x[:, 0] += camera
    return net.backbone.blocks[net.preset.alternate_from](x, table.within)


def rotated(place: Callable) -> Mistake:
    """A mistake in the rotary positions; ``place`` gets (rows * columns, 2) from 0 and gives within and across."""

    def install(patch, _net):
        def tables(rows, columns, head_dim, device=None):
            row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            within, across = place(torch.stack([row.flatten(), column.flatten()], dim=1))
            first, second = positions._table(within, head_dim), positions._table(across, head_dim)
            return positions.Positions(first, second)

        patch.setattr(network, "positions", tables)

    return install


def at(patches: torch.Tensor, camera: int = 0) -> torch.Tensor:
    return torch.cat([torch.full((1, 2), camera), patches])


MISTAKES["patches count from 0, like the camera token"] = rotated(lambda p: (at(p), at(p * 0 + 1)))
MISTAKES["the camera token counts as the first patch"] = rotated(lambda p: (at(p + 1, 1), at(p * 0 + 1, 1)))
MISTAKES["patches keep their places across views"] = rotated(lambda p: (at(p + 1), at(p + 1)))
MISTAKES["no position at all across views"] = rotated(lambda p: (at(p + 1), at(p * 0)))
MISTAKES["rows and columns are swapped"] = rotated(lambda p: (at(p.flip(1) + 1), at(p * 0 + 1)))


@mistake("the base of the rotary positions is that of language models")
def _(patch, _net):
    patch.setattr(positions, "_BASE", 10000.0)


@mistake("neighbouring channels are rotated with each other, not the halves of an axis")
def _(patch, _net):
    def rotate(x, cos, sin):
        return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2) * sin

    patch.setattr(backbone, "rotate", rotate)


def embedded(change: Callable) -> Mistake:
    def install(patch, _net):
        original = grid.Grid.embedding
        patch.setattr(grid.Grid, "embedding", lambda self, x: change(original, self, x))

    return install


MISTAKES["the embedding of places takes height by width for the aspect"] = embedded(
    lambda original, self, x: original(grid.Grid(self.columns, self.rows), x)
)
MISTAKES["the embedding of places takes images for squares"] = embedded(
    lambda original, self, x: original(grid.Grid(self.rows, self.rows), x)
)
MISTAKES["the embedding of places puts y before x"] = embedded(
    lambda original, self, x: original(self, x).roll(x.shape[1] // 2, dims=1)
)
MISTAKES["the embedding of places puts cosines before sines"] = embedded(
    lambda original, self, x: original(self, x).unflatten(1, (2, 2, -1)).flip(2).flatten(1, 3)
)
MISTAKES["the embedding of places is left out"] = embedded(lambda _original, _self, x: torch.zeros_like(x))


@mistake("the embedding of places has the usual base")
def _(patch, _net):
    patch.setattr(grid, "_BASE", 10000.0)


@mistake("the embedding of places has full strength")
def _(patch, _net):
    patch.setattr(grid, "_STRENGTH", 1.0)


@mistake("rays at the resolution of the image")
def _(patch, net):
    def change(result, _levels, places):
        rays, confidence = result
        big = nn.functional.interpolate(rays.permute(0, 3, 1, 2), places.image, mode="bilinear")
        return big.permute(0, 2, 3, 1), nn.functional.interpolate(confidence[:, None], places.image)[:, 0]

    replaced(patch, net.rays, "forward", change)


@mistake("rays from a coarser level, enlarged")
def _(patch, net):
    def pyramid(levels):
        one, two, three, four = levels
        x = net.rays.pyramid.refinenet4(four, None, three.shape[-2:])
        x = net.rays.pyramid.refinenet3(x, three, two.shape[-2:])
        x = net.rays.pyramid.refinenet2(x, two, one.shape[-2:])
        return nn.functional.interpolate(x, (2 * one.shape[-2], 2 * one.shape[-1]), mode="bilinear", align_corners=True)

    patch.setattr(net.rays.pyramid, "forward", pyramid)


@mistake("the ray head has the depth head's pyramid")
def _(_patch, net):
    net.rays.pyramid = net.depth.pyramid


@mistake("activations between the convolutions of the ray head")
def _(_patch, net):
    layers = [layer for conv in net.rays.output_conv1 for layer in (conv, nn.ReLU())]
    net.rays.output_conv1 = nn.Sequential(*layers[:-1])


@mistake("corners are not aligned when a level is enlarged")
def _(patch, _net):
    original = nn.functional.interpolate

    def interpolate(x, *arguments, align_corners=None, **options):
        return original(x, *arguments, align_corners=False if align_corners else None, **options)

    patch.setattr(nn.functional, "interpolate", interpolate)


@mistake("the exponential is taken in half precision")
def _(patch, net):
    half = nn.Conv2d(32, 2, 1)
    half.load_state_dict(net.depth.output_conv2[2].state_dict())

    def conv(x):
        return half(x).half().float()

    patch.setattr(net.depth.output_conv2[2], "forward", conv)


@mistake("confidence is the bare exponential")
def _(patch, net):
    replaced(patch, net.depth, "forward", lambda result, *_: (result[0], result[1] - 1))


def coded(order: list[int]) -> Mistake:
    """A mistake in the order of the camera's nine numbers."""

    def install(patch, _net):
        original = camera_code.decode
        patch.setattr(camera_code, "decode", lambda codes, *size: original(codes[:, order], *size))

    return install


MISTAKES["the quaternion is taken as w x y z"] = coded([0, 1, 2, 4, 5, 6, 3, 7, 8])
MISTAKES["the fields of view are taken as horizontal, vertical"] = coded([0, 1, 2, 3, 4, 5, 6, 8, 7])


@mistake("the pose is taken as world to camera")
def _(patch, _net):
    def change(result, *_):
        return camera_code.Cameras(np.linalg.inv(result.T_window_cam), result.K, result.valid, result.size)

    replaced(patch, camera_code, "decode", change)


@mistake("the centre of the first pixel is at one half")
def _(patch, _net):
    def change(result, *_):
        K = result.K + HALF
        return camera_code.Cameras(result.T_window_cam, K, result.valid, result.size)

    replaced(patch, camera_code, "decode", change)


@cache
def trapped():
    """A window of which not the first view is the reference, and what the official network says of it."""
    official, mine = pair("da3-small")
    for seed in range(20):
        x = yardstick.images(3, 112, 154, seed)
        if yardstick.reference_of(mine, x):
            return x, yardstick.official_window(official, x), mine
    raise AssertionError("every window has its first view as reference")


def test_nothing_is_found_without_a_mistake():
    x, wanted, mine = trapped()
    found = yardstick.differences(wanted, yardstick.our_window(copy.deepcopy(mine), x))
    assert max(found.values()) <= yardstick.TOLERANCE, found


@pytest.mark.parametrize("words", MISTAKES)
def test_mistake_is_found(words, monkeypatch):
    x, wanted, mine = trapped()
    wrong = copy.deepcopy(mine)
    MISTAKES[words](monkeypatch, wrong)
    found = yardstick.differences(wanted, yardstick.our_window(wrong, x))
    assert max(found.values()) > 10 * yardstick.TOLERANCE, found


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_released_files(name):
    """What the list of models says of a file that is not there yet."""
    from da3_ros.model.layout import unread_shapes

    preset = PRESETS[name]
    with torch.device("meta"):
        mine = network.Network(preset) if preset.any_view else network.MonoNetwork(preset)
    count = sum(p.numel() for p in mine.parameters()) + sum(int(np.prod(s)) for s in unread_shapes(preset).values())
    gaussian_head = 35_628_486 if name == "da3-giant" else 0
    assert preset.parameters == count + gaussian_head

"""What a network is trained on and by: matches, windows, augmentation, losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch
import training_worlds

from da3_ros.errors import ConfigError, SourceError
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.training import config as configs
from da3_ros.training import losses as loss
from da3_ros.training.augment import Cut, Look, drawn_cut, whole
from da3_ros.training.batch import BatchMaker, example, plain_batch
from da3_ros.training.config import CurriculumConfig, DataConfig, LossConfig, OptimiserConfig
from da3_ros.training.curriculum import Difficulty, difficulty
from da3_ros.training.matches import Matches, View, patch_matches, soft_targets
from da3_ros.training.optimiser import learning_rate
from da3_ros.training.passes import Passed
from da3_ros.training.readouts import Read
from da3_ros.training.split import HELD_OUT_SEEDS, training_seeds
from da3_ros.training.windows import WindowSampler
from da3_ros.training.worlds import drawn_spec, judging_spec, open_world, open_worlds, recorded_motions, write_world

EASY = Difficulty((112, 84), 3, (0.005, 0.5), (0.0, 40.0), 0.3)


@pytest.fixture(scope="module")
def worlds():
    return [training_worlds.world(seed) for seed in (1001, 1002)]


# --- matches


def test_matches_lead_to_the_same_place_on_the_wall(worlds):
    view, other = worlds[0].view(0), worlds[0].view(4)
    found = patch_matches(view, other, 6, 8)
    assert found.visible.mean() > 0.5
    rows, columns = np.divmod(np.arange(48), 8)
    for k in np.flatnonzero(found.visible):
        pixel = np.array([[columns[k] * 14 + 6.5, rows[k] * 14 + 6.5]])
        depth = view.depth[rows[k] * 14 + 7, columns[k] * 14 + 7]
        here = se3.transform(view.T_world_cam, view.camera.unproject(pixel, np.array([depth])))
        ray = other.camera.unproject(found.pixels[k : k + 1], np.array([1.0]))[0]
        line = other.T_world_cam[:3, :3] @ ray
        offset = here[0] - other.T_world_cam[:3, 3]
        assert np.linalg.norm(np.cross(line, offset)) / np.linalg.norm(line) < 5e-3  # half precision of the depth


def test_what_is_hidden_or_outside_is_not_matched(worlds):
    view = worlds[0].view(0)
    nearer = replace(view, depth=view.depth * np.float32(0.5))  # something stands before the wall
    assert not patch_matches(view, nearer, 6, 8).visible.any()
    turned = replace(view, T_world_cam=view.T_world_cam @ se3.make(se3.exp_so3(np.array([0, np.pi, 0])), np.zeros(3)))
    assert not patch_matches(view, turned, 6, 8).visible.any()
    sky = replace(view, depth=np.full_like(view.depth, np.nan))
    assert not patch_matches(sky, view, 6, 8).visible.any()


def test_a_view_matches_itself_with_one_patch_each(worlds):
    view = worlds[0].view(3)
    target = soft_targets(patch_matches(view, view, 6, 8), 112, 84, 6, 8)
    assert (target.argmax(axis=1) == np.arange(48)).all()
    assert np.diag(target).min() > 0.9  # the middle of a patch lies half a pixel beside its pixel


def test_soft_targets_have_the_match_as_their_mean():
    pixels = np.array([[30.0, 20.0], [55.5, 41.5], [100.0, 60.0], [3.0, 3.0]])
    found = Matches(np.tile(pixels, (12, 1)), np.arange(48) < 3)
    target = soft_targets(found, 112, 84, 6, 8)
    middles = np.stack(np.meshgrid(np.arange(8), np.arange(6)), axis=-1).reshape(-1, 2) * 14 + 6.5
    np.testing.assert_allclose(target[:3] @ middles, pixels[:3], atol=1e-4)
    assert (target[3:] == 0).all()


# --- worlds and windows


def test_worlds_of_demos_and_held_out_worlds_are_never_trained_on():
    assert len(set(HELD_OUT_SEEDS)) == 50
    assert not set(training_seeds(5000)) & {*range(1, 21), *HELD_OUT_SEEDS}
    for count, first in ((1, 20), (10, 995), (10, HELD_OUT_SEEDS[0] - 5)):
        with pytest.raises(ValueError, match="not for training"):
            training_seeds(count, first)


def test_windows_keep_within_the_limits(worlds):
    limits = Difficulty((112, 84), 4, (0.02, 0.08), (1.0, 6.0), 0.5)
    sampler, rng = WindowSampler(worlds), np.random.default_rng(0)
    references = set()
    for _ in range(100):
        window = sampler.draw(rng, 4, limits)
        world = worlds[window.world]
        references.add(window.views[0])
        assert len(set(window.views)) == 4
        for i, view in enumerate(window.views[1:], 1):
            assert any(_within(world, view, earlier, limits) for earlier in window.views[:i])
    assert len(references) > 5


def _within(world, a, b, limits):
    turn = np.degrees(se3.rotation_angle(world.T_world_cam[a, :3, :3].T @ world.T_world_cam[b, :3, :3]))
    return (
        limits.parallax[0] <= world.parallax[a, b] <= limits.parallax[1]
        and limits.parallax[0] <= world.parallax[b, a] <= limits.parallax[1]
        and min(world.overlap[a, b], world.overlap[b, a]) >= limits.overlap
        and limits.rotation_deg[0] <= turn <= limits.rotation_deg[1]
    )


def test_a_window_that_does_not_exist_is_told(worlds):
    with pytest.raises(SourceError, match=r"no window of 3 views with parallax 5\.\.6"):
        WindowSampler(worlds).draw(np.random.default_rng(0), 3, replace(EASY, parallax=(5.0, 6.0)))


def test_difficulty_grows():
    config = CurriculumConfig(small_steps=10, ramp_steps=100, first_parallax=0.1)
    first, middle, last = (difficulty(config, step) for step in (0, 50, 1000))
    assert first.rotation_deg == (config.first_least_rotation_deg, config.first_rotation_deg)
    assert last.rotation_deg == (0.0, config.most_rotation_deg)
    assert (first.size, middle.size) == ((112, 84), (168, 126))
    assert first.most_views == 2
    assert first.most_views < middle.most_views < last.most_views == 6
    assert first.parallax[1] < middle.parallax[1] < last.parallax[1] == config.most_parallax


def test_a_world_survives_the_disk(worlds, tmp_path):
    write_world(tmp_path / "1001", worlds[0])
    back = open_world(tmp_path / "1001")
    assert (back.seed, back.camera) == (1001, worlds[0].camera)
    for name in ("images", "depth", "T_world_cam", "overlap", "parallax"):
        np.testing.assert_array_equal(getattr(back, name), getattr(worlds[0], name))
    assert [w.seed for w in open_worlds(tmp_path, [1001, 1002])] == [1001]
    (tmp_path / "1001" / "depth.npy").unlink()
    with pytest.raises(SourceError, match="delete it"):
        open_world(tmp_path / "1001")


def test_worlds_vary_and_held_out_ones_are_as_a_user_has_them(tmp_path):
    specs = [drawn_spec(seed, 30, [tmp_path / "a.txt"]) for seed in range(1001, 1061)]
    assert drawn_spec(1001, 30, [tmp_path / "a.txt"]) == specs[0]
    assert 5 < sum(spec.motion is not None for spec in specs) < 40
    assert np.std([spec.fov for spec in specs]) > 3
    assert (judging_spec(900_001).noise, judging_spec(900_001).light, judging_spec(900_001).motion) == (1.0, 1.0, None)
    assert recorded_motions("") == []
    with pytest.raises(SourceError, match="no recorded motion"):
        recorded_motions(str(tmp_path))


# --- batches


def test_the_unit_of_the_world_does_not_matter():
    one, three = (plain_batch(training_worlds.world(1001, scale=s), (0, 3, 5), (112, 84)) for s in (1.0, 3.0))
    for name in ("depth", "rays", "cameras", "attention", "displacement"):
        torch.testing.assert_close(getattr(one, name), getattr(three, name), atol=3e-3, rtol=2e-3)


def test_targets_describe_one_scene_of_mean_norm_one(worlds):
    batch = plain_batch(worlds[0], (2, 5, 7), (112, 84))
    size = batch.rays.shape[2:4]
    depth = torch.nn.functional.interpolate(batch.depth[0][:, None], size, mode="bilinear")[:, 0]
    points = batch.rays[0, ..., 3:] + depth[..., None] * batch.rays[0, ..., :3]
    assert abs(float(points.norm(dim=-1).mean()) - 1) < 0.01
    assert float(batch.rays[0, 0, ..., 3:].abs().max()) < 1e-6  # the reference view is at the origin
    torch.testing.assert_close(batch.cameras[0, 0, :7], torch.tensor([0, 0, 0, 0, 0, 0, 1.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.cameras[0, 1, :3], batch.rays[0, 1, 0, 0, 3:])
    fov = [2 * np.arctan(42 / 90), 2 * np.arctan(56 / 90)]
    np.testing.assert_allclose(batch.cameras[0, :, 7:], np.tile(fov, (3, 1)), rtol=1e-6)


def test_the_same_step_gives_the_same_batch(worlds):
    a, b = (BatchMaker(worlds, DataConfig(), 5)(7, EASY, 6) for _ in range(2))
    c = BatchMaker(worlds, DataConfig(), 5)(8, EASY, 6)
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.rays, b.rays)
    assert a.images.shape != c.images.shape or not torch.equal(a.images, c.images)


@pytest.mark.parametrize("mirrored", [False, True])
def test_cuts_keep_images_and_truth_together(worlds, mirrored):
    world = worlds[0]
    cut = Cut(9, 5, 98, 70, (112, 84), mirrored)
    view, other = cut.view(world.view(0)), cut.view(world.view(4))
    assert view.camera.fx > world.camera.fx
    assert np.linalg.det(view.T_world_cam[:3, :3]) == pytest.approx(1)
    found = patch_matches(view, other, 6, 8)
    assert found.visible.mean() > 0.4
    a, b = cut.image(world.images[0]).astype(int), cut.image(world.images[4]).astype(int)
    rows, columns = np.divmod(np.flatnonzero(found.visible), 8)
    u, v = np.rint(found.pixels[found.visible]).astype(int).T
    difference = np.abs(a[rows * 14 + 7, columns * 14 + 7] - b[v, u]).mean()
    assert difference < 12  # grey levels; 70 between unrelated places


def test_colours_change_and_views_stay_alike():
    rng = np.random.default_rng(3)
    image = np.full((20, 30, 3), 120, np.uint8)
    looks = [Look(rng, 1.0, 1.0) for _ in range(20)]
    means = np.array([[look(image).mean() for _ in range(4)] for look in looks])
    assert means.mean(axis=1).std() > 3 * means.std(axis=1).mean() > 0
    assert np.array_equal(Look(rng, 0.0, 0.0)(image), image)
    assert drawn_cut(rng, training_worlds.CAMERA, (112, 84), 1.0).width == 112


# --- losses


def test_parts_of_the_loss_by_hand():
    depth = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    truth = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    valid = torch.tensor([[[True, True], [True, False]]])
    # Without the invalid pixel one difference is left along either axis: 2 - 1 and 3 - 1.
    assert float(loss.gradient_loss(depth, truth, valid)) == pytest.approx(1 + 2)
    assert float(loss.masked_mean(depth, valid)) == pytest.approx(2.0)
    assert float(loss.masked_mean(depth, torch.zeros_like(valid))) == 0
    c = torch.tensor([[[1.0, 3.0], [2.0, 9.0]]])
    error = (depth - truth).abs()  # 0 1 2 .
    assert float(loss.confident(c, error, valid)) == pytest.approx((1 * 0 + 3 * 1 + 2 * 2) / (1 + 3 + 2))
    certainty = (0 + 3 - 0.2 * np.log(3) + 2 * 2 - 0.2 * np.log(2)) / 3
    assert float(loss.certainty_loss(c, error, valid, 0.2)) == pytest.approx(certainty)
    ray, zero = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), torch.zeros(6)
    assert float(loss.weighted_ray_error(ray, zero)) == pytest.approx(0.1 + 0.2 + 0.9 + 15 / 2)
    rays = torch.zeros(2, 8, 10, 6)
    aside, noisy = rays.clone(), rays.clone()
    aside[..., 0] += 0.09  # one of the nine numbers of a linear map
    noisy[:, ::2, ::2, 0] += 0.09
    noisy[:, 1::2, ::2, 0] -= 0.09
    assert float(loss.turn_loss(aside, rays)) == pytest.approx(0.01, rel=1e-3)
    assert float(loss.turn_loss(noisy, rays)) < 0.2 * 0.01
    camera = torch.tensor([[7.0, 0, 0, 0, 0, 0, 0, 0.1, 0.3]])
    assert float(loss.camera_loss(camera, torch.zeros(1, 9))) == pytest.approx(1 + 0.3 * 0.2)


def test_confidence_is_best_at_reward_over_error():
    c = torch.linspace(1, 20, 1000).requires_grad_()
    value = loss.certainty_loss(c, torch.full_like(c, 0.05), None, 0.2)
    value.mean().backward()
    assert abs(float(c.detach()[c.grad.abs().argmin()]) - 0.2 / 0.05) < 0.05


def test_the_truth_has_no_loss(worlds):
    batch = plain_batch(worlds[1], (1, 4), (112, 84))
    patches = batch.attention.shape[-1]
    log_attention = torch.full((1, 1, patches, 2 * (1 + patches)), -60.0)
    log_attention[..., 1 : 1 + patches] = batch.attention.clamp(min=1e-30).log()
    depth, rays = batch.depth[0], batch.rays[0]
    passed = Passed(
        depth,
        torch.ones_like(depth),
        rays,
        torch.ones(rays.shape[:3]),
        batch.cameras,
        torch.zeros(1),
        [],
        [log_attention],
        [],
    )
    centre = depth[:, 7::14, 7::14].flatten(1)[None]
    middles = rays.unflatten(1, (6, 8)).unflatten(3, (8, 8)).mean(dim=(2, 4)).flatten(1, 2)[None]
    places = batch.displacement + _middles()
    read = Read([places], [batch.displacement], centre.log(), middles)
    parts = loss.losses(LossConfig(), batch, passed, read, None).parts
    for name in ("depth", "gradient", "camera", "attention", "place", "displacement", "patches"):
        assert abs(parts[name]) < 1e-3, name
    assert abs(parts["rays"]) < 1e-6
    assert abs(parts["turns"]) < 1e-6
    assert parts["points"] < 0.02  # depth is interpolated where the rays are
    early = loss.early_losses(LossConfig(), batch, log_attention, centre.log())
    assert max(map(abs, early.parts.values())) < 1e-3
    worse = replace(passed, rays=rays + 0.1)
    assert loss.losses(LossConfig(), batch, worse, read, None).parts["rays"] == pytest.approx(0.2, rel=1e-3)


def _middles():
    return torch.stack(
        torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(6) + 0.5) / 6, indexing="xy"), -1
    ).flatten(0, 1)


def test_only_what_is_visible_is_supervised(worlds):
    batch = plain_batch(worlds[0], (0, 4), (112, 84))
    hidden = replace(batch, visible=torch.zeros_like(batch.visible))
    shown = torch.randn(batch.displacement.shape)
    assert float(loss.displacement_loss(shown, batch)) > 0
    assert float(loss.displacement_loss(shown, hidden)) == 0


# --- settings


def test_learning_rate_rises_and_falls():
    config = OptimiserConfig(rate=1.0, last_share=0.1, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in (0, 9, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0.1, 1.0, 1.0, 0.55, 0.1])


def test_settings_are_read_and_checked(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 5\nloss:\n  rays: 3\n")
    config = configs.load(file)
    assert (config.steps, config.loss.rays) == (5, 3.0)
    assert configs.load(None) == configs.TrainingConfig()
    file.write_text("loss:\n  raise: 3\n")
    with pytest.raises(ConfigError, match=r"unknown config key 'loss\.raise'; did you mean 'loss\.rays'"):
        configs.load(file)
    file.write_text("curriculum:\n  width: 100\n")
    with pytest.raises(ConfigError, match="multiples of 14"):
        configs.load(file)


def test_an_example_without_any_depth_has_a_unit(worlds):
    view = View(np.full((84, 112), np.nan, np.float32), np.eye(4), Pinhole(112, 84, 90, 90, 55.5, 41.5))
    image = whole(training_worlds.CAMERA, (112, 84)).image(worlds[0].images[0])
    found = example([image, image], [view, view])
    assert np.isfinite(found.cameras).all()
    assert not found.valid.any()

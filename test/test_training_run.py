"""Training itself: the pass over several windows, resuming, learning, judging, exporting, teaching."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch
import training_worlds

import da3_ros
from da3_ros.cli import main
from da3_ros.errors import ModelError
from da3_ros.geometry import se3
from da3_ros.geometry.scale_shift import fit_scale_shift
from da3_ros.model.checkpoint import load
from da3_ros.model.heads import RayHead
from da3_ros.model.layout import WEIGHTS
from da3_ros.model.presets import PRESETS, TINY, Preset
from da3_ros.training import state as states
from da3_ros.training.batch import BatchMaker, plain_batch
from da3_ros.training.config import CurriculumConfig, OptimiserConfig, TrainingConfig
from da3_ros.training.curriculum import difficulty
from da3_ros.training.export import export
from da3_ros.training.initial import _place_channels, initial_network, sine_positions
from da3_ros.training.judge import depth_errors, judge, pose_errors
from da3_ros.training.passes import SUPERVISED_BLOCKS, first_look, run
from da3_ros.training.readouts import Readouts
from da3_ros.training.split import HELD_OUT_SEEDS
from da3_ros.training.teacher import FIRST_TAUGHT_SEED, aligned_depth, taught_world, teach
from da3_ros.training.trainer import LOG, Log, Trainer, Until, read_log
from da3_ros.training.worlds import open_worlds, write_world
from da3_ros.types import Frame, Truth

SMALL = Preset("small-for-tests", "", "Apache-2.0", 32, 8, 2, (3, 5, 6, 7), 2, 8, (8, 8, 8, 8))
CONFIG = TrainingConfig(
    steps=40,
    views_per_step=6,
    dense_share=0.5,
    curriculum=CurriculumConfig(
        first_parallax=0.5,
        first_rotation_deg=40.0,
        first_overlap=0.3,
        first_least_rotation_deg=0.0,
        within_steps=2,
        least_parallax=0.005,
    ),
    optimiser=OptimiserConfig(rate=2e-3, warmup_steps=2, average=0.5),
)


FILE = """data: {worlds: 1, judged_worlds: 1}
views_per_step: 2
curriculum: {first_parallax: 0.5, first_overlap: 0.3, least_parallax: 0.005, first_rotation_deg: 40,
  first_least_rotation_deg: 0, within_steps: 1}
"""


@pytest.fixture(scope="module")
def worlds():
    return [training_worlds.world(seed) for seed in (1001, 1002)]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b):
    """Whether two trees of tensors hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# --- the pass


@pytest.mark.parametrize("known", [False, True])
def test_windows_pass_together_as_they_do_alone(worlds, known):
    network = initial_network(SMALL, 3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batches = [plain_batch(world, (1, 4, 6), (112, 84)) for world in worlds]
    images, cameras = (torch.cat([getattr(b, name) for b in batches]) for name in ("images", "cameras"))
    with torch.no_grad():
        together = run(network, images, cameras=cameras if known else None)
        for k in range(2):
            alone = network(images[k], 0, cameras[k] if known else None)
            part = slice(3 * k, 3 * k + 3)
            torch.testing.assert_close(together.depth[part], alone.depth, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.rays[part], alone.rays, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.cameras[k], alone.cameras, atol=1e-5, rtol=1e-5)
        some = run(network, images, torch.tensor([0, 4]), cameras if known else None)
    torch.testing.assert_close(some.depth, together.depth[[0, 4]], atol=1e-5, rtol=1e-5)


def test_the_attention_seen_is_the_one_that_acts(worlds):
    network = initial_network(SMALL, 3).eval()
    block = network.backbone.blocks[3]
    got = {}
    block.attn.register_forward_hook(lambda module, args, out: got.update(x=args[0], rotation=args[1]))
    images = plain_batch(worlds[0], (1, 4, 6), (112, 84)).images
    with torch.no_grad():
        passed = run(network, images)
        attn, x = block.attn, got["x"]
        q, k, _ = attn.qkv(x).view(1, -1, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        from da3_ros.model.backbone import rotate

        q, k = rotate(attn.q_norm(q), *got["rotation"]), rotate(attn.k_norm(k), *got["rotation"])
        expected = (q @ k.transpose(-1, -2) / 4).softmax(dim=-1)[0, 0]
    patches = 48
    rows = expected.view(3, 1 + patches, -1)[1:, 1:]
    torch.testing.assert_close(passed.attention[0][0].exp(), rows, atol=1e-6, rtol=1e-4)
    assert len(passed.attention) == len(passed.mixed) == SUPERVISED_BLOCKS


# --- the loop


@pytest.mark.parametrize("muon", [False, True])
def test_a_resumed_run_is_the_same_run(worlds, tmp_path, muon):
    config = replace(CONFIG, optimiser=replace(CONFIG.optimiser, muon=muon))
    straight = Trainer(config, SMALL, worlds)
    whole = [float(found.total.detach()) for _, found, _ in straight.train(Until(steps=6))]
    first = Trainer(config, SMALL, worlds)
    parts = [float(found.total.detach()) for _, found, _ in first.train(Until(steps=3))]
    states.save(tmp_path / states.STATE, first.state())
    second = Trainer(config, SMALL, worlds)
    second.resume(states.load(tmp_path / states.STATE))
    assert second.step == 3
    parts += [float(found.total.detach()) for _, found, _ in second.train(Until(steps=6))]
    assert parts == whole
    a, b = straight.state(), second.state()
    for name in ("network", "readouts", "average", "optimiser"):
        assert same(getattr(a, name), getattr(b, name)), name


def test_a_state_that_does_not_fit_is_refused(worlds, tmp_path):
    trainer = Trainer(CONFIG, SMALL, worlds)
    states.save(tmp_path / states.STATE, trainer.state())
    wider = Trainer(CONFIG, replace(SMALL, dim=48), worlds)
    with pytest.raises(ModelError, match="other sizes"):
        wider.resume(states.load(tmp_path / states.STATE))
    other = Trainer(replace(CONFIG, optimiser=replace(CONFIG.optimiser, muon=False)), SMALL, worlds)
    with pytest.raises(ModelError, match="was another in the saved run"):
        other.resume(states.load(tmp_path / states.STATE))
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is not the state of a training run"):
        states.load(tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="start without --resume"):
        states.load(tmp_path / "none.pt")


def test_steps_on_one_window_reduce_the_loss(worlds):
    trainer = Trainer(CONFIG, SMALL, worlds[:1])
    batch = plain_batch(worlds[0], (1, 4), (112, 84))
    trainer._make = lambda *_: batch
    found = [losses for _, losses, _ in trainer.train(Until(steps=40))]
    begin = CONFIG.curriculum.within_steps
    assert found[begin - 1].parts.keys() == {"attention", "patches"}
    first, last = found[begin].parts, found[-1].parts
    assert float(found[-1].total.detach()) < 0.5 * float(found[begin].total.detach())
    for name in ("rays", "camera", "place", "displacement"):
        assert last[name] < first[name], name


def test_at_first_only_the_blocks_within_views_learn(worlds):
    trainer = Trainer(CONFIG, SMALL, worlds)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    list(trainer.train(Until(steps=CONFIG.curriculum.within_steps)))
    changed = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("backbone.blocks.0.") for name in changed)
    assert {name for name in changed if not name.startswith("backbone")} == set()
    assert {name for name in changed if name.startswith(("backbone.blocks.3.mlp", "backbone.blocks.4."))} == set()


def test_the_supervised_head_starts_as_a_matcher(worlds):
    network = initial_network(SMALL, 1)
    images = plain_batch(worlds[0], (1, 4, 6), (112, 84)).images
    with torch.no_grad():
        passed = run(network, images)
        tokens, log = first_look(network, images)
        middles = torch.stack(
            torch.meshgrid((torch.arange(6) + 0.5) / 6, (torch.arange(8) + 0.5) / 8, indexing="ij"), dim=-1
        ).flatten(0, 1)
        torch.testing.assert_close(log, passed.attention[0])
        places = network.backbone.positions_at(6, 8)[0, 1:, _place_channels(32, 16)]
    known = torch.cat([places, torch.ones(48, 1)], dim=1)
    error = known.double() @ torch.linalg.lstsq(known.double(), middles.double()).solution - middles
    assert error.abs().max() < 1e-3  # a place is linear in these channels
    assert tokens.shape == (1, 3, 48, 32)


def test_layers_that_say_small_numbers_go_slower(worlds):
    trainer = Trainer(CONFIG, SMALL, worlds)
    factor = {id(p): group["factor"] for group in trainer._optimiser.groups for p in group["params"]}
    network, optimiser = trainer.network, CONFIG.optimiser
    assert factor[id(network.camera.fc_qvec.weight)] == optimiser.last_layers < 1
    assert factor[id(network.rays.out.weight)] == optimiser.dense > 1
    assert factor[id(network.backbone.blocks[0].norm1.bias)] == 1
    assert len(factor) == sum(1 for module in (network, trainer.readouts) for _ in module.parameters())


def test_a_step_of_muon_is_as_large_as_one_of_adamw_and_turns_all_directions_alike(worlds):
    trainer = Trainer(CONFIG, SMALL, worlds)
    weight = trainer.network.backbone.blocks[-1].mlp.fc1.weight
    before, rate = weight.detach().clone(), 1e-2
    chance = torch.manual_seed(1)
    gradient = torch.randn(weight.shape[0], 1, generator=chance) @ torch.ones(1, weight.shape[1])
    weight.grad = gradient + 0.1 * torch.randn(weight.shape, generator=chance)  # almost of rank one
    trainer._optimiser.step(rate)
    moved = (before * (1 - rate * CONFIG.optimiser.weight_decay) - weight.detach()) / rate
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)  # as AdamW's are in the middle of a run
    size = torch.linalg.svdvals(moved)
    assert size[0] < 3 * size[-1] < 0.1 * torch.linalg.svdvals(weight.grad)[0]
    assert float((moved * gradient).sum()) > 0


def test_time_is_up(worlds):
    trainer = Trainer(CONFIG, SMALL, worlds)
    assert len(list(trainer.train(Until(minutes=1e-6)))) == 1
    assert trainer.minutes > 0


def test_the_log_forgets_what_will_be_done_again(tmp_path):
    log = Log(tmp_path)
    for step in (20, 40, 60):
        log.write({"step": step, "loss": 1 / 3})
    log.forget_after(40)
    assert [row["step"] for row in read_log(tmp_path)] == [20, 40]
    assert read_log(tmp_path)[0]["loss"] == 0.33333


def test_positions_start_as_waves():
    waves = sine_positions(37, 160)
    assert waves.shape == (1369, 160)
    near, far = (waves[0] - waves[1]).norm(), (waves[0] - waves[5]).norm()
    assert 0 < near < far


# --- judging and exporting


def test_errors_by_hand():
    truth = np.array([[1.0, 2.0], [4.0, 8.0]])
    valid = np.array([[True, True], [True, False]])
    assert depth_errors(3 * truth, truth, valid) == pytest.approx((0, 1))
    abs_rel, delta1 = depth_errors(np.array([[1.0, 2.0], [5.2, 8.0]]), truth, valid)
    assert (abs_rel, delta1) == pytest.approx((0.3 / 3, 2 / 3))
    T = se3.make(se3.exp_so3(np.array([0.0, np.radians(3), 0])), np.array([1.0, 0, 0]))
    assert pose_errors(np.eye(4), T)[0] == pytest.approx(3)
    assert pose_errors(se3.make(np.eye(3), np.array([0, 2.0, 0])), T)[1] == pytest.approx(90)


def test_judging_is_repeatable(worlds):
    network = initial_network(SMALL, 1)
    a, b = (judge(network, worlds, (112, 84), per_world=2) for _ in range(2))
    assert a == b
    assert a.pairs == 4
    assert a.flat_abs_rel > 0
    assert a.turned_deg > 0
    assert 0 < a.same_place <= 1
    assert network.training
    assert "AbsRel" in a.text()


def test_what_is_exported_can_be_loaded(worlds, tmp_path):
    network = initial_network(TINY, 1)
    export(tmp_path / "half", network)
    weights = tmp_path / "half" / WEIGHTS
    assert weights.stat().st_size <= 16e6
    assert sum(parameter.numel() for parameter in network.parameters()) <= 8e6
    assert next(network.parameters()).dtype == torch.float32
    model = load(tmp_path / "half", expected="da3-tiny")
    images = plain_batch(worlds[0], (0, 3), (112, 84)).images[0]
    with torch.no_grad():
        a, b = model.network(images), network.eval()(images)
    torch.testing.assert_close(a.depth, b.depth, atol=5e-3, rtol=5e-3)
    assert TINY.name not in PRESETS
    assert not any(isinstance(module, Readouts) for module in model.network.modules())


# --- alignment and teacher


def test_scale_and_shift_survive_forty_percent_outliers():
    rng = np.random.default_rng(0)
    relative = rng.uniform(0.2, 3.0, 500)
    measured = 2.5 * relative + 0.4 + rng.normal(0, 0.01, 500)
    wrong = rng.random(500) < 0.4
    measured[wrong] = rng.uniform(0.2, 12.0, wrong.sum())
    measured[:3] = np.nan
    fit = fit_scale_shift(relative, measured, threshold=0.05)
    assert fit.scale == pytest.approx(2.5, abs=0.01)
    assert fit.shift == pytest.approx(0.4, abs=0.02)
    assert fit.inliers[~wrong][3:].mean() > 0.98
    assert fit.inliers[wrong].mean() < 0.1
    assert not fit.inliers[:3].any()
    assert 0.005 < fit.sigma < 0.02
    np.testing.assert_allclose(fit(np.array([1.0, 2.0])), [fit.scale + fit.shift, 2 * fit.scale + fit.shift])
    loose = fit_scale_shift(relative, measured)
    assert loose.scale == pytest.approx(2.5, rel=0.05)


def test_no_scale_where_nothing_agrees():
    with pytest.raises(ValueError, match="too few"):
        fit_scale_shift(np.arange(5.0), np.arange(5.0))
    with pytest.raises(ValueError, match="no scale and shift"):
        fit_scale_shift(np.linspace(0, 1, 50), np.linspace(1, 0, 50), threshold=1e-3)
    with pytest.raises(ValueError, match="no scale and shift"):
        fit_scale_shift(np.ones(50), np.linspace(1, 2, 50))


def test_sparse_depth_gives_the_teacher_its_unit():
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 2.0, (60, 80)).astype(np.float32)
    measured = np.full((60, 80), np.nan, np.float32)
    there = rng.random((60, 80)) < 0.05
    measured[there] = 3 * depth[there] + 0.5
    measured[there & (rng.random((60, 80)) < 0.3)] = 9.0
    np.testing.assert_allclose(aligned_depth(depth, measured), 3 * depth + 0.5, rtol=0.02)


class Walk:
    """Frames of a test world."""

    name = "walk"

    def __init__(self, world, *, truth):
        self.frames = [
            Frame(i, i * 10**8, world.images[i], world.camera, self._truth(world, i) if truth else None)
            for i in range(len(world))
        ]

    @staticmethod
    def _truth(world, i):
        return Truth(world.depth[i].astype(np.float32), world.T_world_cam[i])

    def __len__(self):
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)


def test_a_teacher_makes_worlds(worlds, tmp_path):
    teacher = initial_network(SMALL, 1).eval()
    with torch.no_grad():
        teacher.rays.out.weight.zero_()
    # A network that sees nothing has flat rays: no camera, no world.
    assert teach(Walk(worlds[0], truth=False), teacher, tmp_path, lambda *_: None, views=5, size=(112, 84)) == []

    class Knows(torch.nn.Module):
        preset = SMALL

        def forward(self, images):
            batch = plain_batch(worlds[0], (0, 1, 2, 3, 4), images.shape[:1:-1])
            depth, rays = batch.depth[0], batch.rays[0]
            from da3_ros.model.network import WindowOutput

            sure = 2 + torch.rand(depth.shape)
            return WindowOutput(depth, sure, rays, 2 * torch.ones(rays.shape[:3]), batch.cameras[0])

    for truth in (False, True):
        world = taught_world(FIRST_TAUGHT_SEED, Walk(worlds[0], truth=truth).frames[:5], Knows(), (112, 84), 112)
        true = se3.inverse(worlds[0].T_world_cam[:1]) @ worlds[0].T_world_cam[:5]
        assert (
            np.degrees(se3.rotation_angle(np.swapaxes(world.T_world_cam, 1, 2)[:, :3, :3] @ true[:, :3, :3])).max()
            < 0.1
        )
        ratio = world.depth.astype(float) / worlds[0].depth[:5]
        assert np.nanstd(ratio) < 0.02 * np.nanmedian(ratio)
        assert 0.01 < np.isnan(ratio).mean() < 0.1
        assert (abs(np.nanmedian(ratio) - 1) < 0.01) == truth
        assert world.camera.fx == pytest.approx(90, rel=0.01)
        assert world.overlap.min() > 0.1
    write_world(tmp_path / str(world.seed), world)
    assert [w.seed for w in open_worlds(tmp_path)] == [FIRST_TAUGHT_SEED]


# --- the command


def test_the_command_trains_resumes_and_judges(worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)
    for seed, world in ((1001, worlds[0]), (HELD_OUT_SEEDS[0], worlds[1])):
        write_world(tmp_path / "run" / "worlds" / str(seed), replace(world, seed=seed))
    file = tmp_path / "c.yaml"
    file.write_text(FILE)
    run_, out = ["train", "--out", str(tmp_path / "run")], tmp_path / "run"
    assert main([*run_, "--config", str(file), "--steps", "2"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "worlds", "state.pt", "log.jsonl", "curve.svg", "config.yaml", "checkpoint",
    }  # fmt: skip
    assert main([*run_, "--config", str(file), "--steps", "2"]) == 2
    assert "holds a run already; add --resume" in capsys.readouterr().err
    assert main([*run_, "--resume", "--steps", "3"]) == 0
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    assert "step 2 of 20000" in capsys.readouterr().out
    assert load(out / "checkpoint").folder.name == "da3-tiny"
    monkeypatch.setattr("da3_ros.training.split.HELD_OUT_SEEDS", HELD_OUT_SEEDS[:1])
    assert main([*run_, "--judge"]) == 0
    card = (out / "checkpoint" / "README.md").read_text()
    assert "training: 3 of 20000 steps of 2 views at 112x84" in card
    assert "windows of 4 views in 1 worlds" in card
    assert main(["train", "--defaults"]) == 0
    assert "dense_share" in capsys.readouterr().out


def test_a_run_of_before_muon_goes_on_as_it_was(worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)
    for seed, world in ((1001, worlds[0]), (HELD_OUT_SEEDS[0], worlds[1])):
        write_world(tmp_path / "worlds" / str(seed), replace(world, seed=seed))
    file = tmp_path / "mine.yaml"
    run_ = ["train", "--out", str(tmp_path), "--config", str(file)]
    file.write_text(FILE + "optimiser: {muon: false}\n")
    assert main([*run_, "--steps", "1"]) == 0
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["config"].pop("optimiser.muon")
    saved["optimiser"] = saved["optimiser"]["parts"][0]
    torch.save(saved, tmp_path / "state.pt")
    file.write_text(FILE)
    for steps in (2, 3):
        assert main([*run_, "--resume", "--steps", str(steps)]) == 0
    assert "muon: false" in (tmp_path / "config.yaml").read_text()


def test_a_torch_without_muon_is_named(worlds, monkeypatch):
    monkeypatch.delattr("torch.optim.Muon")
    with pytest.raises(ModelError, match=r"needs torch 2\.9, and this is"):
        Trainer(CONFIG, SMALL, worlds)
    Trainer(replace(CONFIG, optimiser=replace(CONFIG.optimiser, muon=False)), SMALL, worlds)


# --- a start from a trained network, a ray head that does not grow, a log that was torn


def test_a_run_starts_from_a_trained_network(worlds):
    trained = Trainer(CONFIG, SMALL, worlds)
    for _ in trained.train(Until(steps=3)):
        pass
    begun = Trainer(CONFIG, SMALL, worlds, trained.averaged())
    assert begun.step == 0
    assert same(dict(begun.network.state_dict()), trained.averaged().state_dict())
    with pytest.raises(ModelError, match="has other sizes than"):
        Trainer(CONFIG, replace(SMALL, dim=48), worlds, trained.averaged())


def test_kernels_before_the_layer_norm_of_rays_do_not_grow(worlds):
    """A rate at which they would double within a few steps."""
    config = replace(CONFIG, steps=40, optimiser=replace(CONFIG.optimiser, rate=2e-2, dense=5.0))
    trainer = Trainer(config, SMALL, worlds)

    def sizes():
        kernels = {n: p for n, p in trainer.network.rays.named_parameters() if p.ndim == 4 and not n.startswith("out.")}
        return {name: float(kernel.detach().norm()) for name, kernel in kernels.items()}

    before = sizes()
    depth = float(trainer.network.depth.output_conv1.weight.detach().norm())
    for _ in trainer.train(Until(steps=10)):
        pass
    assert len(before) > 10
    assert all(size <= before[name] * (1 + 1e-5) for name, size in sizes().items())
    assert float(trainer.network.depth.output_conv1.weight.detach().norm()) > 1.5 * depth


def test_the_last_layers_compute_in_single_precision(worlds):
    trainer = Trainer(replace(CONFIG, bf16=True), SMALL, worlds)
    images = plain_batch(worlds[0], (1, 4), (112, 84)).images
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        passed = run(trainer.network, images)
        assert trainer.network.backbone.blocks[0].attn.qkv(torch.zeros(1, 3, SMALL.dim)).dtype == torch.bfloat16
    for name in ("depth", "depth_confidence", "rays", "ray_confidence", "cameras"):
        assert getattr(passed, name).dtype == torch.float32, name


def test_a_torn_line_of_a_log_is_passed_over(tmp_path):
    (tmp_path / LOG).write_text('{"step": 20, "loss": 1.0}\n{"step": 40, "loss": 0.5}\n{"step": 60, "lo')
    assert [row["step"] for row in read_log(tmp_path)] == [20, 40]
    Log(tmp_path).forget_after(20)
    assert (tmp_path / LOG).read_text() == '{"step": 20, "loss": 1.0}\n'


def test_views_without_depth_do_not_spoil_a_verdict(worlds):
    nothing = replace(worlds[0], depth=np.full_like(worlds[0].depth, np.nan))
    network = Trainer(CONFIG, SMALL, worlds).averaged()
    with_depth, without = (judge(network, [worlds[0], other], (112, 84), per_world=2) for other in (worlds[1], nothing))
    assert np.isfinite(with_depth.abs_rel)
    assert np.isfinite(without.abs_rel)


SHIPPED = Path(da3_ros.__file__).parent / "model" / "shipped" / "da3-tiny"


def test_half_precision_holds_the_ray_head_that_is_shipped(worlds):
    """Its convolutions are linear up to a layer norm, so that nothing but half precision feels their scale."""
    network = load(SHIPPED).network
    levels = {}
    network.rays.register_forward_pre_hook(lambda _, args: levels.update(args=args))
    images = plain_batch(worlds[0], (1, 4), (112, 84)).images[0]
    with torch.no_grad():
        rays = network(images).rays
        head = network.rays.half()
        head.norm.float()
        head.out.float()
        halved, _ = RayHead.forward(head, [level.half() for level in levels["args"][0]], levels["args"][1])
    assert torch.isfinite(halved).all()
    assert float((halved - rays).abs().max()) < 0.05


def test_a_way_for_origins_brings_what_the_features_know_to_the_rays(worlds):
    """At the start of a run from trained weights, here of a ray head that says nothing of origins.

    Few views, all of them fitted: what counts is that rays say what the map of features does, and depth stays.
    """
    start = load(SHIPPED).network.float()
    with torch.no_grad():
        start.rays.out.weight[3:6] = 0
        start.rays.out.bias[3:6] = 0
    config = replace(CONFIG, curriculum=replace(CONFIG.curriculum, small_steps=1000), way_for_origins=48)
    limits = difficulty(config.curriculum, 0)
    views = [BatchMaker(worlds, config.data, config.seed)(step, limits, config.views_per_step) for step in range(8)]
    laid = Trainer(config, TINY, worlds, start).averaged()
    true = torch.cat([batch.rays[..., 3:].mean(dim=(2, 3)).flatten(0, 1) for batch in views])
    explained, depth = {}, {}
    for name, network in (("start", start), ("laid", laid)):
        with torch.no_grad():
            passed = [run(network, batch.images) for batch in views]
        said = torch.cat([p.rays[..., 3:].mean(dim=(1, 2)) for p in passed])
        explained[name] = float(1 - (said - true).square().sum() / (true - true.mean(dim=0)).square().sum())
        depth[name] = torch.cat([p.depth for p in passed]).log()
    assert explained["start"] < 0.02, explained
    assert explained["laid"] > 0.1, explained
    assert float((depth["laid"] - depth["start"]).abs().mean()) < 0.2

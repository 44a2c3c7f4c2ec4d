"""The self-test: every window size that engines are compiled for, and a network known by all that makes it."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tiny_model import tiny_model  # noqa: E402

from da3_ros.engine import parity  # noqa: E402
from da3_ros.engine.engines import profiles  # noqa: E402
from da3_ros.engine.graphs import open_graphs  # noqa: E402
from da3_ros.engine.store import Store  # noqa: E402
from da3_ros.engine.torch_runtime import TorchRuntime  # noqa: E402
from da3_ros.errors import EngineError  # noqa: E402
from da3_ros.model.checkpoint import load  # noqa: E402
from da3_ros.model.folder import open_folder  # noqa: E402
from da3_ros.model.grid import Grid  # noqa: E402

SIZE = (84, 56)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load(tiny_model(tmp_path_factory.mktemp("models") / "tiny")).network


class WrongFor(TorchRuntime):
    """Wrong where a window has so many views, as a compiler may be for one of its profiles."""

    wrong = 0

    def run(self, stage, values):
        out = super().run(stage, values)
        return tuple(value.flip(-1) for value in out) if stage == "mix" and len(values[0]) == self.wrong else out


@pytest.mark.parametrize("most", [4, 8, 16])
def test_every_profile_is_tested(most):
    tested = [views for views in parity.WINDOWS if views <= most]
    for least, _, largest in profiles("mix", most):
        assert any(least <= views <= largest for views in tested), (least, largest)


@pytest.mark.parametrize("wrong", [0, *parity.WINDOWS])
def test_a_profile_that_is_wrong_is_found(network, wrong):
    cameras = network.backbone.camera_tokens(2).detach().numpy()
    images = parity.pictures(*SIZE)
    right = {"images": images, **parity.outputs(TorchRuntime(network, Grid.of(*SIZE[::-1])), images, cameras)}
    runtime = WrongFor(network, Grid.of(*SIZE[::-1]))
    runtime.wrong = wrong
    found = parity.compare(runtime, right, cameras)
    if not wrong:
        found.require("fp32", "torch")
        return
    with pytest.raises(EngineError, match=f"of {wrong} view"):
        found.require("fp16", "torch")


def test_another_network_is_another_entry(tmp_path):
    """With sizes of one's own the same weights can be another network: the store must not take one for the other."""

    folder = tiny_model(tmp_path / "a")
    fields = []

    class Recording(Store):
        def find(self, fields_):
            fields.append(dict(fields_))
            return

    for heads in (2, 4):
        config = json.loads((folder / "config.json").read_text())
        config["da3_ros"]["heads"] = heads
        (folder / "config.json").write_text(json.dumps(config))
        opened = open_folder(folder)
        with pytest.raises(EngineError, match="there are no graphs"):
            open_graphs(
                Recording(tmp_path / "store"), opened, opened.parts[0], SIZE, precision="fp32", opset=23, build=False,
                tell=lambda *_: None,
            )  # fmt: skip
    different = {name for name in fields[0] if fields[0][name] != fields[1][name]}
    assert different == {"sizes"}

"""What the tests share: the guard around ROS 2, a short walk through a room, and the bench of the live node."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import da3_ros  # noqa: F401  (before NumPy: it sets the number of OpenBLAS threads)

# Several processes share the cores, and ROS 2 talks to this machine only, whoever starts pytest.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

# The simulated predictor without noise, but for the scale of each window, and windows that are chained as they are:
# what is exact must stay so to the last digits, which followed landmarks have not.
EXACT = {
    "refine.enabled": False,
    "simulated.depth_patch": 0.0,
    "simulated.depth_pixel": 0.0,
    "simulated.edge_bleed": 0.0,
    "simulated.focal": 0.0,
    "simulated.rotation_deg": 0.0,
    "simulated.translation": 0.0,
}

WALK = "world:3?frames=60&size=160x120&rate=15"


def ros_missing() -> str:
    """Why the tests of the live node cannot run here; empty where they can."""
    try:
        import da3_ros.msg  # noqa: F401
        import rclpy  # noqa: F401
    except ImportError as error:
        return f"the live node needs ROS 2 with the messages of da3_ros ({error}); run 'make setup'"
    return ""


class SkippedModule(pytest.Module):
    """A module that is not even imported."""

    def collect(self) -> list[Any]:
        pytest.skip(ros_missing(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    if _needs_ros(module_path.name) and ros_missing():
        return SkippedModule.from_parent(parent, path=module_path)
    return None


def pytest_collection_modifyitems(config, items):
    for item in items:
        if _needs_ros(item.path.name):
            item.add_marker(pytest.mark.ros)
    if hasattr(config, "workerinput"):
        _longest_first(items)


def pytest_collection_finish():
    gc.freeze()  # what the libraries brought is not looked at again each time that garbage is collected


def _needs_ros(name: str) -> bool:
    return name.startswith(("test_ros_", "test_node"))


# In several processes ("-n 2"): what one of them does in a row is a file, all live nodes, which are timed and must not
# keep each other waiting, or all that shares the fixture "exported".
_SHARE_GRAPHS = ("test_bench.py", "test_engine_staged.py", "test_engine_tensorrt.py")


def _in_a_row(name: str) -> str:
    if _needs_ros(name):
        return "live nodes"
    return "graphs" if name in _SHARE_GRAPHS else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class InARow(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _in_a_row(Path(nodeid.partition("::")[0]).name)

    config.option.loadscopereorder = False  # the order is that of the items
    return InARow(config, log)


def _longest_first(items: list[Any]) -> None:
    """So that all processes end at about the same time."""
    slow = {_in_a_row(item.path.name) for item in items if item.get_closest_marker("slow")}
    first = {name: i for i, name in enumerate(["live nodes", "graphs", *sorted(slow - {"graphs"})])}
    items.sort(key=lambda item: first.get(_in_a_row(item.path.name), len(first)))


@pytest.fixture(scope="session")
def walk() -> tuple[Any, ...]:
    """Sixty frames of a walk through a room, with ground truth, 160x120 at 15 Hz."""
    from da3_ros.sources import open_source

    return tuple(open_source(WALK))


@pytest.fixture(scope="session")
def walk_bag(walk, tmp_path_factory) -> Path:
    """The first thirty frames of the walk as a bag with ground truth."""
    from da3_ros.sources.bag_writer import write_bag

    class Walk:
        name = "walk"

        def __iter__(self):
            return iter(walk[:30])

        def __len__(self):
            return 30

    path = tmp_path_factory.mktemp("bags") / "walk"
    write_bag(Walk(), path)
    return path


@pytest.fixture(scope="module")
def rooms_built_once() -> Iterator[None]:
    """A world that was opened before is opened again as it is; ``test_world.py`` sees to it that it is the same."""
    from da3_ros.sources.world.source import WorldSource

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorldSource, "from_spec", staticmethod(functools.cache(WorldSource.from_spec)))
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Any:
    """Graphs of the small networks of ``small_networks.py``, each exported when it is first asked for."""
    for needed in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(needed, reason=f"graphs cannot be made without {needed}")
    from small_networks import Exported

    return Exported(tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def domain() -> Iterator[int]:
    """A ROS domain for this test alone."""
    from ros_domain import free_domain

    from da3_ros.ros.fastdds import use_profile

    use_profile()
    with free_domain() as number:
        yield number


@pytest.fixture
def bench(domain) -> Iterator[Any]:
    """The surroundings of a node; ``bench.start()`` starts one."""
    from ros_bench import Bench

    bench = Bench(domain)
    try:
        yield bench
    finally:
        bench.close()

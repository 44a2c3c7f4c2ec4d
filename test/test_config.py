"""The configuration tree: its files, its errors, and what the ROS parameter file says."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from da3_ros import config
from da3_ros.config import Config
from da3_ros.errors import ConfigError

REPOSITORY = Path(__file__).parents[1]


def test_the_shipped_files_hold_the_defaults():
    files = sorted((REPOSITORY / "config").glob("*.yaml"))
    assert [f.name for f in files] == ["slam.yaml"]
    assert files[0].read_text() == config.dump(Config(), ros=True, comments=True)


def test_the_table_of_parameters_in_the_readme_holds_the_defaults():
    assert config.markdown(Config()) in (REPOSITORY / "README.md").read_text(), (
        "paste what 'da3 config --markdown' prints"
    )


@pytest.mark.parametrize("ros", [True, False])
def test_what_is_dumped_can_be_loaded(tmp_path, ros):
    values = {"window.size": 9, "simulated.break_windows": [3, 4], "predictor": 'recorded:/a "b\\c".npz', "seed": 3}
    changed = config.updated(Config(), values)
    path = tmp_path / "c.yaml"
    path.write_text(config.dump(changed, ros=ros, comments=True))
    assert config.load(path) == changed


def test_every_leaf_is_described_and_in_bounds():
    for leaf in config.leaves():
        assert leaf.doc
        assert config.updated(Config(), {leaf.key: leaf.default}) == Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"windw.size": 8}, "did you mean 'window.size'"),
        ({"window": 8}, "unknown config key 'window'"),
        ({"window.size": "8"}, "window.size must be of type int"),
        ({"window.size": True}, "window.size must be of type int"),
        ({"window.live": 1}, "window.live must be of type bool"),
        ({"window.size": 0}, r"window.size must lie in \[1, 64\]"),
        ({"seam.min_confidence": float("nan")}, "seam.min_confidence must lie in"),
        ({"scale.break_log": float("inf")}, "scale.break_log must lie in"),
        ({"node.on_time_jump": "no"}, "node.on_time_jump must be one of reset, continue"),
        ({"simulated.break_windows": [1.5]}, "list of whole numbers"),
        ({"window.overlap": 8}, "exceed window.size"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        config.updated(Config(), values)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ConfigError) as info:
        config.updated(Config(), {"a": 1, "seed": -1, "window.size": "x"})
    assert len(str(info.value).splitlines()) == 3


def test_whole_numbers_are_floats_where_floats_are_wanted():
    assert config.updated(Config(), {"scale.break_log": 1}).scale.break_log == 1.0
    assert config.updated(Config(), config.parse_assignments(["scale.break_log=1e-1"])).scale.break_log == 0.1


@pytest.mark.parametrize("text", ["window.size", "=3", "a=[1"])
def test_assignments_that_are_none(text):
    with pytest.raises(ConfigError):
        config.parse_assignments([text])


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n", b"\xff\xfe", b"nonsense: 1\n"])
def test_files_that_are_no_configuration(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        config.load(path)
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path / "missing.yaml")


KNOWN = {leaf.key for leaf in config.leaves()}
KEYS = st.text(max_size=8).filter(lambda key: key not in KNOWN)  # it may try words of the code, such as "seed"


@given(st.dictionaries(KEYS, st.one_of(st.none(), st.integers(), st.text(max_size=5))))
def test_unknown_keys_are_refused_whatever_they_hold(values):
    wanted = pytest.raises(ConfigError, match="unknown config key") if values else contextlib.nullcontext()
    with wanted:
        assert config.updated(Config(), values) == Config()

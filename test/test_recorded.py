"""Recordings of predictions: what goes in comes out, and damage is said in a sentence."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros import config as configuration
from da3_ros.config import Config
from da3_ros.errors import Da3Error, OutputError, PredictorError
from da3_ros.evaluation.offline import OfflineRun
from da3_ros.evaluation.record import Record
from da3_ros.geometry.camera import Pinhole
from da3_ros.predictors import open_predictor
from da3_ros.predictors.recorded import NotRecordedError, RecordedPredictor, RecordingPredictor
from da3_ros.sources import open_source
from da3_ros.sources.held import HeldSource
from da3_ros.types import Frame, Prediction, Predictor, Rays, Window

WORLD = "world:3?frames=25&size=160x120"


@pytest.fixture(scope="module")
def walk() -> HeldSource:
    return HeldSource(list(open_source(WORLD)))


def config(**values: object) -> Config:
    return configuration.updated(Config(), {key.replace("__", "."): value for key, value in values.items()})


def run(source: HeldSource, predictor: Predictor, cfg: Config) -> Record:
    record, failure = OfflineRun(source, predictor, cfg).run()
    assert failure is None
    return record


def record_run(source: HeldSource, path: Path, cfg: Config) -> Record:
    predictor = RecordingPredictor(open_predictor(cfg), path)
    done = run(source, predictor, cfg)
    predictor.complete()
    predictor.close()
    return done


def outcome(record: Record) -> list[object]:
    """Everything of a run but its times."""
    trajectories = [t.T_map_cam.tobytes() for t in (record.trajectory, record.causal)]
    return [*trajectories, record.map_points.tobytes(), record.map_colors.tobytes(), record.windows]


@pytest.fixture(scope="module")
def recording(walk, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "walk.da3"
    record_run(walk, path, config())
    return path


def window(*stamps: int, depth_views: tuple[int, ...] = (0,)) -> Window:
    frames = tuple(Frame(i, stamp, np.zeros((4, 6, 3), np.uint8), None) for i, stamp in enumerate(stamps))
    return Window(1, frames, depth_views)


class Scripted:
    """Says what it is told to, in turn."""

    name, needs_truth = "scripted", False

    def __init__(self, *answers: Prediction | PredictorError) -> None:
        self.answers, self.closed = list(answers), 0

    def predict(self, window: Window) -> Prediction:
        answer = self.answers.pop(0)
        if isinstance(answer, PredictorError):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1


def answer(w: Window, value: float = 1.0, **changes: object) -> Prediction:
    shape = (len(w.frames), 4, 6)
    depth = np.full(shape, value, np.float32)
    return dataclasses.replace(Prediction(w, depth, np.full(shape, 0.5, np.float32)), **changes)


def save(path: Path, *pairs: tuple[Window, Prediction | PredictorError]) -> None:
    recorder = RecordingPredictor(Scripted(*(a for _, a in pairs)), path)
    for w, a in pairs:
        if isinstance(a, PredictorError):
            with pytest.raises(PredictorError, match=str(a)):
                recorder.predict(w)
        else:
            assert recorder.predict(w) is a
    recorder.complete()
    recorder.close()


# ---------------------------------------------------------------- what goes in comes out


def test_a_replay_is_the_run(walk, recording, tmp_path):
    again = record_run(walk, tmp_path / "again.da3", config())
    replayed = run(walk, open_predictor(config(predictor=f"recorded:{recording}")), config())
    assert outcome(replayed) == outcome(again)
    assert replayed.predictor == "recorded:walk.da3"
    assert (tmp_path / "again.da3").read_bytes() == recording.read_bytes()


def test_a_replay_needs_no_truth(walk, recording):
    blind = HeldSource([dataclasses.replace(frame, truth=None) for frame in walk])
    predictor = open_predictor(config(predictor=f"recorded:{recording}"))
    assert not predictor.needs_truth
    seeing = run(walk, open_predictor(config()), config())
    assert outcome(run(blind, predictor, config())) == outcome(seeing)


def test_breaks_and_their_repairs_are_replayed(walk, tmp_path):
    """A repair may look at the same views again: each time has its own prediction."""
    cfg = config(window__live=False, simulated__break_windows=[2, 4], keyframe__min_parallax=0.01)
    recorded = record_run(walk, tmp_path / "breaks.da3", cfg)
    assert recorded.counts["breaks_repaired"] > 0
    with zipfile.ZipFile(tmp_path / "breaks.da3") as archive:
        assert any(name.endswith("-2.npz") for name in archive.namelist())
    replayed = run(walk, RecordedPredictor(tmp_path / "breaks.da3"), cfg)
    assert outcome(replayed) == outcome(recorded)


def test_every_field_is_kept(tmp_path):
    w = window(10, 20)
    full = answer(
        w,
        rays=Rays(np.random.default_rng(0).random((2, 3, 4, 6), np.float32), np.full((2, 3, 4), 0.5, np.float32)),
        T_window_cam=np.random.default_rng(1).random((2, 4, 4)),
        cameras=(Pinhole(6, 4, 5.0, 5.5, 2.5, 1.5), Pinhole(6, 4, 5.1, 5.6, 2.4, 1.6)),
        tokens=np.random.default_rng(2).random((2, 7, 8), np.float32),
        scale_sigma=0.125,
    )
    bare = answer(window(30))
    save(tmp_path / "a.da3", (w, full), (bare.window, bare))
    replay = RecordedPredictor(tmp_path / "a.da3")
    got = replay.predict(w)
    assert got.window is w
    for name in ("depth", "confidence", "T_window_cam", "tokens"):
        one, other = getattr(got, name), getattr(full, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(got.rays.rays, full.rays.rays)
    np.testing.assert_array_equal(got.rays.confidence, full.rays.confidence)
    assert got.cameras == full.cameras
    assert got.scale_sigma == 0.125
    got = replay.predict(bare.window)
    assert (got.rays, got.T_window_cam, got.cameras, got.tokens, got.scale_sigma) == (None,) * 5


def test_the_same_views_again_get_what_was_said_then(tmp_path):
    w = window(10, 20)
    save(tmp_path / "a.da3", (w, answer(w, 1)), (w, PredictorError("out of luck")), (w, answer(w, 3)))
    replay = RecordedPredictor(tmp_path / "a.da3")
    assert replay.predict(w).depth[0, 0, 0] == 1
    with pytest.raises(PredictorError, match="out of luck"):
        replay.predict(w)
    assert replay.predict(w).depth[0, 0, 0] == 3
    assert replay.predict(w).depth[0, 0, 0] == 3  # asked more often than recorded: the last word


def test_other_views_or_other_depths_are_other_windows(tmp_path):
    w = window(10, 20)
    save(tmp_path / "a.da3", (w, answer(w)))
    replay = RecordedPredictor(tmp_path / "a.da3")
    for other in (window(10, 21), window(20), window(10, 20, depth_views=(0, 1)), window(20, 10)):
        with pytest.raises(NotRecordedError, match="with the source, --frames and configuration"):
            replay.predict(other)
    assert replay.predict(w).depth[0, 0, 0] == 1  # and goes on


def test_other_images_at_the_same_time_are_another_source(tmp_path, walk):
    w = window(10)
    save(tmp_path / "a.da3", (w, answer(w)))
    replay = RecordedPredictor(tmp_path / "a.da3")

    def showing(image: np.ndarray) -> Window:
        return dataclasses.replace(w, frames=(dataclasses.replace(w.frames[0], image=image),))

    nearly = np.full((4, 6, 3), 3, np.uint8)  # as another JPEG decoder would have it
    assert replay.predict(showing(nearly)).depth[0, 0, 0] == 1
    with pytest.raises(NotRecordedError, match="another image at 10 ns: it was made with another source"):
        replay.predict(showing(walk.frames[0].image))


# ---------------------------------------------------------------- files that are none


def test_files_that_are_no_recording(tmp_path, recording):
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    (tmp_path / "text.da3").write_text("hello")
    (tmp_path / "empty.da3").write_bytes(b"")
    (tmp_path / "cut.da3").write_bytes(recording.read_bytes()[:-100])
    for name, message in (
        ("missing.da3", "no recording at .*missing.da3; make one with da3 run SOURCE --record"),
        ("foreign.zip", "is not a recording of predictions, or is cut short"),
        ("text.da3", "is not a recording of predictions, or is cut short"),
        ("empty.da3", "is not a recording of predictions, or is cut short"),
        ("cut.da3", "is not a recording of predictions, or is cut short"),
        (".", "cannot read the recording .*: is a directory"),
    ):
        with pytest.raises(PredictorError, match=message):
            open_predictor(config(predictor=f"recorded:{tmp_path / name}"))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_a_sentence_or_nothing_at_all(data, tmp_path_factory):
    """Whatever bytes change: the prediction as it was, or a PredictorError."""
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    w = window(10, 20)
    if not (folder / "good").exists():
        save(folder / "good", (w, answer(w)))
    content = bytearray((folder / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "bad").write_bytes(content)
    try:
        got = RecordedPredictor(folder / "bad").predict(w)
    except PredictorError:
        return  # and nothing else
    np.testing.assert_array_equal(got.depth, answer(w).depth)


def test_a_window_with_other_arrays_is_damaged(tmp_path):
    w = window(10)
    save(tmp_path / "a.da3", (w, answer(w)))
    with zipfile.ZipFile(tmp_path / "a.da3") as archive:
        name, comment = archive.namelist()[0], archive.comment
    buffer = io.BytesIO()
    np.savez(buffer, other=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "b.da3", "w") as archive:
        archive.comment = comment
        archive.writestr(name, buffer.getvalue())
    with pytest.raises(PredictorError, match="is damaged; record it again"):
        RecordedPredictor(tmp_path / "b.da3").predict(w)


# ---------------------------------------------------------------- the older recording


def test_what_is_there_already_is_never_replaced(tmp_path):
    path, w = tmp_path / "walk.mp4", window(10)
    save(path, (w, answer(w, 1)))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already; remove it or choose another name"):
        RecordingPredictor(Scripted(answer(w, 2)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_recording_keeps_what_it_has_under_another_name(tmp_path):
    path, w = tmp_path / "a.da3", window(10)
    inner = Scripted(answer(w, 2))
    recorder = RecordingPredictor(inner, path)
    recorder.predict(w)
    recorder.close()
    recorder.close()
    assert inner.closed == 2
    assert not path.exists()
    assert RecordedPredictor(recorder.partial).predict(w).depth[0, 0, 0] == 2
    save(path, (w, answer(w, 3)))
    assert RecordedPredictor(path).predict(w).depth[0, 0, 0] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.da3"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.da3", tmp_path, Path("/proc/a.da3")):
        with pytest.raises(OutputError, match="cannot write the recording"):
            RecordingPredictor(Scripted(), path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_costs_the_recording_and_not_the_run(tmp_path):
    path, w = tmp_path / "a.da3", window(10)
    (tmp_path / "a.da3.partial").symlink_to("/dev/full")
    recorder = RecordingPredictor(Scripted(*[answer(w, 2)] * 50), path)
    for _ in range(50):
        assert recorder.predict(w).depth[0, 0, 0] == 2
    recorder.complete()
    with pytest.raises(OutputError, match=r"cannot write the recording .*a\.da3: no space left on device"):
        recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_every_error_is_ours():
    assert issubclass(NotRecordedError, PredictorError)
    assert issubclass(PredictorError, Da3Error)

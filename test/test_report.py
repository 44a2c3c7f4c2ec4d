"""Summary, table and HTML report of fabricated runs, whole and crippled."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from da3_ros.errors import OutputError
from da3_ros.evaluation.depths import DepthCheck, check
from da3_ros.evaluation.ground import ground_plane
from da3_ros.evaluation.latency import Latency
from da3_ros.evaluation.mapview import View, map_pictures
from da3_ros.evaluation.record import Record, Sample
from da3_ros.evaluation.report import page, write_report
from da3_ros.evaluation.samples import error_limit, panels
from da3_ros.evaluation.summary import summarise, table, write_json
from da3_ros.evaluation.verdicts import duration, tiles, verdicts
from da3_ros.geometry import se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.types import DepthMap, Trajectory, WindowRecord

FRAMES = 80
STAMPS = 1_700_000_000_000_000_000 + 66_666_667 * np.arange(FRAMES, dtype=np.int64)
NOTHING = Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))


def walk() -> np.ndarray:
    """A level loop in a room whose z is up, looking ahead, cameras with OpenCV axes."""
    angle = np.linspace(0, 1.6 * np.pi, FRAMES)
    positions = np.stack([2 * np.cos(angle), 1.5 * np.sin(angle), 1.2 + 0.05 * np.sin(5 * angle)], axis=1)
    forward = np.gradient(positions, axis=0)
    forward[:, 2] = 0
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    down = np.tile([0.0, 0, -1], (FRAMES, 1))
    return se3.make(np.stack([np.cross(down, forward), down, forward], axis=-1), positions)


def room(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A floor, a ceiling and four walls, 8 x 6 x 2.6 m."""
    n = 4000
    u, v, h = rng.uniform(-4, 4, n), rng.uniform(-3, 3, n), rng.uniform(0, 2.6, n)
    faces = [
        np.stack([u, v, 0 * u], 1),
        np.stack([u, v, 0 * u + 2.6], 1),
        np.stack([0 * u - 4, v, h], 1),
        np.stack([0 * u + 4, v, h], 1),
        np.stack([u, 0 * u - 3, h], 1),
        np.stack([u, 0 * u + 3, h], 1),
    ]
    colours = np.repeat(
        np.array([(160, 120, 80), (250, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)], np.uint8),
        n,
        axis=0,
    )
    return np.concatenate(faces).astype(np.float32), colours


def record(**changes) -> Record:
    rng = np.random.default_rng(0)
    T = walk()
    keyframe = np.arange(FRAMES) % 5 == 0

    def noisy(sigma: float, scale: float) -> Trajectory:
        out = T.copy()
        out[:, :3, 3] = scale * T[:, :3, 3] + sigma * rng.normal(size=(FRAMES, 3))
        return Trajectory(STAMPS, out, keyframe)

    latency = Latency()
    for stage, mean in (("track", 0.008), ("predict", 0.12), ("queue <wait>", 0.0004)):
        for _ in range(FRAMES):
            latency.add(stage, mean * rng.lognormal(0, 0.2))
    outcomes = {4: "repaired", 7: "weak", 9: "refused"}
    windows = [
        WindowRecord(
            i,
            int(STAMPS[5 * i]),
            8,
            0.1 * rng.normal(),
            0.03,
            0.7 if i in outcomes else 0.02,
            outcomes.get(i, "joined"),
        )
        for i in range(16)
    ]
    depth = rng.uniform(1, 4, (30, 40)).astype(np.float32)
    depth[:3] = np.nan
    image = rng.integers(0, 255, (60, 80, 3), np.uint8)
    samples = [
        Sample(i, int(STAMPS[i]), image, 1.02 * depth, np.full((30, 40), 0.7, np.float32), depth)
        for i in range(0, FRAMES, 10)
    ]
    points, colours = room(rng)
    base = Record(
        title="a <room> & more",
        source="world:7",
        predictor="simulated",
        method="regularised",
        mode="offline",
        trajectory=noisy(0.01, 1.02),
        causal=noisy(0.03, 1.02),
        truth=Trajectory(STAMPS, T),
        windows=windows,
        latency_ms=latency.summary(),
        latency_histograms=latency.histograms(),
        drops={"mailbox full": 2, "too old": 0},
        counts={
            "frames": FRAMES,
            "keyframes": int(keyframe.sum()),
            "submaps": 2,
            "windows": 16,
            "segments": 1,
            "breaks_detected": 2,
            "breaks_repaired": 1,
            "map_points": len(points),
        },
        samples=samples,
        map_points=points,
        map_colors=colours,
        config_text="window:\n  size: 8  # <views>\n",
        notes=["one & two"],
    )
    return dataclasses.replace(base, **changes)


def blank_sample() -> list[Sample]:
    """A sample without truth and without a valid pixel."""
    blank = np.full((30, 40), np.nan, np.float32)
    return [Sample(0, int(STAMPS[0]), np.zeros((60, 80, 3), np.uint8), blank, np.zeros_like(blank))]


class Page(HTMLParser):
    """Collects what a test asks of a page, and that its tags close."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.identifiers: list[str] = []
        self.images = 0
        self.drawings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += tag == "img"
        if tag == "svg":
            self.drawings.append(values["aria-label"])
        self.links += [values[name] for name in ("href", "src", "xlink:href") if name in values]
        self.identifiers += [values["id"]] if "id" in values else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def whole() -> Record:
    return record()


class TestSummary:
    def test_keys_and_values(self, whole):
        s = summarise(whole)
        assert s["frames"] == FRAMES
        assert s["keyframes"] == 16
        assert s["coverage"] == 1.0
        assert s["scale"] == pytest.approx(1.02, abs=0.005)
        assert s["ate_sim3_m"] == pytest.approx(0.01 * np.sqrt(3) / 1.02, rel=0.15)
        assert s["ate_se3_m"] > s["ate_sim3_m"]
        assert s["causal"]["ate_sim3_m"] == pytest.approx(0.03 * np.sqrt(3) / 1.02, rel=0.15)
        assert s["keyframe_poses"]["frames_matched"] == 16
        assert s["drops"] == {"mailbox full": 2, "too old": 0}
        assert s["latency_ms"]["predict"]["p50"] == pytest.approx(120, rel=0.1)
        assert s["windows_by_outcome"] == {"joined": 13, "repaired": 1, "weak": 1, "refused": 1}
        for key in ("path_length_m", "scale_drift", "rpe_trans_m", "rpe_rot_deg", "version", "breaks_repaired"):
            assert s[key] is not None

    def test_strict_json(self, whole, tmp_path):
        standing = Trajectory(STAMPS, np.tile(np.eye(4), (FRAMES, 1, 1)))
        s = summarise(dataclasses.replace(whole, truth=standing))
        assert s["scale"] is None
        write_json(tmp_path / "deep" / "report.json", s)
        text = (tmp_path / "deep" / "report.json").read_text()
        assert json.loads(text, parse_constant=pytest.fail) == s

    def test_same_input_same_bytes(self, whole):
        assert json.dumps(summarise(whole)) == json.dumps(summarise(record()))

    def test_without_ground_truth(self, whole):
        s = summarise(dataclasses.replace(whole, truth=None))
        assert s["ate_sim3_m"] is s["causal"]["scale"] is s["keyframe_poses"]["ate_se3_m"] is None
        assert s["path_length_m"] > 5
        assert s["coverage"] == 1.0
        half = Trajectory(STAMPS[:40], whole.trajectory.T_map_cam[:40])
        assert summarise(dataclasses.replace(whole, truth=None, trajectory=half))["coverage"] == 0.5

    def test_undefined_metrics_say_why(self, whole):
        other = Trajectory(STAMPS + 10**12, whole.truth.T_map_cam)
        s = summarise(dataclasses.replace(whole, truth=other))
        assert s["ate_sim3_m"] is None
        assert any("same clock" in note for note in s["notes"])
        assert whole.notes == ["one & two"]

    def test_no_pose_at_all(self, whole):
        s = summarise(dataclasses.replace(whole, trajectory=NOTHING, causal=NOTHING))
        assert s["coverage"] == 0.0
        assert s["path_length_m"] == 0.0


def checks() -> dict[str, list[DepthCheck]]:
    """Depth that is 10 % too far in map units, or missing; and a frame from which nothing goes out."""
    truth = np.full((30, 40), 2.0, np.float32)
    depth, confidence = 1.1 * truth, np.full_like(truth, 0.6)
    depth[:15], confidence[:, :20] = np.nan, 0.2
    camera = Pinhole(40, 30, 40, 40, 19.5, 14.5)
    warped = check(DepthMap(3, 0, depth, confidence, camera), 0.2, truth, 0.3)
    own = check(DepthMap(3, 0, 1.1 * truth, 0 * truth + 0.6, camera), 0.0, truth, 0.3)
    return {"warped": [warped, check(None, np.nan, truth, 0.3)], "predicted": [own]}


class TestDepth:
    def test_figures_of_what_goes_out(self, whole):
        found = summarise(dataclasses.replace(whole, depth=checks()))["depth"]
        assert found["warped"] == {
            "frames": 2,
            "abs_rel": pytest.approx(0.1, rel=1e-4),
            "delta1": 1.0,
            "valid": pytest.approx(0.125, abs=0.02),
            "age_s": pytest.approx(0.2),
        }
        assert found["predicted"]["valid"] == 1.0

    def test_map_units_are_brought_to_metres_where_that_is_possible(self, whole):
        scaled = summarise(dataclasses.replace(whole, depth=checks(), metric=False))
        assert scaled["depth"]["warped"]["abs_rel"] == pytest.approx(1.1 / scaled["scale"] - 1, rel=1e-3)
        lost = summarise(dataclasses.replace(whole, depth=checks(), metric=False, truth=None))
        assert lost["depth"]["warped"]["abs_rel"] is None
        assert "nan" not in table(lost).lower()

    def test_the_page_and_the_table_say_it(self, whole):
        lean = dataclasses.replace(whole, samples=[], map_points=whole.map_points[:0], map_colors=whole.map_colors[:0])
        run = dataclasses.replace(lean, depth=checks())
        text = page(run, summarise(run))
        assert "Depth against ground truth" in text
        assert "<td>10.0 %</td><td>100.0 %</td>" in text
        assert re.search(r"depth, AbsRel, % +10\.00 +10\.00", table(summarise(run)))
        assert "Depth against ground truth" not in page(lean, summarise(lean))


class TestTable:
    def test_says_the_figures_with_units(self, whole):
        text = table(summarise(whole))
        assert re.search(r"ATE after Sim3, m +0\.01\d\d +0\.0[45]\d\d", text)
        assert re.search(r"ATE after SE3, m +0\.0\d+ +0\.0\d+", text)
        assert re.search(r"scale, estimate / truth +1\.0[12]\d\d", text)
        assert re.search(r"coverage +1\.000", text)
        assert re.search(r"latency, ms +p50 +p95 +max", text)
        assert re.search(r"drops +2 +mailbox full 2$", text, re.MULTILINE)
        assert "too old" not in text
        assert max(map(len, text.splitlines())) <= 100

    def test_without_ground_truth(self, whole):
        text = table(summarise(dataclasses.replace(whole, truth=None, metric=False, latency_ms={}, drops={})))
        assert "no ground truth" in text
        assert "map units" in text
        assert "nan" not in text.lower()
        assert re.search(r"drops +0$", text, re.MULTILINE)


class TestReport:
    def test_one_file_with_everything(self, whole, tmp_path):
        path = tmp_path / "report.html"
        write_report(path, whole, summarise(whole))
        text = path.read_text(encoding="utf-8")
        assert path.stat().st_size < 5_000_000
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        parsed = Page(text)
        assert parsed.open == []
        assert all(link.startswith(("data:image/", "#")) for link in parsed.links)
        assert "://" not in text
        assert len(parsed.identifiers) == len(set(parsed.identifiers))
        assert {link[1:] for link in parsed.links if link[0] == "#"} <= set(parsed.identifiers)
        assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(parsed.identifiers)
        assert len(parsed.drawings) == 4
        assert parsed.images == 6 * 4 + 2
        seen = " ".join(parsed.text)
        for words in (
            "a <room> & more",
            "mailbox full",
            "queue <wait>",
            "size: 8  # <views>",
            "one & two",
            "scale break, weak joint",
            "ground truth",
            "2 scale breaks detected: 1 repaired, 1 behind a weak link",
        ):
            assert words in seen
        assert "nan" not in re.sub(r"[\w]*nan[\w]+|[\w]+nan", "", " ".join(parsed.text).lower())

    def test_same_input_same_bytes(self, whole):
        assert page(whole, summarise(whole)) == page(record(), summarise(record()))

    @pytest.mark.parametrize(
        "changes",
        [
            {"truth": None},
            {"truth": None, "metric": False},
            {"truth": Trajectory(STAMPS + 10**12, walk())},
            {"truth": Trajectory(STAMPS, np.tile(np.eye(4), (FRAMES, 1, 1)))},
            {"map_points": np.ones((1, 3), np.float32), "map_colors": np.ones((1, 3), np.uint8)},
            {"map_points": np.full((9, 3), np.nan, np.float32), "map_colors": np.ones((9, 3), np.uint8)},
            {"windows": []},
            {"windows": [WindowRecord(0, int(STAMPS[0]), 1, float("nan"), float("nan"), float("nan"), "refused")]},
            {"latency_ms": {}, "latency_histograms": {}},
            {"latency_histograms": {}, "samples": blank_sample()},
            {"causal": NOTHING},
            {"trajectory": NOTHING, "causal": NOTHING, "counts": {}},
            {"config_text": "", "notes": [], "drops": {}},
        ],
        ids="+".join,
    )
    def test_what_is_missing_is_left_out(self, whole, changes):
        lean = {"samples": [], "map_points": whole.map_points[:0], "map_colors": whole.map_colors[:0]}
        crippled = dataclasses.replace(whole, **(lean | changes))
        parsed = Page(page(crippled, summarise(crippled)))
        assert parsed.open == []
        assert len(parsed.drawings) >= 1

    @pytest.mark.parametrize("frames", [1, 2])
    def test_a_frame_or_two(self, whole, frames):
        few = Trajectory(STAMPS[:frames], walk()[:frames], np.ones(frames, bool))
        crippled = dataclasses.replace(
            whole,
            trajectory=few,
            causal=few,
            truth=few,
            windows=whole.windows[:1],
            samples=whole.samples[:1],
            map_points=whole.map_points[::50],
            map_colors=whole.map_colors[::50],
        )
        s = summarise(crippled)
        assert any("are needed" in note for note in s["notes"])
        assert Page(page(crippled, s)).open == []

    def test_a_run_of_nothing(self):
        empty = Record("nothing", "s", "p", "m", "live", NOTHING, NOTHING)
        parsed = Page(page(empty, summarise(empty)))
        assert parsed.open == []
        assert "There is no pose in this run." in parsed.text
        assert "The map is empty" in " ".join(parsed.text)

    def test_drawing_leaves_the_host_program_alone(self, whole):
        import matplotlib as mpl

        before = dict(mpl.rcParams)
        lean = dataclasses.replace(whole, samples=[], map_points=whole.map_points[:0])
        page(lean, summarise(lean))
        assert dict(mpl.rcParams) == before

    def test_long_runs_stay_small(self, whole):
        frames = 40_000
        rng = np.random.default_rng(0)
        poses = np.tile(np.eye(4), (frames, 1, 1))
        poses[:, :3, 3] = np.cumsum(rng.normal(size=(frames, 3)), axis=0) * 0.01
        stamps = STAMPS[0] + 33_333_333 * np.arange(frames, dtype=np.int64)
        run = Trajectory(stamps, poses, np.arange(frames) % 5 == 0)
        noise = rng.normal(size=whole.map_points.shape).astype(np.float32)
        large = rng.integers(0, 255, (1080, 1920, 3), np.uint8)
        depth = rng.uniform(1, 5, (540, 960)).astype(np.float32)
        samples = [Sample(i, int(stamps[i]), large, depth, depth / 6, 1.1 * depth) for i in range(30)]
        long = dataclasses.replace(whole, trajectory=run, causal=run, truth=run, samples=samples, map_points=noise)
        assert len(page(long, summarise(long)).encode()) < 5_000_000

    def test_unwritable_place_is_one_sentence(self, whole, tmp_path):
        (tmp_path / "file").write_text("kept")
        with pytest.raises(OutputError, match=r"^cannot write .*; choose another place$"):
            write_report(tmp_path / "file" / "report.html", whole, summarise(whole))
        assert (tmp_path / "file").read_text() == "kept"

    def test_a_failed_move_leaves_the_old_report(self, whole, tmp_path, monkeypatch):
        path = tmp_path / "report.json"
        path.write_text("old")

        def full(self, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pathlib.Path.replace", full)
        with pytest.raises(OutputError, match="no space left on device"):
            write_json(path, {})
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


class TestVerdicts:
    def test_kinds_follow_the_figures(self, whole):
        s = summarise(whole)
        kinds = {text.split(" ")[0]: kind for kind, text in verdicts(s)}
        assert kinds["Lengths"] == "good"
        assert kinds["2"] == "fair"
        s["scale"] = 1.3
        assert ("bad", "Lengths come out 30.0 % too large.") in verdicts(s)
        s["coverage"] = 0.9
        assert ("bad", "10.0 % of the run has no pose.") in verdicts(s)

    def test_tiles(self, whole):
        names = [tile.name for tile in tiles(summarise(whole))]
        assert names == ["ATE after Sim3", "ATE after SE3", "Scale", "Coverage", "Path", "Latency: predict", "Drops"]
        names = [tile.name for tile in tiles(summarise(dataclasses.replace(whole, truth=None, latency_ms={})))]
        assert names == ["Coverage", "Path", "Drops"]

    @pytest.mark.parametrize(
        ("milliseconds", "text"),
        [(0.0, "0 µs"), (0.05, "50 µs"), (0.75, "0.75 ms"), (9.886, "9.89 ms"), (107.7, "108 ms"), (1.2e4, "12.0 s")],
    )
    def test_durations(self, milliseconds, text):
        assert duration(milliseconds) == text


class TestPictures:
    def test_ground_of_a_level_world(self):
        ground = ground_plane(walk())
        np.testing.assert_array_equal(ground.axes, np.eye(3))

    def test_ground_of_a_world_that_starts_as_a_camera(self):
        level = se3.make(np.eye(3), np.random.default_rng(0).normal(size=(20, 3)))
        ground = ground_plane(level)
        np.testing.assert_array_equal(ground.axes[2], [0, -1, 0])
        assert np.linalg.det(ground.axes) == pytest.approx(1)

    def test_ground_of_a_tilted_world_is_the_plane_of_the_walk(self):
        tilt = se3.make(se3.exp_so3(np.array([0.78, 0.3, 0])), np.zeros(3))
        ground = ground_plane(tilt @ walk())
        assert ground.axes[2] @ tilt[:3, 2] > 0.99
        np.testing.assert_allclose(ground.axes @ ground.axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(ground.axes) == pytest.approx(1)

    def test_one_sees_into_a_room(self):
        points, colours = room(np.random.default_rng(1))
        T = walk()
        pictures = map_pictures(points, colours, T, ground_plane(T), size=(240, 160))
        for picture in (pictures.perspective, pictures.top):
            assert picture.shape == (160, 240, 3)
            # the red ceiling faces down and is left out, the brown floor is seen
            red = (picture[..., 0] > 150) & (picture[..., 1:] < 40).all(axis=-1)
            brown = (np.diff(picture.astype(int), axis=-1) < -10).all(axis=-1) & (picture[..., 2] > 20)
            assert red.mean() < 0.02
            assert brown.mean() > 0.15

    def test_projection_of_the_top_view(self):
        view = View(np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]), np.zeros(3), 0.0, 10.0, 100, 60)
        uv, _ = view.project(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]))
        np.testing.assert_allclose(uv, [[50, 30], [60, 30], [50, 20]])

    def test_sample_captions_measure_the_depth(self):
        truth = np.full((30, 40), 2.0, np.float32)
        sample = Sample(3, 0, np.zeros((60, 80, 3), np.uint8), 1.1 * truth, 0.5 * np.ones_like(truth), truth)
        error = panels(sample, 1.0, "m", 0.2)[3]
        assert error.caption == "AbsRel 10.0 %, δ₁ 100 %"
        assert error.bar[1:] == ("−20 % near", "+20 % far")
        assert panels(sample, 1 / 1.1, "m", 0.2)[3].caption == "AbsRel 0.0 %, δ₁ 100 %"
        blank = dataclasses.replace(sample, depth=np.full_like(truth, np.nan), confidence=np.zeros_like(truth))
        assert panels(blank, 1.0, "m", 0.2)[3].caption == "no common pixels"

    def test_windows_that_claim_no_metres_have_no_residual(self, whole):
        silent = dataclasses.replace(whole, windows=[dataclasses.replace(w, residual=0.0) for w in whole.windows])
        told, untold = (page(record, summarise(record)) for record in (whole, silent))
        assert "against what was expected" in told
        assert "none claims metres" not in told
        assert "against what was expected" not in untold
        assert "none claims metres" in untold

    def test_errors_of_all_samples_are_drawn_on_one_scale(self):
        truth = np.full((30, 40), 2.0, np.float32)
        image, sure = np.zeros((60, 80, 3), np.uint8), np.ones_like(truth)
        samples = [Sample(i, i, image, factor * truth, sure, truth) for i, factor in enumerate((1.0, 1.2, 0.9))]
        assert error_limit(samples, 1.0) == pytest.approx(0.2)
        assert error_limit(samples[:1], 1.0) == 0.05
        assert error_limit([dataclasses.replace(samples[0], depth=9 * truth)], 1.0) == 0.5
        assert error_limit([dataclasses.replace(samples[0], truth_depth=None)], 1.0) == 0.05

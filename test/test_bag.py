"""Bags: written from any source, read back, damaged, and foreign ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from sources_scene import SMALL, WallSource, assert_frames_equal, pose, real_data, render

from da3_ros.errors import OutputError, SourceError
from da3_ros.geometry import se3
from da3_ros.sources import bag_types, open_source
from da3_ros.sources.bag_types import typestore
from da3_ros.sources.bag_writer import write_bag
from da3_ros.sources.player import BagPlayback
from da3_ros.types import Frame, Truth

STEP = 33_333_333
START = 10**9
STORAGES = ("mcap", "sqlite3")
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}


def storage_file(bag: Path) -> Path:
    (file,) = [p for p in bag.iterdir() if p.suffix in (".mcap", ".db3")]
    return file


# ---------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("storage", STORAGES)
def test_a_raw_bag_equals_its_source(tmp_path, storage):
    source = WallSource()
    write_bag(source, tmp_path / "bag", storage=storage)
    bag = open_source(str(tmp_path / "bag"))
    assert_frames_equal(bag, source)
    assert_frames_equal(bag, bag)
    assert (len(bag), bag.name, bag.skipped) == (5, "bag", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]
    for place in (storage_file(tmp_path / "bag"), tmp_path / "bag" / "metadata.yaml"):
        assert_frames_equal(open_source(str(place)), source)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_compressed_bag_differs_only_by_jpeg(tmp_path, storage):
    source = WallSource(3)
    write_bag(source, tmp_path / "bag", storage=storage, compressed=True)
    for a, b in zip(open_source(str(tmp_path / "bag")), source, strict=True):
        assert (a.id, a.stamp_ns, a.camera) == (b.id, b.stamp_ns, b.camera)
        np.testing.assert_array_equal(a.truth.depth, b.truth.depth)
        assert np.abs(a.image.astype(int) - b.image).mean() < 5


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_real_room_as_a_bag(tmp_path, storage, compressed):
    source = open_source(str(real_data("rgbd_room")), (0, 20))
    calls = []
    write_bag(source, tmp_path / "room", storage=storage, compressed=compressed, progress=lambda *a: calls.append(a))
    assert calls == [(i, 20) for i in range(1, 21)]
    bag = open_source(str(tmp_path / "room"))
    if not compressed:
        assert_frames_equal(bag, source, pose_tolerance=1e-9)
        return
    for a, b in zip(bag, source, strict=True):
        assert (a.stamp_ns, a.camera) == (b.stamp_ns, b.camera)
        assert np.abs(a.image.astype(int) - b.image).mean() < 3
        np.testing.assert_array_equal(a.truth.depth, b.truth.depth)


@pytest.mark.parametrize("storage", STORAGES)
def test_frames_and_stride_of_a_bag(tmp_path, storage):
    write_bag(WallSource(10), tmp_path / "bag", storage=storage)
    all_frames = list(WallSource(10))
    part = list(open_source(str(tmp_path / "bag"), (-6, 9), stride=2))
    assert [f.id for f in part] == [4, 6, 8]
    assert_frames_equal(part, [all_frames[i] for i in (4, 6, 8)])


def test_an_uncalibrated_source_stays_uncalibrated(tmp_path):
    write_bag(WallSource(2, camera=None), tmp_path / "bag")
    assert all(f.camera is None for f in open_source(str(tmp_path / "bag")))


def test_a_source_without_truth(tmp_path):
    class Plain(WallSource):
        def __iter__(self):
            for f in super().__iter__():
                yield Frame(f.id, f.stamp_ns, f.image, f.camera)

    write_bag(Plain(2), tmp_path / "bag")
    assert [f.truth for f in open_source(str(tmp_path / "bag"))] == [None, None]
    assert list(BagPlayback(tmp_path / "bag").topics) == ["/camera/camera_info", "/camera/image_raw"]


def test_memory_does_not_grow_with_the_bag(tmp_path):
    class Big(WallSource):
        def __iter__(self):
            for i in range(self.count):
                image = np.full((480, 640, 3), i, np.uint8)
                yield Frame(i, START + i * STEP, image, None, Truth(np.ones((480, 640), np.float32), pose(i)))

    write_bag(Big(80), tmp_path / "bag")
    size_mb = storage_file(tmp_path / "bag").stat().st_size / 2**20
    code = (
        "import resource; from da3_ros.sources import open_source\n"
        f"bag = open_source({str(tmp_path / 'bag')!r}); it = iter(bag); [next(it) for _ in range(5)]\n"
        "rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "early = rss(); assert sum(1 for _ in it) == 75; print(rss() - early)"
    )
    repo = Path(__file__).resolve().parents[1]
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=repo)
    assert size_mb > 150
    assert float(out.stdout) < 0.1 * size_mb, (out.stdout, size_mb)


# ---------------------------------------------------------------------------------------------------- playback


@pytest.mark.parametrize("storage", STORAGES)
def test_playback_is_in_order_with_truth_before_the_image(tmp_path, storage):
    write_bag(WallSource(3), tmp_path / "bag", storage=storage)
    playback = BagPlayback(tmp_path / "bag")
    messages = list(playback)
    assert len(playback) == len(messages) == 12
    order = ["/truth/depth", "/truth/pose", "/camera/camera_info", "/camera/image_raw"]
    assert [m.topic for m in messages] == 3 * order
    times = [m.t_ns for m in messages]
    assert times == sorted(times)
    assert (playback.start_ns, playback.end_ns) == (times[0], times[-1])
    image = bag_types.decode(messages[3].raw, messages[3].msgtype)
    assert (image.header.frame_id, image.encoding, image.step) == ("camera_optical_frame", "rgb8", 64 * 3)
    pose_message = bag_types.decode(messages[1].raw, messages[1].msgtype)
    assert pose_message.header.frame_id == "world"
    depth = bag_types.decode(messages[0].raw, messages[0].msgtype)
    assert (depth.encoding, depth.header.frame_id) == ("32FC1", "camera_optical_frame")
    assert [m.topic for m in BagPlayback(tmp_path / "bag", ["/truth/pose"])] == ["/truth/pose"] * 3
    with pytest.raises(SourceError, match=r"no topic /nope; it has /camera/camera_info"):
        BagPlayback(tmp_path / "bag", ["/nope"])
    assert playback.topics["/truth/pose"].msgtype == "geometry_msgs/msg/PoseStamped"
    assert playback.topics["/truth/pose"].reliable
    assert not playback.topics["/truth/pose"].transient_local


# ---------------------------------------------------------------------------------------------------- writing


def test_an_existing_place_is_refused_and_untouched(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(OutputError, match="exists already"):
            write_bag(WallSource(1), tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(OutputError, match="cannot write the bag"):
        write_bag(WallSource(1), tmp_path / "file" / "bag")


def test_a_source_that_breaks_leaves_nothing_behind(tmp_path):
    class Broken(WallSource):
        def __iter__(self):
            yield next(super().__iter__())
            raise SourceError("the disk with the images fell off")

    with pytest.raises(SourceError, match="fell off"):
        write_bag(Broken(), tmp_path / "bag")
    with pytest.raises(SourceError, match="no frame to write"):
        write_bag(WallSource(0), tmp_path / "bag")
    with pytest.raises(KeyboardInterrupt):
        write_bag(WallSource(), tmp_path / "bag", progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_leaves_nothing_behind(tmp_path, storage):
    """A limit on file size makes writing fail as a full disk does, in the middle of the recording."""
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, 'test')\n"
        "from sources_scene import WallSource; from da3_ros.errors import OutputError\n"
        "from da3_ros.sources.bag_writer import write_bag\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))\n"
        "source = WallSource(300, size=(160, 120), camera=None)\n"
        f"try: write_bag(source, Path({str(tmp_path / 'bag')!r}), storage={storage!r})\n"
        "except OutputError as error: print(error)\n"
        "else: sys.exit('nothing failed')"
    )
    repo = Path(__file__).resolve().parents[1]
    out = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=repo)
    assert out.returncode == 0, out.stderr
    assert "cannot write the bag" in out.stdout
    assert out.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- damaged bags


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_bag_that_was_cut_short_gives_what_is_left_and_says_so(tmp_path, storage, share, metadata):
    source = WallSource(40, size=(160, 120), camera=None)
    write_bag(source, tmp_path / "bag", storage=storage)
    file = storage_file(tmp_path / "bag")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    if not metadata:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    for place in (tmp_path / "bag", file):
        bag = open_source(str(place))
        seen = []
        with pytest.raises(SourceError, match=r"cut short.*ends early after.*partial=yes"):
            seen.extend(bag)
        collected = collect_until_error(bag)
        assert 40 * share - 8 <= len(collected) <= 40 * share + 2
        assert len(bag) == len(collected)
        expected = list(source)[: len(collected)]
        for a, b in zip(collected, expected, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.truth.depth, b.truth.depth)
        assert len(list(open_source(f"{place}?partial=yes"))) == len(collected)
        assert len(list(open_source(str(place), (0, 5)))) == 5  # the first frames are whole
        assert "ends early" in BagPlayback(place).damage


def collect_until_error(source) -> list[Frame]:
    frames = []
    try:
        for frame in source:
            frames.append(frame)  # noqa: PERF402  (kept although the iterator raises)
    except SourceError:
        pass
    return frames


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("content", [b"", b"junk" * 50, None])
def test_a_bag_with_nothing_in_it_is_refused_in_one_sentence(tmp_path, storage, content):
    write_bag(WallSource(3), tmp_path / "bag", storage=storage)
    file = storage_file(tmp_path / "bag")
    file.write_bytes(file.read_bytes()[:100] if content is None else content)
    for place in (tmp_path / "bag", file):
        with pytest.raises(SourceError) as error:
            open_source(str(place))
        assert "\n" not in str(error.value)
        assert file.name in str(error.value) or "bag" in str(error.value)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("storage", STORAGES)
def test_bytes_changed_at_random_never_crash(tmp_path, storage, seed):
    write_bag(WallSource(20), tmp_path / "bag", storage=storage)
    file = storage_file(tmp_path / "bag")
    data, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for at in rng.integers(0, len(data), 40):
        data[at] = int(rng.integers(256))
    file.write_bytes(data)
    try:
        frames = collect_until_error(open_source(str(tmp_path / "bag")))
    except SourceError:
        return
    assert len(frames) <= 20
    assert all(f.image.shape == (48, 64, 3) for f in frames)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rosbag2_bagfile_information: {}", ""),
        ("rosbag2_bagfile_information: [", ""),
        ("rosbag2_bagfile_information: {version: 99}", ""),
    ],
)
def test_damaged_metadata_is_no_obstacle(tmp_path, text, words):
    write_bag(WallSource(3), tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").write_text(text)
    assert_frames_equal(open_source(str(tmp_path / "bag")), WallSource(3))


def test_metadata_without_storage(tmp_path):
    write_bag(WallSource(3), tmp_path / "bag")
    storage_file(tmp_path / "bag").unlink()
    with pytest.raises(SourceError, match="cannot be opened as a bag"):
        open_source(str(tmp_path / "bag"))


# ---------------------------------------------------------------------------------------------------- foreign bags


class Recorder:
    """Writes messages of any kind, as somebody else's robot would."""

    def __init__(self, path: Path, storage: str = "mcap") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self.connections: dict = {}
        self.types = typestore().types

    def __enter__(self) -> Recorder:
        self.writer.open()
        return self

    def __exit__(self, *_) -> None:
        self.writer.close()

    def put(self, topic: str, msgtype: str, t_ns: int, raw: bytes | None = None, *args) -> None:
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, msgtype, typestore=typestore())
        if raw is None:
            raw = typestore().serialize_cdr(self.types[msgtype](*args), msgtype)
        self.writer.write(self.connections[topic], t_ns, raw)

    def header(self, t_ns: int, frame: str = "cam"):
        time = self.types["builtin_interfaces/msg/Time"](*divmod(t_ns, 10**9))
        return self.types["std_msgs/msg/Header"](time, frame)

    def image(self, t_ns, pixels, *, topic="/cam/image_raw", encoding="rgb8", at=None, step=None, data=None):
        h, w = pixels.shape[:2]
        flat = np.frombuffer(np.ascontiguousarray(pixels).tobytes() if data is None else data, np.uint8)
        step = pixels.nbytes // h if step is None else step
        self.put(topic, bag_types.IMAGE, at or t_ns, None, self.header(t_ns), h, w, encoding, 0, step, flat)

    def info(self, t_ns, K, size=(64, 48), D=(), topic="/cam/camera_info", at=None, model="plumb_bob"):
        roi = self.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        self.put(
            topic,
            bag_types.CAMERA_INFO,
            at or t_ns,
            None,
            self.header(t_ns),
            size[1],
            size[0],
            model,
            np.array(D, float),
            np.asarray(K, float).ravel(),
            np.zeros(9),
            np.zeros(12),
            0,
            0,
            roi,
        )

    def imu(self, t_ns, gyro, force, frame="imu_link", topic="/imu"):
        t = self.types
        vectors = [t["geometry_msgs/msg/Vector3"](*map(float, value)) for value in (gyro, force)]
        turned, zeros = t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0), np.zeros(9)
        parts = turned, np.array([-1.0, *zeros[1:]]), vectors[0], zeros, vectors[1], zeros
        self.put(topic, bag_types.IMU, t_ns, None, self.header(t_ns, frame), *parts)

    def pose_value(self, T):
        t = self.types
        q = se3.quaternion_from_rotation(T[:3, :3]) if np.isfinite(T).all() else np.full(4, np.nan)
        return t["geometry_msgs/msg/Point"](*map(float, T[:3, 3])), t["geometry_msgs/msg/Quaternion"](*map(float, q))

    def pose(self, t_ns, T, topic="/truth/pose", at=None):
        value = self.types["geometry_msgs/msg/Pose"](*self.pose_value(T))
        self.put(topic, bag_types.POSE, at or t_ns, None, self.header(t_ns, "map"), value)

    def odometry(self, t_ns, T, child, topic="/ground_truth/odom"):
        t, zero = self.types, np.zeros(36)
        v = t["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
        pose_cov = t["geometry_msgs/msg/PoseWithCovariance"](t["geometry_msgs/msg/Pose"](*self.pose_value(T)), zero)
        twist = t["geometry_msgs/msg/TwistWithCovariance"](t["geometry_msgs/msg/Twist"](v, v), zero)
        self.put(topic, bag_types.ODOMETRY, t_ns, None, self.header(t_ns, "world"), child, pose_cov, twist)

    def cloud(self, t_ns, points, frame="base", topic="/depth_prior"):
        field = self.types["sensor_msgs/msg/PointField"]
        fields = [field(name, 8 + 8 * i, 8, 1) for i, name in enumerate("xyz")]  # float64 after eight other bytes
        rows = np.zeros((len(points), 4))
        rows[:, 1:] = points
        flat, width = rows.view(np.uint8).ravel(), len(points)
        self.put(
            *(topic, bag_types.CLOUD, t_ns, None, self.header(t_ns, frame), 1, width, fields, False),
            *(32, 32 * width, flat, False),
        )

    def tf(self, t_ns, edges, topic="/tf"):
        t = self.types
        transforms = []
        for parent, child, T in edges:
            point, q = self.pose_value(T)
            value = t["geometry_msgs/msg/Transform"](t["geometry_msgs/msg/Vector3"](point.x, point.y, point.z), q)
            transforms.append(t["geometry_msgs/msg/TransformStamped"](self.header(t_ns, parent), child, value))
        self.put(topic, bag_types.TF, t_ns, None, transforms)


def picture(i: int, size=(64, 48)) -> np.ndarray:
    return render(SMALL.matrix, size, pose(i))[0]


@pytest.mark.parametrize("storage", STORAGES)
def test_bad_stamps_and_sizes_are_skipped_and_counted(tmp_path, storage):
    stamps = [START, START + STEP, 0, START + STEP, START, START + 2 * STEP, START + 3 * STEP]
    with Recorder(tmp_path / "bag", storage) as recorder:
        for i, stamp in enumerate(stamps):
            recorder.image(stamp, picture(i, (64, 48) if i != 5 else (32, 24)), at=START + i * STEP)
    bag = open_source(str(tmp_path / "bag"))
    frames = list(bag)
    assert [f.id for f in frames] == [0, 1, 6]
    assert [f.stamp_ns for f in frames] == [START, START + STEP, START + 3 * STEP]
    assert bag.skipped == {
        "images without a stamp": 1,
        "images not later than the one before": 2,
        "images of another size than the first": 1,
    }
    assert all(f.camera is None and f.truth is None for f in frames)  # no camera_info, no truth
    with pytest.raises(SourceError, match="images without a stamp"):
        list(open_source(f"{tmp_path / 'bag'}?strict=yes"))


def test_damaged_messages_are_skipped_and_counted(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.image(START, picture(0))
        recorder.image(START + STEP, picture(1), data=b"short")
        recorder.image(START + 2 * STEP, picture(2), step=3)
        recorder.put("/cam/image_raw", bag_types.IMAGE, START + 3 * STEP, b"\x00\x01\x00\x00junk")
        recorder.pose(START + 3 * STEP, np.full((4, 4), np.nan))
        recorder.image(START + 4 * STEP, picture(4))
    bag = open_source(str(tmp_path / "bag"))
    assert [f.id for f in bag] == [0, 4]
    assert bag.skipped == {
        "images that cannot be decoded": 2,
        "messages on /cam/image_raw that cannot be decoded": 1,
        "poses that are not finite or have no rotation": 1,
    }


def test_an_unknown_encoding_is_named(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.image(START, picture(0), encoding="rgb42")
    with pytest.raises(SourceError, match=r"'rgb42'.*bgr8"):
        list(open_source(str(tmp_path / "bag")))


def test_a_bag_in_which_nothing_is_usable_says_why(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        for i in range(3):
            recorder.image(0, picture(i), at=START + i)
    with pytest.raises(SourceError, match=r"none of the 3 images.*3 images without a stamp"):
        list(open_source(str(tmp_path / "bag")))


def test_bags_without_images_list_what_they_have(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.pose(START, pose(0))
    with pytest.raises(SourceError, match=r"no image topic.*/truth/pose \(geometry_msgs"):
        open_source(str(tmp_path / "bag"))
    with Recorder(tmp_path / "empty"):
        pass
    with pytest.raises(SourceError, match="holds no message"):
        open_source(str(tmp_path / "empty"))


def test_topics_by_option_and_by_type(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        for i in range(3):
            t = START + i * STEP
            recorder.image(t, picture(i), topic="/right/image_raw")
            recorder.image(t, picture(i + 10), topic="/left/image_raw")
            recorder.image(t, np.full((48, 64), 1500, np.uint16), topic="/left/depth/image", encoding="16UC1")
            recorder.info(t, SMALL.matrix, topic="/left/camera_info")
            recorder.info(t, 2 * SMALL.matrix, topic="/right/camera_info")
            recorder.pose(t, pose(i), topic="/robot/pose")
    place = tmp_path / "bag"
    bag = open_source(str(place))
    topics = bag.topics
    # Left before right; its camera_info is its sibling; neither estimates nor unregistered depth are ground truth.
    assert (topics.image, topics.camera_info, topics.depth, topics.pose) == (
        "/left/image_raw",
        "/left/camera_info",
        None,
        None,
    )
    np.testing.assert_array_equal(next(iter(bag)).image, picture(10))
    options = "image=/right/image_raw&depth=/left/depth/image&pose=/robot/pose&camera_info=none"
    frames = list(open_source(f"{place}?{options}"))
    np.testing.assert_array_equal(frames[2].image, picture(2))
    assert frames[2].camera is None
    assert (frames[2].truth.depth == 1.5).all()
    np.testing.assert_allclose(frames[2].truth.T_world_cam, pose(2), atol=1e-12)
    with pytest.raises(SourceError, match=r"no image topic /nope; it has /left/depth/image, /left/image_raw"):
        open_source(f"{place}?image=/nope")
    with pytest.raises(SourceError, match="no pose topic /left/image_raw; it has /robot/pose"):
        open_source(f"{place}?pose=/left/image_raw")
    with pytest.raises(SourceError, match="no option 'images'"):
        open_source(f"{place}?images=/x")
    with pytest.raises(SourceError, match="must be yes or no"):
        open_source(f"{place}?strict=maybe")


def test_truth_is_joined_by_stamp_and_interpolated(tmp_path):
    """Poses at 100 Hz between the images, recorded 50 ms late; depth 10 ms off; one image has neither."""
    with Recorder(tmp_path / "bag") as recorder:
        events = []
        for i in range(6):
            t = START + i * STEP
            events.append((t, lambda t=t, i=i: recorder.image(t, picture(i))))
            if i != 3:
                depth = np.full((48, 64), 1 + i, np.float32)
                events.append(
                    (
                        t + 10,
                        lambda t=t, d=depth: recorder.image(
                            t + 10_000_000, d, topic="/truth/depth", encoding="32FC1", at=t + 10
                        ),
                    )
                )
        for k in range(-3, 9):
            t = START + k * 10_000_000 + 3_000_000
            T = pose((t - START) / STEP)
            events.append((t + 50_000_000, lambda t=t, T=T: recorder.pose(t, T, at=t + 50_000_000)))
        for _, event in sorted(events, key=lambda e: e[0]):
            event()
    frames = list(open_source(str(tmp_path / "bag")))
    assert [None if f.truth is None or f.truth.depth is None else float(f.truth.depth[0, 0]) for f in frames] == [
        1,
        2,
        3,
        None,
        5,
        6,
    ]
    for i, frame in enumerate(frames[:3]):  # the poses end at 83 ms
        np.testing.assert_allclose(frame.truth.T_world_cam, pose(i), atol=1e-5)
    assert frames[3].truth is None or np.linalg.norm(frames[3].truth.T_world_cam[:3, 3] - pose(3)[:3, 3]) < 0.1
    assert frames[4].truth.T_world_cam is None


T_BODY_CAM = se3.exp(np.array([0.3, -1.1, 0.4, 0.1, 0.05, -0.2]))


def test_odometry_of_a_body_is_moved_to_the_camera(tmp_path):
    half = se3.exp(np.array([0.2, 0, 0, 0, 0.3, 0]))
    with Recorder(tmp_path / "bag") as recorder:
        edges = [("base", "mount", half), ("mount", "cam", se3.inverse(half) @ T_BODY_CAM)]
        recorder.tf(START, edges, topic="/tf_static")
        for i in range(3):
            recorder.odometry(START + i * STEP, pose(i) @ se3.inverse(T_BODY_CAM), "base")
            recorder.image(START + i * STEP, picture(i))
    frames = list(open_source(str(tmp_path / "bag")))
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.truth.T_world_cam, pose(i), atol=1e-9)


def test_a_tree_of_transforms_gives_the_camera_pose(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.tf(START, [("body", "cam", T_BODY_CAM)], topic="/tf_static")
        for i in range(4):
            t = START + i * STEP
            recorder.image(t, picture(i))
            recorder.tf(t - STEP // 2, [("world", "body", pose(i - 0.5) @ se3.inverse(T_BODY_CAM))])
            after = pose(i + 0.5) @ se3.inverse(T_BODY_CAM)
            recorder.tf(t + STEP // 2, [("world", "body", after), ("x", "y", np.eye(4))])
    assert open_source(str(tmp_path / "bag")).topics.pose is None  # /tf may be an estimate: it must be asked for
    frames = list(open_source(f"{tmp_path / 'bag'}?pose=/tf"))
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.truth.T_world_cam, pose(i), atol=1e-4)


def test_camera_info_before_after_and_changing(tmp_path):
    zoomed = np.array([[90.0, 0, 31.5], [0, 90, 23.5], [0, 0, 1]])
    with Recorder(tmp_path / "bag") as recorder:
        recorder.image(START, picture(0))  # before any camera_info
        recorder.info(START + 1, SMALL.matrix)
        recorder.image(START + STEP, picture(1))
        recorder.info(START + STEP + 1, zoomed)
        recorder.image(START + 2 * STEP, picture(2))
    assert [f.camera.fx for f in open_source(str(tmp_path / "bag"))] == [60, 60, 90]


def test_distorted_images_and_depth_are_rectified(tmp_path):
    K, D, size = np.array([[210.0, 0, 161], [0, 208, 118], [0, 0, 1]]), (-0.28, 0.07, 0.0, 0.0, 0.0), (320, 240)
    with Recorder(tmp_path / "bag") as recorder:
        image, depth = render(K, size, pose(2), D)
        recorder.info(START, K, size, D)
        recorder.image(START, depth, topic="/truth/depth", encoding="32FC1")
        recorder.image(START, image[..., ::-1], encoding="bgr8")
    (frame,) = open_source(str(tmp_path / "bag"))
    expected, true_depth = render(frame.camera.matrix, size, pose(2))
    assert np.abs(frame.image.astype(int) - expected)[3:-3, 3:-3].mean() < 1
    assert np.nanmax(np.abs(frame.truth.depth - true_depth)[3:-3, 3:-3]) < 0.05


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"K": np.full(9, np.nan)}, "not finite"),
        ({"K": SMALL.matrix, "size": (640, 640)}, "camera_info is for 640x640 but the images are 64x48"),
        ({"K": SMALL.matrix, "D": (1.0,), "model": "strange"}, "'strange' is not known"),
    ],
)
def test_a_wrong_camera_info_is_refused(tmp_path, info, words):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.info(START, **info)
        recorder.image(START, picture(0))
    with pytest.raises(SourceError, match=words) as error:
        list(open_source(str(tmp_path / "bag")))
    assert "/cam/camera_info" in str(error.value)


def test_compressed_images_and_depth_of_another_size(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        for i in range(2):
            t = START + i * STEP
            data = cv2.imencode(".png", picture(i)[..., ::-1])[1].reshape(-1)
            recorder.image(t, np.ones((24, 32), np.float32), topic="/truth/depth", encoding="32FC1")
            args = (recorder.header(t), "bgr8; png compressed", data)
            recorder.put("/cam/image_raw/compressed", bag_types.COMPRESSED, t, None, *args)
        recorder.info(START, SMALL.matrix)
    bag = open_source(str(tmp_path / "bag"))
    frames = list(bag)
    np.testing.assert_array_equal(frames[1].image, picture(1))
    assert frames[1].camera == SMALL  # the sibling of the raw topic that is not in the bag
    assert bag.skipped == {"depth images of another size than the image": 2}


def test_a_split_bag_is_one_recording(tmp_path):
    """Two storage files without metadata, as a killed recorder with --max-bag-size leaves them; the second is cut."""
    frames = list(WallSource(20))

    class Part(WallSource):
        def __init__(self, part):
            super().__init__(len(part))
            self.part = part

        def __iter__(self):
            return iter(self.part)

    (tmp_path / "bag").mkdir()
    for k, part in enumerate((frames[:10], frames[10:])):
        write_bag(Part(part), tmp_path / f"part{k}")
        shutil.move(storage_file(tmp_path / f"part{k}"), tmp_path / "bag" / f"bag_{k}.mcap")
    assert_frames_equal(open_source(str(tmp_path / "bag")), frames)
    second = tmp_path / "bag" / "bag_1.mcap"
    second.write_bytes(second.read_bytes()[:-200])
    bag = open_source(str(tmp_path / "bag"))
    assert len(collect_until_error(bag)) == 20  # only the index is missing
    with pytest.raises(SourceError, match=r"bag_1.mcap ends early"):
        list(bag)


def test_two_passes_at_once_do_not_disturb_each_other(tmp_path):
    write_bag(WallSource(6), tmp_path / "bag")
    bag = open_source(str(tmp_path / "bag"))
    pairs = list(zip(bag, bag, strict=True))
    assert [(a.id, b.id) for a, b in pairs] == [(i, i) for i in range(6)]
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append([f.id for f in bag])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(6))] * 3

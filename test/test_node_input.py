"""What the node takes: every way in which images come, and every way in which they can be wrong."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from da3_ros.msg import SlamStatus
from geometry_msgs.msg import PoseStamped
from ros_bench import BEST_EFFORT, FRAME, RELIABLE, Camera, shifted, static_tf, transform
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from da3_ros.geometry import se3
from da3_ros.ros import messages
from da3_ros.types import Frame


def dropped(status: SlamStatus) -> dict[str, int]:
    """Counts of dropped frames that are not zero, by cause."""
    names = [name for name in status.get_fields_and_field_types() if name.startswith("dropped_")]
    return {name.removeprefix("dropped_"): getattr(status, name) for name in names if getattr(status, name)}


def resized(frame: Frame, width: int, height: int) -> Frame:
    """A frame of another size."""
    import cv2

    image = cv2.resize(frame.image, (width, height))
    depth = cv2.resize(frame.truth.depth, (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(
        frame, image=image, camera=frame.camera.resized(width, height), truth=replace(frame.truth, depth=depth)
    )


# ------------------------------------------------------------ ways in


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
def test_images_come_from_every_publisher(bench, walk, qos, compressed):
    """The node follows reliability and transport without being told."""
    bench.start()
    camera = Camera(bench, qos, compressed=compressed)
    camera.wait()
    camera.show(walk[:6])
    status = bench.until_status(lambda s: s.frames_accepted == 6, "six frames")
    assert dropped(status) == {}


def test_a_compressed_stream_may_be_remapped_to_the_image_topic(bench, walk):
    bench.start()
    camera = Camera(bench, compressed=True, topic="image")
    camera.wait()
    camera.show(walk[:3])


def test_a_publisher_that_changes_is_followed(bench, walk):
    bench.start()
    first = Camera(bench, RELIABLE)
    first.wait()
    first.show(walk[:4])
    first.withdraw()
    second = Camera(bench, BEST_EFFORT, compressed=True)
    second.wait()
    second.show(walk[4:8])
    status = bench.until_status(lambda s: s.frames_accepted == 8, "all eight")
    assert (dropped(status), status.session_id) == ({}, 1)


def test_a_publisher_may_come_first(bench, walk):
    camera = Camera(bench, BEST_EFFORT)
    bench.start()
    camera.wait()
    camera.show(walk[:3])


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "rgba8", "rgb16", "bayer_rggb8"])
def test_encodings_are_decoded(bench, walk, encoding):
    bench.start()
    camera = Camera(bench)
    camera.wait()
    for frame in walk[:3]:
        rgb = frame.image
        pixels = {
            "bgr8": lambda rgb=rgb: rgb[..., ::-1],
            "mono8": lambda rgb=rgb: rgb[..., 1],
            "rgba8": lambda rgb=rgb: np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
            "rgb16": lambda rgb=rgb: rgb.astype("<u2") << 8,
            "bayer_rggb8": lambda rgb=rgb: rgb[..., 1],
        }[encoding]()
        fields = messages.image(messages.header(1, ""), np.ascontiguousarray(pixels), encoding)
        camera.send(frame, encoding=encoding, step=fields.step, data=fields.data)
        bench.until(lambda stamp=frame.stamp_ns: stamp in bench.odometry.stamps, "odometry")


def test_distortion_is_removed_and_depth_is_that_of_the_rectified_image(bench, walk):
    """K, D and P as a calibrator writes them: depth comes with the rectified camera."""
    bench.start()
    camera = Camera(bench, calibrated=False)
    infos = bench.ears.create_publisher(CameraInfo, "camera_info", RELIABLE)
    depth_infos = bench.listen(CameraInfo, "depth/camera_info")
    bench.listen(Image, "depth/image")
    camera.wait()
    bench.until(infos.get_subscription_count, "the node listens to camera_info")
    for frame in walk[:4]:
        info = messages.camera_info(messages.header(frame.stamp_ns, FRAME), frame.camera)
        info.d = [-0.1, 0.02, 0.0, 0.0, 0.0]
        info.p[0] = info.p[5] = 0.8 * frame.camera.fx
        infos.publish(info)
        camera.show([frame])
    got = bench.until(lambda: depth_infos and depth_infos[-1], "camera_info of the depth")
    assert got.k[0] == pytest.approx(0.8 * walk[0].camera.fx * 64 / 160)
    assert not any(got.d)


# ------------------------------------------------------------ images that cannot be used


def test_an_unknown_encoding_is_counted_and_named(bench, walk):
    bench.start()
    camera = Camera(bench)
    camera.wait()
    for frame in walk[:3]:
        camera.send(frame, encoding="super8")
    status = bench.until_status(lambda s: s.reason and s.frames_received == 3, "a reason")
    assert "image encoding 'super8' cannot be read" in status.reason
    assert dropped(status) == {"undecodable": 3}
    bench.until(lambda: bench.logged("super8"), "the log")
    assert len(bench.logged("image encoding 'super8'")) <= 2  # at once, and when silence was noticed
    camera.show(walk[3:6])
    bench.until_status(lambda s: not s.reason and s.state == SlamStatus.STATE_TRACKING, "life goes on")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"step": 7}, "step"),
        ({"data": bytes(100)}, "100"),
        ({"height": 0}, "no content"),
        ({"encoding": "32FC1"}, "it is depth"),
    ],
)
def test_images_that_contradict_themselves(bench, walk, changes, part):
    bench.start()
    camera = Camera(bench)
    camera.wait()
    camera.send(walk[0], **changes)
    status = bench.until_status(lambda s: s.reason and s.frames_received, "a reason")
    assert part in status.reason
    assert dropped(status) == {"undecodable": 1}


def test_a_damaged_compressed_image(bench, walk):
    bench.start()
    camera = Camera(bench, compressed=True)
    camera.wait()
    camera.show(walk[:2])
    camera.send(walk[2], data=b"\xff\xd8 this is no picture")
    camera.show(walk[3:5])
    status = bench.until_status(lambda s: s.frames_accepted == 4, "the others")
    assert dropped(status) == {"undecodable": 1}
    bench.until(lambda: bench.logged("cannot be decoded"), "the log")


def test_another_size_is_dropped_until_reset(bench, walk):
    from std_srvs.srv import Trigger

    bench.start()
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:3])
    begin = len(bench.status)
    for frame in walk[3:6]:
        camera.send(resized(frame, 80, 60))

    def told():
        # A machine that stalls may have another reason first, or afterwards: that no image comes any more.
        return [s for s in bench.status[begin:] if "from 160x120 to 80x60" in s.reason and dropped(s)]

    assert "~/reset" in bench.until(told, "the reason")[0].reason
    bench.until_status(lambda s: dropped(s) == {"size_changed": 3}, "all three")
    assert bench.call(Trigger, "reset").success
    camera.show(resized(frame, 80, 60) for frame in walk[6:9])
    bench.until_status(lambda s: (s.session_id, s.frames_accepted, dropped(s)) == (2, 3, {}), "the new size")


# ------------------------------------------------------------ calibration


def test_the_first_image_waits_for_its_camera_info(bench, walk):
    """Topics overtake each other: an image that comes a little before the first camera_info is not lost."""
    node = bench.start().node
    camera = Camera(bench, calibrated=False)
    infos = bench.ears.create_publisher(CameraInfo, "camera_info", RELIABLE)
    camera.wait()
    bench.until(infos.get_subscription_count, "the node listens to camera_info")
    camera.send(walk[0])
    bench.until(lambda: node._counters.received == 1, "the image")
    infos.publish(messages.camera_info(messages.header(walk[0].stamp_ns, FRAME), walk[0].camera))
    bench.until(lambda: bench.odometry.stamps == [walk[0].stamp_ns], "odometry")


def test_a_camera_info_publisher_that_says_nothing(bench, walk):
    bench.start()
    bench.ears.create_publisher(CameraInfo, "camera_info", RELIABLE)
    camera = Camera(bench, calibrated=False)
    camera.wait()
    camera.send(walk[0])
    status = bench.until_status(lambda s: s.reason and dropped(s), "a reason")
    assert "/camera_info has a publisher but sends nothing" in status.reason
    assert dropped(status) == {"no_camera_info": 1}


def test_without_camera_info_the_camera_counts_as_uncalibrated(bench, walk, monkeypatch):
    """Frames are dropped until it is sure that nobody publishes it, then they go on without."""
    monkeypatch.setattr("da3_ros.ros.calibration.WAIT_S", 0.2)
    bench.start()
    camera = Camera(bench, calibrated=False)
    camera.wait()
    for frame in walk[:40]:
        camera.send(frame)
        bench.pause(0.02)
    status = bench.until_status(lambda s: s.frames_accepted > 10, "frames without calibration")
    bench.until(lambda: bench.logged("the camera counts as uncalibrated"), "the log")
    assert set(dropped(status)) <= {"no_camera_info"}


def test_an_uncalibrated_camera_says_so_once(bench, walk):
    bench.start(node__silence_s=60.0)
    camera = Camera(bench, K=np.zeros((3, 3)))
    camera.wait()
    camera.show(walk[:4])
    bench.until(lambda: bench.logged("camera_info says uncalibrated"), "the log")
    assert len(bench.logged("camera_info says uncalibrated")) == 1
    # Frames have poses; the simulated predictor cannot do without intrinsics, and says so.
    status = bench.until_status(lambda s: s.reason and s.frames_accepted == 4, "a reason")
    assert "the simulated predictor needs the camera's intrinsics" in status.reason


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"K": np.full((3, 3), np.nan)}, "not finite"),
        ({"K": np.array([[100.0, 0, 80], [0, -100, 60], [0, 0, 1]])}, "does not describe a camera"),
        ({"info_size": (160, 100)}, "camera_info is for 160x100 but the images are 160x120"),
    ],
)
def test_a_camera_info_that_cannot_be_used(bench, walk, changes, part):
    bench.start()
    camera = Camera(bench, **changes)
    camera.wait()
    camera.send(walk[0])
    camera.send(walk[1])
    status = bench.until_status(lambda s: s.reason and s.dropped_no_camera_info == 2, "a reason")
    assert part in status.reason
    assert status.frames_accepted == 0


def test_a_camera_info_of_another_resolution_is_scaled(bench, walk):
    """Half-size images with the calibration of the whole sensor."""
    bench.start()
    infos = bench.listen(CameraInfo, "depth/camera_info")
    bench.listen(Image, "depth/image")
    camera = Camera(bench, info_size=(320, 240), K=walk[0].camera.resized(320, 240).matrix)
    camera.wait()
    camera.show(walk[:4])
    got = bench.until(lambda: infos and infos[-1], "camera_info of the depth")
    assert got.k[0] == pytest.approx(walk[0].camera.fx * 64 / 160)


def test_a_calibration_that_changes_does_not_change_the_session(bench, walk):
    bench.start()
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:3])
    camera.K = walk[0].camera.matrix * np.array([[1.1], [1.1], [1]])
    camera.show(walk[3:5])
    bench.until(lambda: bench.logged("camera_info changed"), "the log")
    status = bench.until_status(lambda s: s.frames_accepted == 5, "all five")
    assert dropped(status) == {}


# ------------------------------------------------------------ time


def test_stamps_that_do_not_increase_are_dropped(bench, walk):
    bench.start()
    camera = Camera(bench)
    camera.wait()
    camera.send(replace(walk[0], stamp_ns=0))
    camera.show(walk[1:3])
    camera.send(walk[2])  # the same again
    camera.send(replace(walk[3], stamp_ns=walk[2].stamp_ns - 10**8))
    camera.show(walk[4:6])
    status = bench.until_status(lambda s: s.frames_accepted == 4, "the good ones")
    assert dropped(status) == {"stamp_not_increasing": 3}
    assert (status.session_id, status.time_jumps) == (1, 0)
    bench.until(lambda: bench.logged("the stamps of the images do not increase"), "the log")
    stamps = bench.odometry.stamps
    assert stamps == sorted(set(stamps))


def test_old_images_are_dropped_and_the_clock_is_blamed(bench, walk):
    bench.start(node__max_image_age_s=1.0)
    camera = Camera(bench)
    camera.wait()
    camera.send(shifted(walk[:1], 0)[0])
    status = bench.until_status(lambda s: s.reason and s.frames_received, "a reason")
    assert "older than the clock" in status.reason
    assert "use_sim_time" in status.reason
    assert dropped(status) == {"too_old": 1}
    now = shifted(walk[1:3], time.time() - walk[1].stamp_ns / 1e9)
    camera.show(now)


def test_a_simulated_clock_is_respected(bench, walk):
    node = bench.start(node__max_image_age_s=1.0, use_sim_time=True).node
    clock = bench.ears.create_publisher(Clock, "/clock", BEST_EFFORT)
    camera = Camera(bench)
    camera.wait()

    def tick(stamp: int) -> None:
        def reached() -> bool:
            clock.publish(Clock(clock=messages.to_stamp(stamp)))
            return messages.now_ns(node) == stamp

        bench.until(reached, "the clock")

    tick(walk[0].stamp_ns + 10**8)
    camera.show(walk[:2])
    tick(walk[2].stamp_ns + 2 * 10**9)
    camera.send(walk[2])
    bench.until_status(lambda s: dropped(s) == {"too_old": 1}, "an old frame")
    assert bench.status[-1].header.stamp == messages.to_stamp(walk[2].stamp_ns + 2 * 10**9)


def test_a_gap_starts_a_segment_where_the_last_one_ended(bench, walk):
    bench.start(node__max_gap_s=2.0)
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:10])
    bench.until_status(lambda s: s.keyframes >= 2, "keyframes")
    camera.show(shifted(walk[30:36], 30.0))
    status = bench.until_status(lambda s: s.frames_accepted == 16, "the frames after the gap")
    assert (status.session_id, status.time_jumps, dropped(status)) == (1, 1, {})
    bench.until(lambda: bench.logged("without a frame: a new segment begins"), "the log")
    assert len(bench.logged("a new segment begins")) == 1
    before, after = (messages.matrix_of_pose(bench.odometry[i].pose.pose)[:3, 3] for i in (9, 10))
    assert np.linalg.norm(after - before) < 0.1


@pytest.mark.parametrize(
    ("rule", "session", "jumps", "accepted"),
    [("reset", 2, 1, 4), ("continue", 1, 1, 14), ("ignore", 1, 0, 10)],
)
def test_time_that_jumps_back(bench, walk, rule, session, jumps, accepted):
    """A bag that starts again."""
    bench.start(node__on_time_jump=rule)
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[10:20])
    if rule == "ignore":
        for frame in walk[:4]:
            camera.send(frame)
    else:
        camera.show(walk[:4])
    received = 4 if rule == "reset" else 14
    status = bench.until_status(
        lambda s: (s.session_id, s.frames_received, s.frames_accepted) == (session, received, accepted),
        "every frame accounted for",
    )
    assert status.time_jumps == jumps
    assert dropped(status) == ({"stamp_not_increasing": 4} if rule == "ignore" else {})
    if rule != "ignore":
        bench.until(lambda: bench.logged("time was set back"), "the log")
        assert len(bench.logged("time was set back")) == 1


# ------------------------------------------------------------ truth and TF


def test_the_simulated_predictor_says_that_it_lacks_truth(bench, walk):
    bench.start()
    camera = Camera(bench, truth=False)
    camera.wait()
    camera.send(walk[0])
    camera.send(walk[1])
    status = bench.until_status(lambda s: s.reason and s.dropped_no_truth == 2, "a reason")
    assert "the simulated predictor lacks ground truth: no truth/depth has arrived" in status.reason


def test_truth_that_is_damaged_is_named_once(bench, walk):
    bench.start()
    camera = Camera(bench, truth=False)
    depth = bench.ears.create_publisher(Image, "truth/depth", RELIABLE)
    pose = bench.ears.create_publisher(PoseStamped, "truth/pose", RELIABLE)
    camera.wait()
    bench.until(lambda: depth.get_subscription_count() and pose.get_subscription_count(), "the node listens to truth")
    for frame in walk[:2]:
        head = messages.header(frame.stamp_ns, FRAME)
        depth.publish(messages.image(head, frame.truth.depth.astype(np.float64), "64FC1"))
        broken = PoseStamped(header=head)
        broken.pose.position.x = float("nan")
        pose.publish(broken)
        camera.send(frame)
    bench.until_status(lambda s: s.dropped_no_truth == 2, "two drops")
    bench.until(lambda: bench.logged("truth/depth cannot be used") and bench.logged("truth/pose cannot be used"), "log")
    assert len(bench.logged("truth/depth cannot be used")) == 1


def test_a_missing_transform_names_both_frames_and_those_that_are_known(bench, walk):
    keep = static_tf(bench, transform("base_link", "lidar", np.eye(4)))
    bench.start(node__base_frame="base_link", node__tf_timeout_s=0.1)
    camera = Camera(bench)
    camera.wait()
    number = 0

    def send() -> None:
        nonlocal number
        number += 1
        camera.send(replace(walk[0], stamp_ns=walk[0].stamp_ns + number * 10**7))

    def named() -> bool:
        send()
        return bench.status and "lidar" in bench.status[-1].reason

    bench.until(named, "a reason that names the frames")
    status = bench.status[-1]
    for part in (f"from '{FRAME}' to 'base_link'", "known frames: base_link, lidar", "static_transform_publisher"):
        assert part in status.reason
    assert set(dropped(status)) == {"no_transform"}
    assert not bench.odometry  # never a silent identity
    more = static_tf(bench, transform("base_link", FRAME, se3.make(np.eye(3), np.array([0, 0, 1.0]))))
    bench.until(lambda: (send(), bench.odometry)[1], "odometry once TF is known")
    assert bench.odometry[0].child_frame_id == "base_link"
    assert keep is not more


def test_transforms_that_make_no_sense_are_passed_over(bench, walk):
    zero = transform("base_link", FRAME, np.eye(4))
    zero.transform.rotation.w = 0.0
    keep = static_tf(bench, zero)
    bench.start(node__base_frame="base_link", node__tf_timeout_s=0.0)
    camera = Camera(bench)
    camera.wait()
    camera.send(walk[0])
    status = bench.until_status(lambda s: s.reason and s.dropped_no_transform, "a reason")
    assert "known frames: none" in status.reason
    assert keep is not None


def test_an_image_without_a_frame_is_remarked(bench, walk):
    bench.start()
    camera = Camera(bench, frame_id="")
    camera.wait()
    camera.show(walk[:2])
    bench.until(lambda: bench.logged("the images have no frame_id"), "the log")
    assert bench.odometry[0].child_frame_id == "camera_optical_frame"


def test_the_frame_can_be_given(bench, walk):
    bench.start(node__camera_frame="left_optical")
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:2])
    assert bench.odometry[0].child_frame_id == "left_optical"


# ------------------------------------------------------------ silence


def test_nobody_publishes(bench):
    bench.start()
    status = bench.until_status(lambda s: s.reason, "a reason")
    assert status.reason == "nobody publishes /image or /image/compressed; start the camera, or remap the topic"
    bench.until(lambda: bench.logged("no output for 0.5 s: nobody publishes /image"), "the log")
    assert len(bench.logged("nobody publishes /image")) == 1


def test_a_topic_of_another_type(bench):
    bench.ears.create_publisher(String, "image", 5)
    bench.start()
    status = bench.until_status(lambda s: "carries" in s.reason, "a reason")
    assert "carries std_msgs/msg/String instead of" in status.reason


def test_a_publisher_that_sends_nothing(bench):
    bench.ears.create_publisher(Image, "image", RELIABLE)
    bench.start()
    status = bench.until_status(lambda s: "has a publisher but" in s.reason, "a reason")
    assert status.reason == "/image has a publisher but no image has arrived; check the camera and the network"


def test_an_incompatible_reliability_names_who_has_to_change(bench):
    bench.ears.create_publisher(Image, "image", BEST_EFFORT)
    bench.start(node__image_qos="reliable")
    part = "/ears publishes best effort and node.image_qos asks for reliable; set it to auto"
    status = bench.until_status(lambda s: part in s.reason, "a reason that names the publisher")
    assert "incompatible QoS on /image" in status.reason


def test_a_transport_that_was_ruled_out(bench):
    from sensor_msgs.msg import CompressedImage

    bench.ears.create_publisher(CompressedImage, "image/compressed", RELIABLE)
    bench.start(node__image_transport="raw")
    status = bench.until_status(lambda s: s.reason, "a reason")
    assert "nobody publishes /image" in status.reason


def test_silence_ends_with_output(bench, walk):
    bench.start()
    bench.until_status(lambda s: s.reason, "silence")
    camera = Camera(bench)
    camera.wait()
    camera.show(walk[:2])
    bench.until_status(lambda s: not s.reason and s.frames_accepted, "no reason any more")

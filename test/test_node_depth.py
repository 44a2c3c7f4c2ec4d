"""Depth that the live node publishes: for each frame, one message for each stamp, in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from da3_ros.msg import SlamStatus
from ros_bench import FRAME, Bench, Camera, Heard, shifted
from sensor_msgs.msg import CameraInfo, Image

from da3_ros.types import Frame

COUNT = 40
CALM = {"window__live": False}  # keyframes only are predicted: most frames have no depth of their own


@dataclass
class Ears:
    """Everything that goes with depth."""

    depth: Heard
    info: Heard
    confidence: Heard
    preview: Heard

    def agree(self) -> bool:
        return self.depth.stamps == self.info.stamps == self.confidence.stamps == self.preview.stamps


def listen(bench: Bench) -> Ears:
    return Ears(
        bench.listen(Image, "depth/image"),
        bench.listen(CameraInfo, "depth/camera_info"),
        bench.listen(Image, "confidence/image"),
        bench.listen(Image, "depth/preview"),
    )


def values(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, "<f4").reshape(message.height, message.width)


def ready(bench: Bench) -> Camera:
    camera = Camera(bench)
    camera.wait()
    return camera


def stamps(frames) -> list[int]:
    return [frame.stamp_ns for frame in frames]


def blank(frames) -> list[Frame]:
    """Frames in which nothing can be followed."""
    return [replace(frame, image=np.full_like(frame.image, 127)) for frame in frames]


def first_depth(bench: Bench, camera: Camera, heard: Heard, frame: Frame) -> None:
    """The first frame, and its prediction."""
    camera.show([frame])
    bench.until(lambda: heard.stamps == [frame.stamp_ns], "depth of the first frame")


def test_every_frame_after_the_first_prediction_has_depth(bench, walk):
    bench.start(**CALM)
    ears = listen(bench)
    camera = ready(bench)
    first_depth(bench, camera, ears.depth, walk[0])
    camera.show(walk[1:COUNT])
    bench.until(lambda: ears.depth.stamps[-1] == walk[COUNT - 1].stamp_ns and ears.agree(), "depth of the last frame")
    assert ears.depth.stamps == stamps(walk[:COUNT])
    assert [m.header for m in ears.depth] == [m.header for m in ears.info]
    predicted = bench.until_status(lambda s: s.frames_accepted == COUNT, "all frames").windows
    assert predicted < COUNT / 2
    holes = 0
    for depth_message, confidence_message, frame in zip(ears.depth, ears.confidence, walk, strict=False):
        assert (depth_message.encoding, depth_message.header.frame_id) == ("32FC1", FRAME)
        depth, confidence = values(depth_message), values(confidence_message)
        truth = cv2.resize(frame.truth.depth, (64, 48), interpolation=cv2.INTER_NEAREST)
        kernel = np.ones((3, 3), np.uint8)
        flat = (cv2.dilate(truth, kernel) < 1.1 * cv2.erode(truth, kernel)) & np.isfinite(depth)
        error = np.abs(depth[flat] / truth[flat] - 1)
        assert np.median(error) < 0.01
        assert np.percentile(error, 90) < 0.05
        assert not (depth <= 0).any()
        assert np.isfinite(depth).mean() > 0.4
        assert not confidence[confidence < 0].any()
        holes += int((np.isnan(depth) & (confidence == 0)).sum())
    assert holes > 1000  # what no prediction has seen yet


def test_a_parameter_leaves_depth_to_predicted_frames(bench, walk):
    bench.start(depth__every_frame=False, **CALM)
    ears = listen(bench)
    camera = ready(bench)
    first_depth(bench, camera, ears.depth, walk[0])
    camera.show(walk[1:COUNT])
    status = bench.until_status(lambda s: s.frames_accepted == COUNT, "all frames")
    bench.until(lambda: len(ears.depth) == bench.status[-1].windows and ears.agree(), "depth of every window")
    assert len(ears.depth) < COUNT / 2
    assert ears.depth.stamps == sorted(set(ears.depth.stamps))
    assert status.state == SlamStatus.STATE_TRACKING


def test_stamps_increase_although_predictions_come_late(bench, walk):
    """Live frames and keyframes, each predicted while newer frames have had their depth."""
    bench.start(simulated__delay_s=0.1)
    ears = listen(bench)
    camera = ready(bench)
    first_depth(bench, camera, ears.depth, walk[0])
    camera.show(walk[1:COUNT])
    bench.until(lambda: ears.depth.stamps[-1] == walk[COUNT - 1].stamp_ns and ears.agree(), "depth of the last frame")
    bench.pause(0.3)  # for the prediction that is under way
    found = ears.depth.stamps
    assert found == sorted(set(found))
    # Landmarks of so small images may be too few for a frame or another where keyframes come late: nothing is warped.
    assert set(found) <= set(stamps(walk[:COUNT]))
    assert len(found) >= COUNT - 6


def test_nothing_is_warped_to_a_frame_that_is_tracked_weakly(bench, walk):
    bench.start(**CALM, keyframe__min_interval_s=60.0)  # no second keyframe, so that nothing else is predicted
    ears = listen(bench)
    camera = ready(bench)
    first_depth(bench, camera, ears.depth, walk[0])
    camera.show(walk[1:5])
    camera.show(blank(walk[5:10]))
    bench.until_status(lambda s: s.state == SlamStatus.STATE_WEAK and s.frames_accepted == 10, "weak tracking")
    assert ears.depth.stamps == stamps(walk[:5])


def test_where_tracking_is_weak_a_prediction_still_goes_out(bench, walk):
    """Weak tracking asks for keyframes, and their own depth needs no tracking."""
    bench.start(**CALM)
    ears = listen(bench)
    camera = ready(bench)
    first_depth(bench, camera, ears.depth, walk[0])
    camera.show(walk[1:5])
    camera.show(blank(walk[5:20]))
    bench.until(lambda: len(ears.depth) > 6, "depth of keyframes")
    assert ears.depth.stamps[:5] == stamps(walk[:5])
    assert ears.depth.stamps == sorted(set(ears.depth.stamps))


def test_after_a_reset_depth_begins_anew_with_older_stamps(bench, walk):
    bench.start(**CALM)
    ears = listen(bench)
    camera = ready(bench)
    before, after = shifted(walk[:10], 100), walk[:10]
    first_depth(bench, camera, ears.depth, before[0])
    camera.show(before[1:])
    bench.until(lambda: len(ears.depth) == 10, "depth of ten frames")
    camera.show(after[:1])
    bench.until(lambda: ears.depth.stamps[-1] == after[0].stamp_ns, "depth of the first frame of the new session")
    camera.show(after[1:])
    bench.until(lambda: len(ears.depth) == 20, "depth of ten frames more")
    assert ears.depth.stamps == stamps([*before, *after])


def test_nothing_is_warped_for_nobody(bench, walk):
    bench.start(**CALM)
    camera = ready(bench)
    camera.show(walk[:10])
    status = bench.until_status(lambda s: s.frames_accepted == 10 and s.windows, "ten frames")
    assert "warp" not in status.stage_names
    late = bench.listen(CameraInfo, "depth/camera_info")
    bench.until(bench.hears, "a node that is heard")
    camera.show(walk[10:20])
    bench.until(lambda: late.stamps == stamps(walk[10:20]), "what goes with depth")
    bench.until_status(lambda s: "warp" in s.stage_names, "the time it took")

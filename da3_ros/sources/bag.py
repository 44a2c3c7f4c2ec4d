"""Frames from a rosbag2 recording, read without ROS."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.sources import bag_types
from da3_ros.sources.bag_file import BagFile
from da3_ros.sources.bag_priors import BagPriors
from da3_ros.sources.bag_recovery import RawMessage
from da3_ros.sources.bag_topics import BagTopics, choose_topics
from da3_ros.sources.bag_truth import BagTruth
from da3_ros.sources.camera_info import Rectifier, from_message
from da3_ros.sources.encodings import IMAGE_ENCODINGS, decode_compressed, decode_image
from da3_ros.sources.spec import Spec
from da3_ros.sources.tally import Tally
from da3_ros.types import Frame, ImageArray, Truth

LOGGER = logging.getLogger(__name__)
OPTIONS = ("image", "camera_info", "depth", "pose", "depth_prior", "odom_prior", "imu", "strict", "partial")
_TF_STATIC = "/tf_static"
_LOOKAHEAD_NS = 200_000_000  # an image waits this long (recording time) for truth that was recorded after it
_MOST_WAITING = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An image message that waits for its truth."""

    index: int
    t_ns: int  # time of recording
    stamp_ns: int
    message: Any
    info: Any  # the camera_info before it, or None


class BagSource:
    """Rectified frames of one image topic, with camera_info and ground truth where the bag has them.

    Frames that cannot be used are skipped and counted in ``skipped`` (of the latest pass), by cause: no stamp, a
    stamp not after the one before, another size than the first, pixels that cannot be decoded.  With ``strict`` the
    first of them raises instead.  A bag that ends early yields all that can be read and then raises, unless
    ``partial`` accepts it.  Messages stream by: memory does not grow with the bag.

    Spec options: ``image, camera_info, depth, pose, depth_prior, odom_prior, imu`` name topics (empty =
    none); ``strict=yes``, ``partial=yes``.

    Raises:
        SourceError: the bag cannot be opened or has no such topics.
    """

    def __init__(
        self, path: Path, topics: Mapping[str, str] | None = None, *, strict: bool = False, partial: bool = False
    ) -> None:
        self.name = path.resolve().stem if path.is_file() else path.resolve().name
        self.path = path
        self.skipped: dict[str, int] = {}
        self._strict, self._partial = strict, partial
        self._file = BagFile(path)
        self.topics: BagTopics = choose_topics(self._file.topics, topics or {}, str(path))
        LOGGER.info("%s: %s", path, self.topics)
        self._count = self._file.topics[self.topics.image].count

    @classmethod
    def open(cls, spec: Spec) -> BagSource:
        """Open a bag with the options of a spec."""
        spec.check(OPTIONS)
        topics = {key: value for key, value in spec.options.items() if key not in ("strict", "partial")}
        return cls(spec.path, topics, strict=_yes(spec, "strict"), partial=_yes(spec, "partial"))

    def __len__(self) -> int:
        """Number of image messages, known without decoding; after a pass, skipped ones are found in ``skipped``."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        """All frames."""
        return self.select(range(self._count))

    def select(self, indices: range) -> Iterator[Frame]:
        """Frames of these image messages; the others are not decoded.

        Raises:
            SourceError: the encoding is unknown, camera_info does not fit, no frame could be used, or the bag ends
                early (after everything that can be read was yielded).
        """
        tally = Tally(self.path, strict=self._strict)
        yielded = 0
        try:
            for frame in self._frames(indices, tally):
                yielded += 1
                yield frame
        finally:
            self.skipped = dict(tally.counts)
        if not yielded and len(indices):
            causes = ", ".join(f"{n} {cause}" for cause, n in tally.counts.items()) or "no image message"
            raise SourceError(f"none of the {self._count} images of {self.path} could be used: {causes}")
        if self._file.damage and not self._partial and indices.stop >= self._count:
            raise SourceError(
                f"{self.path} was cut short ({self._file.damage}); all that is left has been read, "
                "add '?partial=yes' to accept that"
            )

    def _frames(self, indices: range, tally: Tally) -> Iterator[Frame]:
        topics, waiting = self.topics, deque[_Waiting]()
        static = self._static_transforms()
        truth = BagTruth(tally, static, depth=topics.depth is not None, pose_type=self._type(topics.pose))
        priors = BagPriors(
            tally, static, self._type(topics.depth_prior), self._type(topics.odom_prior), topics.imu is not None
        )
        opener = _FrameOpener(self.path, topics, truth, priors, tally)
        hearers = (
            (topics.depth, truth.add_depth),
            (topics.pose, lambda _, message: truth.add_pose(message)),
            (topics.depth_prior, priors.add_depth),
            (topics.odom_prior, lambda _, message: priors.add_pose(message)),
            (topics.imu, lambda _, message: priors.add_imu(message)),
        )
        info, last_stamp, index = self._first_camera_info(), 0, -1
        for raw in self._file.messages({topic for topic in dataclasses.astuple(topics) if topic}):
            if raw.topic == topics.image:
                index += 1
                if index >= indices.stop and not waiting:
                    return
            message = self._decode(raw, tally)
            if message is None:
                continue
            _hear(hearers, raw, message)
            if raw.topic == topics.camera_info:
                info = message
            elif raw.topic == topics.image:
                stamp = bag_types.stamp_ns(message.header)
                if stamp <= last_stamp:
                    tally.skip("images without a stamp" if stamp <= 0 else "images not later than the one before")
                    continue
                last_stamp = stamp
                if index in indices:
                    waiting.append(_Waiting(index, raw.t_ns, stamp, message, info))
            while waiting and self._ready(waiting, truth, priors, raw.t_ns):
                yield from opener.open(waiting.popleft())
        while waiting:
            yield from opener.open(waiting.popleft())

    @staticmethod
    def _ready(waiting: deque[_Waiting], truth: BagTruth, priors: BagPriors, now_ns: int) -> bool:
        first = waiting[0]
        stamp, frame_id = first.stamp_ns, first.message.header.frame_id
        return (
            (truth.settled(stamp, frame_id) and priors.settled(stamp, frame_id))
            or now_ns > first.t_ns + _LOOKAHEAD_NS
            or len(waiting) > _MOST_WAITING
        )

    def _decode(self, raw: RawMessage, tally: Tally) -> Any:
        try:
            return bag_types.decode(raw.raw, raw.msgtype)
        except ValueError:
            tally.skip(f"messages on {raw.topic} that cannot be decoded")
            return None

    def _type(self, topic: str | None) -> str | None:
        """Message type of a topic."""
        return None if topic is None else self._file.topics[topic].msgtype

    def _first_camera_info(self) -> Any:
        """The first camera_info of the bag, for images that were recorded before it."""
        if self.topics.camera_info is None:
            return None
        raw = next(self._file.messages({self.topics.camera_info}), None)
        return None if raw is None else self._decode(raw, Tally(self.path, strict=False))

    def _static_transforms(self) -> list[Any]:
        topics, pose = self.topics, self.topics.pose
        known = self._file.topics.get(_TF_STATIC)
        if known is None or known.msgtype != bag_types.TF:
            return []
        silent = (None, bag_types.POSE, bag_types.POSE_COVARIANCE)  # these do not say whose pose they are
        if self._type(pose) in silent and not (topics.depth_prior or topics.odom_prior or topics.imu):
            return []
        found = (self._decode(raw, Tally(self.path, strict=False)) for raw in self._file.messages({_TF_STATIC}))
        return [message for message in found if message is not None]


def _hear(hearers: Sequence[tuple[str | None, Callable[[str, Any], None]]], raw: RawMessage, message: Any) -> None:
    """Give a message to those who listen to its topic; one topic may serve two."""
    for topic, add in hearers:
        if raw.topic == topic:
            add(raw.msgtype, message)


class _FrameOpener:
    """Decodes and rectifies waiting images of one pass."""

    def __init__(self, path: Path, topics: BagTopics, truth: BagTruth, priors: BagPriors, tally: Tally) -> None:
        self._path, self._topics, self._truth, self._priors, self._tally = path, topics, truth, priors, tally
        self._size: tuple[int, ...] | None = None
        self._key: tuple[Any, ...] | None = None
        self._camera: Pinhole | None = None
        self._rectifier: Rectifier | None = None
        self._sensor = topics.depth not in (None, bag_types.DEPTH_TOPIC)  # of which a world may have written it

    def open(self, waiting: _Waiting) -> Iterator[Frame]:
        """The frame, or nothing where it had to be skipped."""
        image = self._image(waiting.message)
        if image is None:
            return
        self._size = self._size or image.shape
        if image.shape != self._size:
            self._tally.skip("images of another size than the first")
            return
        stamp, frame_id = waiting.stamp_ns, waiting.message.header.frame_id
        camera, rectifier = self._calibration(waiting.info, (image.shape[1], image.shape[0]))
        depth = self._truth.depth(stamp, image.shape)
        T_world_cam = self._truth.pose(stamp, frame_id)
        priors = self._priors.at(stamp, frame_id, (image.shape[1], image.shape[0]), camera, rectifier)
        self._truth.forget_before(stamp)
        self._priors.forget_before(stamp)
        if rectifier is not None:
            image = rectifier.image(image)
            depth = None if depth is None else rectifier.depth(depth)
        truth = None if depth is None and T_world_cam is None else Truth(depth, T_world_cam, self._sensor)
        yield Frame(waiting.index, stamp, image, camera, truth, priors)

    def _image(self, message: Any) -> ImageArray | None:
        m = message
        compressed = message.__msgtype__ == bag_types.COMPRESSED
        if not compressed and m.encoding not in IMAGE_ENCODINGS:
            decode_image(m.encoding, 1, 1, 1, False, b"")  # says what is wrong, for all frames alike
        try:
            if compressed:
                return decode_compressed(m.format, m.data)
            return decode_image(m.encoding, m.height, m.width, m.step, bool(m.is_bigendian), m.data)
        except SourceError as error:
            LOGGER.debug("image at %d skipped: %s", bag_types.stamp_ns(m.header), error)
            self._tally.skip("images that cannot be decoded")
            return None

    def _calibration(self, info: Any, size: tuple[int, int]) -> tuple[Pinhole | None, Rectifier | None]:
        """Camera of a camera_info message; maps are built again only when its values change."""
        if info is None:
            return None, None
        arrays = (v.tobytes() for v in (info.k, info.d, info.r, info.p))
        key = (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y, repr(info.roi), *arrays)
        if key != self._key:
            rectified = "image_rect" in self._topics.image
            try:
                self._camera, self._rectifier = from_message(info, size, rectified=rectified)
            except SourceError as error:
                raise SourceError(f"{self._path} {self._topics.camera_info}: {error}") from error
            self._key = key
        return self._camera, self._rectifier


def _yes(spec: Spec, key: str) -> bool:
    value = spec.options.get(key, "no").lower()
    if value not in ("yes", "no", "true", "false", "1", "0"):
        raise SourceError(f"option {key} of {spec.path} must be yes or no, not '{value}'")
    return value in ("yes", "true", "1")

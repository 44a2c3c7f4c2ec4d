"""Which topics of a bag are the image, its camera_info, ground truth, and what other sensors measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from da3_ros.errors import SourceError
from da3_ros.sources import bag_types
from da3_ros.sources.images import natural_key

if TYPE_CHECKING:
    from da3_ros.sources.bag_file import Topic

_POSES = (bag_types.POSE, bag_types.POSE_COVARIANCE, bag_types.TRANSFORM, bag_types.ODOMETRY, bag_types.TF)
_TRUTH_WORDS = ("truth", "ground_truth", "groundtruth", "gt", "vicon", "mocap", "optitrack", "leica")
_REGISTERED = ("depth_registered", "aligned_depth_to_color", "truth", "ground_truth", "gt")
_NO_IMAGE = ("depth", "confidence", "disparity", "mask", "label", "semantic", "infra1", "infra2", "ir", "preview")


@dataclass(frozen=True, slots=True)
class BagTopics:
    """The topics chosen; None where the bag has none."""

    image: str
    camera_info: str | None
    depth: str | None
    pose: str | None
    depth_prior: str | None = None
    odom_prior: str | None = None
    imu: str | None = None


def choose_topics(available: Mapping[str, Topic], options: Mapping[str, str], place: str) -> BagTopics:
    """Choose topics: what the options say, else the names that da3_ros writes, else by type and name.

    An option that is empty or "none" switches a topic off.  Depth and poses are taken as ground truth only where
    their name says so ("truth", "gt", "vicon", "depth_registered", ...): the output of another estimator is none.
    Priors are what the node would hear (``/depth_prior``, ``/odom_prior``, ``/imu``), or what the options name.

    Raises:
        SourceError: a topic named is not in the bag or has another type, or there is no image.
    """

    def named(key: str, kinds: tuple[str, ...]) -> tuple[bool, str | None]:
        name = options.get(key)
        if name is None:
            return False, None
        if name in ("", "none"):
            return True, None
        if name not in available or available[name].msgtype not in kinds:
            fitting = sorted(t.name for t in available.values() if t.msgtype in kinds)
            has = f"it has {', '.join(fitting)}" if fitting else "it has no such topic"
            raise SourceError(f"{place} has no {key} topic {name}; {has}")
        return True, name

    given, image = named("image", (bag_types.IMAGE, bag_types.COMPRESSED))
    image = image or (None if given else _find_image(available))
    if image is None:
        names = ", ".join(f"{t.name} ({t.msgtype})" for t in available.values()) or "no topic"
        raise SourceError(f"{place} has no image topic that can be chosen; name one with '?image=/topic' (has {names})")
    given, camera_info = named("camera_info", (bag_types.CAMERA_INFO,))
    camera_info = camera_info if given else _find_camera_info(available, image)
    given, depth = named("depth", (bag_types.IMAGE, bag_types.COMPRESSED))
    depth = depth if given else _find_depth(available)
    given, pose = named("pose", _POSES)
    pose = pose if given else _find_pose(available)
    priors = []
    for key, usual, kinds in (
        ("depth_prior", bag_types.DEPTH_PRIOR_TOPIC, (bag_types.IMAGE, bag_types.COMPRESSED, bag_types.CLOUD)),
        ("odom_prior", bag_types.ODOM_PRIOR_TOPIC, (bag_types.ODOMETRY,)),
        ("imu", bag_types.IMU_TOPIC, (bag_types.IMU,)),
    ):
        given, name = named(key, kinds)
        there = usual in available and available[usual].msgtype in kinds
        priors.append(name if given or not there else usual)
    return BagTopics(image, camera_info, depth, pose, *priors)


def _words(name: str) -> list[str]:
    return name.lower().strip("/").split("/")


def _of_type(available: Mapping[str, Topic], *kinds: str) -> list[str]:
    names = [t.name for t in available.values() if t.msgtype in kinds and t.count]
    return sorted(names, key=natural_key)


def _find_image(available: Mapping[str, Topic]) -> str | None:
    """Raw before compressed, names of colour images before others, then natural order (left before right)."""
    names = [
        name
        for name in _of_type(available, bag_types.IMAGE, bag_types.COMPRESSED)
        if not any(word in part for word in _NO_IMAGE for part in _words(name) if len(word) > 2 or word == part)
        and not any(word in _words(name) for word in _TRUTH_WORDS)
        and not name.endswith("compressedDepth")
    ]
    for preferred in (bag_types.IMAGE_TOPIC, bag_types.COMPRESSED_TOPIC):
        if preferred in names:
            return preferred
    raw = [name for name in names if available[name].msgtype == bag_types.IMAGE]
    return next(iter(raw or names), None)


def _find_camera_info(available: Mapping[str, Topic], image: str) -> str | None:
    """The sibling of the image, as image_transport has it, else the only one there is."""
    base = image.removesuffix("/compressed")
    names = _of_type(available, bag_types.CAMERA_INFO)
    sibling = base.rpartition("/")[0] + "/camera_info"
    if sibling in names:
        return sibling
    return names[0] if len(names) == 1 else None


def _find_depth(available: Mapping[str, Topic]) -> str | None:
    names = _of_type(available, bag_types.IMAGE)
    if bag_types.DEPTH_TOPIC in names:
        return bag_types.DEPTH_TOPIC
    fitting = [n for n in names if "depth" in n.lower() and any(word in _REGISTERED for word in _words(n))]
    return next(iter(fitting), None)


def _find_pose(available: Mapping[str, Topic]) -> str | None:
    names = _of_type(available, *_POSES)
    if bag_types.POSE_TOPIC in names:
        return bag_types.POSE_TOPIC
    return next((n for n in names if any(word in _TRUTH_WORDS for word in _words(n))), None)

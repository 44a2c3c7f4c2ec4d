"""Choosing a source by looking at what is there."""

from __future__ import annotations

from pathlib import Path

from da3_ros.errors import SourceError
from da3_ros.files import reason
from da3_ros.sources.spec import Spec
from da3_ros.types import Source

_LOOKED_FOR = (
    "a rosbag2 (metadata.yaml, *.mcap, *.db3), 7-Scenes (frame-XXXXXX.color.png), TUM RGB-D (rgb.txt), "
    "EuRoC (mav0/cam0/data.csv), KITTI odometry (image_2, calib.txt) and images"
)


def detect(text: str) -> Source:
    """Open what ``text`` names.

    Raises:
        SourceError: nothing is there, or nothing that is known.
    """
    if text.startswith("world:"):
        from da3_ros.sources.world import WorldSource

        return WorldSource.from_spec(text)
    try:
        spec = Spec.parse(text)
        if spec.path.is_dir():
            return _folder(spec)
        if spec.path.is_file():
            return _file(spec)
    except OSError as error:
        raise SourceError(f"cannot read {text}: {reason(error)}") from error
    raise SourceError(f"{spec.path} does not exist; give a recording, a folder of images, a video or world:SEED")


def _file(spec: Spec) -> Source:
    from da3_ros.sources.image_file import IMAGE_SUFFIXES
    from da3_ros.sources.video import VIDEO_SUFFIXES, VideoSource

    suffix = spec.path.suffix.lower()
    if suffix in (".mcap", ".db3"):
        from da3_ros.sources.bag import BagSource

        return BagSource.open(spec)
    if spec.path.name == "metadata.yaml":
        from da3_ros.sources.bag import BagSource

        return BagSource.open(Spec(spec.path.parent, spec.options))
    if suffix == ".bag":
        raise SourceError(
            f"{spec.path} is a ROS 1 bag; convert it with 'rosbags-convert --src {spec.path.name} --dst FOLDER'"
        )
    if suffix in VIDEO_SUFFIXES:
        return VideoSource.open(spec)
    if suffix in IMAGE_SUFFIXES:
        raise SourceError(f"{spec.path} is one image; give the folder that holds the sequence")
    raise SourceError(f"{spec.path} is neither a bag (.mcap, .db3) nor a video ({', '.join(VIDEO_SUFFIXES)})")


def _folder(spec: Spec) -> Source:
    from da3_ros.sources.bag_file import is_bag_folder
    from da3_ros.sources.euroc import EurocSource
    from da3_ros.sources.images import ImageFolderSource
    from da3_ros.sources.kitti import KittiSource
    from da3_ros.sources.seven_scenes import SevenScenesSource
    from da3_ros.sources.tum_rgbd import TumRgbdSource

    if is_bag_folder(spec.path):
        from da3_ros.sources.bag import BagSource

        return BagSource.open(spec)
    layouts = (SevenScenesSource, TumRgbdSource, EurocSource, KittiSource, ImageFolderSource)
    for layout in layouts:
        if layout.fits(spec.path):
            return layout.open(spec)
    inside = [p for p in _subfolders(spec.path) if is_bag_folder(p) or any(x.fits(p) for x in layouts)]
    if inside:
        raise SourceError(f"{spec.path} holds several recordings; give one: {_some([str(p) for p in inside])}")
    raise SourceError(f"{spec.path} is no recording: looked for {_LOOKED_FOR}, but it holds {_content(spec.path)}")


def _subfolders(folder: Path) -> list[Path]:
    """Folders that may hold one sequence each: the direct ones and those of KITTI's ``sequences``."""
    direct = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    sequences = folder / "sequences"
    return direct + (sorted(p for p in sequences.iterdir() if p.is_dir()) if sequences.is_dir() else [])


def _content(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return _some(names) if names else "nothing"


def _some(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

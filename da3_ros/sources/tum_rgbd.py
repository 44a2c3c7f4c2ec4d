"""RGB-D sequences in the layout of the TUM benchmark (Sturm et al., IROS 2012)."""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path

from da3_ros.errors import SourceError
from da3_ros.geometry.camera import Pinhole
from da3_ros.sources.camera_file import find_camera_file, read_camera_file
from da3_ros.sources.camera_info import Rectifier, from_camera_info
from da3_ros.sources.image_file import read_depth, read_image
from da3_ros.sources.indexed import IndexedSource
from da3_ros.sources.pose_track import NEAREST_NS, PoseTrack
from da3_ros.sources.spec import Spec
from da3_ros.sources.tum import nanoseconds, read_tum
from da3_ros.types import Frame, Truth

_COUNTS_PER_METRE = 5000.0
_SIZE = (640, 480)
# fx, fy, cx, cy and k1 k2 p1 p2 k3 of the colour cameras, from the benchmark's "file formats" page; depth is
# registered to the (distorted) colour image.
_CALIBRATION: dict[str, tuple[tuple[float, float, float, float], tuple[float, ...]]] = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_DEFAULT = ((525.0, 525.0, 319.5, 239.5), ())


class TumRgbdSource(IndexedSource):
    """``rgb.txt``, ``depth.txt`` and ``groundtruth.txt``; images and depth are paired within 0.02 s.

    The camera comes from ``camera.yaml`` in the folder, else from "freiburg1" to "freiburg3" (or fr1 to fr3) in its
    name, else it is the benchmark's default.  Distorted cameras are rectified.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        self._images = _read_list(folder / "rgb.txt")
        depth_list = folder / "depth.txt"
        self._depth = _pair([s for s, _ in self._images], _read_list(depth_list)) if depth_list.is_file() else {}
        self._poses = PoseTrack()
        if (truth := folder / "groundtruth.txt").is_file():
            trajectory = read_tum(truth)
            for stamp, T in zip(trajectory.stamps_ns, trajectory.T_map_cam, strict=True):
                self._poses.add(int(stamp), T)
        self._camera, self._rectifier = _calibration(folder)

    @staticmethod
    def fits(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return (folder / "rgb.txt").is_file()

    @classmethod
    def open(cls, spec: Spec) -> TumRgbdSource:
        """Open the folder; it has no options."""
        spec.check(())
        return cls(spec.path)

    def __len__(self) -> int:
        """Number of colour images."""
        return len(self._images)

    def frame(self, index: int) -> Frame:
        """Open one frame, rectified; what has no partner within 0.02 s is missing from the truth."""
        stamp, path = self._images[index]
        image, camera = read_image(path), self._camera
        depth = read_depth(self._depth[stamp], _COUNTS_PER_METRE) if stamp in self._depth else None
        if depth is not None and depth.shape != image.shape[:2]:
            raise SourceError(f"{self._depth[stamp]} and {path.name} differ in size; they must match pixel by pixel")
        if self._rectifier is not None:
            image = self._rectifier.image(image)
            depth = None if depth is None else self._rectifier.depth(depth)
        if camera is not None and camera.size != image.shape[1::-1]:
            camera = camera.resized(image.shape[1], image.shape[0])
        return Frame(index, stamp, image, camera, Truth(depth, self._poses.at(stamp), sensor=True))


def _read_list(path: Path) -> list[tuple[int, Path]]:
    """Stamps and files of ``rgb.txt`` or ``depth.txt``, in time order.

    Raises:
        SourceError: a line is not "seconds file", or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    entries: dict[int, Path] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split(maxsplit=1)
        if not words:
            continue
        try:
            stamp, name = nanoseconds(words[0]), words[1].strip()
        except (ValueError, IndexError):
            raise SourceError(f"{path} line {number}: expected 'seconds file', not '{line.strip()}'") from None
        entries[stamp] = path.parent / name
    if not entries:
        raise SourceError(f"{path} lists no file; expected lines 'seconds file'")
    return sorted(entries.items())


def _pair(stamps: list[int], entries: list[tuple[int, Path]]) -> dict[int, Path]:
    """For each stamp the file nearest in time within 0.02 s; each file serves one stamp, closest pairs first."""
    times = [stamp for stamp, _ in entries]
    candidates = []
    for stamp in stamps:
        middle = bisect_left(times, stamp)
        candidates += [
            (abs(times[i] - stamp), stamp, i)
            for i in range(max(0, middle - 2), min(len(times), middle + 2))
            if abs(times[i] - stamp) <= NEAREST_NS
        ]
    paired: dict[int, Path] = {}
    used: set[int] = set()
    for _, stamp, i in sorted(candidates):
        if stamp not in paired and i not in used:
            paired[stamp] = entries[i][1]
            used.add(i)
    return paired


def _calibration(folder: Path) -> tuple[Pinhole | None, Rectifier | None]:
    if (path := find_camera_file(folder)) is not None:
        return read_camera_file(path, _SIZE)
    name = re.sub(r"fr([123])", r"freiburg\1", folder.resolve().name.lower())
    known = next((value for key, value in _CALIBRATION.items() if key in name), _DEFAULT)
    (fx, fy, cx, cy), distortion = known
    return from_camera_info(*_SIZE, (fx, 0, cx, 0, fy, cy, 0, 0, 1), distortion)

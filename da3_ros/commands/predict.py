"""``da3 predict``: depth, rays and cameras of some images, into one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.commands import options
from da3_ros.errors import PredictorError

if TYPE_CHECKING:
    from da3_ros.geometry.camera import Pinhole
    from da3_ros.predictors.images import ImagePrediction
    from da3_ros.types import ImageArray


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "predict",
        help="depth, rays and cameras of some images, without SLAM",
        description="Predict images of one size together and write a NumPy archive with depth (N,H,W), confidence "
        "(N,H,W) in [0,1), depth_confidence_raw, rays (N,h,w,6), ray_confidence_raw, T_world_cam (N,4,4) in OpenCV "
        "axes, K (N,3,3) in pixels of the depth, reference (the view whose frame is the world), unit, images and "
        "model; sky where the model sees it. A model that looks at one view at a time gives depth and sky only.",
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or one folder of images")
    add(
        "--model",
        default="da3-small",
        metavar="MODEL",
        help="a published one (default da3-small), owner/name, a folder",
    )
    add("--out", type=Path, default=Path("prediction.npz"), metavar="FILE", help="default prediction.npz")
    add("--picture", type=Path, metavar="FILE", help="also draw images, depth and confidence (.png or .jpg)")
    add("--camera", type=Path, metavar="FILE", help="calibration: ROS YAML, fx fy cx cy, or a 3x3 matrix")
    add("--size", default="auto", metavar="WxH", help="what the network sees, px (default: longest side 504)")
    add("--reference", choices=("first", "middle", "saddle_balanced"), default="saddle_balanced")
    add("--pose", choices=("rays", "head"), default="rays", help="where cameras come from (default: the rays)")
    options.add_runtime(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict, write, and tell what came out."""
    from da3_ros.commands.progress import Steps
    from da3_ros.model.preprocess import parse_size
    from da3_ros.predictors.images import predict_images

    size = parse_size(arguments.size)
    paths = _paths(arguments.images)
    images, camera = _read(paths, arguments.camera)
    options.require_writable(arguments.out)
    with Steps() as tell:
        loader = options.opened_loader(arguments, arguments.model, tell)
        tell(f"predicting {len(images)} images", None)
        found = predict_images(
            loader,
            images,
            cameras=[camera] * len(images),
            size=size,
            reference=arguments.reference,
            pose=arguments.pose,
        )
    _write(arguments.out, found, paths, loader.folder.name)
    if arguments.picture is not None:
        from da3_ros.evaluation.samples import write_sheet

        write_sheet(arguments.picture, images, found.depth, found.confidence)
    for line in _table(found, paths):
        sys.stdout.write(f"{line}\n")
    for note in found.notes:
        sys.stdout.write(f"note: {note}\n")
    sys.stdout.write(f"wrote {arguments.out}\n")
    return 0


def _paths(given: list[Path]) -> list[Path]:
    from da3_ros.sources.image_file import IMAGE_SUFFIXES

    if len(given) > 1 or not given[0].is_dir():
        return given
    found = sorted(path for path in given[0].iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise PredictorError(f"{given[0]} holds no images; name image files, or another folder")
    return found


def _read(paths: list[Path], calibration: Path | None) -> tuple[list[ImageArray], Pinhole | None]:
    """The images, rectified where a calibration says how, and their camera."""
    from da3_ros.sources.camera_file import read_camera_file
    from da3_ros.sources.image_file import read_image

    images = [read_image(path) for path in paths]
    if calibration is None:
        return images, None
    camera, rectifier = read_camera_file(calibration, images[0].shape[1::-1])
    return [image if rectifier is None else rectifier.image(image) for image in images], camera


def _write(out: Path, found: ImagePrediction, paths: list[Path], model: str) -> None:
    import io

    import numpy as np

    from da3_ros.files import write_atomic

    buffer = io.BytesIO()
    named = {"images": np.array([str(path) for path in paths]), "model": np.array(model)}
    np.savez(buffer, **found.arrays(), **named)  # type: ignore[arg-type]
    write_atomic(out, buffer.getvalue())


def _table(found: ImagePrediction, paths: list[Path]) -> list[str]:
    """Per image: depth, share that is valid, confidence, focal length and place."""
    import numpy as np

    count, height, width = found.depth.shape
    lines = [
        f"{count} images at {width}x{height}, depth in {found.unit}, world = image {found.reference}",
        f"{'image':<28}{'depth 5..95 %':>18}{'valid':>8}{'confidence':>12}{'fx, px':>9}   centre",
    ]
    for i, path in enumerate(paths):
        valid = np.isfinite(found.depth[i])
        low, high = np.percentile(found.depth[i][valid], (5, 95)) if valid.any() else (np.nan, np.nan)
        confidence = np.nan if found.confidence is None else float(np.median(found.confidence[i]))
        focal = np.nan if found.K is None else found.K[i, 0, 0]
        centre = "" if found.T_world_cam is None else "  ".join(f"{v:.3f}" for v in found.T_world_cam[i, :3, 3])
        name = path.name if len(path.name) < 28 else f"...{path.name[-24:]}"
        lines.append(
            f"{name:<28}{f'{low:.3g} .. {high:.3g}':>18}{100 * valid.mean():>6.0f} %{confidence:>12.2f}{focal:>9.1f}"
            f"   {centre}"
        )
    return lines

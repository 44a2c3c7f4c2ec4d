"""Writes the wall as the data sets lay out their folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sources_scene import SMALL, WallSource, pose, render, write_png

from da3_ros.geometry import se3

SIZE = (64, 48)


def millimetres(depth: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.rint(depth * 1000)).astype(np.uint16)


def write_seven_scenes(folder: Path, numbers=(0, 2, 10), intrinsics=True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if intrinsics:
        np.savetxt(folder / "camera-intrinsics.txt", SMALL.matrix)
    for n in numbers:
        image, depth = render(SMALL.matrix, SIZE, pose(n))
        stored = millimetres(depth)
        stored[0, 0], stored[0, 1] = 0, 65535
        write_png(folder / f"frame-{n:06d}.color.png", image)
        write_png(folder / f"frame-{n:06d}.depth.png", stored)
        np.savetxt(folder / f"frame-{n:06d}.pose.txt", pose(n))


def write_tum_rgbd(folder: Path, K: np.ndarray, distortion=(), count=4) -> list[float]:
    rgb, depth_list, poses = ["# color images"], ["# depth maps"], ["# ground truth", "# timestamp tx ty"]
    start, stamps = 1305031102.175304, []
    for i in range(count):
        t = start + i / 30
        stamps.append(t)
        image, depth = render(K, (640, 480), pose(i), distortion)
        write_png(folder / f"rgb/{t:.6f}.png", image)
        write_png(folder / f"depth/{t + 0.008:.6f}.png", np.rint(depth * 5000).astype(np.uint16))
        rgb.append(f"{t:.6f} rgb/{t:.6f}.png")
        depth_list.append(f"{t + 0.008:.6f} depth/{t + 0.008:.6f}.png")
    for k in range(-20, 10 * count):  # 100 Hz, between the images
        t = start + k / 100 + 0.003
        T = pose((t - start) * 30)
        q = se3.quaternion_from_rotation(T[:3, :3])
        poses.append(f"{t:.4f} " + " ".join(f"{x:.6f}" for x in (*T[:3, 3], *q)))
    for name, lines in (("rgb", rgb), ("depth", depth_list), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return stamps


EUROC_SENSOR = """%YAML:1.0
# General sensor definitions.
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [{data}]
rate_hz: 20
resolution: [376, 240]
camera_model: pinhole
intrinsics: [229.3, 228.6, 183.6, 124.2] #fu, fv, cu, cv
distortion_model: {model}
distortion_coefficients: [{distortion}]
"""
EUROC_K = np.array([[229.3, 0, 183.6], [0, 228.6, 124.2], [0, 0, 1]])
T_BODY_CAM = se3.exp(np.array([0.1, -0.2, 1.5, -0.02, -0.06, 0.01]))
EUROC_START = 1403636579763555584


def write_euroc(folder: Path, model="radial-tangential", distortion=(-0.28, 0.074, 0.0002, 1.7e-05), count=3) -> None:
    cam = folder / "mav0" / "cam0"
    (cam / "data").mkdir(parents=True)
    data = ", ".join(f"{x:.15f}" for x in T_BODY_CAM.ravel())
    text = EUROC_SENSOR.format(data=data, model=model, distortion=", ".join(map(str, distortion)))
    (cam / "sensor.yaml").write_text(text)
    rows = ["#timestamp [ns],filename"]
    for i in range(count):
        stamp = EUROC_START + i * 50_000_000
        image, _ = render(EUROC_K, (376, 240), pose(i), distortion, fisheye=model == "equidistant")
        write_png(cam / "data" / f"{stamp}.png", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        rows.append(f"{stamp},{stamp}.png")
    (cam / "data.csv").write_text("\r\n".join(rows) + "\r\n")
    truth = folder / "mav0" / "state_groundtruth_estimate0"
    truth.mkdir()
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"]
    for k in range(count * 10):  # 200 Hz, starting after the first image
        t = 0.1 + k / 200 + 0.0013 if k else 0.05
        T = pose(t * 20) @ se3.inverse(T_BODY_CAM)
        x, y, z, w = se3.quaternion_from_rotation(T[:3, :3])
        values = ", ".join(f"{v:.9f}" for v in (*T[:3, 3], w, x, y, z))
        rows.append(f"{EUROC_START + round(t * 1e9)},{values},0,0,0,0,0,0,0,0,0")
    (truth / "data.csv").write_text("\n".join(rows) + "\n")


def write_kitti(root: Path, count=3, number="07") -> Path:
    folder = root / "sequences" / number
    K = SMALL.matrix
    baseline = {0: 0.0, 1: -0.54, 2: 0.06, 3: -0.47}
    lines = []
    for n, t in baseline.items():
        P = K @ np.hstack([np.eye(3), [[t], [0.01 * n], [0.002 * n]]])
        lines.append(f"P{n}: " + " ".join(f"{v:.12e}" for v in P.ravel()))
    lines.append("Tr: " + " ".join(["0"] * 12))
    (root / "poses").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        for n in (0, 2):
            T_cam0_cam = np.eye(4)
            T_cam0_cam[:3, 3] = (-baseline[n], -0.01 * n, -0.002 * n)
            write_png(folder / f"image_{n}" / f"{i:06d}.png", render(K, SIZE, pose(i) @ T_cam0_cam)[0])
        rows.append(" ".join(f"{v:.12e}" for v in pose(i)[:3].ravel()))
    (folder / "calib.txt").write_text("\n".join(lines) + "\n")
    (folder / "times.txt").write_text("".join(f"{0.1037 * i:.6e}\n" for i in range(count)))
    (root / "poses" / f"{number}.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_video(path: Path, count: int) -> None:
    """A motion JPEG of the wall at 20 Hz, or a skip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, SIZE)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG videos")
    for frame in WallSource(count):
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()

"""Pictures of a coloured point cloud: splats with a z-buffer, shaded by depth (eye-dome lighting)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.evaluation.ground import Ground
from da3_ros.geometry.se3 import Array
from da3_ros.types import FloatArray, ImageArray

_MOST_POINTS = 400_000  # drawn; more make no better picture
_BACKGROUND = (24, 27, 33)  # RGB
_PATH = (86, 180, 233)  # Okabe-Ito sky blue
_START = (0, 158, 115)
_END = (213, 94, 0)
_SUPERSAMPLE = 2
_FOV = np.deg2rad(40)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A camera that looks at the map; orthographic where ``focal`` is 0."""

    R_cam_world: Array  # (3, 3)
    centre: Array  # (3,) in the world: of the camera, or of the picture where orthographic
    focal: float  # px
    zoom: float  # px per map unit, orthographic
    width: int
    height: int

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) of points (N, 3); depth <= 0 is behind the camera."""
        p = (points - self.centre) @ self.R_cam_world.T
        z = p[:, 2]
        scale = self.focal / np.maximum(z, 1e-9) if self.focal else np.full(len(p), self.zoom)
        uv = p[:, :2] * scale[:, None] + (self.width / 2, self.height / 2)
        return uv, (z if self.focal else z + 1e4)  # orthographic: everything lies in front

    def to_viewer(self, points: Array) -> Array:
        """Unit vectors (N, 3) from points (N, 3) to the camera."""
        if not self.focal:
            return np.broadcast_to(-self.R_cam_world[2], points.shape)
        rays: Array = self.centre - points
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        return rays


@dataclass(frozen=True, slots=True, eq=False)
class MapPictures:
    """The two pictures of a map."""

    perspective: ImageArray  # (H, W, 3) RGB
    top: ImageArray  # (H, W, 3) RGB
    scale_bar: float  # length of the bar in the top view, map units


def map_pictures(
    xyz: FloatArray,
    rgb: NDArray[np.uint8],
    T_map_cam: Array,
    ground: Ground,
    unit: str = "m",
    size: tuple[int, int] = (960, 640),
) -> MapPictures | None:
    """Draw the map (N, 3) with colours (N, 3) and the camera path over it, from outside and from above.

    Surfaces are drawn from the side the cameras saw only, so near walls and the ceiling do not hide a room.  The
    perspective view takes the azimuth from which most of the path and of the map is seen.

    Returns:
        None for a map without a finite point.
    """
    drawn = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    if len(drawn) == 0:
        return None
    if len(drawn) > _MOST_POINTS:
        drawn = np.random.default_rng(0).choice(drawn, _MOST_POINTS, replace=False)
    points, colors = ground.coordinates(xyz[drawn].astype(float)), rgb[drawn]
    path = ground.coordinates(T_map_cam[:, :3, 3])
    spacing = _spacing(points)
    normals = _normals(points, path)
    low, high = _bounds(points, path)
    forward = ground.axes @ T_map_cam[:, :3, 2].T
    inside = ((points >= low) & (points <= high)).all(axis=1)
    scene = np.concatenate([points[inside][:: max(1, len(points) // 20_000)], path])
    side = _best_side(points, normals, path, scene, spacing)
    width, height = size[0] * _SUPERSAMPLE, size[1] * _SUPERSAMPLE
    outside = _outside_view(scene, side, width, height)
    above, bar = _top_view(low, high, width, height)
    pictures = []
    for view in (outside, above):
        front = _faces(points, normals, view)
        image, depth = _splat(points[front], colors[front], view, spacing, 9)
        image = _eye_dome(image, depth, view)
        _draw_path(image, depth, path, forward.T, view, float(np.linalg.norm(high - low)))
        if view is above:
            _draw_scale_bar(image, bar * view.zoom, f"{bar:g} {unit}")
        pictures.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8))
    return MapPictures(pictures[0], pictures[1], bar)


def _bounds(points: Array, path: Array) -> tuple[Array, Array]:
    """Box around nearly all points and the whole path."""
    low, high = np.percentile(points, 0.5, axis=0), np.percentile(points, 99.5, axis=0)
    if len(path):
        low, high = np.minimum(low, path.min(axis=0)), np.maximum(high, path.max(axis=0))
    least = 1e-3 * max(float((high - low).max()), 1e-3)
    return low - least, high + least


def _normals(points: Array, path: Array) -> Array:
    """Normals (N, 3) of the surfaces, turned to the nearest camera; zero where the map is not flat.

    A plane is fitted to the neighbours of up to 10,000 of the points; the others take that of the nearest of them.
    """
    if len(points) < 50 or len(path) == 0:
        return np.zeros_like(points)
    from scipy.spatial import cKDTree

    some = points[:: max(1, len(points) // 10_000)]
    tree = cKDTree(some)
    _, neighbours = tree.query(some, k=24)
    around = some[neighbours] - some[neighbours].mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    normals = axes[:, :, 0]
    _, camera = cKDTree(path).query(some)
    away = np.einsum("ni,ni->n", normals, path[camera] - some) < 0
    normals[away] *= -1
    normals[spread[:, 0] > 0.5 * spread[:, 1]] = 0
    _, nearest = tree.query(points)
    of_all: Array = normals[nearest]
    return of_all


def _faces(points: Array, normals: Array, view: View) -> NDArray[np.bool_]:
    """Which points show the viewer the side that the cameras saw."""
    cosine: Array = np.einsum("ni,ni->n", normals, view.to_viewer(points))
    return cosine > -0.1


def _spacing(points: Array) -> float:
    """Typical distance between neighbouring points."""
    if len(points) < 2:
        return 0.01
    from scipy.spatial import cKDTree

    some = points[:: max(1, len(points) // 2000)]
    distance, _ = cKDTree(points).query(some, k=2)
    return max(float(np.percentile(distance[:, 1], 75)), 1e-6)


def _look_at(side: float, elevation: float) -> Array:
    """Rows right, down, forward of a camera that looks at the centre from azimuth ``side`` above the ground."""
    forward = -np.array([np.cos(elevation) * np.cos(side), np.cos(elevation) * np.sin(side), np.sin(elevation)])
    right = np.cross(forward, [0.0, 0, 1])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _outside_view(scene: Array, side: float, width: int, height: int) -> View:
    """Perspective camera that just holds the points (N, 3) of the scene, centred."""
    R = _look_at(side, np.deg2rad(42))
    focal = 0.5 * height / np.tan(_FOV / 2)
    limits = np.array([0.47 * width, 0.47 * height]) / focal
    local = scene @ R.T
    centre = local.mean(axis=0)
    for _ in range(5):  # moving sideways changes the distance needed, a little
        p = local - centre
        distance = float((np.abs(p[:, :2]) / limits - p[:, 2:]).max())
        seen = p[:, :2] / (p[:, 2:] + distance)
        centre[:2] += distance * (seen.min(axis=0) + seen.max(axis=0)) / 2
    p = local - centre
    distance = float((np.abs(p[:, :2]) / limits - p[:, 2:]).max())
    return View(R, (centre - (0, 0, distance)) @ R, focal, 0.0, width, height)


def _top_view(low: Array, high: Array, width: int, height: int) -> tuple[View, float]:
    extent = high - low
    zoom = 0.92 * min(width / extent[0], height / extent[1])
    R = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    bar = _nice(0.2 * width / zoom)
    return View(R, (low + high) / 2, 0.0, float(zoom), width, height), bar


def _nice(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten up to the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= value))


def _best_side(points: Array, normals: Array, path: Array, scene: Array, spacing: float) -> float:
    """Azimuth from which most of the path and of the map is seen, judged on small pictures."""
    step = max(1, len(points) // 30_000)
    some, facing = points[::step], normals[::step]
    colors = np.zeros((len(some), 3), np.uint8)
    best, best_score = 0.0, -1.0
    for side in np.deg2rad(np.arange(20, 380, 45)):
        view = _outside_view(scene, float(side), 240, 160)
        front = _faces(some, facing, view)
        _, depth = _splat(some[front], colors[front], view, spacing * np.sqrt(step), 1)
        seen = _visible(depth, path, view).mean() if len(path) else 0.0
        score = float(seen + 0.7 * np.isfinite(depth).mean())
        if score > best_score:
            best, best_score = float(side), score
    return best


def _splat(
    points: Array, colors: NDArray[np.uint8], view: View, spacing: float, largest: int
) -> tuple[ImageArray, Array]:
    """Draw each point as a square about as large as the distance to its neighbour (radius up to ``largest`` px).

    Returns:
        The picture (H, W, 3) RGB and its depth (H, W), inf where empty.
    """
    uv, z = view.project(points)
    image = np.empty((view.height, view.width, 3), np.uint8)
    image[:] = _BACKGROUND
    depth = np.full(view.height * view.width, np.inf)
    order = np.argsort(-z)  # far to near: of the writes to one pixel the last stays
    order = order[z[order] > 1e-6]
    uv, z, colors = uv[order], z[order], colors[order]
    column, row = np.floor(uv[:, 0]).astype(int), np.floor(uv[:, 1]).astype(int)
    diameter = 1.4 * spacing * (view.focal / z if view.focal else view.zoom)
    radius = np.clip(np.ceil((np.broadcast_to(diameter, z.shape) - 1) / 2), 0, largest).astype(int)
    flat = image.reshape(-1, 3)
    largest = int(radius.max()) if len(radius) else -1
    for dv in range(-largest, largest + 1):
        for du in range(-largest, largest + 1):
            u, v = column + du, row + dv
            fits = (radius >= max(abs(du), abs(dv))) & (u >= 0) & (u < view.width) & (v >= 0) & (v < view.height)
            pixel = v[fits] * view.width + u[fits]
            layer = np.full(len(depth), -1)
            layer[pixel] = np.flatnonzero(fits)
            drawn = np.flatnonzero(layer >= 0)
            nearer = drawn[z[layer[drawn]] < depth[drawn]]
            depth[nearer] = z[layer[nearer]]
            flat[nearer] = colors[layer[nearer]]
    return image, depth.reshape(view.height, view.width)


def _eye_dome(image: ImageArray, depth: Array, view: View) -> ImageArray:
    """Darken pixels that lie behind their neighbours (Boucheny, eye-dome lighting, 2009)."""
    drawn = np.isfinite(depth)
    if not drawn.any():
        return image
    scale = 1.0 / float(np.median(depth[drawn])) if view.focal else view.zoom / view.height
    z = np.where(drawn, depth * scale, 1e3).astype(np.float32)  # empty pixels lie behind everything
    occlusion = np.zeros_like(z)
    for radius in (2, 5):
        for dv, du in ((0, radius), (0, -radius), (radius, 0), (-radius, 0)):
            occlusion += np.clip(z - np.roll(z, (dv, du), (0, 1)), 0, 0.02)
    light = np.where(drawn, np.exp(-14.0 * occlusion), 1.0)[..., None]
    shaded: ImageArray = (image * light).astype(np.uint8)
    return shaded


def _visible(depth: Array, points: Array, view: View) -> NDArray[np.bool_]:
    """Which points (N, 3) are not hidden behind the drawn map."""
    uv, z = view.project(points)
    column = np.clip(np.floor(uv[:, 0]).astype(int), 0, view.width - 1)
    row = np.clip(np.floor(uv[:, 1]).astype(int), 0, view.height - 1)
    seen: NDArray[np.bool_] = (z > 0) & (z < depth[row, column] + 0.01 * z)
    return seen


def _draw_path(image: ImageArray, depth: Array, path: Array, forward: Array, view: View, extent: float) -> None:
    """Camera path, dimmed where the map hides it, with camera symbols, start and end."""
    if len(path) == 0:
        return
    step = max(1, len(path) // 3000)
    uv, _ = view.project(path)
    pixels = np.round(uv * 16).astype(int)
    seen = _visible(depth, path, view) if view.focal else np.ones(len(path), bool)
    shift = {"lineType": cv2.LINE_AA, "shift": 4}
    hidden = image.copy()
    for i in range(step, len(path), step):
        if not seen[i]:
            cv2.line(hidden, pixels[i - step].tolist(), pixels[i].tolist(), _PATH, 3, **shift)
    cv2.addWeighted(hidden, 0.45, image, 0.55, 0, image)
    for i in range(step, len(path), step):
        if seen[i]:
            cv2.line(image, pixels[i - step].tolist(), pixels[i].tolist(), _PATH, 5, **shift)
    for i in np.unique(np.linspace(0, len(path) - 1, 14).astype(int)):
        tip = path[i] + 0.03 * extent * forward[i]
        end = np.round(view.project(tip[None])[0][0] * 16).astype(int)
        cv2.line(image, pixels[i].tolist(), end.tolist(), (240, 240, 240), 2, **shift)
    for index, colour in ((0, _START), (-1, _END)):
        cv2.circle(image, pixels[index].tolist(), 11 * 16, (255, 255, 255), -1, **shift)
        cv2.circle(image, pixels[index].tolist(), 8 * 16, colour, -1, **shift)


def _draw_scale_bar(image: ImageArray, pixels: float, label: str) -> None:
    height = image.shape[0]
    left, bottom = 40, height - 40
    cv2.rectangle(image, (left, bottom - 8), (left + round(pixels), bottom), (235, 235, 235), -1)
    cv2.putText(image, label, (left, bottom - 22), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (235, 235, 235), 2, cv2.LINE_AA)

"""A furnished room: walls with doors, windows and pictures, furniture along them, lamps above.

World frame: metres, z up, the floor at z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from da3_ros.geometry.se3 import Array
from da3_ros.sources.world import furniture
from da3_ros.sources.world.furniture import Piece, Wardrobe
from da3_ros.sources.world.light import Lamp
from da3_ros.sources.world.mesh import Mesh, MeshBuilder, Skin
from da3_ros.sources.world.textures import paint_all

_CELLS = 9000  # about as many light cells as walls, floor and ceiling may have together


@dataclass(frozen=True, slots=True)
class Extent:
    """Inner size of a room in metres."""

    x0: float
    x1: float
    y0: float
    y1: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Wall:
    """One wall as seen from inside."""

    corner: Array  # (3,) lower left
    right: Array  # (3,) unit, to the right
    inward: Array  # (3,) unit, into the room
    length: float
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # left, right, top of what stands there

    def free(self, left: float, right: float, low: float = 0.0) -> bool:
        """Tell whether nothing that rises above ``low`` stands between ``left`` and ``right``."""
        return all(right <= a or left >= b or top <= low for a, b, top in self.taken)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A piece of furniture in the room: an upright box of the world."""

    piece: Piece
    center: Array  # (2,) on the floor
    x_axis: tuple[float, float]  # direction of the piece's width

    def distance(self, points: Array) -> Array:
        """Distance (N,) of points (N, 3) from the box that holds the piece, m."""
        width, depth, height = self.piece.size
        x, y = self.x_axis
        offset = points[:, :2] - self.center
        local = np.stack([offset @ (x, y), offset @ (-y, x), points[:, 2] - height / 2], axis=1)
        return np.linalg.norm(np.maximum(np.abs(local) - np.array([width, depth, height]) / 2, 0), axis=1)

    def corners(self, margin: float = 0.0) -> Array:
        """Corners (4, 2) of the footprint, grown by ``margin``."""
        x, y = self.x_axis
        w, d = self.piece.size[0] / 2 + margin, self.piece.size[1] / 2 + margin
        return self.center + np.array([(-w, -d), (w, -d), (w, d), (-w, d)]) @ np.array([(x, y), (-y, x)])


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """The finished room."""

    extent: Extent
    placed: tuple[Placed, ...]
    mesh: Mesh
    images: tuple[np.ndarray, ...]  # textures, as the mesh numbers them
    lamps: tuple[Lamp, ...]


Keep = Callable[[Placed], bool]  # whether a piece may stand where it was placed


def furnish(extent: Extent, rng: np.random.Generator, windows: int, fullness: float, keep: Keep) -> Room:
    """Build a room.

    Args:
        extent: its inner size.
        rng: every choice is drawn from it.
        windows: open windows to the sky, as far as the walls have room for them.
        fullness: share of the furniture that is tried, 0..1.
        keep: refuses pieces that would be in the way.
    """
    wardrobe = Wardrobe(paint_all(rng), rng)
    area = 2 * (extent.x1 - extent.x0) * (extent.y1 - extent.y0)
    area += 2 * extent.height * (extent.x1 - extent.x0 + extent.y1 - extent.y0)
    builder = MeshBuilder(cell=max(0.12, float(np.sqrt(area / _CELLS))))
    walls = _walls(extent)
    doors = _place_openings(walls, rng, 0.92, 1)
    holes = _place_openings(walls, rng, 1.2, windows)
    placed = _place_furniture(extent, walls, rng, fullness, keep)
    _build_shell(builder, wardrobe, extent, walls, doors, holes, rng)
    for item in placed:
        builder.move_to((*item.center, 0.0), item.x_axis)
        item.piece.build(builder, wardrobe, rng)
    builder.move_to((0.0, 0.0, 0.0))
    _hang_pictures(builder, wardrobe, walls, holes, rng)
    _lay_rug(builder, wardrobe, extent, rng)
    lamps = _hang_lamps(builder, wardrobe, extent, rng)
    for item in placed:
        if item.piece.lamp is not None:
            lamp = item.piece.lamp
            lamps.append(
                Lamp((item.center[0], item.center[1], lamp.position[2]), lamp.power, lamp.radius, lamp.half_distance)
            )
    for wall, left in holes:
        middle = wall.corner + (left + 0.6) * wall.right - 0.5 * wall.inward
        lamps.append(Lamp((middle[0], middle[1], 1.7), 0.9, 0.4, 2.5))
    return Room(extent, tuple(placed), builder.build(), tuple(wardrobe.images), tuple(lamps))


def _walls(extent: Extent) -> list[Wall]:
    x0, x1, y0, y1 = extent.x0, extent.x1, extent.y0, extent.y1
    corners = [((x0, y1), (1, 0)), ((x1, y1), (0, -1)), ((x1, y0), (-1, 0)), ((x0, y0), (0, 1))]
    return [
        Wall(
            np.array([*corner, 0.0]),
            np.array([*right, 0.0]),
            np.array([right[1], -right[0], 0.0]),
            abs(right[0]) * (x1 - x0) + abs(right[1]) * (y1 - y0),
        )
        for corner, right in corners
    ]


def _place_openings(walls: list[Wall], rng: np.random.Generator, width: float, count: int) -> list[tuple[Wall, float]]:
    """Choose where doors or windows go: (wall, left edge).  Nothing stands or hangs before them."""
    out: list[tuple[Wall, float]] = []
    for _ in range(40 * count):
        if len(out) == count:
            break
        wall = walls[int(rng.integers(4))]
        if wall.length < width + 0.7:
            continue
        left = rng.uniform(0.35, wall.length - width - 0.35)
        if wall.free(left - 0.15, left + width + 0.15):
            out.append((wall, left))
            wall.taken.append((left - 0.1, left + width + 0.1, np.inf))
    return out


def _place_furniture(
    extent: Extent, walls: list[Wall], rng: np.random.Generator, fullness: float, keep: Keep
) -> list[Placed]:
    placed: list[Placed] = []

    def fits(item: Placed) -> bool:
        corners = item.corners(0.02)
        inside = ((corners >= (extent.x0, extent.y0)) & (corners <= (extent.x1, extent.y1))).all()
        apart = all(not _overlap(item.corners(0.04), other.corners()) for other in placed)
        return bool(inside) and apart and item.piece.size[2] < extent.height - 0.1 and keep(item)

    perimeter = sum(wall.length for wall in walls)
    wanted = int(fullness * perimeter / 1.9)
    makers = [furniture.AT_WALLS[i] for i in rng.permutation(len(furniture.AT_WALLS))]
    makers = (makers * (1 + wanted // len(makers)))[:wanted]
    small = [furniture.SMALL[int(rng.integers(len(furniture.SMALL)))] for _ in range(int(fullness * perimeter / 3.2))]
    for number, make in enumerate([*makers, *small]):
        piece = make(rng)
        for _ in range(14):
            wall = walls[number % 4] if rng.random() < 0.6 else walls[int(rng.integers(4))]
            gap = 0.035 if number < wanted else rng.uniform(0.05, 0.15)
            if wall.length < piece.size[0] + 0.1:
                continue
            s = rng.uniform(piece.size[0] / 2, wall.length - piece.size[0] / 2)
            left, right = s - piece.size[0] / 2, s + piece.size[0] / 2
            center = wall.corner + s * wall.right + (piece.size[1] / 2 + gap) * wall.inward
            item = Placed(piece, center[:2], (float(wall.right[0]), float(wall.right[1])))
            if wall.free(left, right) and fits(item):
                placed.append(item)
                wall.taken.append((left, right, piece.size[2]))
                break
    if rng.random() < 0.8 * fullness:
        piece = furniture.table(rng)
        for _ in range(8):
            turn = rng.uniform(0, np.pi)
            center = np.array(
                [rng.uniform(extent.x0 + 1.5, extent.x1 - 1.5), rng.uniform(extent.y0 + 1.5, extent.y1 - 1.5)]
            )
            item = Placed(piece, center, (float(np.cos(turn)), float(np.sin(turn))))
            if min(extent.x1 - extent.x0, extent.y1 - extent.y0) > 3.4 and fits(item):
                placed.append(item)
                break
    return placed


def _overlap(a: Array, b: Array) -> bool:
    """Tell whether two convex quadrilaterals (4, 2) overlap (separating axes)."""
    for corners in (a, b):
        for axis in np.diff(corners[[0, 1, 2]], axis=0):
            if (a @ axis).max() <= (b @ axis).min() or (b @ axis).max() <= (a @ axis).min():
                return False
    return True


def _build_shell(
    m: MeshBuilder,
    skin: Wardrobe,
    extent: Extent,
    walls: list[Wall],
    doors: list[tuple[Wall, float]],
    holes: list[tuple[Wall, float]],
    rng: np.random.Generator,
) -> None:
    """Floor, ceiling, walls around their windows, doors and skirting boards."""
    wide, deep, height = extent.x1 - extent.x0, extent.y1 - extent.y0, extent.height
    m.rectangle((extent.x0, extent.y0, 0), (wide, 0, 0), (0, deep, 0), skin("floor"))
    m.rectangle((extent.x0, extent.y1, height), (wide, 0, 0), (0, -deep, 0), skin("ceiling"))
    board, white = skin("wood"), skin("white")
    kinds = rng.integers(0, 4, 4) if rng.random() < 0.5 else np.array([0, 1, 0, 1])
    for number, wall in enumerate(walls):
        paper = skin("wall", int(kinds[number]))
        openings = sorted(left for owner, left in holes if owner is wall)
        start = 0.0
        for left in openings:
            _wall_part(m, wall, paper, start, left, 0.0, height)
            _wall_part(m, wall, paper, left, left + 1.2, 0.0, 0.9)
            _wall_part(m, wall, paper, left, left + 1.2, 2.15, height)
            _window(m, wall, white, left)
            start = left + 1.2
        _wall_part(m, wall, paper, start, wall.length, 0.0, height)
        blocked = sorted(left for owner, left in doors if owner is wall)
        start = 0.0
        for stop, restart in [*((left - 0.06, left + 0.98) for left in blocked), (wall.length, wall.length)]:
            if stop - start > 0.05:
                _on_wall(m, wall, (start + stop) / 2, 0.04, stop - start, 0.08, 0.015, board)
            start = restart
        for left in blocked:
            _on_wall(
                m, wall, left + 0.46, 1.03, 0.92, 2.06, 0.03, {"front": skin.part("door", (0, 0, 1, 1)), "other": board}
            )
            for x in (left - 0.03, left + 0.95):
                _on_wall(m, wall, x, 1.06, 0.06, 2.12, 0.05, white)
            _on_wall(m, wall, left + 0.46, 2.09, 0.92, 0.06, 0.05, white)


def _wall_part(m: MeshBuilder, wall: Wall, paper: Skin, left: float, right: float, low: float, high: float) -> None:
    if right - left > 1e-6 and high - low > 1e-6:
        offset = paper.offset
        if paper.tile is not None:  # the pattern runs on from part to part
            offset = (offset[0] + left / paper.tile[0], offset[1] - low / paper.tile[1])
        m.rectangle(
            wall.corner + left * wall.right + (0, 0, low),
            (right - left) * wall.right,
            (0, 0, high - low),
            Skin(paper.texture, paper.tile, offset=offset),
        )


def _window(m: MeshBuilder, wall: Wall, white: Skin, left: float) -> None:
    """Reveal, sill and glazing bars of a window of 1.2 x 1.25 m that begins 0.9 m above the floor."""
    out = -0.16 * wall.inward
    up, across = np.array([0, 0, 1.25]), 1.2 * wall.right
    low = wall.corner + left * wall.right + (0, 0, 0.9)
    m.rectangle(low, across, out, white)
    m.rectangle(low + up + out, across, -out, white)
    m.rectangle(low, out, up, white)
    m.rectangle(low + across + out, -out, up, white)
    m.move_to(wall.corner + (left + 0.6) * wall.right + out, (float(wall.right[0]), float(wall.right[1])))
    for x in (-0.57, 0.0, 0.57):
        m.box((x, 0.0, 1.525), (0.06, 0.05, 1.25), white, ("front", "right", "left"))
    for z in (0.93, 1.7, 2.12):
        m.box((0.0, 0.0, z), (1.2, 0.05, 0.05), white)
    m.move_to((0.0, 0.0, 0.0))
    _on_wall(m, wall, left + 0.6, 0.885, 1.3, 0.03, 0.12, white, bottom=True)


def _on_wall(
    m: MeshBuilder,
    wall: Wall,
    s: float,
    z: float,
    width: float,
    height: float,
    thickness: float,
    skins: Skin | dict[str, Skin],
    *,
    bottom: bool = False,
) -> None:
    """Put a flat box on a wall, centred at ``s`` along it and at height ``z``."""
    m.move_to(wall.corner + s * wall.right, (float(wall.right[0]), float(wall.right[1])))
    faces = ("front", "right", "left", "top", *(("bottom",) if bottom or z - height / 2 > 0.3 else ()))
    m.box((0.0, -thickness / 2, z), (width, thickness, height), skins, faces)
    m.move_to((0.0, 0.0, 0.0))


def _hang_pictures(
    m: MeshBuilder, skin: Wardrobe, walls: list[Wall], holes: list[tuple[Wall, float]], rng: np.random.Generator
) -> None:
    """Posters, pictures, clocks and shelves where walls are free at eye height."""
    clocks = 1
    for wall in walls:
        for _ in range(int(3 * wall.length)):
            kind = "poster" if rng.random() < 0.5 else "painting"
            width, height = (
                (rng.uniform(0.45, 0.75), rng.uniform(0.6, 0.95))
                if kind == "poster"
                else (rng.uniform(0.4, 0.95), rng.uniform(0.35, 0.65))
            )
            if clocks and rng.random() < 0.12:
                kind, width, height = "clock", 0.32, 0.32
            s, z = rng.uniform(0.2 + width / 2, wall.length - 0.2 - width / 2), rng.uniform(1.35, 1.75)
            low = z - height / 2 - 0.05
            if wall.free(s - width / 2 - 0.05, s + width / 2 + 0.05, low):
                thickness = 0.006 if kind == "poster" else 0.03
                skins = {"front": skin.part(kind, (0, 0, 1, 1)), "other": skin("dark")}
                _on_wall(m, wall, s, z, width, height, thickness, skins)
                wall.taken.append((s - width / 2 - 0.1, s + width / 2 + 0.1, np.inf))
                clocks -= kind == "clock"


def _lay_rug(m: MeshBuilder, skin: Wardrobe, extent: Extent, rng: np.random.Generator) -> None:
    if rng.random() < 0.75:
        wide = min(rng.uniform(1.6, 2.4), 0.6 * (extent.x1 - extent.x0))
        deep = min(rng.uniform(1.2, 1.8), 0.6 * (extent.y1 - extent.y0))
        x = (extent.x0 + extent.x1) / 2 + rng.uniform(-0.3, 0.3)
        y = (extent.y0 + extent.y1) / 2 + rng.uniform(-0.3, 0.3)
        m.box((x, y, 0.005), (wide, deep, 0.01), skin.part("rug", (0, 0, 1, 1)))


def _hang_lamps(m: MeshBuilder, skin: Wardrobe, extent: Extent, rng: np.random.Generator) -> list[Lamp]:
    lamps = []
    along = max(1, round((extent.x1 - extent.x0) / 3.2))
    across = max(1, round((extent.y1 - extent.y0) / 3.2))
    for i in range(along):
        for j in range(across):
            x = extent.x0 + (i + 0.5 + rng.uniform(-0.1, 0.1)) * (extent.x1 - extent.x0) / along
            y = extent.y0 + (j + 0.5 + rng.uniform(-0.1, 0.1)) * (extent.y1 - extent.y0) / across
            m.cylinder((x, y, extent.height - 0.07), 0.17, 0.068, skin("white", glow=1.5), sides=20)
            m.rectangle(
                (x - 0.12, y + 0.12, extent.height - 0.071), (0.24, 0, 0), (0, -0.24, 0), skin("white", glow=1.5)
            )
            lamps.append(Lamp((x, y, extent.height - 0.12), rng.uniform(0.75, 1.05), 0.12, 2.2))
    return lamps

"""Pieces of furniture, built from boxes and cylinders.

Local frame of a piece: x to its right, y to its back, z up, origin on the floor below its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from da3_ros.sources.world.light import Lamp
from da3_ros.sources.world.mesh import MeshBuilder, Skin
from da3_ros.sources.world.textures import Texture


class Wardrobe:
    """Hands out skins of the painted textures."""

    def __init__(self, textures: dict[str, list[Texture]], rng: np.random.Generator) -> None:
        self._rng = rng
        self.images = [texture.image for kind in textures.values() for texture in kind]
        self._tiles = [texture.tile for kind in textures.values() for texture in kind]
        self._indices: dict[str, list[int]] = {}
        for kind, members in textures.items():
            first = sum(map(len, self._indices.values()))
            self._indices[kind] = list(range(first, first + len(members)))

    def __call__(self, kind: str, number: int | None = None, glow: float = 0.0) -> Skin:
        """Return a skin of a kind: a random member at a random shift, or member ``number`` (modulo how many are)."""
        members = self._indices[kind]
        index = members[int(self._rng.integers(len(members))) if number is None else number % len(members)]
        shift = (float(self._rng.random()), float(self._rng.random()))
        return Skin(index, self._tiles[index], offset=shift, glow=glow)

    def part(self, kind: str, part: tuple[float, float, float, float]) -> Skin:
        """Return a skin that stretches a part of a random member over its surface."""
        members = self._indices[kind]
        return Skin(members[int(self._rng.integers(len(members)))], None, part)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of furniture before it is placed."""

    name: str
    size: tuple[float, float, float]  # width, depth, height of the box that holds it, m
    build: Callable[[MeshBuilder, Wardrobe, np.random.Generator], None]  # draws it in the builder's local frame
    lamp: Lamp | None = None  # in the local frame


def bookshelf(rng: np.random.Generator) -> Piece:
    """Shelves full of books."""
    w, d, h = rng.uniform(0.8, 1.3), rng.uniform(0.26, 0.32), rng.uniform(1.1, 2.05)

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        wood, t = skin("wood"), 0.025
        m.rectangle((-w / 2, d / 2 - 0.01, 0), (w, 0, 0), (0, 0, h), wood)
        for x in (-w / 2 + t / 2, w / 2 - t / 2):
            m.box((x, 0, h / 2), (t, d, h), wood)
        boards = np.linspace(0.08, h - t / 2, max(3, round(h / 0.36)))
        for z in boards:
            m.box((0, 0, z), (w - 2 * t, d, t), wood, ("front", "top", "bottom"))
        for z, z_next in pairwise(boards):
            _row_of_books(m, skin, rng, -w / 2 + t + 0.01, w / 2 - t - 0.01, -d / 2 + 0.02, z + t / 2, z_next - z - t)
        if rng.random() < 0.6 and h < 1.7:
            _knick_knack(m, skin, rng, (rng.uniform(-0.25, 0.25) * w, 0.0, h), 0.2)

    return Piece("bookshelf", (w, d, h + (0.25 if h < 1.7 else 0.0)), build)


def desk(rng: np.random.Generator) -> Piece:
    """A desk with a monitor, papers, a mug and a lamp."""
    w, d, h = rng.uniform(1.2, 1.6), rng.uniform(0.6, 0.75), 0.74

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        wood = skin("wood")
        m.box((0, 0, h - 0.02), (w, d, 0.04), wood, _ALL)
        for x in (-w / 2 + 0.04, w / 2 - 0.04):
            m.box((x, 0, (h - 0.04) / 2), (0.05, d - 0.06, h - 0.04), skin("paint", 1))
        m.box((w / 2 - 0.28, 0.02, 0.36), (0.4, d - 0.12, 0.5), wood, _ALL)
        for z in (0.22, 0.37, 0.52):
            m.box((w / 2 - 0.28, -d / 2 + 0.075, z), (0.37, 0.012, 0.13), skin("wood"))
            m.box((w / 2 - 0.28, -d / 2 + 0.06, z), (0.10, 0.02, 0.015), skin("dark"))
        x = rng.uniform(-0.2, 0.1)
        m.box(
            (x, d / 2 - 0.16, h + 0.29),
            (0.56, 0.035, 0.34),
            {"front": skin.part("screen", (0, 0, 1, 1)), "other": skin("dark")},
            _ALL,
        )
        m.box((x, d / 2 - 0.15, h + 0.07), (0.05, 0.03, 0.14), skin("dark"))
        m.box((x, d / 2 - 0.16, h + 0.006), (0.24, 0.16, 0.012), skin("dark"))
        m.box((x, -0.1, h + 0.01), (0.42, 0.14, 0.02), skin("dark"))
        for row in range(4):
            for key in range(12):
                m.box(
                    (x - 0.19 + 0.0345 * key, -0.055 - 0.03 * row, h + 0.023),
                    (0.026, 0.023, 0.008),
                    skin("white"),
                    ("front", "top"),
                )
        for _ in range(4):
            u, v = rng.uniform(-w / 2 + 0.2, w / 2 - 0.2), rng.uniform(-d / 2 + 0.14, -0.02)
            m.rectangle(
                (u, v, h + 0.004 + 0.002 * rng.random()),
                (0.20, 0.03, 0),
                (-0.03, 0.20, 0),
                skin.part("poster", (0, 0, 1, 1)),
            )
        _mug(m, skin, (-w / 2 + 0.15, 0.0, h))
        _row_of_books(m, skin, rng, -w / 2 + 0.05, -w / 2 + 0.32, d / 2 - 0.24, h, 0.3)

    return Piece("desk", (w, d, h + 0.48), build)


def table(rng: np.random.Generator) -> Piece:
    """A dining table with chairs on its long sides."""
    w, d, h = rng.uniform(1.1, 1.6), rng.uniform(0.7, 0.85), 0.75

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        wood = skin("wood")
        m.box((0, 0, h - 0.02), (w, d, 0.04), wood, _ALL)
        m.box((0, 0, h - 0.08), (w - 0.16, d - 0.16, 0.08), wood, _ALL)
        for x in (-w / 2 + 0.06, w / 2 - 0.06):
            for y in (-d / 2 + 0.06, d / 2 - 0.06):
                m.box((x, y, h / 2 - 0.02), (0.06, 0.06, h - 0.04), wood)
        m.rectangle((-0.22 * w, -0.16, h + 0.003), (0.44 * w, 0, 0), (0, 0.32, 0), skin("cloth"))
        for _ in range(int(rng.integers(2, 5))):
            at = (rng.uniform(-0.42, 0.42) * w, rng.uniform(-0.36, 0.36) * d, h)
            _mug(m, skin, at) if rng.random() < 0.4 else _knick_knack(m, skin, rng, at, 0.12)
        for x in np.linspace(-w / 4, w / 4, 2):
            _chair_parts(m, skin, x, -d / 2 - 0.12, 1.0)
            _chair_parts(m, skin, x, d / 2 + 0.12, -1.0)

    return Piece("table", (w, d + 0.75, 1.05), build)


def chair(rng: np.random.Generator) -> Piece:
    """A lone chair."""

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        _chair_parts(m, skin, 0.0, 0.0, -1.0)

    return Piece("chair", (0.46, 0.48, 0.93), build)


def sofa(rng: np.random.Generator) -> Piece:
    """A sofa with cushions."""
    w, d = rng.uniform(1.5, 2.1), 0.85

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        cloth = skin("cloth")
        m.box((0, 0, 0.24), (w, d, 0.30), cloth, _ALL)
        m.box((0, d / 2 - 0.11, 0.58), (w, 0.22, 0.42), cloth)
        for x in (-w / 2 + 0.09, w / 2 - 0.09):
            m.box((x, -0.02, 0.47), (0.18, d - 0.04, 0.2), cloth)
        seats = 2 if w < 1.8 else 3
        inner = w - 0.4
        for k in range(seats):
            x = -inner / 2 + (k + 0.5) * inner / seats
            m.box((x, -0.11, 0.45), (inner / seats - 0.02, d - 0.24, 0.13), cloth)
            if rng.random() < 0.75:
                pillow = skin("cloth") if rng.random() < 0.5 else skin.part("rug", (0.2, 0.2, 0.8, 0.8))
                m.box((x + rng.uniform(-0.08, 0.08), d / 2 - 0.29, 0.69), (0.4, 0.12, 0.36), pillow)
        for x in (-w / 2 + 0.08, w / 2 - 0.08):
            for y in (-d / 2 + 0.08, d / 2 - 0.08):
                m.cylinder((x, y, 0), 0.025, 0.09, skin("dark"), sides=8)

    return Piece("sofa", (w, d, 0.9), build)


def cabinet(rng: np.random.Generator) -> Piece:
    """A sideboard with doors and things on top."""
    w, d, h = rng.uniform(0.9, 1.6), rng.uniform(0.38, 0.45), rng.uniform(0.65, 0.95)

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        body = skin("wood") if rng.random() < 0.6 else skin("paint")
        m.box((0, 0, h / 2 + 0.03), (w, d, h - 0.06), body, _ALL)
        n = max(2, round(w / 0.45))
        for k in range(n):
            x = -w / 2 + (k + 0.5) * w / n
            m.box((x, -d / 2 - 0.008, h / 2 + 0.03), (w / n - 0.015, 0.018, h - 0.09), body)
            m.box(
                (x + (0.36 if k % 2 == 0 else -0.36) * w / n, -d / 2 - 0.025, h * 0.55),
                (0.015, 0.025, 0.12),
                skin("dark"),
            )
        for x in np.linspace(-0.38, 0.38, 3) * w:
            if rng.random() < 0.85:
                _knick_knack(m, skin, rng, (x, 0.0, h), 0.3)

    return Piece("cabinet", (w, d + 0.08, h + 0.45), build)


def wardrobe(rng: np.random.Generator) -> Piece:
    """A tall wardrobe with two doors."""
    w, d, h = rng.uniform(0.9, 1.3), 0.56, rng.uniform(1.8, 2.05)

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        body = skin("wood") if rng.random() < 0.7 else skin("paint")
        m.box((0, 0.01, h / 2), (w, d - 0.02, h), body)
        for sign in (-1, 1):
            m.box((sign * w / 4, -d / 2 + 0.008, h / 2 + 0.02), (w / 2 - 0.012, 0.02, h - 0.1), body)
            m.box((sign * 0.05, -d / 2 - 0.012, h * 0.5), (0.018, 0.025, 0.2), skin("dark"))
        if rng.random() < 0.6:
            m.box((rng.uniform(-0.2, 0.2), 0.02, h + 0.14), (0.45, 0.36, 0.28), skin.part("cardboard", (0, 0, 1, 1)))

    return Piece("wardrobe", (w, d + 0.06, h + 0.28), build)


def boxes(rng: np.random.Generator) -> Piece:
    """A stack of parcels."""
    count = int(rng.integers(2, 4))

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        z = 0.0
        for k in range(count):
            w, d, h = rng.uniform(0.32, 0.5) - 0.05 * k, rng.uniform(0.3, 0.42) - 0.03 * k, rng.uniform(0.2, 0.36)
            m.box(
                (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), z + h / 2),
                (w, d, h),
                skin.part("cardboard", (0, 0, 1, 1)),
            )
            z += h

    return Piece("boxes", (0.58, 0.5, 0.36 * count), build)


def plant(rng: np.random.Generator) -> Piece:
    """A potted plant."""
    h = rng.uniform(0.9, 1.5)

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        m.cylinder((0, 0, 0), 0.13, 0.3, skin("paint"), top_radius=0.18, lid=skin("dark"))
        m.cylinder((0, 0, 0.28), 0.018, h - 0.5, skin("wood"), sides=8)
        leaf = skin.part("leaf", (0, 0, 1, 1))
        for k in range(44):
            turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 1.1)
            length, wide = rng.uniform(0.13, 0.24), rng.uniform(0.05, 0.09)
            along = length * np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)])
            side = wide * np.array([-np.sin(turn), np.cos(turn), 0.25])
            z = 0.4 + (h - 0.75) * (k / 44)
            m.rectangle(0.03 * along / length + (0, 0, z) + side / 2, -side, along, leaf)

    return Piece("plant", (0.56, 0.56, h + 0.05), build)


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A lamp on a pole."""
    h = rng.uniform(1.4, 1.75)

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        m.cylinder((0, 0, 0), 0.15, 0.03, skin("dark"), lid=skin("dark"))
        m.cylinder((0, 0, 0.03), 0.014, h - 0.3, skin("dark"), sides=8)
        m.cylinder((0, 0, h - 0.3), 0.2, 0.3, skin("cloth", glow=1.25), top_radius=0.13)

    return Piece("floor lamp", (0.42, 0.42, h + 0.02), build, Lamp((0.0, 0.0, h + 0.1), 0.55, 0.05, 1.2))


def television(rng: np.random.Generator) -> Piece:
    """A low board with a television on it."""
    w, d, h = rng.uniform(1.2, 1.6), 0.4, 0.48

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        wood = skin("wood")
        m.box((0, 0, h / 2), (w, d, h), wood)
        for k in range(3):
            m.box((-w / 3 + k * w / 3, -d / 2 - 0.006, h / 2), (w / 3 - 0.02, 0.015, h - 0.06), skin("paint", 0))
        screen = skin.part("screen" if rng.random() < 0.5 else "painting", (0.14, 0.14, 0.86, 0.86))
        m.box((0, 0.06, h + 0.40), (1.05, 0.05, 0.62), {"front": screen, "other": skin("dark")}, _ALL)
        m.box((0, 0.06, h + 0.05), (0.3, 0.16, 0.1), skin("dark"))
        _knick_knack(m, skin, rng, (-w / 2 + 0.1, -0.05, h), 0.18)

    return Piece("television", (w, d + 0.04, h + 0.73), build)


def bed(rng: np.random.Generator) -> Piece:
    """A bed with its head at the wall."""
    w, d = rng.uniform(1.0, 1.5), 2.0

    def build(m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator) -> None:
        wood, blanket = skin("wood"), skin("cloth")
        m.box((0, 0, 0.18), (w, d, 0.2), wood, _ALL)
        m.box((0, d / 2 - 0.03, 0.5), (w, 0.06, 0.9), wood)
        m.box((0, -0.03, 0.38), (w - 0.06, d - 0.1, 0.2), skin("white"))
        m.box((0, -0.3, 0.41), (w - 0.02, d - 0.66, 0.2), blanket)
        for x in (-w / 4, w / 4):
            m.box((x, d / 2 - 0.3, 0.54), (w / 2 - 0.1, 0.34, 0.13), skin("cloth"))

    return Piece("bed", (w, d, 0.97), build)


AT_WALLS: tuple[Callable[[np.random.Generator], Piece], ...] = (
    bookshelf,
    desk,
    sofa,
    cabinet,
    television,
    bookshelf,
    wardrobe,
    cabinet,
    desk,
    bed,
)
SMALL: tuple[Callable[[np.random.Generator], Piece], ...] = (plant, boxes, chair, floor_lamp, boxes, plant)

_ALL = ("front", "right", "back", "left", "top", "bottom")


def _row_of_books(
    m: MeshBuilder,
    skin: Wardrobe,
    rng: np.random.Generator,
    left: float,
    right: float,
    front: float,
    bottom: float,
    room: float,
) -> None:
    """Fill a board from left to right: runs of books, now and then a gap or an object."""
    x = left + rng.uniform(0, 0.04)
    tall = min(room - 0.02, 0.30)
    while x < right - 0.09:
        if rng.random() < 0.10:
            if rng.random() < 0.5 and x < right - 0.2:
                _knick_knack(m, skin, rng, (x + 0.09, front + 0.09, bottom), min(0.2, room - 0.03))
            x += rng.uniform(0.1, 0.2)
            continue
        count = int(rng.integers(1, 5))
        thick = rng.uniform(0.022, 0.034)
        wide = min(count * thick, right - x)
        first = int(rng.integers(0, 17 - count))
        height, depth = tall * rng.uniform(0.68, 0.98), rng.uniform(0.13, 0.2)
        spines = skin.part("books", (first / 16, 0.0, (first + count) / 16, 1.0))
        m.box(
            (x + wide / 2, front + depth / 2 + rng.uniform(0, 0.02), bottom + height / 2),
            (wide - 0.002, depth, height),
            {"front": spines, "top": skin("white"), "other": spines},
            ("front", "right", "left", "top"),
        )
        x += wide


def _mug(m: MeshBuilder, skin: Wardrobe, base: tuple[float, float, float]) -> None:
    m.cylinder(base, 0.04, 0.095, skin("paint"), lid=skin("dark"), sides=14)


def _knick_knack(
    m: MeshBuilder, skin: Wardrobe, rng: np.random.Generator, base: tuple[float, float, float], height: float
) -> None:
    """Put a small thing on ``base``: a vase, a ball, a framed picture, a box or a pile of books."""
    x, y, z = base
    kind = int(rng.integers(5))
    h = height * rng.uniform(0.7, 1.0)
    if kind == 0:
        m.cylinder(base, 0.22 * h, 0.6 * h, skin("paint"), top_radius=0.34 * h)
        m.cylinder((x, y, z + 0.6 * h), 0.34 * h, 0.4 * h, skin("paint"), top_radius=0.16 * h, lid=skin("dark"))
    elif kind == 1:
        r = min(0.45 * h, 0.11)
        m.sphere((x, y, z + r), r, skin.part("rug", (0, 0, 1, 1)))
    elif kind == 2:
        m.box(
            (x, y, z + h / 2),
            (0.75 * h, 0.02, h),
            {"front": skin.part("painting", (0, 0, 1, 1)), "other": skin("dark")},
        )
    elif kind == 3:
        m.box((x, y, z + 0.3 * h), (0.7 * h, 0.5 * h, 0.6 * h), skin.part("cardboard", (0.1, 0.1, 0.9, 0.9)))
    else:
        for k in range(max(1, int(h / 0.04))):
            wide = rng.uniform(0.17, 0.22)
            spine = int(rng.integers(16))
            cover = skin.part("books", (spine / 16, 0, (spine + 1) / 16, 1))
            m.box((x + rng.uniform(-0.01, 0.01), y, z + 0.02 + 0.04 * k), (wide, 0.14, 0.038), cover)


def _chair_parts(m: MeshBuilder, skin: Wardrobe, x: float, y: float, facing: float) -> None:
    """A chair at (x, y) whose sitter looks to +y when ``facing`` is 1, to -y when it is -1."""
    wood = skin("wood", 0)
    m.box((x, y, 0.45), (0.42, 0.42, 0.035), wood, _ALL)
    m.box((x, y, 0.478), (0.38, 0.38, 0.025), skin("cloth", 0))
    for u in (-0.185, 0.185):
        for v in (-0.185, 0.185):
            m.box((x + u, y + v, 0.22), (0.035, 0.035, 0.44), wood)
        m.box((x + u, y - facing * 0.19, 0.68), (0.035, 0.03, 0.46), wood, _ALL)
    for z in (0.62, 0.75, 0.87):
        m.box((x, y - facing * 0.19, z), (0.36, 0.02, 0.08), wood, _ALL)

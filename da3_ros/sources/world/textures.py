"""Procedural textures: brick, wood, tiles, carpet, wallpaper, cloth, posters, pictures, books, doors.

Every painter returns a SIZE x SIZE RGB image; those that repeat are periodic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.sources.world.noise import SIZE, Field, NoiseBank

T = TypeVar("T")
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]  # RGB, 0..255, as a camera would show it in plain light

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_WORDS = (
    "DEPTH",
    "NORTH",
    "Atlas",
    "Ocean",
    "2026",
    "Field",
    "Lamp",
    "River",
    "JAZZ",
    "Museum",
    "No. 7",
    "Stone",
    "Garden",
    "ORBIT",
    "Paper",
    "Winter",
    "MAP",
    "Bridge",
    "Echo",
    "Harbour",
    "Light",
    "Tea",
    "Sonata",
    "Oak",
)


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """A painted tile and how large it is in the room."""

    image: Image  # (SIZE, SIZE, 3) RGB
    tile: tuple[float, float] | None  # metres of one repeat; None: a picture, to be stretched over its surface


class Painter:
    """Paints textures with one random generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.noise = NoiseBank(rng)

    # --- walls and ceilings

    def plaster(self, colour: Colour, strength: float = 2.2) -> Texture:
        """Paint a nearly even wall: poor in features, as real ones are."""
        relief = strength * (0.8 * self.noise("mid") + 0.7 * self.noise("fine") + 0.9 * self.noise("cloud"))
        return Texture(_tinted(colour, relief), (1.6, 1.6))

    def bricks(self) -> Texture:
        """Paint a running bond."""
        columns, rows = 5, 16
        base = np.array(self._pick([(150, 84, 66), (172, 120, 92), (128, 118, 112), (190, 176, 160)]), np.float32)
        y, x = _grid(rows)[0], _grid(columns)[1]
        row = np.floor(y).astype(int)
        shifted = ((x + 0.5 * (row % 2)) % columns).astype(np.float32)
        column = np.floor(shifted).astype(int)
        tone = self.rng.normal(0, 14, (rows, columns)).astype(np.float32)[row, column]
        hue = self.rng.normal(0, 5, (rows, columns, 3)).astype(np.float32)[row, column]
        relief = 7 * self.noise("mid") + 6 * self.noise("fine") + 5 * self.noise("fractal")
        brick = base + hue + (tone + relief)[..., None]
        joint = _groove(shifted, 0.035) * _groove(y, 0.10)
        mortar = np.float32(170) + 7 * self.noise("fine") + 4 * self.noise("mid")
        return Texture(_bytes(joint[..., None] * brick + (1 - joint[..., None]) * mortar[..., None]), (1.2, 1.2))

    def wallpaper(self) -> Texture:
        """Paint a motif on a half-drop lattice over faint stripes."""
        ground = self._pick([(214, 206, 186), (186, 200, 206), (206, 190, 184), (196, 208, 186), (120, 138, 150)])
        ink = _scaled(ground, self.rng.uniform(0.62, 0.78))
        accent = self._pick([(176, 96, 84), (90, 120, 150), (176, 146, 80), (96, 130, 96)])
        n = int(self._pick([4, 6]))  # even, so that a half drop repeats
        step = SIZE / n
        stripes = 3.5 * np.sign(np.sin(2 * np.pi * 2 * n * np.arange(SIZE, dtype=np.float32) / SIZE))
        canvas = _bytes(np.array(ground, np.float32) + np.tile(stripes[None, :, None], (SIZE, 1, 1)))
        petals = int(self.rng.integers(4, 8))
        for i in range(-1, n + 1):
            for j in range(-1, n + 1):
                cx, cy = (i + 0.5) * step, (j + 0.5 + 0.5 * (i % 2)) * step
                self._flower(canvas, cx, cy, step * 0.27, petals, ink, accent)
        relief = 1.5 * self.noise("fine") + 2 * self.noise("cloud")
        return Texture(_bytes(canvas + relief[..., None]), (1.5, 1.5))

    def panelling(self) -> Texture:
        """Paint upright wooden boards."""
        return Texture(self._boards(self._pick(_WOODS), 6, 1), (0.9, 1.8))

    def ceiling_panels(self) -> Texture:
        """Paint speckled acoustic tiles, 2 x 2 of 60 cm."""
        y, x = _grid(2)
        speckle = np.where(self.noise("fine") + 0.5 * self.noise("mid") > 1.75, -52.0, 0.0).astype(np.float32)
        seam = _groove(x, 0.012) * _groove(y, 0.012)
        value = (226 + cv2.GaussianBlur(speckle, (3, 3), 0.8) + 2 * self.noise("cloud")) * (0.72 + 0.28 * seam)
        return Texture(_tinted((0, 0, 0), value), (1.2, 1.2))

    # --- floors

    def floorboards(self) -> Texture:
        """Paint staggered planks."""
        return Texture(self._boards(self._pick(_WOODS), 8, 3), (1.1, 1.6))

    def tiles(self, size: float = 0.3) -> Texture:
        """Paint square tiles with grout, some with an ornament."""
        n = int(self._pick([3, 4, 5]))
        y, x = _grid(n)
        i, j = np.floor(y).astype(int), np.floor(x).astype(int)
        first = np.array(self._pick([(196, 186, 170), (150, 150, 152), (176, 120, 92), (214, 212, 204)]), np.float32)
        second = first * self.rng.uniform(0.55, 1.0)
        checker = (i + j) % 2 if n % 2 == 0 else np.zeros_like(i)
        tone = self.rng.normal(0, 7, (n, n)).astype(np.float32)[i, j]
        body = np.where(checker[..., None] == 1, second, first) + tone[..., None]
        relief = 4 * self.noise("fractal") + 2.5 * self.noise("fine") + 3 * self.noise("mid")
        u, v = x % 1 - 0.5, y % 1 - 0.5
        if self.rng.random() < 0.5:
            ornament = np.abs(np.abs(u) + np.abs(v) - 0.33) < 0.035
            ornament |= np.hypot(u, v) < 0.10
            body = body - 38 * ornament[..., None].astype(np.float32)
        grout = _groove(x, 0.015) * _groove(y, 0.015)
        image = grout[..., None] * (body + relief[..., None]) + (1 - grout[..., None]) * 112
        return Texture(_bytes(image), (size * n, size * n))

    def carpet(self) -> Texture:
        """Paint a speckled pile, sometimes with a pattern of dots."""
        base = np.array(self._pick([(112, 108, 116), (98, 116, 132), (140, 118, 96), (120, 128, 106)]), np.float32)
        relief = 11 * self.noise("fine") + 5 * self.noise("mid") + 4 * self.noise("cloud")
        image = base + relief[..., None]
        if self.rng.random() < 0.6:
            y, x = _grid(int(self.rng.integers(6, 10)))
            dots = np.hypot(x % 1 - 0.5, (y + 0.5 * (np.floor(x) % 2)) % 1 - 0.5) < 0.17
            image = image + np.array(self.rng.uniform(-38, 38, 3), np.float32) * dots[..., None]
        return Texture(_bytes(image), (1.1, 1.1))

    def rug(self) -> Texture:
        """Paint a knotted rug with borders and diamonds; not periodic."""
        hues = [(130, 44, 42), (38, 52, 84), (190, 160, 110), (70, 84, 62), (214, 200, 170), (96, 60, 44)]
        self.rng.shuffle(hues)
        canvas = np.full((SIZE, SIZE, 3), hues[0], np.uint8)
        for k, inset in enumerate((0, 22, 40, 70, 82)):
            cv2.rectangle(canvas, (inset, inset), (SIZE - 1 - inset, SIZE - 1 - inset), hues[k % 5], -1)
        y, x = (np.mgrid[0:SIZE, 0:SIZE] / SIZE).astype(np.float32)
        inner = (np.minimum(x, y) > 0.17) & (np.maximum(x, y) < 0.83)
        n = int(self.rng.integers(4, 8))
        diamond = np.abs((x * n) % 1 - 0.5) + np.abs((y * n) % 1 - 0.5)
        for limit, hue in ((0.46, hues[5]), (0.34, hues[2]), (0.18, hues[1])):
            canvas[inner & (diamond < limit)] = hue
        knots = (np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) - 0.11).astype(np.float32)
        border = (np.abs(knots) < 0.022) & ((((x + y) * 22) % 1) < 0.5)
        canvas[border] = hues[4]
        relief = 8 * self.noise("fine") + 4 * self.noise("mid")
        return Texture(_bytes(canvas + relief[..., None]), None)

    # --- furniture

    def wood(self, colour: Colour | None = None) -> Texture:
        """Paint veneer whose fibres run up the texture."""
        return Texture(self._boards(colour or self._pick(_WOODS), 1, 1), (0.9, 1.3))

    def cloth(self) -> Texture:
        """Paint a woven cloth, plain, striped or checked."""
        base = np.array(self._pick(_CLOTHS), np.float32)
        y, x = np.mgrid[0:SIZE, 0:SIZE] * (2 * np.pi / SIZE)
        weave = 3.5 * (np.sin(128 * x) + np.sin(128 * y)) + 7 * self.noise("fine") + 4 * self.noise("mid")
        image = base + weave.astype(np.float32)[..., None]
        style = self.rng.random()
        n, second = int(self.rng.integers(5, 10)), np.array(self._pick(_CLOTHS), np.float32)
        if style < 0.35:
            image += 0.35 * (second - base) * (np.sin(n * x) > 0.4)[..., None]
        elif style < 0.65:
            image += (
                0.30 * (second - base) * ((np.sin(n * x) > 0.2)[..., None] * 1.0 + (np.sin(n * y) > 0.2)[..., None])
            )
        return Texture(_bytes(image), (0.7, 0.7))

    def paint(self, colour: Colour) -> Texture:
        """Paint a lacquered surface with a little wear."""
        wear = np.where(self.noise("fractal") > 2.3, -22.0, 0.0).astype(np.float32)
        return Texture(_tinted(colour, 1.5 * self.noise("cloud") + 1.2 * self.noise("fine") + wear), (1.0, 1.0))

    def cardboard(self) -> Texture:
        """Paint a packed parcel: tape, a label, symbols; not periodic."""
        relief = 5 * self.noise("fine") + 4 * self.noise("cloud") + 2 * np.sin(np.arange(SIZE, dtype=np.float32) * 0.9)
        canvas = _tinted((178, 140, 98), relief)
        middle = int(self.rng.uniform(0.4, 0.6) * SIZE)
        cv2.rectangle(canvas, (middle - 34, 0), (middle + 34, SIZE), (200, 172, 128), -1)
        left, top = (int(v) for v in self.rng.uniform(30, 150, 2))
        cv2.rectangle(canvas, (left, top), (left + 230, top + 150), (236, 234, 226), -1)
        self._lines_of_text(canvas, left + 14, top + 34, 4, 0.7, (40, 40, 44), 200)
        for bar in range(30):
            x = left + 14 + bar * 6
            cv2.rectangle(canvas, (x, top + 118), (x + int(self.rng.integers(1, 4)), top + 142), (20, 20, 20), -1)
        cv2.putText(
            canvas,
            self._pick(_WORDS),
            (int(self.rng.uniform(30, 200)), 440),
            _FONTS[2],
            2.4,
            (70, 52, 40),
            5,
            cv2.LINE_AA,
        )
        return Texture(canvas, None)

    def leaf(self) -> Texture:
        """Paint foliage."""
        base = np.array(self._pick([(62, 104, 50), (84, 122, 62), (52, 88, 66)]), np.float32)
        y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
        veins = (np.abs(x) < 0.02) | (np.abs((np.abs(x) * 1.3 + y) * 9 % 1 - 0.5) < 0.06)
        relief = 12 * self.noise("mid") + 8 * self.noise("fractal") + 5 * self.noise("fine")
        return Texture(_bytes(base + relief[..., None] + 34.0 * veins[..., None]), None)

    def screen(self) -> Texture:
        """Paint a monitor showing windows of text."""
        canvas = _tinted(self._pick([(34, 46, 70), (24, 60, 66), (60, 44, 70)]), 10 * self.noise("cloud"))
        for _ in range(3):
            left, top = (int(v) for v in self.rng.uniform(20, 220, 2))
            right, bottom = left + int(self.rng.uniform(160, 270)), top + int(self.rng.uniform(140, 250))
            paper = self._pick([(238, 238, 240), (40, 42, 48), (250, 246, 230)])
            cv2.rectangle(canvas, (left, top), (right, bottom), paper, -1)
            cv2.rectangle(canvas, (left, top), (right, top + 22), (96, 110, 150), -1)
            for y in range(top + 34, bottom - 6, 12):
                end = left + 10 + int(self.rng.uniform(30, right - left - 20))
                cv2.line(canvas, (left + 10, y), (end, y), self._vivid(), 3)
        return Texture(canvas, None)

    def door(self) -> Texture:
        """Paint a panelled door with a handle."""
        base = self._pick([*_WOODS, (222, 220, 212), (206, 208, 206)])
        canvas = self._boards(base, 1, 1) if max(base) < 200 else self.paint(base).image.copy()
        for left, top, right, bottom in (
            (60, 40, 236, 220),
            (276, 40, 452, 220),
            (60, 270, 236, 470),
            (276, 270, 452, 470),
        ):
            cv2.rectangle(canvas, (left, top), (right, bottom), _scaled(base, 0.62), 6)
            cv2.line(canvas, (left + 8, bottom - 6), (right - 6, bottom - 6), _scaled(base, 1.15), 4)
        cv2.rectangle(canvas, (462, 238), (494, 290), (150, 146, 136), -1)
        cv2.rectangle(canvas, (430, 256), (486, 264), (70, 68, 66), -1)
        return Texture(canvas, None)

    # --- what hangs on walls and stands in shelves

    def poster(self) -> Texture:
        """Paint a printed poster: shapes, headline, small print."""
        light, dark = self._vivid(150, 250), self._vivid(20, 120)
        ramp = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
        blend = ramp * np.array(light, np.float32) + (1 - ramp) * np.array(dark, np.float32)
        canvas = np.tile(_bytes(blend), (1, SIZE, 1))
        for _ in range(int(self.rng.integers(9, 18))):
            x, y, r = (int(v) for v in self.rng.uniform((30, 90, 12), (480, 420, 85)))
            kind = self.rng.random()
            if kind < 0.35:
                cv2.circle(canvas, (x, y), r, self._vivid(), -1, cv2.LINE_AA)
            elif kind < 0.6:
                cv2.ellipse(
                    canvas,
                    (x, y),
                    (r, max(5, r // 3)),
                    float(self.rng.uniform(0, 180)),
                    0,
                    360,
                    self._vivid(),
                    -1,
                    cv2.LINE_AA,
                )
            elif kind < 0.85:
                turn = np.sort(self.rng.uniform(0, 2 * np.pi, int(self.rng.integers(3, 6))))
                corners = np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], 1).astype(np.int32)
                cv2.fillPoly(canvas, [corners], self._vivid(), cv2.LINE_AA)
            else:
                cv2.rectangle(canvas, (x - r, y - r // 2), (x + r, y + r // 2), self._vivid(), 4)
        ink = self._pick([(250, 250, 246), (24, 24, 28), self._vivid()])
        cv2.putText(canvas, self._pick(_WORDS), (34, 80), _FONTS[1], 2.6, ink, 7, cv2.LINE_AA)
        self._lines_of_text(canvas, 36, 448, 3, 0.6, ink, 440)
        cv2.rectangle(canvas, (0, 0), (SIZE - 1, SIZE - 1), (236, 234, 228), 18)
        return Texture(_bytes(canvas + 2 * self.noise("fine")[..., None]), None)

    def painting(self) -> Texture:
        """Paint a landscape in a frame."""
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
        warm, cold = np.array(self._vivid(150, 240), np.float32), np.array(self._vivid(90, 200), np.float32)
        canvas = (1 - y[..., None]) * cold + y[..., None] * warm
        canvas = canvas + 12 * self.noise("cloud")[..., None]
        for k in range(4):
            level = 0.42 + 0.13 * k
            wave = sum(
                self.rng.normal(0, 0.06 / f) * np.sin(2 * np.pi * f * x[0] + self.rng.uniform(0, 6.3))
                for f in (1, 2, 3, 7)
            )
            hill = np.array(self._vivid(40, 170), np.float32) * (1 - 0.12 * k)
            texture = (13 * self.noise("mid") + 10 * self.noise("fractal"))[..., None]
            canvas = np.where((y > level + wave)[..., None], hill + texture, canvas).astype(np.float32)
        canvas = _bytes(canvas)
        for _ in range(int(self.rng.integers(6, 16))):
            tx, ty, r = (int(v) for v in self.rng.uniform((40, 240, 8), (470, 430, 34)))
            cv2.line(canvas, (tx, ty), (tx, ty + 2 * r), (60, 44, 34), max(2, r // 5))
            cv2.circle(canvas, (tx, ty), r, self._vivid(30, 130), -1, cv2.LINE_AA)
        frame = self._pick([(92, 66, 40), (40, 38, 36), (190, 160, 96)])
        cv2.rectangle(canvas, (0, 0), (SIZE - 1, SIZE - 1), frame, 60)
        cv2.rectangle(canvas, (31, 31), (SIZE - 32, SIZE - 32), (230, 226, 214), 10)
        return Texture(canvas, None)

    def books(self) -> Texture:
        """Paint 16 book spines side by side; spine k covers [k / 16, (k + 1) / 16] of the width."""
        canvas = np.empty((SIZE, SIZE, 3), np.float32)
        width = SIZE // 16
        for k in range(16):
            spine = np.full((width, SIZE, 3), self._vivid(30, 205), np.uint8)  # lying: text runs along it
            ink = self._pick([(240, 236, 220), (214, 180, 90), (20, 20, 24)])
            for band in self.rng.uniform(0.02, 0.98, int(self.rng.integers(1, 4))) * SIZE:
                cv2.rectangle(spine, (int(band), 0), (int(band) + int(self.rng.integers(4, 16)), width), ink, -1)
            title = f"{self._pick(_WORDS)} {self._pick(_WORDS)}"
            cv2.putText(spine, title, (int(self.rng.uniform(30, 120)), 23), _FONTS[1], 0.78, ink, 2, cv2.LINE_AA)
            shade = 1 - 0.45 * np.abs(np.linspace(-1, 1, width, dtype=np.float32)) ** 4
            canvas[:, k * width : (k + 1) * width] = (spine * shade[:, None, None]).transpose(1, 0, 2)[:, ::-1]
        return Texture(_bytes(canvas + 4 * self.noise("fine")[..., None]), None)

    def clock(self) -> Texture:
        """Paint a clock face."""
        canvas = np.full((SIZE, SIZE, 3), (238, 236, 230), np.uint8)
        for hour in range(12):
            turn = hour * np.pi / 6
            inner, outer = (np.array([np.sin(turn), -np.cos(turn)]) * r + 256 for r in (175, 215))
            cv2.line(canvas, tuple(map(int, inner)), tuple(map(int, outer)), (30, 30, 34), 12, cv2.LINE_AA)
        for turn, length, thick in zip(self.rng.uniform(0, 6.28, 2), (120, 180), (16, 9), strict=True):
            tip = (int(256 + length * np.sin(turn)), int(256 - length * np.cos(turn)))
            cv2.line(canvas, (256, 256), tip, (30, 30, 34), thick, cv2.LINE_AA)
        cv2.rectangle(canvas, (0, 0), (SIZE - 1, SIZE - 1), (60, 56, 52), 26)
        return Texture(canvas, None)

    # --- parts

    def _boards(self, colour: Colour, columns: int, lengths: int) -> Image:
        """Upright boards, each cut from another part of one grain field."""
        grain = self.noise.grain() + 0.35 * self.noise("cloud") + 0.15 * self.noise("fine")
        x = _grid(columns)[1]
        y = _grid(lengths)[0]
        column = np.floor(x).astype(int)
        phase = self.rng.random(columns) * lengths * (lengths > 1)
        y = (y + phase[column]) % lengths
        row = np.floor(y).astype(int)
        shift = self.rng.integers(0, SIZE, (lengths, columns))[row, column]
        if columns * lengths == 1:
            picked = grain
        else:
            rows, cols = np.mgrid[0:SIZE, 0:SIZE]
            picked = grain[(rows + shift) % SIZE, (cols + 7 * shift) % SIZE]
        tone = self.rng.normal(0, 0.07, (lengths, columns))[row, column] if columns > 1 else 0.0
        seam = _groove(x, 0.012) if columns > 1 else np.ones((SIZE, SIZE), np.float32)
        if lengths > 1:
            seam = seam * _groove(y, 0.006)
        value = (1 + tone + 0.095 * picked) * (0.45 + 0.55 * seam)
        return _bytes(np.array(colour, np.float32) * value[..., None])

    def _flower(self, canvas: Image, x: float, y: float, r: float, petals: int, ink: Colour, accent: Colour) -> None:
        for k in range(petals):
            turn = 2 * np.pi * k / petals
            center = (int(x + 0.55 * r * np.cos(turn)), int(y + 0.55 * r * np.sin(turn)))
            cv2.ellipse(canvas, center, (int(0.5 * r), int(0.2 * r)), np.degrees(turn), 0, 360, ink, -1, cv2.LINE_AA)
        cv2.circle(canvas, (int(x), int(y)), int(0.24 * r), accent, -1, cv2.LINE_AA)
        cv2.line(canvas, (int(x), int(y + r)), (int(x), int(y + 1.7 * r)), ink, 2, cv2.LINE_AA)

    def _lines_of_text(self, canvas: Image, x: int, y: int, lines: int, size: float, ink: Colour, width: int) -> None:
        for line in range(lines):
            text = " ".join(self._pick(_WORDS) for _ in range(max(2, width // 90)))
            cv2.putText(canvas, text, (x, y + int(line * 34 * size)), _FONTS[0], size, ink, 2, cv2.LINE_AA)

    def _vivid(self, low: float = 30, high: float = 240) -> Colour:
        """A random colour, less garish than its channels drawn apart."""
        grey = self.rng.uniform(low, high)
        r, g, b = 0.45 * grey + 0.55 * self.rng.uniform(low, high, 3)
        return float(r), float(g), float(b)

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]


_WOODS: list[Colour] = [(168, 124, 82), (132, 92, 60), (196, 160, 116), (108, 76, 54), (184, 142, 98)]
_CLOTHS: list[Colour] = [(116, 122, 134), (142, 98, 84), (92, 112, 100), (168, 154, 132), (84, 92, 124), (150, 132, 70)]


def _grid(n: int) -> tuple[Field, Field]:
    """Row and column coordinates that run from 0 to n over the tile."""
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) * (n / SIZE)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _groove(coordinate: Field, half_width: float) -> Field:
    """0 at whole numbers, 1 farther than ``half_width`` from them, soft between."""
    distance = np.abs(coordinate - np.round(coordinate))
    return np.clip(distance / half_width - 0.5, 0, 1).astype(np.float32)


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255.0, factor * c) for c in colour)
    return r, g, b


def _tinted(colour: Colour, relief: Field) -> Image:
    return _bytes(np.array(colour, np.float32) + relief[..., None])


def _bytes(image: NDArray[np.float32]) -> Image:
    return np.ascontiguousarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))


def paint_all(rng: np.random.Generator) -> dict[str, list[Texture]]:
    """Paint what a room needs, by kind."""
    p = Painter(rng)
    plain: list[Colour] = [(206, 202, 190), (190, 200, 202), (204, 190, 172), (188, 196, 178), (210, 210, 208)]
    lacquer: list[Colour] = [(206, 206, 202), (120, 132, 142), (70, 78, 88), (168, 92, 74), (92, 120, 112)]
    rng.shuffle(plain)
    rng.shuffle(lacquer)
    walls: list[Callable[[], Texture]] = [
        p.bricks,
        p.wallpaper,
        p.wallpaper,
        p.panelling,
        lambda: p.plaster(plain[0]),
        lambda: p.plaster(plain[1]),
    ]
    order = rng.permutation(len(walls))[:4]
    floors: list[Callable[[], Texture]] = [p.floorboards, p.tiles, p.carpet, p.floorboards]
    ceilings: list[Callable[[], Texture]] = [p.ceiling_panels, lambda: p.plaster((222, 222, 218), 2.0)]
    return {
        "wall": [walls[i]() for i in order],
        "floor": [floors[int(rng.integers(len(floors)))]()],
        "ceiling": [ceilings[int(rng.random() < 0.35)]()],
        "wood": [p.wood() for _ in range(2)],
        "cloth": [p.cloth() for _ in range(2)],
        "paint": [p.paint(colour) for colour in lacquer[:3]],
        "white": [p.paint((224, 222, 216))],
        "dark": [p.paint((46, 46, 50))],
        "cardboard": [p.cardboard() for _ in range(2)],
        "leaf": [p.leaf()],
        "screen": [p.screen()],
        "door": [p.door()],
        "poster": [p.poster() for _ in range(4)],
        "painting": [p.painting() for _ in range(2)],
        "books": [p.books() for _ in range(2)],
        "rug": [p.rug()],
        "clock": [p.clock()],
    }

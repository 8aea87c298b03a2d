"""objects: the things that move, as shaded pictures with soft edges.

A silhouette is drawn once a process at a high resolution; a clip's object is that silhouette in a colour, lit from the
upper left, with a soft shadow (or a glow where the scene is dark) in the same picture, so that a frame needs one paste.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIDE_PX = 192
"""Side of an object's picture; the silhouette itself fills `REACH` of half of it, the rest is for the shadow."""
REACH = 0.72
_OVERSAMPLE = 3

Point = tuple[float, float]
Draw = Callable[[ImageDraw.ImageDraw], None]


def sprite(name: str, colour: tuple[int, int, int], glow: bool, tilt_degrees: float) -> Image.Image:
    """The object as an RGBA picture of `SIDE_PX` squared.

    Args:
        name: one of `words.OBJECTS`.
        colour: sRGB.
        glow: surround it with its own light instead of a shadow.
        tilt_degrees: counter-clockwise.
    """
    mask, rim, around = _silhouette(name)
    light = _light()[..., None]
    base = np.asarray(colour, np.float32)
    shade = base * (0.62 + 0.38 * rim[..., None]) * (1.0 - 0.22 * np.maximum(-light, 0))
    lit = shade + (255.0 - shade) * (0.42 * np.maximum(light, 0) * rim[..., None])
    beneath = base * 0.9 + 25.0 if glow else np.zeros(3, np.float32)
    strength = 0.45 if glow else 0.38
    alpha = mask + around * strength * (1.0 - mask)
    cover = (mask / np.maximum(alpha, 1e-3))[..., None]
    pixels = np.concatenate([lit * cover + beneath * (1.0 - cover), 255.0 * alpha[..., None]], axis=-1)
    picture = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8), "RGBA")
    return picture.rotate(tilt_degrees, Image.Resampling.BILINEAR)


@lru_cache(maxsize=1)
def _light() -> NDArray[np.float32]:
    """[S, S] from -1 (lower right, in the dark) to 1 (upper left, in the light)."""
    axis = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)
    toward = -(axis[None, :] * 0.6 + axis[:, None] * 0.8) / REACH
    return np.clip(toward, -1, 1)


@lru_cache(maxsize=16)
def _silhouette(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Three [S, S] maps, 0 to 1: the silhouette, its inside away from the rim, and the shadow around it."""
    side = SIDE_PX * _OVERSAMPLE
    canvas = Image.new("L", (side, side), 0)
    _DRAWINGS[name](ImageDraw.Draw(canvas))
    mask = canvas.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    inside = mask.filter(ImageFilter.GaussianBlur(SIDE_PX / 30))
    around = mask.filter(ImageFilter.GaussianBlur(SIDE_PX / 20))
    shifted = Image.new("L", mask.size, 0)
    shifted.paste(around, (SIDE_PX // 32, SIDE_PX // 20))
    rim = np.clip(np.asarray(inside, np.float32) / 255.0 * 2.0 - 1.0, 0, 1)
    return np.asarray(mask, np.float32) / 255.0, rim, np.asarray(shifted, np.float32) / 255.0


def _at(x: float, y: float) -> Point:
    """A point of the drawing, from object units (-1 to 1, y down) to pixels of the oversampled canvas."""
    half = SIDE_PX * _OVERSAMPLE / 2
    return half + x * half * REACH, half + y * half * REACH


def _polygon(points: list[Point], fill: int = 255) -> Draw:
    return lambda draw: draw.polygon([_at(x, y) for x, y in points], fill=fill)


def _disc(x: float, y: float, radius: float, fill: int = 255) -> Draw:
    return lambda draw: draw.ellipse([_at(x - radius, y - radius), _at(x + radius, y + radius)], fill=fill)


def _all(*parts: Draw) -> Draw:
    def draw_all(draw: ImageDraw.ImageDraw) -> None:
        for part in parts:
            part(draw)

    return draw_all


def _round(corners: int, start: float, radius: Callable[[int], float]) -> list[Point]:
    steps = [(start + 2 * pi * k / corners, radius(k)) for k in range(corners)]
    return [(r * cos(angle), r * sin(angle)) for angle, r in steps]


def _heart() -> list[Point]:
    angles = np.linspace(0, 2 * pi, 120)
    x = np.sin(angles) ** 3
    y = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)) / 16
    return [(float(a), float(b) - 0.08) for a, b in zip(x, y, strict=True)]


def _flower() -> Draw:
    petals = [_disc(0.62 * cos(a), 0.62 * sin(a), 0.36) for a in np.linspace(0, 2 * pi, 6)[:5] - pi / 2]
    return _all(*petals, _disc(0, 0, 0.5), _disc(0, 0, 0.22, fill=70))


def _fish() -> Draw:
    """A fish that looks to the right."""
    body: Draw = lambda draw: draw.ellipse([_at(-0.55, -0.52), _at(1.0, 0.52)], fill=255)  # noqa: E731  # a `Draw` like its neighbours
    tail = _polygon([(-0.3, 0.0), (-1.0, -0.6), (-0.82, 0.0), (-1.0, 0.6)])
    fin = _polygon([(0.1, -0.4), (-0.3, -0.85), (0.5, -0.45)])
    return _all(tail, fin, body, _disc(0.62, -0.12, 0.11, fill=40))


_DRAWINGS: dict[str, Draw] = {
    "ball": _disc(0, 0, 0.92),
    "square": _polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
    "triangle": _polygon([(0, -0.95), (1.0, 0.78), (-1.0, 0.78)]),
    "star": _polygon(_round(10, -pi / 2, lambda k: 1.08 if k % 2 == 0 else 0.44)),
    "heart": _polygon(_heart()),
    "ring": _all(_disc(0, 0, 0.98), _disc(0, 0, 0.52, fill=0)),
    "cross": _all(
        _polygon([(-0.3, -0.98), (0.3, -0.98), (0.3, 0.98), (-0.3, 0.98)]),
        _polygon([(-0.98, -0.3), (0.98, -0.3), (0.98, 0.3), (-0.98, 0.3)]),
    ),
    "crescent": _all(_disc(0, 0, 1.0), _disc(0.46, -0.1, 0.82, fill=0)),
    "flower": _flower(),
    "fish": _fish(),
}

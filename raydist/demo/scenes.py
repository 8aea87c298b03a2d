"""scenes: the backgrounds, drawn anew for every clip: hills, stars, windows, dunes and bubbles never repeat.

A scene is a still picture and the moving things in front of it (flakes, bubbles, glitter, lights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raydist.demo import paint
from raydist.demo.paint import HEIGHT_PX, WIDTH_PX, Canvas, Dots
from raydist.demo.words import SCENES

DARK = frozenset({"night", "city", "underwater"})
"""Scenes in which an object glows instead of casting a shadow."""

Painted = tuple[Canvas, tuple[Dots, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The background of one clip."""

    still: Image.Image
    dots: tuple[Dots, ...] = ()

    def frame(self, at_s: float) -> Image.Image:
        """The background `at_s` seconds after the start, as a new picture."""
        frame = self.still.copy()
        for group in self.dots:
            group.paste(frame, at_s)
        return frame


def scene(name: str, rng: np.random.Generator) -> Scene:
    """A new background; `name` is one of `words.SCENES`."""
    assert name in SCENES, name
    canvas, dots = _PAINTERS[name](rng)
    exposure = rng.uniform(0.94, 1.06) * rng.uniform(0.98, 1.02, 3)
    grain = rng.standard_normal((HEIGHT_PX, WIDTH_PX, 1), np.float32)
    pixels = np.clip(canvas * exposure + grain, 0, 255).astype(np.uint8)
    return Scene(still=Image.fromarray(pixels, "RGB"), dots=dots)


def _night(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((8, 10, 34), (34, 38, 86))
    canvas += (paint.clouds(rng, 4)[..., None] - 0.35) * np.array([44, 36, 80], np.float32)
    paint.sprinkle(canvas, rng, 190, bottom=0.9)
    paint.below(canvas, paint.ridge(rng, 0.9, 0.05), (7, 9, 22), (3, 4, 12))
    bright = paint.stamp(7, (255, 250, 225), 1.0)
    twinkling = paint.dots(rng, paint.scatter(rng, 18, bottom=0.8), bright, twinkle_hz=rng.uniform(0.4, 0.8))
    return canvas, (twinkling, paint.dots(rng, paint.scatter(rng, 10, bottom=0.8), bright))


def _sunset(rng: np.random.Generator) -> Painted:
    row = int(rng.uniform(0.58, 0.68) * HEIGHT_PX)
    canvas = paint.gradient((72, 48, 120), (250, 150, 80), until=row / HEIGHT_PX)
    canvas[row:] = paint.gradient((196, 96, 74), (28, 34, 78), until=1 - row / HEIGHT_PX)[: HEIGHT_PX - row]
    x, y = paint.grid()
    sun_x, size = rng.uniform(0.15, 0.85) * WIDTH_PX, rng.uniform(20, 28)
    away = np.hypot(x - sun_x, y - row + size * 0.2)
    canvas[:row] += np.exp(-away[:row] / 55)[..., None] * np.array([60, 60, 10], np.float32)
    canvas[:row] = paint.mix(canvas, (255, 226, 150), np.clip(size - away + 0.5, 0, 1))[:row]
    bands = np.clip((paint.clouds(rng, 7, stretch=5) - 0.52) * 8, 0, 1) * np.clip((row - 14 - y) / 40, 0, 1)
    canvas = paint.mix(canvas, (150, 74, 110), 0.5 * bands)
    under = y - row > 0
    glow = np.exp(-(((x - sun_x) / (14 + np.abs(y - row) * 0.5)) ** 2)) * under
    waves = np.sin(y * 1.1 + 14 * paint.clouds(rng, 9, stretch=4)) * under * np.clip((y - row) / 30, 0.3, 1)
    canvas += (glow * 70 + waves * (9 + 26 * glow))[..., None] * np.array([1.0, 0.72, 0.4], np.float32)
    places = paint.scatter(rng, 40, top=row / HEIGHT_PX + 0.02)
    glitter = paint.dots(rng, places, paint.stamp(5, (255, 222, 160), 0.7), (5, 0), twinkle_hz=rng.uniform(1, 2))
    return canvas, (glitter,)


def _hills(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((104, 172, 236), (206, 230, 246))
    y = paint.grid()[1]
    puffs = np.clip((paint.clouds(rng, 4, stretch=2) - 0.53) * 6, 0, 1) * np.clip(1.3 - y / 120, 0, 1)
    canvas = paint.mix(canvas, (252, 253, 255), 0.85 * puffs)
    paint.below(canvas, paint.ridge(rng, rng.uniform(0.55, 0.62), 0.07), (126, 182, 132), (104, 164, 104))
    paint.below(canvas, paint.ridge(rng, rng.uniform(0.66, 0.72), 0.08), (104, 172, 82), (74, 140, 60))
    paint.below(canvas, paint.ridge(rng, rng.uniform(0.8, 0.86), 0.06), (82, 152, 56), (48, 108, 40))
    meadow = (paint.clouds(rng, 40, stretch=2) - 0.5) * 26 * (y > 0.68 * HEIGHT_PX)
    canvas += meadow[..., None] * np.array([0.6, 1.0, 0.4], np.float32)
    return canvas, ()


def _desert(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((150, 196, 220), (246, 228, 196))
    x, y = paint.grid()
    away = np.hypot(x - rng.uniform(0.1, 0.9) * WIDTH_PX, y - rng.uniform(0.08, 0.2) * HEIGHT_PX)
    canvas = paint.mix(canvas, (255, 250, 226), np.exp(-((away / 26) ** 2)))
    heights = (rng.uniform(0.5, 0.56), rng.uniform(0.64, 0.7), rng.uniform(0.8, 0.86))
    tones = (((228, 178, 122), (214, 160, 104)), ((218, 158, 96), (194, 132, 76)), ((200, 138, 78), (164, 104, 58)))
    for height, (top, bottom) in zip(heights, tones, strict=True):
        crest = paint.ridge(rng, height, 0.08)
        paint.below(canvas, crest, top, bottom)
        lee = (
            np.clip(np.gradient(crest) * 4, 0, 1) * np.clip(y - crest + 0.5, 0, 1) * np.clip(1 - (y - crest) / 26, 0, 1)
        )
        canvas = paint.mix(canvas, (128, 78, 50), 0.3 * lee)
    ripples = np.sin((y + 22 * paint.clouds(rng, 5, stretch=3)) * 1.1) * np.clip((y / HEIGHT_PX - heights[1]) * 5, 0, 1)
    canvas += 5 * ripples[..., None]
    return canvas, ()


def _snow(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((128, 142, 166), (206, 214, 226))
    paint.below(canvas, paint.ridge(rng, 0.68, 0.06), (186, 198, 216), (206, 216, 230))
    for _ in range(int(rng.integers(5, 9))):
        paint.fir(canvas, rng.uniform(0, WIDTH_PX), rng.uniform(0.72, 0.84) * HEIGHT_PX, rng.uniform(30, 62))
    paint.below(canvas, paint.ridge(rng, 0.83, 0.04), (238, 242, 250), (208, 218, 236))
    wind = rng.uniform(-22, 22)
    far = paint.dots(rng, paint.scatter(rng, 70), paint.stamp(5, (255, 255, 255), 0.8), (wind * 0.6, 34))
    near = paint.dots(rng, paint.scatter(rng, 30), paint.stamp(8, (255, 255, 255), 0.9), (wind, 66))
    return canvas, (far, near)


def _city(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((16, 14, 44), (104, 58, 112))
    paint.sprinkle(canvas, rng, 40, bottom=0.5)
    for low, high, tone in ((0.3, 0.52, (48.0, 38.0, 80.0)), (0.16, 0.4, (20.0, 18.0, 40.0))):
        left = -int(rng.integers(0, 20))
        while left < WIDTH_PX:
            width = int(rng.integers(22, 46))
            paint.tower(canvas, rng, (left, width, int(rng.uniform(low, high) * HEIGHT_PX)), tone)
            left += width + int(rng.integers(0, 4))
    places = paint.scatter(rng, 16, top=0.6, bottom=0.98)
    lamps = paint.dots(rng, places, paint.stamp(6, (255, 196, 110), 0.9), twinkle_hz=rng.uniform(0.4, 0.8))
    return canvas, (lamps,)


def _floor(rng: np.random.Generator) -> Painted:
    horizon = rng.uniform(0.44, 0.52) * HEIGHT_PX
    warmth = np.array([14, 2, -14], np.float32) * np.float32(rng.uniform(-1, 1))
    canvas = paint.gradient((140, 136, 132), (188, 182, 176)) + warmth
    x, y = paint.grid(2)
    depth = 90.0 / np.maximum(y - horizon, 0.5)
    turn = rng.uniform(-0.6, 0.6)
    across, along = (x - WIDTH_PX / 2) * depth / 90.0, depth
    u = across * np.cos(turn) - along * np.sin(turn) + rng.uniform(0, 2)
    v = across * np.sin(turn) + along * np.cos(turn) + rng.uniform(0, 2)
    odd = ((np.floor(u * 1.6) + np.floor(v * 1.6)) % 2).astype(np.float32)
    odd = odd.reshape(HEIGHT_PX, 2, WIDTH_PX, 2).mean(axis=(1, 3))
    rows = paint.grid()[1]
    contrast = np.clip((rows - horizon) / 60, 0, 1)
    tiles = 112 + (odd - 0.5) * 130 * contrast
    ground = tiles[..., None] * np.array([1.04, 0.97, 0.9], np.float32)
    return paint.mix(canvas, ground, np.clip(rows - horizon + 0.5, 0, 1)), ()


def _underwater(rng: np.random.Generator) -> Painted:
    canvas = paint.gradient((46, 168, 190), (6, 54, 92))
    x, y = paint.grid()
    slant = x + y * rng.uniform(-0.6, 0.6)
    rays = np.sin(slant / rng.uniform(14, 24) + rng.uniform(0, 6)) + np.sin(slant / 9.0)
    canvas += (np.clip(rays, 0, 2) * np.clip(1 - y / 190, 0, 1) * 14)[..., None]
    paint.below(canvas, paint.ridge(rng, 0.91, 0.03), (150, 150, 110), (92, 104, 86))
    for _ in range(int(rng.integers(4, 8))):
        paint.weed(canvas, rng)
    small = paint.dots(rng, paint.scatter(rng, 26), paint.bubble(7), (0, -46))
    large = paint.dots(rng, paint.scatter(rng, 9), paint.bubble(13), (0, -62))
    return canvas, (small, large)


_PAINTERS: dict[str, Callable[[np.random.Generator], Painted]] = {
    "night": _night,
    "sunset": _sunset,
    "hills": _hills,
    "desert": _desert,
    "snow": _snow,
    "city": _city,
    "floor": _floor,
    "underwater": _underwater,
}

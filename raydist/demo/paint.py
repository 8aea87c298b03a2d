"""paint: brushes for backgrounds, on a float32 canvas [H, W, 3] of 0 to 255, and the soft dots that move over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

# Shape legend: H rows, W columns of the picture; N dots

WIDTH_PX, HEIGHT_PX = 320, 240

Colour = tuple[float, float, float]
Canvas = NDArray[np.float32]
Plane = NDArray[np.float32]
"""[H, W]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Soft round things that move evenly and come back at the other side."""

    stamp: Image.Image
    """RGBA."""
    start_px: NDArray[np.float64]
    """[N, 2] places (x, y) at the start."""
    speed_px_s: NDArray[np.float64]
    """[N, 2]"""
    twinkle_hz: float = 0.0
    """How often dots come and go; 0 for steady ones."""

    def paste(self, frame: Image.Image, at_s: float) -> None:
        """Draw the dots as they are `at_s` seconds after the start."""
        side = self.stamp.width
        wrap = np.array([WIDTH_PX + side, HEIGHT_PX + side])
        places = np.floor((self.start_px + self.speed_px_s * at_s) % wrap).astype(int) - side
        for number, (x, y) in enumerate(places.tolist()):
            if self.twinkle_hz and (at_s * self.twinkle_hz + number * 0.618) % 1.0 > 0.55:
                continue
            frame.paste(self.stamp, (x, y), self.stamp)


def dots(
    rng: np.random.Generator,
    places_N2: NDArray[np.float64],
    stamp: Image.Image,
    speed: tuple[float, float] = (0.0, 0.0),
    twinkle_hz: float = 0.0,
) -> Dots:
    """Dots at these places (pixels), each at about this speed (pixels a second)."""
    own = rng.uniform(0.75, 1.25, (len(places_N2), 1))
    return Dots(stamp=stamp, start_px=places_N2, speed_px_s=np.array([speed]) * own, twinkle_hz=twinkle_hz)


def scatter(rng: np.random.Generator, count: int, top: float = 0.0, bottom: float = 1.0) -> NDArray[np.float64]:
    """[N, 2] places in pixels, anywhere between two heights (shares of the picture)."""
    return np.stack([rng.uniform(0, WIDTH_PX, count), rng.uniform(top * HEIGHT_PX, bottom * HEIGHT_PX, count)], axis=1)


@lru_cache(maxsize=32)
def stamp(side_px: int, colour: tuple[int, int, int], strength: float) -> Image.Image:
    """A soft dot as an RGBA picture of `side_px` squared."""
    axis = np.linspace(-1, 1, side_px)
    alpha = np.exp(-3.0 * (axis[None, :] ** 2 + axis[:, None] ** 2)) * strength
    return _rgba(np.broadcast_to(np.array(colour, float), (side_px, side_px, 3)), alpha)


@lru_cache(maxsize=8)
def bubble(side_px: int) -> Image.Image:
    """A ring with a highlight, RGBA."""
    axis = np.linspace(-1.1, 1.1, side_px)
    radius = np.hypot(axis[None, :], axis[:, None])
    ring = np.clip(1.05 - np.abs(radius - 0.82) * 4.5, 0, 1) * 0.55
    shine = np.exp(-14 * ((axis[None, :] + 0.3) ** 2 + (axis[:, None] + 0.3) ** 2)) * 0.8
    inside = (radius < 0.82) * 0.1
    return _rgba(np.broadcast_to(np.array([214.0, 246.0, 252.0]), (side_px, side_px, 3)), ring + shine + inside)


def _rgba(colours: NDArray[np.float64], alpha: NDArray[np.float64]) -> Image.Image:
    pixels = np.concatenate([colours, 255.0 * np.clip(alpha, 0, 1)[..., None]], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


@lru_cache(maxsize=2)
def grid(scale: int = 1) -> tuple[Plane, Plane]:
    """x [1, W'] and y [H', 1] of pixel centres, in pixels of the picture, `scale` samples a pixel and direction."""
    x, y = (
        ((np.arange(side * scale, dtype=np.float64) + 0.5) / scale).astype(np.float32) for side in (WIDTH_PX, HEIGHT_PX)
    )
    return x[None, :], y[:, None]


def gradient(top: Colour, bottom: Colour, until: float = 1.0) -> Canvas:
    """A new canvas from one colour down to another, reached at height `until` (a share of the picture)."""
    share = np.clip(grid()[1] / (until * HEIGHT_PX), 0, 1)[..., None]
    column = np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share
    return np.broadcast_to(column, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.float32)


def clouds(rng: np.random.Generator, cells: int, stretch: float = 1.0) -> Plane:
    """Smooth noise [H, W], about 0.2 to 0.8; `cells` lumps from top to bottom, `stretch` times as wide as high."""
    total = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
    for octave, weight in enumerate((0.65, 0.35)):
        high = cells * 2**octave + 2
        wide = max(3, round(high * 1.33 / stretch))
        lumps = Image.fromarray(rng.random((high, wide), np.float32), "F")
        total += weight * np.asarray(lumps.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC), np.float32)
    return total


def ridge(rng: np.random.Generator, height: float, swing: float) -> NDArray[np.float32]:
    """A skyline [W]: its row in pixels, around `height` and up to `swing` away (shares of the picture's height)."""
    x = np.linspace(0, 2 * np.pi, WIDTH_PX, dtype=np.float32)
    waves = sum(np.sin(x * rng.uniform(0.6, 1.4) * factor + rng.uniform(0, 6.3)) / factor for factor in (1.0, 2.1, 4.3))
    return np.asarray((height + swing * waves / 1.7) * HEIGHT_PX, np.float32)


def mix(canvas: Canvas, colour: ArrayLike, share: Plane) -> Canvas:
    """The canvas with a colour, or another canvas, laid over it where `share` is above 0."""
    weight = np.asarray(share, np.float32)[..., None]
    return np.asarray(canvas * (1 - weight) + np.asarray(colour, np.float32) * weight, np.float32)


def below(canvas: Canvas, line_W: NDArray[np.float32], top: Colour, bottom: Colour) -> None:
    """Fill everything below a skyline in place, shading from `top` at the line to `bottom` at the picture's foot."""
    first = max(0, int(line_W.min()) - 1)
    y = grid()[1][first:]
    depth = np.clip((y - line_W) / (HEIGHT_PX - line_W.min()), 0, 1)[..., None]
    fill = np.array(top, np.float32) * (1 - depth) + np.array(bottom, np.float32) * depth
    cover = np.clip(y - line_W + 0.5, 0, 1)[..., None]
    canvas[first:] += (fill - canvas[first:]) * cover


def sprinkle(canvas: Canvas, rng: np.random.Generator, count: int, bottom: float) -> None:
    """Add faint stars above a height (share of the picture), in place."""
    rows = rng.integers(0, int(bottom * HEIGHT_PX), count)
    columns = rng.integers(0, WIDTH_PX, count)
    canvas[rows, columns] += (rng.uniform(50, 230, count) * rng.random(count))[:, None]


def tower(canvas: Canvas, rng: np.random.Generator, box: tuple[int, int, int], tone: Colour) -> None:
    """Add a building with some lit windows in place; `box` is left, width and height in pixels."""
    left, width, height = box
    right, top = min(WIDTH_PX, left + width), HEIGHT_PX - height
    canvas[top:, max(0, left) : right] = np.array(tone, np.float32) * rng.uniform(0.85, 1.15)
    lamp = np.array([255, rng.uniform(190, 225), rng.uniform(110, 160)], np.float32)
    for y in range(top + 5, HEIGHT_PX - 6, 8):
        for x in range(left + 4, left + width - 5, 7):
            if x >= 0 and rng.random() < 0.36:
                canvas[y : y + 4, x : x + 3] = lamp * rng.uniform(0.45, 0.95)


def fir(canvas: Canvas, x: float, foot: float, height: float) -> None:
    """Add a fir tree with snow on its branches in place; all in pixels."""
    part, columns, rows = _window(canvas, (x - height * 0.4, foot - height, x + height * 0.4, foot))
    up = np.clip((foot - rows) / height, 0, 1)
    tier = (up * 4) % 1.0
    half = height * 0.3 * (1 - up) * (1.12 - 0.45 * tier)
    cover = np.clip(half - np.abs(columns - x) + 0.5, 0, 1)
    snow = np.clip(tier * 2.2 - 1.1, 0, 1)
    part[...] = mix(part, np.array([38.0, 66.0, 64.0]), cover)
    part[...] = mix(part, np.array([226.0, 234.0, 244.0]), cover * snow * 0.8)


def weed(canvas: Canvas, rng: np.random.Generator) -> None:
    """Add a blade of sea weed at the bottom in place."""
    x, height = rng.uniform(0, WIDTH_PX), rng.uniform(0.14, 0.3) * HEIGHT_PX
    part, columns, rows = _window(canvas, (x - 16, HEIGHT_PX - height, x + 16, HEIGHT_PX))
    up = np.clip((HEIGHT_PX - rows) / height, 0, 1)
    middle = x + rng.uniform(4, 9) * np.sin(up * rng.uniform(4, 8) + rng.uniform(0, 6))
    cover = np.clip(rng.uniform(2.5, 4) * (1 - up) ** 0.6 - np.abs(columns - middle) + 0.5, 0, 1)
    part[...] = mix(part, np.array([22.0, rng.uniform(84, 120), 78.0]), cover)


def _window(canvas: Canvas, box: tuple[float, float, float, float]) -> tuple[Canvas, Plane, Plane]:
    """The part of the canvas inside left, top, right, bottom (pixels; a view), and its columns and rows."""
    left, top, right, bottom = (round(edge) for edge in box)
    across, down = slice(max(0, left), max(0, right)), slice(max(0, top), max(0, bottom))
    columns, rows = grid()
    return canvas[down, across], columns[:, across], rows[down]

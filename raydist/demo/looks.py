"""looks: what a clip looks like besides what it shows: as it is drawn, or as film that has faded.

Faded film has lost most of its colour to brown, is dark at the corners, flickers, jumps in its gate and has scratches.
All of it works on whole pictures in Pillow, so that it costs less than drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from raydist.demo.paint import HEIGHT_PX, WIDTH_PX

_LOST = 0.62
"""Share of the colour that is gone."""
_BROWN = np.array([1.06, 0.92, 0.68])
"""What grey became."""
_LUMA = np.array([0.299, 0.587, 0.114])

Look = Callable[[Image.Image, int], Image.Image]
"""A drawn frame and its number -> the frame as it is shown."""


def plain(frame: Image.Image, number: int) -> Image.Image:
    """The picture as it was drawn."""
    return frame


def faded(rng: np.random.Generator) -> Look:
    """Faded film, another copy for each state of the generator."""
    copy = int(rng.integers(2**32))
    lost = float(np.clip(rng.normal(_LOST, 0.03), 0, 1))
    warmth = rng.uniform(0.96, 1.04, 3)
    scratch = rng.uniform(0.05, 0.95) * WIDTH_PX

    def age(frame: Image.Image, number: int) -> Image.Image:
        luck = np.random.default_rng((copy, number))
        aged = frame.convert("RGB", _matrix(lost, luck.uniform(0.92, 1.04) * warmth))
        aged = ImageChops.offset(ImageChops.multiply(aged, _corners()), 0, int(luck.integers(-1, 2)))
        if luck.random() < 0.4:
            x, lean = scratch + luck.uniform(-2, 2), luck.uniform(-3, 3)
            ImageDraw.Draw(aged).line([(x, 0), (x + lean, HEIGHT_PX)], fill=(214, 202, 176))
        return aged

    return age


def _matrix(lost: float, gain: NDArray[np.float64]) -> tuple[float, ...]:
    """Pillow's colour matrix: for red, green and blue the shares of all three, and a constant."""
    shares = gain[:, None] * ((1 - lost) * np.eye(3) + lost * _BROWN[:, None] * _LUMA)
    return tuple(np.concatenate([shares, np.zeros((3, 1))], axis=1).ravel().tolist())


@lru_cache(maxsize=1)
def _corners() -> Image.Image:
    """What to multiply with: white in the middle, darker to the corners."""
    x, y = (np.linspace(-1, 1, side) for side in (WIDTH_PX, HEIGHT_PX))
    light = 1 - 0.28 * np.clip(np.hypot(x[None, :], y[:, None]) - 0.35, 0, None) ** 2
    return Image.fromarray(np.round(255 * light).astype(np.uint8), "L").convert("RGB")

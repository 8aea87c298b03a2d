"""dedup/views: the pictures of a trace as unit vectors that brightness, contrast, bars and crops change little.

Pure functions of numpy arrays; nothing is read or written.
"""

# Shape legend: T pictures, S = traces.SIDE, G = GRID, F = G * G

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.traces import SIDE, Trace

GRID = 24
"""Edge of the pictures that are compared."""

ZOOMS = (1.0, 0.95, 0.9)
"""Shares of an edge that may be left after a crop: 5 % off the whole edge, or off each side."""

_BLACK = 40
"""Grey level up to which a border counts as a bar; codecs and brightness lift black."""
_STEADY = 10.0
"""Grey levels that a bar may vary by, over place and time."""
_WIDEST = 0.35
"""Share of the edge that one bar may take."""
_FLAT = 3.0
"""Standard deviation in grey levels under which a picture shows nothing."""

Box: TypeAlias = tuple[float, float, float, float]
"""Top, bottom, left, right in pixels of a trace's pictures."""

WHOLE: Box = (0.0, float(SIDE), 0.0, float(SIDE))


@dataclass(frozen=True, slots=True)
class Views:
    """A trace and what was made of its pictures."""

    trace: Trace
    boxes: tuple[Box, ...]
    """The whole picture, and what is left of it without bars."""
    _features: dict[tuple[int, float], NDArray[np.float32]] = field(default_factory=dict)

    def features(self, box: int, zoom: float) -> NDArray[np.float32]:
        """[T, F] unit vectors of the middle of a box; 0 for a flat picture."""
        key = (box, zoom)
        if key not in self._features:
            self._features[key] = features(self.trace.pictures_TSS, zoomed(self.boxes[box], zoom))
        return self._features[key]


def prepare(trace: Trace) -> Views:
    """Look for bars."""
    inner = without_bars(trace.pictures_TSS)
    return Views(trace, (WHOLE,) if inner == WHOLE else (WHOLE, inner))


def zoomed(box: Box, zoom: float) -> Box:
    """The middle of a box."""
    top, bottom, left, right = box
    dy, dx = (bottom - top) * (1 - zoom) / 2, (right - left) * (1 - zoom) / 2
    return top + dy, bottom - dy, left + dx, right - dx


def features(pictures_TSS: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
    """[T, F] unit vectors: the pictures in a box, less their mean; 0 where that leaves next to nothing."""
    top, bottom, left, right = box
    small_TGG = _weights(top, bottom) @ pictures_TSS.astype(np.float32) @ _weights(left, right).T
    flat_TF = small_TGG.reshape(len(small_TGG), -1)
    flat_TF = flat_TF - flat_TF.mean(axis=1, keepdims=True)
    length_T = np.sqrt((flat_TF * flat_TF).sum(axis=1))
    shows_T = length_T >= _FLAT * GRID
    unit: NDArray[np.float32] = flat_TF * (shows_T / np.maximum(length_T, 1e-6))[:, None]
    return unit


def without_bars(pictures_TSS: NDArray[np.uint8]) -> Box:
    """What is left when dark, steady borders are taken away; the whole where that is too little or nothing is dark."""
    bright_SS = pictures_TSS.max(axis=0).astype(np.float32)
    low_SS = pictures_TSS.min(axis=0).astype(np.float32)
    rows = _bars(bright_SS, low_SS)
    columns = _bars(bright_SS.T, low_SS.T)
    return (rows[0], rows[1], columns[0], columns[1])


def _bars(bright_SS: NDArray[np.float32], low_SS: NDArray[np.float32]) -> tuple[float, float]:
    """Where the rows begin and end that are no bar."""
    high = np.quantile(bright_SS, 0.95, axis=1)
    is_bar = (high <= _BLACK) & (high - np.quantile(low_SS, 0.05, axis=1) <= _STEADY)
    most = int(_WIDEST * SIDE)
    first = int(np.argmin(is_bar)) if not is_bar.all() else SIDE
    last = int(np.argmin(is_bar[::-1])) if not is_bar.all() else SIDE
    if first > most or last > most:
        return 0.0, float(SIDE)
    return first + _dark_part(bright_SS, first, 1), SIDE - last - _dark_part(bright_SS, SIDE - 1 - last, -1)


def _dark_part(bright_SS: NDArray[np.float32], row: int, inwards: int) -> float:
    """How much of the first row that is no bar lies in the bar beside it, told by how much darker it is than the next.

    0 at the border of the picture.
    """
    if row in (0, SIDE - 1):
        return 0.0
    bar, own, inner = (float(bright_SS[row + step * inwards].mean()) for step in (-1, 0, 1))
    return float(np.clip((inner - own) / max(inner - bar, 1e-6), 0.0, 1.0))


@lru_cache(maxsize=256)
def _weights(low: float, high: float) -> NDArray[np.float32]:
    """[G, S]: the share of each pixel in each of G equal parts of [low, high)."""
    edges = np.linspace(low, high, GRID + 1)
    place = np.arange(SIDE)
    upper = np.minimum(edges[1:, None], place[None] + 1)
    lower = np.maximum(edges[:-1, None], place[None])
    covered = np.maximum(0.0, upper - lower)
    weights: NDArray[np.float32] = (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights

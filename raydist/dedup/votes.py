"""dedup/votes: which lines through two traces are worth a look.

Each two pictures vote for the shift at which they meet, with how well they agree in themselves and in how they differ
from their clip's mean; a line that many of them agree on stands out. Pure functions of numpy arrays.
"""

# Shape legend: T pictures of a, U pictures of b, H bins of a vote, F numbers a picture

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.lines import Line, step_of
from raydist.dedup.views import ZOOMS, Views

SPEEDS = (1.0, 1 / 1.05, 1.05, 24 / 25, 25 / 24)
"""Seconds of b a second of a: as it was, 5 % faster or slower, film as television and back."""

PEAKS = 5
"""Lines of one framing that are looked at."""

_FRAMINGS = 2
"""Ways to lay one picture over the other that are tried, the best ones."""
_CLOSE = 0.02
"""Difference in correlation up to which two framings are about as good."""
_LOWEST = 0.8
"""Height under which a line is not looked at. Measured: copies have 1.09 and more, half of the look-alikes less."""
_NEAR_S = 1.0
"""How far a line may be from the one that a neighbour tells."""
_ZOOMS = ((1.0, 1.0), *((zoom, 1.0) for zoom in ZOOMS[1:]), *((1.0, zoom) for zoom in ZOOMS[1:]))


@dataclass(frozen=True, slots=True)
class Framing:
    """A way to lay the pictures of a over those of b."""

    boxes: tuple[int, int]
    zooms: tuple[float, float]
    alike: float = 0.0
    """Mean correlation of the best third of a's pictures with that of b that is most like each."""

    def pictures(self, a: Views, b: Views) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit vectors, [T, F] and [U, F]."""
        return a.features(self.boxes[0], self.zooms[0]), b.features(self.boxes[1], self.zooms[1])


def hypotheses(a: Views, b: Views, near: Line | None) -> Iterator[tuple[Framing, list[Line]]]:
    """Framings, the best first, each with lines, the best first; with `near` that and those beside it."""
    speeds = SPEEDS if near is None else (near.speed,)
    for framing in _worth(framings(a, b)):
        votes = _Votes(a, b, framing)
        peaks = [
            (height, Line(speed=speed, shift_s=shift)) for speed in speeds for height, shift in votes.peaks(speed, near)
        ]
        peaks.sort(key=lambda peak: -peak[0])
        lines = [line for height, line in peaks[:PEAKS] if height >= _LOWEST or near is not None]
        yield framing, lines if near is None else [near, *lines]


def _worth(found: Sequence[Framing]) -> list[Framing]:
    """The best framing, and the next where it is about as good."""
    return [framing for framing in found[:_FRAMINGS] if framing.alike >= found[0].alike - _CLOSE]


def framings(a: Views, b: Views) -> list[Framing]:
    """All framings, those first in which pictures are most alike."""
    found = []
    for boxes in product(range(len(a.boxes)), range(len(b.boxes))):
        for zooms in _ZOOMS:
            framing = Framing(boxes, zooms)
            ones_TF, others_UF = framing.pictures(a, b)
            best_T = np.sort((ones_TF @ others_UF.T).max(axis=1))
            found.append(replace(framing, alike=float(best_T[-max(1, len(best_T) // 3) :].mean())))
    return sorted(found, key=lambda framing: -framing.alike)


class _Votes:
    """The votes of all pairs of pictures of two clips."""

    def __init__(self, a: Views, b: Views, framing: Framing) -> None:
        ones_TF, others_UF = framing.pictures(a, b)
        shown = np.any(ones_TF, axis=1)[:, None] & np.any(others_UF, axis=1)[None]
        self._times = a.trace.times_s, b.trace.times_s
        self._step_s = step_of(a.trace, b.trace)
        changes_TF, others_changes_UF = ones_TF - ones_TF.mean(axis=0), others_UF - others_UF.mean(axis=0)
        ones_T, others_U = (changes_TF**2).sum(axis=1), (others_changes_UF**2).sum(axis=1)
        self._columns = (
            shown.astype(np.float32).ravel(),
            (ones_TF @ others_UF.T).ravel(),
            (changes_TF @ others_changes_UF.T).ravel(),
            np.repeat(ones_T, len(others_U)),
            np.tile(others_U, len(ones_T)),
        )

    def peaks(self, speed: float, near: Line | None) -> list[tuple[float, float]]:
        """(height, shift in seconds) of the highest shifts, neighbours of a higher one left out."""
        shifts_H, heights_H = self._counted(speed)
        found: list[tuple[float, float]] = []
        for place in np.argsort(-heights_H):
            shift = float(shifts_H[place])
            if near is not None and abs(shift - near.shift_s) > _NEAR_S:
                continue
            if heights_H[place] <= 0 or len(found) == PEAKS:
                break
            if all(abs(shift - other) > self._step_s for _, other in found):
                found.append((float(heights_H[place]), shift))
        return found

    def _counted(self, speed: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shifts and their heights.

        A pair counts for every shift nearer than a step to its own, the less the further: what lies between two
        pictures of b counts as a mean of both.
        """
        times_T, times_U = self._times
        size_s = self._step_s / 2
        shifts = (times_U[None] - speed * times_T[:, None]).ravel()
        low = math.floor(shifts.min() / size_s) * size_s - self._step_s
        places = (shifts - low) / size_s
        first = np.floor(places).astype(np.int64)
        bins = np.concatenate([first + step for step in (-1, 0, 1, 2)])
        weights = np.concatenate([1 - np.abs(first + step - places) / 2 for step in (-1, 0, 1, 2)]).clip(0)
        count = int(bins.max()) + 1
        sums = [np.bincount(bins, weights * np.tile(column, 4), minlength=count) for column in self._columns]
        shown, alike, moves, ones, others = sums
        agree = alike / np.maximum(shown, 1e-6)
        change = moves / np.maximum(np.sqrt(ones * others), 1e-6)
        heights_H = (agree + change) * np.sqrt(shown / (shown + 6)) * (shown >= 2)
        return low + size_s * np.arange(count), heights_H

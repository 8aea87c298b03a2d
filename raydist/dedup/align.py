"""dedup/align: two traces -> whether they show the same pictures, from when to when, and how sure that is.

What tells a copy from a look-alike shot is change over time: both clips are taken as what differs from their own mean
picture, and a copy's changes (motion, cuts) agree at one offset. Still pictures agree at every offset and so prove
nothing: such a pair is `similar`, unless a neighbour's offset is at hand (`near`), which then decides.

Pure functions of numpy arrays. A line says which time of b shows what a time of a shows: t_b = speed * t_a + shift_s.
"""

# Shape legend: T pictures of a, U pictures of b, H bins of the vote, F numbers a picture, N samples of an overlap

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.traces import RATE
from raydist.dedup.views import ZOOMS, Views

SPEEDS = (1.0, 1 / 1.05, 1.05, 24 / 25, 25 / 24)
"""Seconds of b a second of a: as it was, 5 % faster or slower, film as television and back."""

SHORTEST_S = 4.0
"""Overlap that is looked for without a hint."""
SHORTEST_NEAR_S = 1.5
"""Overlap that counts where a neighbour tells the line."""

_BIN_S = 0.25
_PEAKS = 6
_STEP_S = 1 / RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Which time of b shows what a time of a shows."""

    speed: float
    shift_s: float

    def at(self, time_s: float) -> float:
        """Time in b."""
        return self.speed * time_s + self.shift_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a comparison. Times are those of the files; without an overlap all are 0."""

    kind: str
    """copy, similar or different."""
    confidence: float
    """That it is a copy; 0.5: as likely as not."""
    line: Line | None = None
    a_from_s: float = 0.0
    a_to_s: float = 0.0
    b_from_s: float = 0.0
    b_to_s: float = 0.0

    @property
    def offset_s(self) -> float:
        """Time in b minus time in a at the start of the overlap."""
        return self.b_from_s - self.a_from_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What speaks for one line."""

    line: Line
    zoom: tuple[float, float]
    alike: float
    """Median correlation of the pictures that meet."""
    moves: float
    """Correlation of what changes, weighted with how much changes."""
    steady: float
    """Median over samples of the same, those that change next to nothing left out."""
    change: float
    """Share of the pictures that is change, mean over both."""
    samples: int
    first_s: float
    """Of a, the middle of the first and last sample that agrees."""
    last_s: float


def compare(a: Views, b: Views, *, near: Line | None = None) -> Verdict:
    """Say whether two clips show the same pictures.

    Args:
        near: the line of a copy beside them: shorter overlaps count, and stills where the pictures agree.
    """
    found = evidence(a, b, near=near)
    return judge(a, b, found, near=near)


def judge(a: Views, b: Views, found: Evidence | None, *, near: Line | None = None) -> Verdict:
    """The verdict on the best evidence there is."""
    if found is None:
        return Verdict(kind="different", confidence=0.0)
    score = copy_score(found, near=near is not None)
    confidence = 1 / (1 + math.exp(-score))
    if confidence < 0.5:
        return Verdict(kind="similar" if found.alike >= ALIKE else "different", confidence=confidence)
    line, half = found.line, _STEP_S / 2
    # A sample stands for the time around it; what agrees to the last sample agrees to the border.
    start = max(found.first_s - half, a.trace.start_s, (b.trace.start_s - line.shift_s) / line.speed)
    end = min(found.last_s + half, a.trace.end_s, (b.trace.end_s - line.shift_s) / line.speed)
    return Verdict(
        kind="copy",
        confidence=confidence,
        line=line,
        a_from_s=start,
        a_to_s=end,
        b_from_s=line.at(start),
        b_to_s=line.at(end),
    )


ALIKE = 0.6
"""Correlation of pictures from which two clips that are no copies are similar."""
_MOVES = 0.75
_STILL = 0.004
"""Share of change under which nothing is proven by it."""


def copy_score(found: Evidence, *, near: bool) -> float:
    """Logit of its being a copy."""
    if found.change < _STILL:
        return 1.0 if near and found.alike >= 0.9 else -0.1
    spatial = 12 * (found.alike - 0.75)
    temporal = 12 * (min(found.moves, found.steady + 0.1) - (_MOVES - 0.15 * near))
    return min(spatial, temporal)


def evidence(a: Views, b: Views, *, near: Line | None = None) -> Evidence | None:
    """The best line through two clips, and what speaks for it; None where no picture agrees."""
    best: Evidence | None = None
    for line, boxes, zooms in _hypotheses(a, b, near):
        found = _examine(a, b, line, boxes, zooms, SHORTEST_S if near is None else SHORTEST_NEAR_S)
        if found is not None and (best is None or _rank(found) > _rank(best)):
            best = found
    return best


def _rank(found: Evidence) -> float:
    return (found.alike + max(found.moves, 0.0)) * math.sqrt(found.samples / (found.samples + 6))


def _hypotheses(a: Views, b: Views, near: Line | None) -> Iterator[tuple[Line, tuple[int, int], tuple[float, float]]]:
    """Lines worth a look, with the boxes and zooms that fit best, the best first."""
    geometries = []
    speeds = SPEEDS if near is None else (near.speed,)
    for boxes in product(range(len(a.boxes)), range(len(b.boxes))):
        for zooms in ((1.0, 1.0), *((zoom, 1.0) for zoom in ZOOMS[1:]), *((1.0, zoom) for zoom in ZOOMS[1:])):
            votes = _Votes(a, b, boxes, zooms)
            geometries.append((votes.best(speeds[0], near), boxes, zooms, votes))
    geometries.sort(key=lambda geometry: -geometry[0])
    peaks = []
    for _, boxes, zooms, votes in geometries[:2]:
        for speed in speeds:
            peaks += [
                (height, Line(speed=speed, shift_s=shift), boxes, zooms) for height, shift in votes.peaks(speed, near)
            ]
    peaks.sort(key=lambda peak: -peak[0])
    for _, line, boxes, zooms in peaks[:_PEAKS]:
        yield line, boxes, zooms


class _Votes:
    """A vote over shifts: each two pictures vote for the shift at which they meet, with how well they agree."""

    def __init__(self, a: Views, b: Views, boxes: tuple[int, int], zooms: tuple[float, float]) -> None:
        ones_TF, others_UF = a.features(boxes[0], zooms[0]), b.features(boxes[1], zooms[1])
        shown = np.any(ones_TF, axis=1)[:, None] & np.any(others_UF, axis=1)[None]
        self._times = a.trace.times_s, b.trace.times_s
        self._shown = shown.astype(np.float32).ravel()
        self._alike = (ones_TF @ others_UF.T).ravel()
        changes_TF, others_changes_UF = ones_TF - ones_TF.mean(axis=0), others_UF - others_UF.mean(axis=0)
        self._moves = (changes_TF @ others_changes_UF.T).ravel()
        ones_T, others_U = (changes_TF**2).sum(axis=1), (others_changes_UF**2).sum(axis=1)
        self._ones = np.repeat(ones_T, len(others_U))
        self._others = np.tile(others_U, len(ones_T))
        self._heights: dict[float, tuple[float, NDArray[np.float64]]] = {}

    def best(self, speed: float, near: Line | None) -> float:
        return max((height for height, _ in self.peaks(speed, near)), default=-1.0)

    def peaks(self, speed: float, near: Line | None) -> list[tuple[float, float]]:
        """(height, shift in seconds) of the highest shifts, neighbours of a higher one left out."""
        low, heights = self._counted(speed)
        found: list[tuple[float, float]] = []
        for place in np.argsort(-heights):
            shift = low + float(place) * _BIN_S
            if near is not None and abs(shift - near.shift_s) > 1.0:
                continue
            if heights[place] <= 0 or len(found) == _PEAKS:
                break
            if all(abs(shift - other) > 2 * _BIN_S for _, other in found):
                found.append((float(heights[place]), shift))
        return found

    def _counted(self, speed: float) -> tuple[float, NDArray[np.float64]]:
        """First shift, and the height of each bin from there on."""
        if speed in self._heights:
            return self._heights[speed]
        times_T, times_U = self._times
        shifts = (times_U[None] - speed * times_T[:, None]).ravel()
        low = math.floor(shifts.min() / _BIN_S) * _BIN_S - _STEP_S
        places = (shifts - low) / _BIN_S
        count = int(places.max()) + 4
        # A pair counts for every shift nearer than a step to its own, the less the further: what lies between two
        # pictures of b counts as a mean of both.
        reach = round(_STEP_S / _BIN_S)
        first = np.floor(places).astype(np.int64)
        sums = [np.zeros(count + reach) for _ in range(5)]
        columns = (self._shown, self._alike, self._moves, self._ones, self._others)
        for step in range(-reach + 1, reach + 1):
            weights = np.maximum(0.0, 1 - np.abs(first + step - places) * _BIN_S / _STEP_S)
            for total, column in zip(sums, columns, strict=True):
                total += np.bincount(first + step, weights * column, minlength=len(total))[: len(total)]
        shown, alike, moves, ones, others = sums
        agree = alike / np.maximum(shown, 1e-6)
        change = moves / np.maximum(np.sqrt(ones * others), 1e-6)
        heights = (agree + change) * np.sqrt(shown / (shown + 6)) * (shown >= 2)
        self._heights[speed] = (low, heights)
        return low, heights


def _examine(
    a: Views, b: Views, line: Line, boxes: tuple[int, int], zooms: tuple[float, float], shortest_s: float
) -> Evidence | None:
    """Look at a line and at those beside it."""
    ones_TF, others_UF = a.features(boxes[0], zooms[0]), b.features(boxes[1], zooms[1])
    best: Evidence | None = None
    for step in (-0.25, -0.125, 0.0, 0.125, 0.25):
        moved = Line(speed=line.speed, shift_s=line.shift_s + step)
        found = _along(a, b, ones_TF, others_UF, moved, zooms, shortest_s)
        if found is not None and (best is None or _rank(found) > _rank(best)):
            best = found
    return best


def _along(
    a: Views,
    b: Views,
    ones_TF: NDArray[np.float32],
    others_UF: NDArray[np.float32],
    line: Line,
    zooms: tuple[float, float],
    shortest_s: float,
) -> Evidence | None:
    """What speaks for a line: of the stretch in which pictures agree."""
    times_T, times_U = a.trace.times_s, b.trace.times_s
    targets = line.speed * times_T + line.shift_s
    inside = np.flatnonzero((targets >= times_U[0] - _STEP_S / 2) & (targets <= times_U[-1] + _STEP_S / 2))
    if len(inside) < 2:
        return None
    met_NF = _between(others_UF, times_U, targets[inside])
    own_NF = ones_TF[inside]
    alike_N = (own_NF * met_NF).sum(axis=1)
    shown_N = np.any(own_NF, axis=1) & np.any(met_NF, axis=1)
    first, last = _stretch(np.where(shown_N, alike_N - 0.6, 0.0))
    if times_T[inside[last]] - times_T[inside[first]] + _STEP_S < shortest_s:
        return None
    kept = np.arange(first, last + 1)[shown_N[first : last + 1]]
    if len(kept) < 2:
        return None
    own, met = own_NF[kept] - own_NF[kept].mean(axis=0), met_NF[kept] - met_NF[kept].mean(axis=0)
    products, ones, others = (own * met).sum(axis=1), (own * own).sum(axis=1), (met * met).sum(axis=1)
    each = products / np.maximum(np.sqrt(ones * others), 1e-9)
    changing = np.sqrt(ones * others) >= 0.3 * np.median(np.sqrt(ones * others))
    return Evidence(
        line=line,
        zoom=zooms,
        alike=float(np.median(alike_N[kept])),
        moves=float(products.sum() / max(math.sqrt(ones.sum() * others.sum()), 1e-9)),
        steady=float(np.median(each[changing])),
        change=float((ones.mean() + others.mean()) / 2),
        samples=len(kept),
        first_s=float(times_T[inside[first]]),
        last_s=float(times_T[inside[last]]),
    )


def _between(
    features_UF: NDArray[np.float32], times_U: NDArray[np.float64], at_N: NDArray[np.float64]
) -> NDArray[np.float32]:
    """[N, F] unit vectors at times between pictures: their mean, or across a cut the nearer one."""
    if len(times_U) < 2:
        return np.repeat(features_UF[:1], len(at_N), axis=0)
    right = np.clip(np.searchsorted(times_U, at_N), 1, len(times_U) - 1)
    left = right - 1
    share = np.clip((at_N - times_U[left]) / np.maximum(times_U[right] - times_U[left], 1e-6), 0.0, 1.0)
    across = (features_UF[left] * features_UF[right]).sum(axis=1) < 0.7
    share = np.where(across, np.round(share), share)[:, None].astype(np.float32)
    mixed = (1 - share) * features_UF[left] + share * features_UF[right]
    length = np.sqrt((mixed * mixed).sum(axis=1, keepdims=True))
    unit: NDArray[np.float32] = mixed / np.maximum(length, 1e-6)
    return unit


def _stretch(gains_N: NDArray[np.floating]) -> tuple[int, int]:
    """First and last place of the stretch with the largest sum."""
    sums = np.concatenate([[0.0], np.cumsum(gains_N)])
    lowest = np.minimum.accumulate(sums[:-1])
    last = int(np.argmax(sums[1:] - lowest))
    first = int(np.argmin(sums[: last + 1]))
    return first, last

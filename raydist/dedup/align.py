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
from raydist.dedup.views import GRID, ZOOMS, Views

SPEEDS = (1.0, 1 / 1.05, 1.05, 24 / 25, 25 / 24)
"""Seconds of b a second of a: as it was, 5 % faster or slower, film as television and back."""

SHORTEST_S = 4.0
"""Overlap that is looked for without a hint."""
SHORTEST_NEAR_S = 1.5
"""Overlap that counts where a neighbour tells the line."""

_BIN_S = 0.25
_PEAKS = 6
_CUT = 0.7
"""Correlation of neighbouring pictures under which a cut lies between them."""
_BLOCKS = 6
_OVERLAY = 3
"""Blocks of 6 x 6 that a logo may cover."""
_SHOT = 4
"""Samples that a shot needs for a mean picture of its own."""
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
    moving: int
    """Samples in shots long enough to tell change."""
    cuts: int
    """Cuts that both have."""
    missed: int
    """Cuts that only one has."""
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
STILL = 0.004
"""Share of change under which nothing is proven by it."""


def copy_score(found: Evidence, *, near: bool) -> float:
    """Logit of its being a copy."""
    if found.change < STILL:
        return 1.0 if near and found.alike >= 0.9 else -0.1
    spatial = 12 * (found.alike - 0.75)
    temporal = 12 * (min(found.moves, found.steady + 0.1) - (_MOVES - 0.15 * near))
    return min(spatial, temporal)


def evidence(a: Views, b: Views, *, near: Line | None = None) -> Evidence | None:
    """The best line through two clips, and what speaks for it; None where no picture agrees."""
    best: Evidence | None = None
    for line, boxes, zooms in _hypotheses(a, b, near):
        found = _examine(a, b, line, boxes, zooms, near)
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
        if near is not None:  # stills have no peak there
            peaks.append((math.inf, near, boxes, zooms))
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
    a: Views, b: Views, line: Line, boxes: tuple[int, int], zooms: tuple[float, float], near: Line | None
) -> Evidence | None:
    """Look at a line and at those beside it; stills stay on the line that they were given."""
    pictures = a.features(boxes[0], zooms[0]), b.features(boxes[1], zooms[1])
    shortest_s = SHORTEST_S if near is None else SHORTEST_NEAR_S
    best = _along(a, b, pictures, line, zooms, shortest_s)
    if near is not None and best is not None and best.change < STILL:
        return best if line == near else None
    for step in (-0.25, -0.125, 0.125, 0.25):
        moved = Line(speed=line.speed, shift_s=line.shift_s + step)
        found = _along(a, b, pictures, moved, zooms, shortest_s)
        if found is not None and (best is None or _rank(found) > _rank(best)):
            best = found
    return best


def _along(
    a: Views,
    b: Views,
    pictures: tuple[NDArray[np.float32], NDArray[np.float32]],
    line: Line,
    zooms: tuple[float, float],
    shortest_s: float,
) -> Evidence | None:
    """What speaks for a line: of the stretch in which pictures agree."""
    ones_TF, others_UF = pictures
    times_T, times_U = a.trace.times_s, b.trace.times_s
    targets = line.speed * times_T + line.shift_s
    inside = np.flatnonzero((targets >= times_U[0] - _STEP_S / 2) & (targets <= times_U[-1] + _STEP_S / 2))
    if len(inside) < 2:
        return None
    met_NF = _between(others_UF, times_U, targets[inside])
    own_NF = ones_TF[inside]
    shown_N = np.any(own_NF, axis=1) & np.any(met_NF, axis=1)
    alone_NF, met_alone_NF = _without_overlay(own_NF, met_NF)
    alike_N = (alone_NF * met_alone_NF).sum(axis=1)
    first, last = _stretch(np.where(shown_N, alike_N - 0.6, 0.0))
    if times_T[inside[last]] - times_T[inside[first]] + _STEP_S < shortest_s:
        return None
    kept = np.arange(first, last + 1)[shown_N[first : last + 1]]
    if len(kept) < 2:
        return None
    matched, missed, shots_N = _cuts(alone_NF[kept], met_alone_NF[kept])
    own, met, long_N = _changes(own_NF[kept], met_NF[kept], shots_N)
    products, ones, others = (own * met).sum(axis=1), (own * own).sum(axis=1), (met * met).sum(axis=1)
    amounts = np.sqrt(ones * others)
    each = products / np.maximum(amounts, 1e-9)
    changing = long_N & (amounts >= 0.3 * np.median(amounts[long_N])) if long_N.any() else long_N
    return Evidence(
        line=line,
        zoom=zooms,
        alike=float(np.median(alike_N[kept])),
        moves=float(products.sum() / max(math.sqrt(ones.sum() * others.sum()), 1e-9)),
        steady=float(np.median(each[changing])) if changing.any() else 0.0,
        change=float((ones.sum() + others.sum()) / max(2 * int(long_N.sum()), 1)),
        samples=len(kept),
        moving=int(long_N.sum()),
        cuts=matched,
        missed=missed,
        first_s=float(times_T[inside[first]]),
        last_s=float(times_T[inside[last]]),
    )


def _without_overlay(
    own_NF: NDArray[np.float32], met_NF: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both without the few blocks in which they differ most: a logo. What changes is not judged by these."""
    slope_N = (own_NF * met_NF).sum(axis=1, keepdims=True)
    apart_F = ((met_NF - slope_N * own_NF) ** 2).mean(axis=0)
    worst = np.argsort(apart_F.reshape(_BLOCKS, -1, _BLOCKS, GRID // _BLOCKS).mean(axis=(1, 3)).ravel())[-_OVERLAY:]
    shown = np.ones((_BLOCKS, 1, _BLOCKS, 1), np.bool_)
    shown[worst // _BLOCKS, :, worst % _BLOCKS] = False
    kept = np.broadcast_to(shown, (_BLOCKS, GRID // _BLOCKS, _BLOCKS, GRID // _BLOCKS)).ravel()
    return _unit(own_NF[:, kept]), _unit(met_NF[:, kept])


def _unit(pictures_NF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without their mean, of length 1; 0 stays 0."""
    centred = pictures_NF - pictures_NF.mean(axis=1, keepdims=True)
    length = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    unit: NDArray[np.float32] = centred / np.maximum(length, np.float32(1e-6))
    return unit


def _cuts(own_NF: NDArray[np.float32], met_NF: NDArray[np.float32]) -> tuple[int, int, NDArray[np.int64]]:
    """Cuts that both have, a sample apart at most; cuts that one has; and the number of each sample's shot."""
    one_N = (own_NF[:-1] * own_NF[1:]).sum(axis=1) < _CUT
    other_N = (met_NF[:-1] * met_NF[1:]).sum(axis=1) < _CUT
    matched = int((one_N & _widened(other_N)).sum())
    missed = int((one_N & ~_widened(other_N)).sum() + (other_N & ~_widened(one_N)).sum())
    return matched, missed, np.concatenate([[0], np.cumsum(one_N | other_N)])


def _widened(flags_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = flags_N.copy()
    wide[1:] |= flags_N[:-1]
    wide[:-1] |= flags_N[1:]
    return wide


def _changes(
    own_NF: NDArray[np.float32], met_NF: NDArray[np.float32], shots_N: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Both, less the mean picture of each shot; 0 in shots too short to have one, and which samples are not."""
    counts = np.bincount(shots_N)
    long_N = counts[shots_N] >= _SHOT
    changed: list[NDArray[np.float32]] = []
    for pictures_NF in (own_NF, met_NF):
        sums = np.zeros((len(counts), pictures_NF.shape[1]), np.float32)
        np.add.at(sums, shots_N, pictures_NF)
        sums /= np.maximum(counts, 1)[:, None]
        changed.append(np.where(long_N[:, None], pictures_NF - sums[shots_N], np.float32(0)))
    return changed[0], changed[1], long_N


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
    weights: NDArray[np.float32] = np.where(across, np.round(share), share).astype(np.float32)[:, None]
    return _unit((np.float32(1) - weights) * features_UF[left] + weights * features_UF[right])


def _stretch(gains_N: NDArray[np.floating]) -> tuple[int, int]:
    """First and last place of the stretch with the largest sum."""
    sums = np.concatenate([[0.0], np.cumsum(gains_N)])
    lowest = np.minimum.accumulate(sums[:-1])
    last = int(np.argmax(sums[1:] - lowest))
    first = int(np.argmin(sums[: last + 1]))
    return first, last

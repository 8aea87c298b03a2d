"""dedup/lines: what speaks for one line through two traces, and between which moments.

A line says which time of b shows what a time of a shows: t_b = speed * t_a + shift_s. Pure functions of numpy arrays.
"""

# Shape legend: T pictures of a, U pictures of b, F numbers a picture, N samples of an overlap

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.traces import RATE, Trace
from raydist.dedup.views import GRID

_AGREES = 0.6
"""Correlation from which two pictures speak for a stretch rather than against it."""
_APART = 0.4
"""Correlation under which two pictures are of other things,"""
_HOLE = 4
"""and so many of them in a row, if they are a tenth of the samples too, a hole: an overlap ends there, for the other
does not show what lies in it."""
_CUT = 0.7
"""Correlation of neighbouring pictures under which a cut lies between them."""
_BLOCKS = 6
_OVERLAY = 3
"""Blocks of 6 x 6 that a logo may cover."""
_SHOT = 4
"""Samples that a shot needs for a mean picture of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Which time of b shows what a time of a shows."""

    speed: float
    shift_s: float

    def at(self, time_s: float) -> float:
        """Time in b."""
        return self.speed * time_s + self.shift_s

    def turned(self) -> Line:
        """Which time of a shows what a time of b shows."""
        return Line(speed=1 / self.speed, shift_s=-self.shift_s / self.speed)

    def then(self, after: Line) -> Line:
        """From a on through b to what `after` leads to."""
        return Line(speed=self.speed * after.speed, shift_s=after.at(self.shift_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What speaks for one line."""

    line: Line
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
    share: float
    """Of the time in which both clips are on the line."""
    cuts: int
    """Cuts that both have."""
    missed: int
    """Cuts that only one has."""
    first_s: float
    """Of a, the middle of the first and last sample that agrees."""
    last_s: float


def step_of(*ones: Trace) -> float:
    """Seconds between pictures, of the trace that has them furthest apart."""
    return max((float(np.median(np.diff(one.times_s))) for one in ones if len(one.times_s) > 1), default=1 / RATE)


def along(
    a: Trace, b: Trace, pictures: tuple[NDArray[np.float32], NDArray[np.float32]], line: Line, shortest_s: float
) -> Evidence | None:
    """What speaks for a line: of the stretch in which pictures agree.

    Args:
        pictures: of a and b, unit vectors, [T, F] and [U, F].
        shortest_s: a stretch that lasts less in a counts nothing.

    Returns:
        None where no such stretch is.
    """
    ones_TF, others_UF = pictures
    times_T, times_U = a.times_s, b.times_s
    step_s = step_of(a, b)
    targets = line.speed * times_T + line.shift_s
    inside = np.flatnonzero((targets >= times_U[0] - step_s / 2) & (targets <= times_U[-1] + step_s / 2))
    if len(inside) < 2:
        return None
    met_NF = _between(others_UF, times_U, targets[inside])
    own_NF = ones_TF[inside]
    bare_N, met_bare_N = ~np.any(own_NF, axis=1), ~np.any(met_NF, axis=1)
    shown_N = ~(bare_N | met_bare_N)
    alone_NF, met_alone_NF = _without_overlay(own_NF, met_NF)
    alike_N = (alone_NF * met_alone_NF).sum(axis=1)
    holes_N = _holes(np.where(shown_N, alike_N < _APART, bare_N != met_bare_N))
    gains_N = np.where(shown_N, alike_N - _AGREES, 0.0)
    first, last = _stretch(np.where(holes_N, -float(len(inside)), gains_N))
    if times_T[inside[last]] - times_T[inside[first]] + step_s < shortest_s:
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
        alike=float(np.median(alike_N[kept])),
        moves=float(products.sum() / max(math.sqrt(ones.sum() * others.sum()), 1e-9)),
        steady=float(np.median(each[changing])) if changing.any() else 0.0,
        change=float((ones.sum() + others.sum()) / max(2 * int(long_N.sum()), 1)),
        samples=len(kept),
        moving=int(long_N.sum()),
        share=(last - first + 1) / len(inside),
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
    """Cuts that both have, a sample apart at most; cuts that one has; and the number of each sample's shot.

    Shots too short for a mean of their own are one with the short ones beside them: fast motion looks like cuts.
    """
    one_N = (own_NF[:-1] * own_NF[1:]).sum(axis=1) < _CUT
    other_N = (met_NF[:-1] * met_NF[1:]).sum(axis=1) < _CUT
    matched = int((one_N & _widened(other_N)).sum())
    missed = int((one_N & ~_widened(other_N)).sum() + (other_N & ~_widened(one_N)).sum())
    cut_N = one_N | other_N
    shots_N = np.concatenate([[0], np.cumsum(cut_N)])
    is_short_N = np.bincount(shots_N)[shots_N] < _SHOT
    cut_N &= ~(is_short_N[1:] & is_short_N[:-1])
    return matched, missed, np.concatenate([[0], np.cumsum(cut_N)])


def _widened(flags_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = flags_N.copy()
    wide[1:] |= flags_N[:-1]
    wide[:-1] |= flags_N[1:]
    return wide


def _changes(
    own_NF: NDArray[np.float32], met_NF: NDArray[np.float32], shots_N: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Both, less the mean picture of each shot; 0 in shots too short to have one, and which samples are not."""
    starts = np.flatnonzero(np.diff(shots_N, prepend=-1))
    counts_N = np.diff(starts, append=len(shots_N))[shots_N]
    long_N = counts_N >= _SHOT
    changed: list[NDArray[np.float32]] = []
    for pictures_NF in (own_NF, met_NF):
        means_NF = np.add.reduceat(pictures_NF, starts, axis=0)[shots_N] / counts_N[:, None].astype(np.float32)
        changed.append(np.where(long_N[:, None], pictures_NF - means_NF, np.float32(0)))
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


def _holes(apart_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Samples in long runs of those that are apart."""
    starts = np.flatnonzero(np.diff(apart_N, prepend=~apart_N[:1]))
    lengths = np.diff(starts, append=len(apart_N))
    holes_N: NDArray[np.bool_] = apart_N & np.repeat(lengths >= max(_HOLE, len(apart_N) // 10), lengths)
    return holes_N


def _stretch(gains_N: NDArray[np.floating]) -> tuple[int, int]:
    """First and last place of the stretch with the largest sum."""
    sums = np.concatenate([[0.0], np.cumsum(gains_N)])
    lowest = np.minimum.accumulate(sums[:-1])
    last = int(np.argmax(sums[1:] - lowest))
    first = int(np.argmin(sums[: last + 1]))
    return first, last

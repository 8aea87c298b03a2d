"""dedup/align: two traces -> whether they show the same pictures, from when to when, and how sure that is.

What tells a copy from a look-alike shot is change over time: both clips are taken as what differs from their own mean
picture, and a copy's changes (motion, cuts) agree at one offset. Still pictures agree at every offset and so prove
nothing: such a pair is `similar`, unless a neighbour's offset is at hand (`near`), which then decides.

Thresholds were set on half of 40 originals with 240 copies, drawn and filmed: of 1,187 pairs of clips that share 5 s
or more 4 were lost, of 1,491 with other takes of the same scenes none was taken for a copy; `_PARTLY`, `_MISSED` came
in for two takes of one pan in the other half. On 40 new originals (tests/benchmarks/copies.py, the whole stage): recall
0.988 without trims and 1.0 with them, no wrong copy among 6,722 look-alike pairs, offsets within 0.5 s in 99.8 %. Of
146 short real videos, 10,731 pairs, no copy lies outside the known groups of near-duplicates.

Pure functions of numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.lines import Evidence, Line, along, step_of
from raydist.dedup.views import Views
from raydist.dedup.votes import SPEEDS, framings, hypotheses

__all__ = ["SPEEDS", "Evidence", "Line", "Verdict", "compare", "evidence", "judge", "shortest_near"]

SHORTEST_S = 4.0
"""Overlap that is looked for without a hint."""
SHORTEST_NEAR_S = 1.5
"""Overlap that counts where a neighbour tells the line."""
_SHARE, _SHARE_NEAR = 0.8, 0.3
"""Share of the shorter clip that is enough of an overlap."""

ALIKE = 0.6
"""Correlation of pictures from which two clips that are no copies are similar."""

_MOVES = 0.62
"""Correlation of what changes, from which two clips are copies: of half a minute of lively pictures."""
_FEWER = 0.1
"""How much more it must be with each e-fold fewer samples: with few, chance does more."""
_SLOW, _SLOW_CHANGE = 0.1, 0.15
"""How much more where next to nothing changes, and the share of change from which no more: what moves slowly is caught
well by two pictures a second, so copies agree better."""
_PARTLY = 0.2
"""How much more where next to nothing of what could agree does: one shot with the same camera move."""
_MISSED = 0.1
"""How much more where no cut of one is a cut of the other."""
_PICTURES = 0.5
"""Correlation of pictures, as above. Look-alikes have more: it only refuses motion before another background."""
_NEAR = 0.05
"""How much less change must agree beside a copy."""
_SAMPLES = 60
_FEW, _FEW_ALIKE, _FEW_MOVES, _FEW_SHARE = 8, 0.8, 0.3, 0.6
"""Beside a copy, so few samples are too few for a correlation: pictures that agree count more."""
_STILL = 0.004
"""Share of change under which nothing is proven by it,"""
_STILL_MOVES = 0.95
"""unless it agrees so well."""
_STILL_ALIKE = 0.9
"""Correlation of pictures from which stills beside a copy go with it."""
_SLOPE = 12.0
"""Of the logit."""
_HOPE = 0.4
"""Correlation of what changes, under which moving a line by so little is in vain."""
_UNUSUAL = 0.95
"""What a line of another speed is worth."""
_STEPS = (0.5, 0.5, 0.25)
"""How far the best line is moved, again and again, while that makes it better: in pictures."""
_SURE = 2.0
"""Logit from which no other line is looked at."""


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


def compare(a: Views, b: Views, *, near: Line | None = None) -> Verdict:
    """Say whether two clips show the same pictures.

    Args:
        near: the line of a copy beside them: shorter overlaps count, and stills where the pictures agree.
    """
    found = evidence(a, b, near=near)
    if found is None:
        is_alike = framings(a, b)[0].alike >= ALIKE
        return Verdict(kind="similar" if is_alike else "different", confidence=0.0)
    return judge(a, b, found, near=near)


def judge(a: Views, b: Views, found: Evidence, *, near: Line | None = None) -> Verdict:
    """The verdict on the best evidence there is."""
    score = copy_score(found, near=near is not None)
    confidence = 1 / (1 + math.exp(-score))
    if confidence < 0.5:
        return Verdict(kind="similar" if found.alike >= ALIKE else "different", confidence=confidence)
    line, half = found.line, step_of(a.trace, b.trace) / 2
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


def copy_score(found: Evidence, *, near: bool) -> float:
    """Logit of its being a copy."""
    if found.change < _STILL and found.moves < _STILL_MOVES:
        return 1.0 if near and found.alike >= _STILL_ALIKE else -0.1
    fewer = math.log(_SAMPLES / min(found.samples, _SAMPLES))
    slow = max(0.0, 1 - found.change / _SLOW_CHANGE)
    missed = found.missed / max(1, found.cuts + found.missed)
    needed = _MOVES + _FEWER * fewer + _SLOW * slow + _PARTLY * (1 - found.share) + _MISSED * missed
    if near:
        few = found.samples <= _FEW and found.alike >= _FEW_ALIKE and found.share >= _FEW_SHARE
        needed = _FEW_MOVES if few else needed - _NEAR
    changes = min(found.moves, found.steady + 0.1) - needed
    return _SLOPE * min(found.alike - _PICTURES, changes)


def shortest_near(seconds: float) -> float:
    """Overlap that counts where a neighbour tells the line, of clips of which the shorter has so many seconds."""
    return min(SHORTEST_NEAR_S, _SHARE_NEAR * seconds)


def evidence(a: Views, b: Views, *, near: Line | None = None) -> Evidence | None:
    """The best line through two clips, and what speaks for it; None where no picture agrees."""
    best: Evidence | None = None
    seconds = min(one.trace.end_s - one.trace.start_s for one in (a, b))
    shortest_s = min(SHORTEST_S, _SHARE * seconds) if near is None else shortest_near(seconds)
    step_s = step_of(a.trace, b.trace)
    for framing, lines in hypotheses(a, b, near):
        best = _best([best, _Look(a, b, framing.pictures(a, b), near, step_s, shortest_s).best(lines)])
        if best is not None and copy_score(best, near=near is not None) >= _SURE:
            break
    return best


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks at lines through two clips that are laid over each other in one way."""

    a: Views
    b: Views
    pictures: tuple[NDArray[np.float32], NDArray[np.float32]]
    near: Line | None
    step_s: float
    shortest_s: float

    def best(self, lines: Sequence[Line]) -> Evidence | None:
        """The best of some lines, or of those beside it."""
        best = _best(self._at(line) for line in lines)
        for step in _STEPS:
            if best is not None and best.moves >= _HOPE:
                line = best.line
                moved = (Line(speed=line.speed, shift_s=line.shift_s + side * step * self.step_s) for side in (-1, 1))
                best = _best([best, *map(self._at, moved)])
        return best

    def _at(self, line: Line) -> Evidence | None:
        """What speaks for a line; stills stay on the line that they were given."""
        found = along(self.a.trace, self.b.trace, self.pictures, line, self.shortest_s)
        is_moved = self.near is not None and line != self.near
        return None if found is not None and is_moved and found.change < _STILL else found


def _best(found: Iterable[Evidence | None]) -> Evidence | None:
    return max((one for one in found if one is not None), key=_rank, default=None)


def _rank(found: Evidence) -> float:
    """Among lines of about the same worth, the one that changes no speed."""
    usual = 1.0 if found.line.speed == 1 else _UNUSUAL
    return usual * (found.alike + max(found.moves, 0.0)) * math.sqrt(found.samples / (found.samples + 6))

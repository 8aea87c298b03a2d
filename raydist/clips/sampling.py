"""sampling: which frames of a clip are looked at.

EXACT   the middle frame of each of T equal intervals: the recipe
FAST    of each interval a key frame where it has one, else a frame that costs little to get to
THIRDS  three frames of each of T / 3 of the recipe's intervals, the second of them the recipe's: to choose from in
        training
EVEN    at most so many frames, evenly over the time, from the first one on: what a small copy of a clip is made of
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SAMPLINGS = ("exact", "fast", "thirds")

CANDIDATES = 3
"""Frames of an interval by THIRDS."""

REACH = 0.75
"""How far before the middle of an interval without a key frame its frame may lie, in lengths of an interval."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The frames that are wanted of one span."""

    keys: list[int]
    """Of each of the T frames, in order; a key that repeats is a frame that repeats."""
    times_ms: list[int]
    exact_ms: list[int]
    """When each of them would be by the exact rule."""


def middle_ranks(count: int, frames: int) -> list[int]:
    """The middle of each of `frames` equal intervals of `count` presented frames.

    Args:
        count: presented frames there are, at least 1.
        frames: how many are wanted, at least 1.

    Returns:
        `frames` ranks in [0, count), never falling. With fewer than `frames` there is each rank once, then the last
        one again.

    Raises:
        ValueError: if one of the two is below 1.

    Source: `middle_8` of the parity data: a = min(frames, count), edges e_i = i * count // a,
    rank (e_i + e_(i+1) - 1) // 2.
    """
    if count < 1 or frames < 1:
        raise ValueError(f"{frames} of {count} frames: expected at least 1 of at least 1")
    intervals = min(frames, count)
    edges = [i * count // intervals for i in range(intervals + 1)]
    ranks = [(first + after - 1) // 2 for first, after in pairwise(edges)]
    return ranks + ranks[-1:] * (frames - intervals)


def third_ranks(count: int, frames: int) -> list[int]:
    """Three frames of each of `frames / 3` equal intervals of `count` presented frames: the middles of its thirds.

    Args:
        count: presented frames there are, at least 1.
        frames: how many are wanted, a multiple of 3.

    Returns:
        `frames` ranks in [0, count), never falling. The second of each three is the recipe's (`middle_ranks`); the
        other two lie in the same interval, and are the second again where it is that short.

    Raises:
        ValueError: if one of the two is out of bounds.
    """
    if frames % CANDIDATES:
        raise ValueError(f"{frames} frames: expected a multiple of {CANDIDATES}")
    middles = middle_ranks(count, frames // CANDIDATES)
    cuts = min(frames // CANDIDATES, count)
    edges = [i * count // cuts for i in range(cuts + 1)]
    ranks: list[int] = []
    for middle, (first, after) in zip(middles, pairwise(edges), strict=False):
        third = (after - first) // CANDIDATES
        ranks += [max(first, min(middle, first + (third - 1) // 2)), middle, max(middle, after - 1 - third // 2)]
    return ranks + [middles[-1]] * (frames - len(ranks))


def choose(presented: Sequence[int], frames: int) -> list[int]:
    """EXACT: the recipe's frames among the presented frames of a span, given in order of presentation."""
    return [presented[rank] for rank in middle_ranks(len(presented), frames)] if presented else []


def choose_thirds(presented: Sequence[int], frames: int) -> list[int]:
    """THIRDS: three frames of each of the recipe's intervals, given in order of presentation."""
    return [presented[rank] for rank in third_ranks(len(presented), frames)] if presented else []


def choose_even(presented: Sequence[int], frames: int) -> list[int]:
    """EVEN: the first frame of each of `frames` equal stretches of time that has one; all where there are so few.

    Where frames are numbered, not timed, the stretches are of equal numbers.
    """
    if len(presented) <= frames:
        return list(presented)
    start, length = presented[0], presented[-1] - presented[0] + 1
    first_of: dict[int, int] = {}
    for frame in presented:
        first_of.setdefault((frame - start) * frames // length, frame)
    return list(first_of.values())


Choose = Callable[[Sequence[int], int], list[int]]
"""A rule: the presented frames of a span, and how many are wanted -> those that are."""


def intervals(low: int, high: int, frames: int) -> list[tuple[int, int]]:
    """`frames` half-open intervals of equal length, to a tick, that cover [low, high)."""
    edges = [low + i * (high - low) // frames for i in range(frames + 1)]
    return list(pairwise(edges))


def cheap_reach(keys: Sequence[int], spans: Sequence[tuple[int, int]]) -> dict[int, int] | None:
    """FAST: how far the groups of pictures are decoded.

    Args:
        keys: ticks of key frames, rising.
        spans: the intervals.

    Returns:
        Tick of a key frame -> the tick whose frame, or else the next one, is the last to decode of its group; None:
        the first interval has no key frame in it or before it.
    """
    reach: dict[int, int] = {}
    for low, high in spans:
        key = _nearest(keys[bisect_left(keys, low) : bisect_left(keys, high)], low + high)
        if key is not None:
            reach.setdefault(key, key)
            continue
        before = bisect_right(keys, low) - 1
        if before < 0:
            return None
        start = keys[before]
        early = max(spans[0][0], (low + high) // 2 - int(REACH * (high - low)))
        until = early if early > start else low
        reach[start] = max(reach.get(start, start), until)
    return reach


def choose_cheap(presented: Sequence[int], keys: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int] | None:
    """FAST: a frame for each interval.

    Args:
        presented: ticks of the frames within reach, rising.
        keys: those of them that are key frames.
        spans: the intervals.

    Returns:
        Of each interval the key frame nearest to its middle; without one, the frame nearest to its middle that is
        within reach and after the one before. None: an interval has none.
    """
    chosen: list[int] = []
    for low, high in spans:
        key = _nearest([tick for tick in keys if low <= tick < high], low + high)
        if key is None:
            since = chosen[-1] if chosen else -math.inf
            early = max(spans[0][0], (low + high) // 2 - (high - low))
            key = _nearest([tick for tick in presented if max(since + 1, early) <= tick < high], low + high)
        if key is None:
            return None
        chosen.append(key)
    return chosen


def _nearest(ticks: Sequence[int], twice_the_middle: int) -> int | None:
    return min(ticks, key=lambda tick: abs(2 * tick - twice_the_middle)) if ticks else None

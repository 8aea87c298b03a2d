"""sampling: which frames of a clip are looked at.

EXACT   the middle frame of each of T equal intervals: the recipe
FAST    of each interval a key frame where it has one, else its first frame: what costs least to decode
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Sampling = Literal["exact", "fast"]
SAMPLINGS: tuple[Sampling, ...] = ("exact", "fast")


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


def choose(presented: Sequence[int], frames: int) -> list[int]:
    """EXACT: the recipe's frames among the presented frames of a span, given in order of presentation."""
    return [presented[rank] for rank in middle_ranks(len(presented), frames)] if presented else []


def intervals(low: int, high: int, frames: int) -> list[tuple[int, int]]:
    """`frames` half-open intervals of equal length, to a tick, that cover [low, high)."""
    edges = [low + i * (high - low) // frames for i in range(frames + 1)]
    return list(pairwise(edges))


def nearest_to_middle(ticks: Sequence[int], interval: tuple[int, int]) -> int | None:
    """The one of the ticks in an interval that lies nearest to its middle; None: there is none."""
    low, high = interval
    inside = [tick for tick in ticks if low <= tick < high]
    return min(inside, key=lambda tick: abs(2 * tick - low - high)) if inside else None


def choose_cheap(presented: Sequence[int], keys: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int | None]:
    """FAST: a frame of each interval.

    Args:
        presented: ticks of frames, rising.
        keys: those of them that are key frames.
        spans: the intervals.

    Returns:
        The key frame nearest to the interval's middle, else its first frame, else None.
    """
    chosen: list[int | None] = []
    for low, high in spans:
        key = nearest_to_middle(keys, (low, high))
        chosen.append(next((tick for tick in presented if low <= tick < high), None) if key is None else key)
    return chosen

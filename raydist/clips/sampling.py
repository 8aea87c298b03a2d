"""sampling: which frames of a clip are looked at."""

from __future__ import annotations

from itertools import pairwise


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

"""Clips that show the same pictures, by the 64-bit hashes of their frames: near-linear, and without a model.

Two clips are copies when at least `SHARE` of the distinct frames of each have a counterpart in the other, in whatever
order: a frame whose hash differs in at most `NEAR_BITS` bits. A flat frame has the hash 0 and counts nothing.

Measured. All hashes have 31 of 63 bits set, so distances are even: 4 bits also means 5.
 - Real videos (138 of 146 are not flat): of the same frames at half size and JPEG quality 30, 97 % differ by at most 4
   bits; brightened by 15 %, 86 %. Of the clips 97 % are found again when encoded so, 86 % brightened, 72 % with frames
   that lie 4 % of the clip later, 32 % under a logo, 17 % cropped by 3 % on each side.
 - Groups of near-duplicates (trims, crops and overlays among them): of the 34 links that join their members 24 are
   found. Three other pairs are: title cards that differ in one word, and two nearly white films.
 - Drawn clips of the demo, 2,000,000 pairs, a tenth of them before the same kind of scene: none is taken for a copy.
   With 6 bits 10 were; with 4 bits and 60 % of the frames 1.
"""

# Shape legend: N clips, T hashes a clip, U different hashes, P pairs

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

NEAR_BITS = 4
SHARE = 0.7

COMMON = 1_000
"""A picture that more clips have, such as an opening title, says nothing of any two of them."""

_PARTS = 6
"""A hash is cut in so many parts: two that differ in 4 bits agree in two of them at least."""

_CROWD = 2_000
"""So many neighbours of a hash with two equal parts are compared; more only meet where hashes crowd for no reason."""

_BLOCK = 1 << 16
_HELD = 1 << 22
"""Candidates that are held before the same ones are merged."""

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def copies(hashes_NT: Hashes, sides_N: NDArray[np.integer]) -> tuple[Numbers, int]:
    """Pairs of clips of different sides that are copies.

    Args:
        hashes_NT: 0 where a clip has no frame, or a flat one.
        sides_N: which split each clip is in.

    Returns:
        [P, 2] rows of clips, the smaller first, sorted; and how many pictures were left out as common.
    """
    count = len(hashes_NT)
    candidates, common = _candidates(hashes_NT, sides_N)
    parts = [np.empty((0, 2), np.int64)]
    for start in range(0, len(candidates), _BLOCK):
        low, high = np.divmod(candidates[start : start + _BLOCK], count)
        same = are_copies(hashes_NT[low], hashes_NT[high])
        parts.append(np.stack([low[same], high[same]], axis=1))
    return np.concatenate(parts), common


def _candidates(hashes_NT: Hashes, sides_N: NDArray[np.integer]) -> tuple[Numbers, int]:
    """Pairs of clips of different sides with a near frame, as low * N + high, sorted; and the common pictures."""
    clips, different, common = _different(hashes_NT)
    counts = np.bincount(clips[:, 1], minlength=len(different))
    firsts = np.cumsum(counts) - counts
    found = [np.empty(0, np.int64)]
    held = 0
    for ones, others in _near(different):
        for some, more in _expanded(ones, others, firsts, counts, clips[:, 0]):
            apart = sides_N[some] != sides_N[more]
            low, high = np.minimum(some, more)[apart], np.maximum(some, more)[apart]
            found.append(low * len(hashes_NT) + high)
            held += len(low)
            if held > _HELD:
                found = [np.unique(np.concatenate(found))]
                held = 0
    return np.unique(np.concatenate(found)), common


def are_copies(ones_PT: Hashes, others_PT: Hashes) -> NDArray[np.bool_]:
    """Whether each two clips show the same: [P]."""
    near_PTT = np.bitwise_count(ones_PT[:, :, None] ^ others_PT[:, None, :]) <= NEAR_BITS
    near_PTT &= (ones_PT != 0)[:, :, None] & (others_PT != 0)[:, None, :]
    found_P = _share(ones_PT, near_PTT.any(axis=2)) >= SHARE
    return found_P & (_share(others_PT, near_PTT.any(axis=1)) >= SHARE)


def _share(hashes_PT: Hashes, found_PT: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the distinct frames of each clip that are found; 0 for a clip without any."""
    first_PT = _first(hashes_PT)
    share: NDArray[np.float64] = (found_PT & first_PT).sum(axis=1) / np.maximum(first_PT.sum(axis=1), 1)
    return share


def _first(hashes_PT: Hashes) -> NDArray[np.bool_]:
    """Whether each hash is that of a frame, and the first of its value in its clip: [P, T]."""
    equal_PTT = hashes_PT[:, :, None] == hashes_PT[:, None, :]
    before = np.tril(np.ones(equal_PTT.shape[1:], np.bool_), -1)
    first_PT: NDArray[np.bool_] = (hashes_PT != 0) & ~(equal_PTT & before).any(axis=2)
    return first_PT


def _different(hashes_NT: Hashes) -> tuple[Numbers, Hashes, int]:
    """(clip, place of its hash) sorted by hash, [*, 2]; the different hashes; how many were left out as common."""
    clips, _ = np.nonzero(hashes_NT)
    different, places = np.unique(hashes_NT[hashes_NT != 0], return_inverse=True)
    count = max(1, len(hashes_NT))
    places, clips = np.divmod(np.unique(places * count + clips), count)  # a clip counts once for each of its hashes
    kept = np.bincount(places, minlength=len(different)) <= COMMON
    few = kept[places]
    renumbered = np.cumsum(kept) - 1
    return np.stack([clips[few], renumbered[places[few]]], axis=1), different[kept], int((~kept).sum())


def _near(hashes_U: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Places of hashes that differ by at most `NEAR_BITS` bits, each hash with itself among them, part by part."""
    every = np.arange(len(hashes_U))
    yield every, every
    edges = [64 * number // _PARTS for number in range(_PARTS + 1)]
    parts = [(hashes_U >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1) for low, high in pairwise(edges)]
    for one, other in combinations(range(_PARTS), _PARTS - NEAR_BITS):
        keys = parts[one] << np.uint64(32) | parts[other]
        order = np.argsort(keys, kind="stable")
        sorted_keys, sorted_hashes = keys[order], hashes_U[order]
        places = every
        for step in range(1, _CROWD):
            places = places[places + step < len(order)]
            places = places[sorted_keys[places] == sorted_keys[places + step]]
            if not len(places):
                break
            near = np.bitwise_count(sorted_hashes[places] ^ sorted_hashes[places + step]) <= NEAR_BITS
            yield order[places[near]], order[places[near] + step]


def _expanded(
    ones: Numbers, others: Numbers, firsts: Numbers, counts: Numbers, clips: Numbers
) -> Iterator[tuple[Numbers, Numbers]]:
    """All pairs of a clip that has the one hash and a clip that has the other, some million at a time."""
    sizes = counts[ones] * counts[others]
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ones):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + COMMON * COMMON, side="right")))
        size, width = sizes[start:stop], counts[others[start:stop]]
        inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        across, along = np.divmod(inside, np.repeat(width, size))
        yield (
            clips[np.repeat(firsts[ones[start:stop]], size) + across],
            clips[np.repeat(firsts[others[start:stop]], size) + along],
        )
        start = stop


def sharing(hashes_NT: Hashes, sides_N: NDArray[np.integer], *, shared: int, most: int) -> Numbers:
    """Pairs of clips of different sides that share pictures, a looser bound than that of `copies`.

    Args:
        hashes_NT: 0 where a clip has no frame, or a flat one.
        sides_N: clips of one side are not paired.
        shared: distinct pictures of each that the other must have.
        most: partners of a clip: a pair stays while it is among the `most` best of one of its two clips.

    Returns:
        [P, 2] rows of clips, the smaller first, sorted.
    """
    count = max(1, len(hashes_NT))
    candidates, _ = _candidates(hashes_NT, sides_N)
    kept, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        low, high = np.divmod(block, count)
        shares = np.minimum(_shared(hashes_NT[low], hashes_NT[high]), _shared(hashes_NT[high], hashes_NT[low]))
        enough = shares >= shared
        kept.append(block[enough])
        counts.append(shares[enough])
    pairs, shares = np.stack(np.divmod(np.concatenate(kept), count), axis=1), np.concatenate(counts)
    return pairs[_among_best(pairs, shares, most)]


def _shared(ones_PT: Hashes, others_PT: Hashes) -> Numbers:
    """How many distinct frames of each of `ones` have a counterpart in `others`: [P]."""
    near_PTT = np.bitwise_count(ones_PT[:, :, None] ^ others_PT[:, None, :]) <= NEAR_BITS
    near_PTT &= (ones_PT != 0)[:, :, None] & (others_PT != 0)[:, None, :]
    counts: Numbers = (near_PTT.any(axis=2) & _first(ones_PT)).sum(axis=1)
    return counts


def _among_best(pairs_P2: Numbers, counts_P: Numbers, most: int) -> NDArray[np.bool_]:
    """Whether each pair is among the `most` of one of its two clips with the largest counts: [P]."""
    best = np.zeros(len(pairs_P2), np.bool_)
    for side in (0, 1):
        order = np.lexsort((pairs_P2[:, 1 - side], -counts_P, pairs_P2[:, side]))
        clips = pairs_P2[order, side]
        rank = np.arange(len(clips)) - np.searchsorted(clips, clips)
        best[order[rank < most]] = True
    return best

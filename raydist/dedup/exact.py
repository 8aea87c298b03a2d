"""exact: all pairs of near vectors, in one process: `raydist.find_duplicates`.

Promises  every pair at or above the threshold is found, a tie included, and no other: `kernel` says what a similarity
          is and why none is missed; the same vectors give the same table
Memory    the vectors, as much again, 4 bytes for each of their numbers, and 20 bytes a pair found

Shape legend: N vectors, D numbers a vector
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.dedup import cells
from raydist.dedup.blocks import Group, group_of, proposed
from raydist.dedup.kernel import Block, Kernel, block_of
from raydist.errors import UsageError

PAIRS = pa.schema({"a": pa.int64(), "b": pa.int64(), "similarity": pa.float32()})

GROUP_ROWS = 32_768


def find_duplicates(vectors: NDArray[np.floating], threshold: float = 0.95) -> pa.Table:
    """All pairs of vectors whose cosine is at or above a threshold.

    Of m equal vectors that is m (m - 1) / 2 pairs.

    Args:
        vectors: [N, D] float16 or float32, of any length but zero.
        threshold: a cosine above 0 and below 1.

    Returns:
        `a`, `b` (int64 row numbers, a < b) and `similarity` (float32), sorted by a, then b.

    Raises:
        UsageError: vectors of another shape or type, a vector that is zero or holds NaN or infinity, a threshold out
            of bounds.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.dtype not in (np.float16, np.float32):
        raise UsageError(
            f"vectors have shape {vectors.shape} of {vectors.dtype}, expected [N, D] of float16 or float32: "
            "use `.astype('float32')`"
        )
    check_threshold(threshold)
    if not vectors.shape[1]:
        raise UsageError(f"vectors have shape {vectors.shape}, expected at least one number each")
    try:
        groups, layout, order = _groups(np.ascontiguousarray(vectors), threshold)
    except ValueError as error:
        raise UsageError(str(error)) from error
    kernel = Kernel(vectors.shape[1], layout.basis.shape[1], threshold)
    found_a, found_b = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    similarities = [np.empty(0, np.float32)]
    for one, a in enumerate(groups):
        for two, b in enumerate(groups[one:], one):
            for i, j, _ in proposed(kernel, layout, a, b):
                similarity = a.block.similarity(i, b.block, j)
                reach = similarity >= threshold
                found_a.append(order[i[reach] + one * GROUP_ROWS])
                found_b.append(order[j[reach] + two * GROUP_ROWS])
                similarities.append(similarity[reach].astype(np.float32))
    return _sorted(np.concatenate(found_a), np.concatenate(found_b), np.concatenate(similarities))


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is none.

    Raises:
        UsageError: if it is not above 0 and below 1.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"threshold is {threshold}, expected a cosine above 0 and below 1, such as 0.95")


def _groups(vectors: NDArray[np.floating], threshold: float) -> tuple[list[Group], cells.Layout, NDArray[np.int64]]:
    """The vectors in groups of neighbouring cells, and which vector is at each place."""
    count = len(vectors)
    pairs = count * (count - 1) / 2
    drawn = np.random.default_rng(0).permutation(count)[: cells.sample_size(pairs)]
    some = block_of(vectors[drawn[: cells.SAMPLE]])
    basis = cells.principal(some.units(slice(None)), threshold)
    whole = block_of(vectors, basis)
    layout = cells.learn(basis, whole.head[drawn], threshold, pairs)
    cell = layout.assign(whole.head)
    order = np.argsort(cell, kind="stable")
    groups = []
    for start in range(0, count, GROUP_ROWS):
        part = order[start : start + GROUP_ROWS]
        block = Block(vectors[part], whole.squares[part], whole.head[part])
        groups.append(group_of(block, cell[part], layout))
    return groups, layout, order


def _sorted(a: NDArray[np.int64], b: NDArray[np.int64], similarity: NDArray[np.float32]) -> pa.Table:
    a, b = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((b, a))
    return pa.table([pa.array(a[order]), pa.array(b[order]), pa.array(similarity[order])], schema=PAIRS)

"""Centres of an index's partitions: spherical k-means of a sample of the vectors.

Gives     unit vectors, so that a query ranks partitions by their direction alone. Lance's own training gives means,
          which are shorter the wider a partition is; a dot product then passes wide partitions over, and text queries,
          which lie apart from all video vectors, need half as many partitions again for the same recall
"""

# Shape legend: N vectors, C centres, D numbers a vector

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

SAMPLE_PER_CENTRE = 64
ROUNDS = 8

_BLOCK = 2_048
"""Vectors in one matrix product: 32 MB of scores at 4,000 centres."""


def train(sample_ND: NDArray[np.float16], count: int, *, rounds: int = ROUNDS, seed: int = 0) -> NDArray[np.float32]:
    """Centres [C, D] of length 1 for vectors of about length 1.

    Args:
        sample_ND: at least `count` vectors in no particular order; `SAMPLE_PER_CENTRE` a centre are enough.

    Raises:
        ValueError: for fewer vectors than centres.
    """
    if not 1 <= count <= len(sample_ND):
        raise ValueError(f"{count} centres of {len(sample_ND)} vectors, expected between 1 and as many")
    rng = np.random.default_rng(seed)
    centres_CD = _unit(sample_ND[rng.choice(len(sample_ND), count, replace=False)].astype(np.float32))
    for _ in range(rounds):
        sums_CD, sizes_C, farthest = _gathered(sample_ND, centres_CD)
        empty = np.flatnonzero((sizes_C == 0) | ~np.linalg.norm(sums_CD, axis=1).astype(bool))
        sums_CD[empty] = sample_ND[farthest[: len(empty)]]
        centres_CD = _unit(sums_CD)
    return centres_CD


def _gathered(
    sample_ND: NDArray[np.float16], centres_CD: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """For each centre the sum and number of the vectors nearest to it; and all vectors, the worst served first."""
    count, width = centres_CD.shape
    sums_CD, nearest_N = np.zeros((count, width), np.float32), np.empty(len(sample_ND), np.int64)
    scores_N = np.empty(len(sample_ND), np.float32)
    for start in range(0, len(sample_ND), _BLOCK):
        block_ND = sample_ND[start : start + _BLOCK].astype(np.float32)
        block_NC = block_ND @ centres_CD.T
        here = np.argmax(block_NC, axis=1)
        rows = np.arange(len(block_ND))
        nearest_N[start : start + _BLOCK], scores_N[start : start + _BLOCK] = here, block_NC[rows, here]
        members = csr_matrix((np.ones(len(here), np.float32), (here, rows)), shape=(count, len(here)))
        np.add(sums_CD, members @ block_ND, out=sums_CD)
    return sums_CD, np.bincount(nearest_N, minlength=count), np.argsort(scores_N)


def _unit(values_CD: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values_CD, axis=1, keepdims=True)
    return (values_CD / np.where(lengths > 0, lengths, 1)).astype(np.float32)

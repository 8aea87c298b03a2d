"""Tables of vectors that lie in clusters, with an index."""

from __future__ import annotations

import numpy as np
from store import tables

from raydist.store import commit, index

WIDTH = 32
ROWS = 6_000


def draw(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in 60 clusters."""
    middles = np.random.default_rng(99).normal(size=(60, WIDTH))
    rng = np.random.default_rng(seed)
    values = middles[rng.integers(0, 60, rows)] + 0.7 * rng.normal(size=(rows, WIDTH))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def put(location: str, first: int, count: int, seed: int = 0) -> None:
    keys = list(range(first, first + count))
    rows = tables.embeddings(
        keys, vector=tables.fixed(draw(count, seed)), split=["test" if key % 50 == 0 else "train" for key in keys]
    )
    commit.append(location, tables.TABLE, rows, rows.schema)


def indexed(location: str, rows: int = ROWS) -> None:
    for number, first in enumerate(range(0, rows, 1_000)):
        put(location, first, 1_000, seed=number)
    index.build(location, tables.TABLE)

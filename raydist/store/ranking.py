"""The best rows of an embeddings table for a query: through the index where that pays, else exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store import nearest
from raydist.store.location import StorageOptions


def top_k(
    location: str,
    table: str,
    queries_QD: NDArray[np.float32],
    k: int,
    where: str | None = None,
    columns: Sequence[str] = ("clip_key", "clip_id", "fingerprint"),
    *,
    exact: bool = False,
    storage_options: StorageOptions = None,
) -> list[pa.Table]:
    """Like `nearest.top_k`."""
    return nearest.top_k(location, table, queries_QD, k, where, columns, storage_options=storage_options)

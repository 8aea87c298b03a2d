"""Exact nearest neighbours: every vector is looked at, memory stays flat, any number of queries in one pass.

Reads     `vector`, `clip_key` and the columns asked for of an embeddings table
Promises  the true k best, never fewer than k while k rows pass the filter; equal scores in the order of `clip_key`;
          the same query on the same table gives the same answer, alone or among others

Shape legend: Q queries, N vectors in a block, D numbers a vector, K hits
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.errors import StoreError
from raydist.store import filters, roaring
from raydist.store.filters import Filter
from raydist.store.tables import lance_errors, need_table

_BLOCK = 8_192
"""Vectors in one matrix product: 16 MB of float32 at 512 numbers."""

_QUERIES = 256
"""Queries in one matrix product; each pass over the table serves `_QUERIES_PER_PASS`."""

_QUERIES_PER_PASS = 4_096


def top_k(
    location: str,
    table: str,
    queries_QD: NDArray[np.float32],
    k: int,
    where: str | None = None,
    columns: Sequence[str] = ("clip_key", "clip_id", "fingerprint"),
) -> list[pa.Table]:
    """The k rows of each query with the greatest dot product, among those where `where` is true.

    Args:
        queries_QD: [Q, D] finite, unit length for cosines.
        where: an SQL condition over the table's columns and those of `videos` (see `filters`), applied before ranking.

    Returns:
        For each query the columns and `score` (float32, the dot product), best first; k rows if so many pass.

    Raises:
        ValueError: for queries that are not [Q, D] or not finite, or k < 1.
        StoreError: no such table, vectors of another width, or a condition that is none; it lists the columns.
    """
    dataset = need_table(location, table)
    queries_QD = checked(dataset, table, queries_QD, k)
    passing = filters.resolve(dataset, location, where)
    return ranked(dataset, queries_QD, k, passing, columns)


def checked(dataset: lance.LanceDataset, table: str, queries_QD: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The queries as they are ranked; what cannot be is refused, as `top_k` says."""
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    if queries_QD.ndim != 2 or not np.isfinite(queries_QD).all():
        raise ValueError(f"queries have shape {queries_QD.shape}, expected [Q, D] of finite numbers")
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    _refuse_width(dataset, table, queries_QD.shape[1])
    return queries_QD


def ranked(
    dataset: lance.LanceDataset,
    queries_QD: NDArray[np.float32],
    k: int,
    passing: Filter,
    columns: Sequence[str],
) -> list[pa.Table]:
    """`top_k` of one version of a table."""
    hits: list[pa.Table] = []
    for start in range(0, len(queries_QD), _QUERIES_PER_PASS):
        best = Best(queries_QD[start : start + _QUERIES_PER_PASS], k)
        best.look_through(dataset, passing)
        hits += rows_of(dataset, best, list(columns))
    return hits


def _refuse_width(dataset: lance.LanceDataset, table: str, wanted: int) -> None:
    if "vector" not in dataset.schema.names:
        raise StoreError(f"table {table!r} holds no vectors; expected one of embeddings")
    width = dataset.schema.field("vector").type.list_size
    if width != wanted:
        raise StoreError(
            f"table {table!r} holds {width}-d vectors, the query has {wanted}: "
            "search with the model that filled the table"
        )


def _vectors(
    dataset: lance.LanceDataset, passing: Filter, fragments: list[lance.LanceFragment] | None
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.uint64]]]:
    """Vectors [N, D], clip keys [N] and row addresses [N], batch by batch."""
    with lance_errors(dataset.uri, where=passing.where, schema=dataset.schema):
        scanner = dataset.scanner(
            columns=["vector", "clip_key"],
            batch_size=_BLOCK,
            with_row_address=True,
            fragments=fragments,
            **passing.scan,
        )
        for batch in scanner.to_batches():
            yield vectors_of(batch["vector"]), batch["clip_key"].to_numpy(), batch["_rowaddr"].to_numpy()


def vectors_of(column: pa.FixedSizeListArray | pa.ChunkedArray) -> NDArray[np.float16]:
    """A column of vectors as [N, D]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, column.type.list_size)


class Best:
    """The k best of each query among the vectors seen; `finish` after the last ones.

    Vectors are gathered in blocks, and queries in groups, of one shape: a matrix product of another shape adds up in
    another order, and equal vectors would get scores that differ in the last bit.
    """

    def __init__(self, queries_QD: NDArray[np.float32], k: int) -> None:
        self.k = k
        empty = (np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.uint64))
        self.found = [empty for _ in range(len(queries_QD))]
        """For each query: scores, clip keys, row addresses; best first."""
        width = queries_QD.shape[1]
        self._groups: list[NDArray[np.float32]] = []
        for start in range(0, len(queries_QD), _QUERIES):
            group_QD = queries_QD[start : start + _QUERIES]
            filled_QD = np.zeros((-(-len(group_QD) // 16) * 16, width), np.float32)
            filled_QD[: len(group_QD)] = group_QD
            self._groups.append(filled_QD)
        self._block_ND = np.zeros((_BLOCK, width), np.float32)
        self._keys = np.empty(_BLOCK, np.int64)
        self._addresses = np.empty(_BLOCK, np.uint64)
        self._filled = 0

    def look_through(
        self, dataset: lance.LanceDataset, passing: Filter, fragments: list[lance.LanceFragment] | None = None
    ) -> None:
        """Take in all rows that pass (of some fragments), and finish."""
        for vectors in _vectors(dataset, passing, fragments):
            self.see(*vectors)
        self.finish()

    def see(self, vectors_ND: NDArray[np.float16], keys: NDArray[np.int64], addresses: NDArray[np.uint64]) -> None:
        """Take vectors in, any number of them."""
        start = 0
        while start < len(keys):
            count = min(len(keys) - start, _BLOCK - self._filled)
            here, there = slice(self._filled, self._filled + count), slice(start, start + count)
            self._block_ND[here] = vectors_ND[there]
            self._keys[here] = keys[there]
            self._addresses[here] = addresses[there]
            self._filled, start = self._filled + count, start + count
            if self._filled == _BLOCK:
                self.finish()

    def finish(self) -> None:
        """Rank what was gathered."""
        if not self._filled:
            return
        keys, addresses = self._keys[: self._filled], self._addresses[: self._filled]
        for number, group_QD in enumerate(self._groups):
            # In this order of the factors the product is several times faster for few queries.
            scores_QN = np.ascontiguousarray((self._block_ND @ group_QD.T)[: self._filled].T)
            first = number * _QUERIES
            for query in range(first, min(first + _QUERIES, len(self.found))):
                self._merge(query, scores_QN[query - first], keys, addresses)
        self._filled = 0

    def _merge(
        self, query: int, scores_N: NDArray[np.float32], keys: NDArray[np.int64], addresses: NDArray[np.uint64]
    ) -> None:
        best = self.found[query]
        full = len(best[0]) == self.k
        if full:
            candidates = np.flatnonzero(scores_N >= best[0][-1])  # equal ones too: a smaller key goes first
            if not len(candidates):
                return
        elif len(scores_N) > self.k:
            floor = np.partition(scores_N, -self.k)[-self.k]
            candidates = np.flatnonzero(scores_N >= floor)
        else:
            candidates = np.arange(len(scores_N))
        scores = np.concatenate([best[0], scores_N[candidates]])
        all_keys = np.concatenate([best[1], keys[candidates]])
        order = np.lexsort((all_keys, -scores))[: self.k]
        rows = np.concatenate([best[2], addresses[candidates]])
        self.found[query] = (scores[order], all_keys[order], rows[order])


def rows_of(
    dataset: lance.LanceDataset, best: Best, columns: list[str], rows: pa.Table | None = None
) -> list[pa.Table]:
    """The columns and `score` of all hits; each row is read once, or not at all where it is among `rows`."""
    addresses = np.unique(np.concatenate([np.empty(0, np.uint64), *(found[2] for found in best.found)]))
    if rows is None:
        with lance_errors(dataset.uri):
            rows = take(dataset, addresses, columns)
    there = rows["_rowaddr"].to_numpy()
    places = np.argsort(there)
    rows, there = rows.select(columns).combine_chunks(), there[places]
    hits = []
    for scores, _, found in best.found:
        hit = rows.take(pa.array(places[np.searchsorted(there, found)]))
        hits.append(hit.append_column("score", pa.array(scores)))
    return hits


def take(dataset: lance.LanceDataset, addresses: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
    """Columns and `_rowaddr` of the rows at these addresses, in the table's order."""
    scanner = dataset.scanner(
        columns=list(columns), with_row_address=True, row_addr_allowlist=roaring.packed(addresses), scan_in_order=True
    )
    return scanner.to_table()

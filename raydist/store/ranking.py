"""The best rows of an embeddings table for a query: through the index where that pays, else exactly.

Reads     an embeddings table, its index and what was measured of it; `videos` where a filter names their columns
Promises  k rows while so many pass the filter; rows that the index lacks are looked at too; scores are the dot products
          of the stored vectors, as exact search gives them but for float32's last bits. Which rows come is as good as
          the index's recall
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import lance
import numpy as np
import pyarrow as pa
from lance.lance import _Session as Session
from numpy.typing import NDArray

from raydist.store import filters, index, nearest
from raydist.store.filters import Filter
from raydist.store.index import Built, Card
from raydist.store.location import table_uri
from raydist.store.tables import again, lance_errors, need_table

_QUERIES = 256
"""Queries that go to Lance in one call."""

_LOOK_NS, _READ_NS, _MULTIPLY_NS = 70, 2_000, 12
"""Nanoseconds of one core: a vector in the index for one query; a vector read by a scan, however many queries there
are; and its product with one of many queries. Measured at 512 numbers; they decide between index and scan only."""

_CALL_NS = 2_000_000
"""Of a call to Lance for the index, however little it finds."""

_OWN_SCAN_FROM = 8
"""Queries from which on rows outside the index are multiplied here, all at once; Lance takes one by one."""


def top_k(
    location: str,
    table: str,
    queries_QD: NDArray[np.float32],
    k: int,
    where: str | None = None,
    columns: Sequence[str] = ("clip_key", "clip_id", "fingerprint"),
    *,
    exact: bool = False,
    probes: int = 0,
) -> list[pa.Table]:
    """Like `nearest.top_k`.

    Args:
        exact: look at every vector, whether or not there is an index.
        probes: partitions of the index to look at, for measurements; 0: as many as were found to be enough. With it
            the index is used whatever a scan would cost.
    """
    dataset = _opened(location, table)
    queries_QD = nearest.checked(dataset, table, queries_QD, k)
    passing = filters.resolve(dataset, location, where)
    built = None if exact or not len(queries_QD) else index.find(dataset)
    if built is None:
        return nearest.ranked(dataset, queries_QD, k, passing, columns)
    rows = built.rows + built.unindexed
    count = rows if where is None else passing.count(dataset)
    card = index.read_card(location, table) or Card(partitions=index.partitions_for(rows), trained_rows=rows)
    wanted = probes or card.probes_for(k * rows / max(count, 1))
    if count <= k or (not probes and _scan_is_cheaper(len(queries_QD), count, rows, wanted / card.partitions)):
        return nearest.ranked(dataset, queries_QD, k, passing, columns)
    hits: list[pa.Table] = []
    for start in range(0, len(queries_QD), _QUERIES):
        hits += _indexed(dataset, built, queries_QD[start : start + _QUERIES], k, passing, columns, wanted)
    short = [at for at, found in enumerate(hits) if found.num_rows < min(k, count)]
    if short:
        again = nearest.ranked(dataset, queries_QD[short], k, passing, columns)
        for at, found in zip(short, again, strict=True):
            hits[at] = found
    return hits


def _scan_is_cheaper(queries: int, passing: int, rows: int, share: float) -> bool:
    """Whether all rows that pass are sooner looked at than a share of the index for each query."""
    calls = -(-queries // _QUERIES)
    return passing * (_READ_NS + queries * _MULTIPLY_NS) < calls * _CALL_NS + queries * share * rows * _LOOK_NS


def _indexed(
    dataset: lance.LanceDataset,
    built: Built,
    queries_QD: NDArray[np.float32],
    k: int,
    passing: Filter,
    columns: Sequence[str],
    probes: int,
) -> list[pa.Table]:
    """Hits of a group of queries; fewer than k where those partitions hold no more."""
    own_scan = bool(built.unindexed) and len(queries_QD) >= _OWN_SCAN_FROM
    owner, addresses = _candidates(dataset, queries_QD, k, passing, probes, fast=own_scan)
    if own_scan:
        best = nearest.Best(queries_QD, k)
        best.look_through(dataset, passing, index.outside(dataset))
        found = [rows for _, _, rows in best.found]
        owner = np.concatenate([owner, np.repeat(np.arange(len(found)), [len(rows) for rows in found])])
        addresses = np.concatenate([addresses, *found])
    unique, at = np.unique(addresses, return_inverse=True)
    with lance_errors(dataset.uri):
        rows = nearest.take(dataset, unique, list(dict.fromkeys([*columns, "vector", "clip_key"])))
    at = np.argsort(rows["_rowaddr"].to_numpy())[at]  # address order, as `unique` is
    vectors_ND = nearest.vectors_of(rows["vector"]).astype(np.float32)
    # Row by row, so a query gets the same scores alone and among others.
    scores = np.einsum("nd,nd->n", vectors_ND[at], queries_QD[owner])
    order = np.lexsort((rows["clip_key"].to_numpy()[at], -scores, owner))
    hits = rows.select(list(columns)).take(pa.array(at[order])).append_column("score", pa.array(scores[order]))
    firsts = np.searchsorted(owner[order], np.arange(len(queries_QD) + 1))
    return [hits.slice(first, min(k, after - first)) for first, after in pairwise(firsts)]


def _candidates(
    dataset: lance.LanceDataset, queries_QD: NDArray[np.float32], k: int, passing: Filter, probes: int, *, fast: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Queries [N] and row addresses [N] of what Lance finds; a few more than k a query.

    Lance rounds queries to float16, so its order is off by some places where scores are close.
    """
    asked = {"column": "vector", "q": queries_QD, "k": k + max(4, k // 8), "nprobes": probes}
    if len(queries_QD) == 1:
        asked["q"] = queries_QD[0]
    with lance_errors(dataset.uri):
        scanner = dataset.scanner(
            columns=["_distance"],
            nearest=asked,
            with_row_id=True,
            fast_search=fast,
            disable_scoring_autoprojection=True,
            **passing.scan,
        )
        found = scanner.to_table()
    addresses = found["_rowid"].to_numpy()
    if len(queries_QD) == 1:
        return np.zeros(len(addresses), np.int64), addresses
    return found["query_index"].to_numpy().astype(np.int64), addresses


def _opened(location: str, table: str) -> lance.LanceDataset:
    """The latest version of the table, on what this process has read of its index before."""
    try:
        return again(lambda: lance.dataset(table_uri(location, table), session=_session()))
    except (ValueError, OSError):
        return need_table(location, table)  # with our own words for what is wrong


@cache
def _session() -> Session:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Session(index_cache_size_bytes=min(6 << 30, memory // 4))

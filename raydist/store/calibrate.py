"""How far a search must look in an index, found by exact search; and the recall that comes of it.

Reads     a table's vectors, all of them once; the index's centres
Writes    the table's card (see `index`)

A partition of IVF_FLAT is searched exactly, so the partitions that the true neighbours lie in say what recall any
number of probes gives: one exact search tells it for all. Half of the queries choose, the others are searched for.
"""

# Shape legend: Q queries, D numbers a vector, K neighbours of each

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store import index, nearest, ranking
from raydist.store.index import DEPTHS, Card
from raydist.store.tables import need_table

_MARGIN = 0.01
"""Recall aimed at beyond the target: the queries that choose are a sample."""

TEXT = "text"


def measure(
    location: str, table: str, queries: Mapping[str, NDArray[np.float32]], *, target: float = index.TARGET
) -> Card:
    """Choose probes for recall `target` of each kind of query, measure the recall, and write both down.

    Args:
        queries: kind (`text`, `video`, …) -> [Q, D] of length 1, at least two. Without `text` the probes stay at a
            tenth of the partitions or more: texts lie apart from all videos and need many times what these need.

    Raises:
        StoreError: no such table, or it has no index.
    """
    dataset = need_table(location, table)
    card = index.read_card(location, table)
    built, rows = index.find(dataset), dataset.count_rows()
    if card is None or built is None:
        card = index.build(location, table)
        dataset = need_table(location, table)
    centres_CD = index.centres_of(dataset)
    probes = {} if TEXT in queries else dict.fromkeys(map(str, DEPTHS), -(-card.partitions // 10))
    held: dict[str, tuple[NDArray[np.float32], list[pa.Table]]] = {}
    for kind, asked_QD in queries.items():
        found = nearest.top_k(location, table, asked_QD, min(DEPTHS[-1], max(rows, 1)), columns=["vector", "clip_key"])
        half = (len(asked_QD) + 1) // 2
        vectors = [nearest.vectors_of(hits["vector"]) for hits in found[:half]]
        ranks = index.partition_ranks(centres_CD, asked_QD[:half], vectors)
        for depth in map(str, DEPTHS):
            enough = index.fewest_probes(ranks, int(depth), min(1.0, target + _MARGIN))
            probes[depth] = max(probes.get(depth, 1), enough)
        held[kind] = (asked_QD[half:], [hits.slice(0, DEPTHS[0]) for hits in found[half:]])
    card = replace(card, target=target, probes=dict(sorted(probes.items(), key=lambda item: int(item[0]))))
    recall = {kind: _recall(location, table, *each, card.probes_for(DEPTHS[0])) for kind, each in held.items()}
    card = replace(card, recall=recall)
    index.write_card(location, table, card)
    return card


def _recall(location: str, table: str, asked_QD: NDArray[np.float32], exact: list[pa.Table], probes: int) -> float:
    """Share of the exact hits that the index finds with so many probes."""
    found = ranking.top_k(location, table, asked_QD, DEPTHS[0], columns=["clip_key"], probes=probes)
    pairs = zip(found, exact, strict=True)
    same = [len(set(mine["clip_key"].to_pylist()) & set(true["clip_key"].to_pylist())) for mine, true in pairs]
    wanted = [true.num_rows for true in exact]
    return float(np.round(sum(same) / max(1, sum(wanted)), 4))

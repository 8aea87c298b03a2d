"""How far a search must look in an index, found by exact search; and the recall that comes of it.

Reads     a table's vectors, all of them once; the index's centres
Writes    the table's card (see `index`)

A partition of IVF_FLAT is searched exactly, so the partitions that the true neighbours lie in say what recall any
number of probes gives: one exact search tells it for all. Half of the queries choose, the others are searched for.
"""

# Shape legend: Q queries, D numbers a vector, K neighbours of each

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import index, nearest, ranking
from raydist.store.index import DEPTHS, Card
from raydist.store.tables import lance_errors, need_table

_MARGIN = 0.01
"""Recall aimed at beyond the target: the queries that choose are a sample."""

_TRIES = 5
"""Searches for a recall that is short of the target; each looks a quarter further."""

TEXT, VIDEO = "text", "video"


@dataclass(frozen=True)
class Asked:
    """Queries of one kind."""

    vectors_QD: NDArray[np.float32]
    """Of length 1."""
    keys: NDArray[np.int64] | None = None
    """The clips that they are the vectors of: no query counts as its own neighbour."""

    def halves(self) -> tuple[Asked, Asked]:
        """The first half and the others."""
        half = (len(self.vectors_QD) + 1) // 2
        keys = (None, None) if self.keys is None else (self.keys[:half], self.keys[half:])
        return Asked(self.vectors_QD[:half], keys[0]), Asked(self.vectors_QD[half:], keys[1])

    def without_own(self, hits: list[pa.Table], k: int) -> list[pa.Table]:
        """The best k hits of each query but for its own clip."""
        if self.keys is None:
            return [found.slice(0, k) for found in hits]
        pairs = zip(hits, self.keys.tolist(), strict=True)
        return [found.filter(pc.not_equal(found["clip_key"], key)).slice(0, k) for found, key in pairs]


def sample(location: str, table: str, count: int, seed: int = 0) -> Asked:
    """Stored vectors as queries, drawn from all rows."""
    dataset = need_table(location, table)
    drawn = np.random.default_rng(seed).permutation(dataset.count_rows())[:count]
    with lance_errors(dataset.uri):
        rows = dataset.take(np.sort(drawn).tolist(), columns=["vector", "clip_key"])
    mixed = np.random.default_rng(seed).permutation(rows.num_rows)  # halves of it must not be early and late rows
    vectors_QD = nearest.vectors_of(rows["vector"]).astype(np.float32)
    return Asked(vectors_QD[mixed], rows["clip_key"].to_numpy()[mixed])


def measure(location: str, table: str, queries: Mapping[str, Asked], *, target: float = index.TARGET) -> Card:
    """Choose probes for recall `target` of each kind of query, measure the recall, and write both down.

    Args:
        queries: by kind (`text`, `video`, …), at least two of each. Without `text` the probes stay at a
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
    held: dict[str, tuple[Asked, list[pa.Table]]] = {}
    for kind, asked in queries.items():
        depth = min(DEPTHS[-1], max(rows, 1)) + 1
        found = nearest.top_k(location, table, asked.vectors_QD, depth, columns=["vector", "clip_key"])
        choosing, rest = asked.halves()
        half = len(choosing.vectors_QD)
        vectors = [nearest.vectors_of(hits["vector"]) for hits in choosing.without_own(found[:half], DEPTHS[-1])]
        ranks = index.partition_ranks(centres_CD, choosing.vectors_QD, vectors)
        for name in map(str, DEPTHS):
            enough = index.fewest_probes(ranks, int(name), min(1.0, target + _MARGIN))
            probes[name] = max(probes.get(name, 1), enough)
        held[kind] = (rest, rest.without_own(found[half:], DEPTHS[0]))
    card = replace(card, target=target, probes=dict(sorted(probes.items(), key=lambda item: int(item[0]))))
    for _ in range(_TRIES):
        looked = card.probes_for(DEPTHS[0])
        recall = {kind: _recall(location, table, *each, looked) for kind, each in held.items()}
        card = replace(card, recall=recall)
        if min(recall.values(), default=1.0) >= target - _MARGIN or looked >= card.partitions:
            break
        # Rows may lie in other partitions than the nearest: Lance can deal them out by an approximate search.
        card = replace(card, probes={depth: -(-count * 5 // 4) for depth, count in card.probes.items()})
    index.write_card(location, table, card)
    return card


def _recall(location: str, table: str, asked: Asked, exact: list[pa.Table], probes: int) -> float:
    """Share of the exact hits that the index finds with so many probes."""
    k = DEPTHS[0] + (asked.keys is not None)
    found = ranking.top_k(location, table, asked.vectors_QD, k, columns=["clip_key"], probes=probes)
    pairs = zip(asked.without_own(found, DEPTHS[0]), exact, strict=True)
    same = [len(set(mine["clip_key"].to_pylist()) & set(true["clip_key"].to_pylist())) for mine, true in pairs]
    wanted = [true.num_rows for true in exact]
    return float(np.round(sum(same) / max(1, sum(wanted)), 4))

"""Which clips a query finds, in their order: by vectors, or by vectors and captions together.

Promises  current clips only: what changed since it was embedded is left out, and others come in its place

Two lists become one by reciprocal rank: a clip that is a-th by vectors and b-th by words has 1/(60 + a) + 1/(60 + b).
Source: Cormack, Clarke and Büttcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning methods
(SIGIR 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydist.search.query import Query
from raydist.store import fulltext, ranking, read
from raydist.store.sql import all_of, is_in

COLUMNS = ("clip_key", "clip_id", "fingerprint", "video_id", "start_s", "end_s")

_RANK = 60
_CAPTIONS = 1_000
"""Captions that a hybrid query looks at."""
_DEEP = 100
"""Clips by vectors that a hybrid query looks at, at least: a clip far down both lists may be the best of all."""

Row = dict[str, Any]

# Shape legend: Q queries, D embedding size


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query with all that narrows it."""

    query: Query
    vector_D: NDArray[np.float32]
    where: str | None = None
    floor: float | None = None
    """The least cosine of a hit."""
    usual: float = 0.0
    """What it scores on average in the archive."""
    hybrid: bool = False
    """Whether its words are looked for in captions too."""


@dataclass(slots=True)
class Ranked:
    """Clips of one query, best first."""

    rows: list[Row] = field(default_factory=list)
    """`COLUMNS`, and `score`: the cosine."""
    is_all: bool = False
    """Whether the archive has no more."""


def rank(location: str, table: str, asked: Sequence[Asked], depth: int) -> list[Ranked]:
    """The first clips of each query, at least `depth` where there are so many. One condition is one pass."""
    found: dict[int, Ranked] = {}
    for condition in {one.where for one in asked}:
        members = [index for index, one in enumerate(asked) if one.where == condition]
        depths = max(depth, _DEEP) if any(asked[index].hybrid for index in members) else depth
        vectors_QD = np.stack([asked[index].vector_D for index in members])
        found.update(zip(members, _by_vectors(location, table, vectors_QD, condition, depths), strict=True))
    ranked = [found[index] for index in range(len(asked))]
    for one, own in zip(asked, ranked, strict=True):
        whole = _fused(location, table, one, own) if one.hybrid else set()
        _cut(one, own, whole)
    return ranked


def _by_vectors(
    location: str, table: str, vectors_QD: NDArray[np.float32], where: str | None, depth: int
) -> list[Ranked]:
    """More are fetched in the place of those whose clip is not what was embedded."""
    wanted = depth
    while True:
        hits = ranking.top_k(location, table, vectors_QD, wanted, where=where, columns=COLUMNS)
        now = current(location, {key for one in hits for key in one["clip_key"].to_pylist()})
        ranked = [
            Ranked(
                rows=[row for row in one.to_pylist() if (row["clip_key"], row["fingerprint"]) in now],
                is_all=one.num_rows < wanted,
            )
            for one in hits
        ]
        if all(one.is_all or len(one.rows) >= depth for one in ranked):
            return ranked
        wanted *= 2


def current(location: str, keys: set[int]) -> set[tuple[int, str]]:
    """Key and fingerprint of those clips as they are now."""
    rows = read.rows_by_key(location, "clips", sorted(keys), ["clip_key", "fingerprint"]).to_pylist()
    return {(row["clip_key"], row["fingerprint"]) for row in rows}


def _fused(location: str, table: str, asked: Asked, ranked: Ranked) -> set[int]:
    """Put the clips whose captions have the words among those found by vectors; keys of those that have all words."""
    texts = fulltext.find(location, asked.query.words or "", _CAPTIONS)
    here = {row["clip_key"] for row in ranked.rows}
    wanted = {text.clip_key: text.fingerprint for text in texts}
    more = sorted(wanted.keys() - here)
    if more:
        condition = all_of(asked.where, is_in("clip_key", more))
        (hits,) = ranking.top_k(
            location, table, asked.vector_D[None], len(more), where=condition, columns=COLUMNS, exact=True
        )
        now = current(location, set(more))
        ranked.rows += [row for row in hits.to_pylist() if (row["clip_key"], row["fingerprint"]) in now]
    shown = {row["clip_key"]: row["fingerprint"] for row in ranked.rows}
    fitting = [text for text in texts if shown.get(text.clip_key) == text.fingerprint]
    by_words = {text.clip_key: place for place, text in enumerate(fitting, start=1)}
    by_vectors = {row["clip_key"]: place for place, row in enumerate(ranked.rows, start=1) if row["clip_key"] in here}
    points = {
        key: sum(1 / (_RANK + places[key]) for places in (by_words, by_vectors) if key in places) for key in shown
    }
    ranked.rows.sort(key=lambda row: (-points[row["clip_key"]], -row["score"], row["clip_key"]))
    return {text.clip_key for text in fitting if text.is_whole}


def _cut(asked: Asked, ranked: Ranked, whole: set[int]) -> None:
    """Leave out what is below the floor; a caption with all the words is reason enough to stay."""
    if asked.floor is None:
        return
    floor = asked.floor
    below = any(row["score"] < floor for row in ranked.rows)
    ranked.rows = [row for row in ranked.rows if row["score"] >= floor or row["clip_key"] in whole]
    ranked.is_all = ranked.is_all or below  # what comes later is below it too

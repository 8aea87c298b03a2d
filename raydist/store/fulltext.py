"""Full-text search in captions: LanceDB's own inverted index (BM25), for English and what is written like it.

Reads     `captions`
Writes    the index `captions_text`, once it is asked for; new captions are found before they are indexed too
Promises  a caption counts for the content that it was written of: hits carry its fingerprint, and the caller compares
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import lance
from lance.query import FullTextOperator, MatchQuery

from raydist.errors import StoreError
from raydist.store.commit import is_conflict
from raydist.store.lease import Lease
from raydist.store.location import is_uri
from raydist.store.tables import again, lance_errors, need_table, open_table, reason_of

TABLE, INDEX = "captions", "captions_text"
_COLUMN = "caption"

_UNINDEXED_ROWS, _UNINDEXED_SHARE = 5_000, 0.1
"""So many new captions are read through at each search before the index takes them in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A clip of which a caption has some of the words."""

    clip_key: int
    fingerprint: str
    score: float
    """BM25 of its best caption."""
    is_whole: bool
    """Whether one caption has all of the words, those aside that say nothing, such as `the`."""


def refresh(location: str) -> bool:
    """Make the index, or take new captions into it; False where there are no captions.

    Raises:
        StoreError: the archive cannot be written, and there is no index yet.
    """
    dataset = open_table(location, TABLE)
    if dataset is None or not dataset.count_rows():
        return False
    try:
        is_new = not _is_indexed(dataset)
        if is_new or _is_behind(dataset):
            with Lease(location, "search"):  # `forget` must not find a new index of what it takes out
                dataset = need_table(location, TABLE)
                if is_new:
                    again(partial(dataset.create_scalar_index, _COLUMN, "INVERTED", name=INDEX, with_position=False))
                else:
                    again(partial(dataset.optimize.optimize_indices, index_names=[INDEX]))
    except (OSError, ValueError, StoreError) as error:
        newer = open_table(location, TABLE)
        if newer is None or not _is_indexed(newer):  # else somebody else made it, or the old one will do
            hint = "; run this again" if isinstance(error, OSError) and is_conflict(error) else ""
            raise StoreError(
                f"captions cannot be indexed for full-text search ({reason_of(error, dataset.uri)}): the archive "
                f"must be writable for the first hybrid search{hint}"
            ) from (None if is_uri(dataset.uri) else error)
    return True


def find(location: str, words: str, limit: int) -> list[Found]:
    """Clips whose captions have some of the words, best first.

    Args:
        limit: captions to look at, at most.
    """
    dataset = open_table(location, TABLE)
    if dataset is None or not _is_indexed(dataset):
        return []
    whole = {row["_rowid"] for row in _matches(dataset, words, FullTextOperator.AND, limit)}
    best: dict[tuple[int, str], Found] = {}
    for row in _matches(dataset, words, FullTextOperator.OR, limit):
        clip = (row["clip_key"], row["fingerprint"])
        old = best.get(clip)
        is_whole = row["_rowid"] in whole or (old is not None and old.is_whole)
        score = max(row["_score"], old.score if old else 0.0)
        best[clip] = Found(clip_key=clip[0], fingerprint=clip[1], score=score, is_whole=is_whole)
    return sorted(best.values(), key=lambda found: (-found.score, found.clip_key))


def _matches(dataset: lance.LanceDataset, words: str, operator: FullTextOperator, limit: int) -> list[dict[str, Any]]:
    with lance_errors(dataset.uri):
        scanner = dataset.scanner(
            columns=["clip_key", "fingerprint", "_score"],
            full_text_query=MatchQuery(words, _COLUMN, operator=operator),
            limit=limit,
            with_row_id=True,
        )
        rows: list[dict[str, Any]] = scanner.to_table().to_pylist()
        return rows


def _is_indexed(dataset: lance.LanceDataset) -> bool:
    return any(index.name == INDEX for index in dataset.describe_indices())


def _is_behind(dataset: lance.LanceDataset) -> bool:
    unindexed = int(dataset.stats.index_stats(INDEX).get("num_unindexed_rows", 0))
    return unindexed > max(_UNINDEXED_ROWS, _UNINDEXED_SHARE * dataset.count_rows())

"""search: words, a picture, a clip or a video -> ranked moments.

Reads     `embeddings_<model_key>`, `clips` to leave out what is stale, `captions`, `videos` and `roots` to say what and
          where
Writes    nothing but what it measures itself: `cutoffs/`, the full-text index of captions; and the sheet asked for
Promises  k hits while the archive has k that the filter allows, unless a cut-off was asked for; the same vectors always
          rank the same way
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist import choice
from raydist.config import Config
from raydist.errors import ArchiveError, UsageError
from raydist.search import cutoff
from raydist.search.found import Asked
from raydist.search.hits import Wanted, gather
from raydist.search.narrow import condition
from raydist.search.query import Asker, Query, read_queries
from raydist.search.results import HITS, assembled, floors_of, render
from raydist.sections import Search
from raydist.store import fulltext, read, settings
from raydist.store.schema import embeddings_table
from raydist.store.sql import all_of, other_than

__all__ = ["HITS", "Query", "condition", "floors_of", "read_queries", "render", "run"]

# Shape legend: Q queries, D embedding size


def run(config: Config, queries: Sequence[Query], *, where: str | None = None) -> pa.Table:
    """Rank the archive's moments for each query.

    Args:
        config: `archive`, `embed.model`, `embed.adapter`, `embed.device` and all of `search` matter.
        queries: what to look for.
        where: SQL condition over the columns of the embeddings table and of `videos`; see `condition`.

    Returns:
        A table with the columns of `HITS`, query after query, rank after rank.

    Raises:
        ArchiveError: no archive, nothing embedded in it, or no captions for a hybrid search.
        ModelError: the model or its adapter is not on this machine.
        StoreError: the archive has no vectors of the model, or of several and none was named; a bad condition.
        SourceError: a picture or video that cannot be read.
        UsageError: a query that is empty or cannot be read.
    """
    location, section = config.require_archive(), config.search
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    table = embeddings_table(model.model_key)
    if not read.count_rows(location, table):
        raise ArchiveError(f"the archive {location!r} has no vectors yet: run `raydist embed` first")
    if section.hybrid:
        _refuse_hybrid(location, queries)
    asker = Asker(location, table, model, config.embed.device, config.limits())
    vectors_QD = asker.vectors(queries)
    floors, usual = _measured(location, table, asker, queries, vectors_QD, section)
    asked = [
        Asked(
            query=query,
            vector_D=vector_D,
            where=all_of(where, other_than("clip_id", query.clip_id) if query.clip_id else None),
            floor=floor,
            usual=scores,
            hybrid=section.hybrid and query.words is not None,
        )
        for query, vector_D, floor, scores in zip(queries, vectors_QD, floors, usual, strict=True)
    ]
    wanted = Wanted(top=section.top, moment_ms=round(section.moment_s * 1000), per_video=section.per_video)
    return assembled(location, config, asked, gather(location, table, asked, wanted))


def _refuse_hybrid(location: str, queries: Sequence[Query]) -> None:
    if not any(query.words for query in queries):
        raise UsageError("--hybrid looks for words in captions: expected a query in words")
    if not fulltext.refresh(location):
        raise ArchiveError(
            f"the archive {location!r} has no captions to look for words in: run `raydist caption --from FILE` first, "
            "or search without --hybrid"
        )


def _measured(
    location: str,
    table: str,
    asker: Asker,
    queries: Sequence[Query],
    vectors_QD: NDArray[np.float32],
    section: Search,
) -> tuple[Sequence[float | None], Sequence[float]]:
    """For each query the least cosine of a hit, None: any; and what it scores on average in the archive."""
    least = section.min_score
    floors: Sequence[float | None] = [None if isinstance(least, str) else least] * len(queries)
    if least != "auto" and not section.moment_s:
        return floors, [0.0] * len(queries)
    texts = [query.is_text for query in queries]
    found = cutoff.calibrated(location, table, asker.texts, texts=least == "auto" and any(texts))
    if least == "auto":
        floors = found.floors(vectors_QD, texts)
    return floors, found.usual(vectors_QD).tolist()

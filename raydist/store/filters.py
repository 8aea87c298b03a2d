"""Conditions on what a search may find: SQL over the clips' columns and over those of their videos, alone or mixed.

Reads     an embeddings table without its vectors; `videos`, the user's own columns included
Promises  the columns of the embeddings table go by their names; those of `videos` too, or as `video_<name>` where both
          have the name (`duration_s` is the clip's, `video_duration_s` the file's); a condition that is none is
          refused with the names and types of all of them
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.errors import StoreError
from raydist.store import roaring
from raydist.store.tables import columns_text, is_of_storage, lance_errors, open_table, reason_of, trouble

_ROWS = 1 << 20
"""Rows that are joined with their videos at a time."""

_TEXT = re.compile(r"'(?:[^']|'')*'")
_QUOTED = re.compile(r"`((?:[^`]|``)*)`")
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Filter:
    """Which rows of one version of a table pass."""

    where: str | None = None
    """A condition on the table's own columns; None where `addresses` say it, or all pass."""
    addresses: NDArray[np.uint64] | None = None
    """The rows that pass, where their videos had to be asked."""

    @cached_property
    def scan(self) -> dict[str, Any]:
        """What a scanner takes, to look at these rows only."""
        if self.addresses is not None:
            return {"row_addr_allowlist": roaring.packed(self.addresses), "prefilter": True}
        return {"filter": self.where, "prefilter": True} if self.where is not None else {}

    def count(self, dataset: lance.LanceDataset) -> int:
        """How many rows pass."""
        if self.addresses is not None:
            return len(self.addresses)
        with lance_errors(dataset.uri, where=self.where, schema=dataset.schema):
            return int(dataset.count_rows(self.where))


def resolve(dataset: lance.LanceDataset, location: str, where: str | None) -> Filter:
    """A condition for a version of an embeddings table.

    Args:
        dataset: the table; the filter holds for this version of it.

    Raises:
        StoreError: if the condition is none; the message lists the columns there are.
    """
    if where is None or not where.strip():
        return Filter()
    videos = open_table(location, "videos")
    own = pa.schema([field for field in dataset.schema if field.name not in ("vector",)])
    theirs = {} if videos is None else _names(videos.schema, own)
    words = _words(where)
    asked = {alias: name for alias, name in theirs.items() if alias.lower() in words}
    try:
        if videos is None or not asked:
            dataset.scanner(columns=["clip_key"], filter=where).explain_plan()
            return Filter(where)
        return Filter(addresses=_passing(dataset, videos, where, own, asked, words))
    except (ValueError, OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if is_of_storage(error, dataset.uri):
            wrong = trouble(f"table {dataset.uri!r} cannot be used", error, dataset.uri)
            raise wrong from wrong.__cause__
        shown = "" if videos is None else f"; of the videos {columns_text(_renamed(videos.schema, theirs))}"
        raise StoreError(
            f"cannot filter by {where!r}: {reason_of(error)}. Expected an SQL condition over the columns "
            f"{columns_text(own)}{shown}; texts stand in single quotes."
        ) from error


def _names(videos: pa.Schema, own: pa.Schema) -> dict[str, str]:
    """The name in conditions -> the column of `videos`."""
    names = [name for name in videos.names if name != "video_id"]
    taken = {*own.names, *names}
    given = {(f"video_{name}" if name in own.names else name): name for name in names}
    return {alias: name for alias, name in given.items() if alias == name or alias not in taken}


def _renamed(videos: pa.Schema, theirs: dict[str, str]) -> pa.Schema:
    return pa.schema([pa.field(alias, videos.field(name).type) for alias, name in theirs.items()])


def _words(where: str) -> set[str]:
    """Every word of a condition outside its texts, in small letters; more than the columns it names, never fewer."""
    outside = _TEXT.sub(" ", where)
    return {word.lower() for word in (*_QUOTED.findall(outside), *_WORD.findall(outside))}


def _passing(
    dataset: lance.LanceDataset,
    videos: lance.LanceDataset,
    where: str,
    own: pa.Schema,
    asked: dict[str, str],
    words: set[str],
) -> NDArray[np.uint64]:
    """Addresses of the rows that pass, in the table's order."""
    known = videos.to_table(columns=["video_id", *asked.values()])
    ids = known["video_id"].combine_chunks()
    facts = known.select(list(asked.values())).rename_columns(list(asked))
    columns = [name for name in own.names if name.lower() in words]
    found = [np.empty(0, np.uint64)]
    for rows in _pieces(dataset, sorted({"video_id", *columns})):
        joined = facts.take(pc.index_in(rows["video_id"], value_set=ids))
        for name in columns:
            joined = joined.append_column(name, rows[name])
        # The dialect of conditions is Lance's own, so Lance evaluates it: on a table in memory.
        table = lance.write_dataset(joined, "memory://filter")
        passing = table.scanner(columns=[], filter=where, with_row_address=True).to_table()["_rowaddr"].to_numpy()
        found.append(rows["_rowaddr"].to_numpy()[_places(table, passing)])
    return np.concatenate(found)


def _places(table: lance.LanceDataset, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Which rows of the table, counted from its beginning, lie at these addresses; nothing was deleted from it."""
    counts = [fragment.count_rows() for fragment in table.get_fragments()]
    firsts = np.cumsum([0, *counts])
    return firsts[(addresses >> np.uint64(32)).astype(np.int64)] + (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _pieces(dataset: lance.LanceDataset, columns: list[str]) -> Iterator[pa.Table]:
    """Columns and addresses of all rows, some million at a time; an empty piece where there are none."""
    batches: list[pa.RecordBatch] = []
    gathered, given = 0, False
    scanner = dataset.scanner(columns=columns, with_row_address=True, batch_size=65_536, scan_in_order=True)
    for batch in scanner.to_batches():
        batches.append(batch)
        gathered += batch.num_rows
        if gathered >= _ROWS:
            yield pa.Table.from_batches(batches)
            batches, gathered, given = [], 0, True
    if batches or not given:
        yield pa.Table.from_batches(batches, schema=None if batches else scanner.projected_schema)

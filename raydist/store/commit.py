"""Exactly-once commits: many writers, any of them killed at any moment, each row once.

Writes    fragments (data files) by workers, in any number, without a commit: `write_fragments`
          tables, and one new version of a table a commit, by the driver: `Committer`
Promises  a row whose identity (see `schema.identity`) is already in the table is never committed again; a delete and
          the rows that come in its place become visible in the same version; a writer that dies between its files and
          its commit leaves orphan files, never half a row; rows that only another machine can read are not committed

How. A commit states the full list of fragments of the version it read, plus its own, as `LanceOperation.Merge` with
`max_retries=0`. Of all Lance operations only this one fails whenever anything at all was committed since that version
(`Append` rebases in silence and doubles rows). On a conflict the committer reads the new version, looks for its own
rows in fragments that it had not accounted for, drops those, and tries again. The fragments that it has accounted for
are those of the version that the caller's anti-join read, plus its own.

When `scan` deletes stale rows while `embed` commits: both go through here, so one of them conflicts and is redone on
top of the other; none is lost. Rows that embed decoded before the change and commits after the delete carry the old
fingerprint: every reader joins by (clip_key, fingerprint), so they count as absent, are not found, and the next
`stale.delete_stale` removes them.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader
from lance.fragment import FragmentMetadata
from lance.fragment import write_fragments as lance_write_fragments

from raydist.errors import StoreError
from raydist.store import objects
from raydist.store.location import is_uri, join, table_uri
from raydist.store.patience import Patience, patiently
from raydist.store.schema import DATA_STORAGE_VERSION, identity
from raydist.store.sql import is_in, not_true
from raydist.store.tables import (
    create_table,
    ensure_columns,
    lance_errors,
    need_table,
    open_table,
    trouble,
)

T = TypeVar("T")

_TRIES = 200
"""Conflicts before giving up: each means that another writer got through, so only a broken store gets here."""

_IDS_PER_VERSION = 1 << 10

_ROWS_SET_AT_ONCE = 10_000


def write_fragments(location: str, table: str, data: pa.Table, schema: pa.Schema) -> list[str]:
    """Write rows as data files that no version holds yet; called in workers, once the driver has its `Committer`.

    Args:
        data: columns in any order; those that `schema` has and `data` lacks are an error, and so are others.

    Returns:
        Fragments as JSON, for `Committer.commit`.

    Raises:
        ValueError: if columns or types differ, or a vector holds NaN or infinity (Lance would take them in silence).
        StoreError: if the storage fails, the table has other columns, or is not there: a worker makes none, as that
            would be one on a disk of its own.
    """
    data = _fitted(data, schema)
    if data.num_rows == 0:
        return []
    # What a failed try left is in no version.
    patience = Patience() if is_uri(location) else Patience(tries=1)
    return patiently(lambda: _written(location, table, data), patience)


def _written(location: str, table: str, data: pa.Table) -> list[str]:
    if open_table(location, table) is None:
        raise StoreError(
            f"{socket.gethostname()} sees no table {table!r} in {location!r}, which the driver has made before: "
            f"{_same_place(location)}"
        )
    uri = table_uri(location, table)
    with lance_errors(uri):
        fragments = lance_write_fragments(data, uri, mode="append", data_storage_version=DATA_STORAGE_VERSION)
    return [json.dumps(fragment.to_json()) for fragment in fragments]


def append(location: str, table: str, data: pa.Table, schema: pa.Schema) -> int:
    """Write and commit rows, those left out whose identity the table has (see `schema.identity`); how many went in."""
    committer = Committer(location, table, schema)
    return committer.commit(write_fragments(location, table, data, schema))


def delete(location: str, table: str, predicate: str) -> int:
    """Delete the rows where `predicate` is true; how many there were. A table that is not there has none."""
    dataset = open_table(location, table)
    if dataset is None:
        return 0
    committer = Committer(location, table, dataset.schema)
    committer.commit([], delete_where=predicate)
    return committer.deleted


def add_columns(location: str, table: str, rows: pa.Table, key: str = "video_id") -> int:
    """Set columns of the rows that `key` names, adding those that the table lacks; how many rows were set.

    Args:
        rows: `key`, each value once, and the columns to set. Values without a row in the table are passed over.

    Raises:
        StoreError: if there is no such table, or it has a column of that name and another type.
    """
    extra = {field.name: field.type for field in rows.schema if field.name != key}
    ensure_columns(location, table, extra)
    schema = need_table(location, table).schema
    changed = 0
    for start in range(0, rows.num_rows, _ROWS_SET_AT_ONCE):
        part = rows.slice(start, _ROWS_SET_AT_ONCE)
        where = is_in(key, part[key].to_pylist())
        dataset = need_table(location, table)
        with lance_errors(dataset.uri, where=where, schema=dataset.schema):
            old = dataset.to_table(filter=where)
        places = pc.index_in(old[key], value_set=part[key].combine_chunks())
        for name, kind in extra.items():
            old = old.set_column(old.schema.get_field_index(name), name, part[name].take(places).cast(kind))
        fragments = write_fragments(location, table, old, schema)
        committer = Committer(location, table, schema, (), version=dataset.version)
        changed += committer.commit(fragments, delete_where=where)
    return changed


class Committer:
    """Commits fragments of one run to one table; used by the driver, one thread at a time."""

    def __init__(
        self,
        location: str,
        table: str,
        schema: pa.Schema,
        key: str | tuple[str, ...] | None = None,
        *,
        version: int = 0,
    ) -> None:
        """
        Args:
            key: the columns that make a row one and the same; None, or one of them, means `schema.identity(table)`.
            version: the version of the table that the caller's anti-join read: rows in it are known not to be among
                those it will bring. 0: nothing is known, every commit looks through the whole table's keys.
        """
        self.location, self.table, self.schema = location, table, schema
        if key is None or key in identity(table):
            key = identity(table)
        self.key = (key,) if isinstance(key, str) else key
        self.deleted = 0
        """Rows deleted by all commits."""
        self.conflicts = 0
        """Commits that were redone because another writer came first."""
        self._uri = table_uri(location, table)
        objects.require_create(location)
        self._insist(lambda: create_table(location, table, schema))
        self._known: set[str] = set()
        if version:
            dataset = self._insist(lambda: need_table(location, table, version=version))
            self._known = {_file(fragment.metadata) for fragment in dataset.get_fragments()}
        self._committed: set[str] = set()

    def commit(self, fragments: Sequence[str], delete_where: str | None = None) -> int:
        """Make fragments visible, and rows where `delete_where` is true disappear, in one version.

        Safe to call again with the same fragments, also after an error: those that got in are not committed twice.

        Returns:
            Rows committed; those dropped because the table had them are not counted.

        Raises:
            StoreError: if the predicate is none, the storage stays away, or this machine does not see the fragments.
        """
        own = [FragmentMetadata.from_json(text) for text in fragments]
        own = [fragment for fragment in own if _file(fragment) not in self._committed]
        given = {_file(fragment) for fragment in own}
        rows = self._insist(lambda: self._attempt(own, delete_where))
        self._committed |= given
        return rows

    def _insist(self, attempt: Callable[[], T]) -> T:
        patience, conflicts = Patience(), 0
        while conflicts < _TRIES:
            try:
                return attempt()
            except (OSError, ValueError, StoreError) as error:
                if is_conflict(error):
                    self.conflicts += 1
                    conflicts += 1
                    time.sleep(random.uniform(0, min(0.02 * 2 ** min(conflicts, 6), 1.0)))
                    continue
                wrong = error
                if not isinstance(error, StoreError):
                    wrong = trouble(f"cannot commit to table {self._uri!r}", error, self._uri)
                # The outcome may be unknown: the next attempt finds its own files if this one got in.
                if not patience.bears(wrong):
                    raise wrong from wrong.__cause__
        raise StoreError(
            f"cannot commit to table {self._uri!r}: {_TRIES} other commits came first; run fewer jobs on one archive"
        )

    def _attempt(self, own: list[FragmentMetadata], delete_where: str | None) -> int:
        """One try. `own` is changed in place where rows are dropped, so that the next try finds what this one wrote."""
        dataset = need_table(self.location, self.table)
        existing = {_file(fragment.metadata) for fragment in dataset.get_fragments()}
        inside = [fragment for fragment in own if _file(fragment) in existing]
        fresh = [fragment for fragment in own if _file(fragment) not in existing]
        fresh = self._without_present(dataset, fresh, delete_where)
        own[:] = [*inside, *fresh]
        kept, deleted = self._after_delete(dataset, delete_where)
        if fresh or deleted:
            start = max((fragment.id for fragment in kept), default=-1) + 1
            # An id must not come back after its fragment was deleted: an index would take the new rows for the old.
            start = max(start, dataset.version * _IDS_PER_VERSION)
            for number, fragment in enumerate(fresh, start):
                fragment.id = number
            lance.LanceDataset.commit(
                dataset,
                lance.LanceOperation.Merge([*kept, *fresh], dataset.lance_schema),
                read_version=dataset.version,
                max_retries=0,
            )
        self.deleted += deleted
        self._known.update(_file(fragment) for fragment in own)
        return sum(fragment.num_rows for fragment in own)

    def _after_delete(
        self, dataset: lance.LanceDataset, delete_where: str | None
    ) -> tuple[list[FragmentMetadata], int]:
        """All fragments of the version, with deletion files for `delete_where`, and how many rows that takes away."""
        fragments = {fragment.fragment_id: fragment for fragment in dataset.get_fragments()}
        kept = {number: fragment.metadata for number, fragment in fragments.items()}
        if delete_where is None:
            return list(kept.values()), 0
        with lance_errors(self._uri, where=delete_where, schema=dataset.schema):
            hits = dataset.scanner(columns=[], filter=delete_where, with_row_address=True).to_table()
        addresses = hits["_rowaddr"].to_numpy()
        for number in np.unique(addresses >> np.uint64(32)).tolist():
            left = fragments[number].delete(delete_where)
            kept[number] = left if left is not None else _all_deleted(kept[number], dataset.version)
        return list(kept.values()), len(addresses)

    def _without_present(
        self, dataset: lance.LanceDataset, own: list[FragmentMetadata], delete_where: str | None
    ) -> list[FragmentMetadata]:
        """`own`, rewritten without the rows that fragments not accounted for have already."""
        if not self.key:
            for fragment in own:
                self._open(fragment, None)  # once it is committed, nobody could read the table without it
            return own
        if not own:
            return own
        foreign = [fragment for fragment in dataset.get_fragments() if _file(fragment.metadata) not in self._known]
        keys = [self._read(fragment, list(self.key)) for fragment in own]
        present = self._present(dataset, foreign, pa.concat_tables(keys), delete_where)
        result: list[FragmentMetadata] = []
        for fragment, table in zip(own, keys, strict=True):
            keep = []
            for row in _tuples(table):
                keep.append(row not in present)
                present.add(row)  # also the same row twice among one's own
            result += [fragment] if all(keep) else self._rewritten(fragment, keep)
        return result

    def _present(
        self,
        dataset: lance.LanceDataset,
        foreign: list[lance.LanceFragment],
        keys: pa.Table,
        delete_where: str | None,
    ) -> set[tuple[object, ...]]:
        """Which of the rows in `keys` the foreign fragments have, those about to be deleted left out.

        The first key column is tested for all rows, the others only where it hits: memory stays that of `keys`.
        """
        if not foreign:
            return set()
        first = self.key[0]
        wanted = pc.unique(keys[first])
        survivors = not_true(delete_where) if delete_where else None
        scanner = dataset.scanner(columns=list(self.key), filter=survivors, fragments=foreign, batch_size=65_536)
        found: set[tuple[object, ...]] = set()
        for batch in scanner.to_batches():
            hits = pa.Table.from_batches([batch]).filter(pc.is_in(batch[first], value_set=wanted))
            found.update(_tuples(hits.select(list(self.key))))
        return found

    def _open(self, fragment: FragmentMetadata, columns: list[str] | None) -> LanceFileReader:
        path = join(self._uri, "data", _file(fragment))
        try:
            return LanceFileReader(path, columns=columns)
        except (OSError, ValueError) as error:
            if "not found" not in str(error).lower():
                raise
            raise StoreError(
                f"cannot commit to table {self._uri!r}: a worker wrote {_file(fragment)!r} where this machine does "
                f"not see it: {_same_place(self.location)}"
            ) from FileNotFoundError(path)  # a network's file system may show it in a moment

    def _read(self, fragment: FragmentMetadata, columns: list[str] | None) -> pa.Table:
        return self._open(fragment, columns).read_all().to_table()

    def _rewritten(self, fragment: FragmentMetadata, keep: list[bool]) -> list[FragmentMetadata]:
        if not any(keep):
            return []
        rows = self._read(fragment, None).filter(pa.array(keep))
        fragments = lance_write_fragments(
            rows,
            self._uri,
            mode="append",
            data_storage_version=DATA_STORAGE_VERSION,
        )
        return list(fragments)


def _same_place(location: str) -> str:
    if is_uri(location):
        return "is it the same bucket of the same server (AWS_ENDPOINT_URL) on all nodes?"
    return "is it the same folder on all nodes, shared and mounted?"


def _file(fragment: FragmentMetadata) -> str:
    """What names a fragment for good: its first data file. Ids are given anew at each attempt."""
    return str(fragment.files[0].path)


def _tuples(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _all_deleted(fragment: FragmentMetadata, version: int) -> FragmentMetadata:
    """A fragment marked as deleted to the last row: the commit drops it, so no deletion file is written.

    Merge refuses a list that lacks a fragment, and `fragment.delete` gives no metadata once nothing is left.
    """
    document = dict(fragment.to_json())
    document["deletion_file"] = {
        "read_version": version,
        "id": random.getrandbits(62),
        "file_type": "array",
        "num_deleted_rows": document["physical_rows"],
        "base_id": None,
    }
    return FragmentMetadata.from_json(json.dumps(document))


def is_conflict(error: Exception) -> bool:
    """Whether a commit failed because another came first."""
    text = str(error).lower()
    return "commit conflict" in text or "concurrent writers" in text or type(error).__name__ == "CommitConflictError"


def _fitted(data: pa.Table, schema: pa.Schema) -> pa.Table:
    """`data` with exactly the columns, order and types of `schema`."""
    if sorted(data.column_names) != sorted(schema.names):
        lacking, unknown = (
            sorted(set(schema.names) - set(data.column_names)),
            set(data.column_names) - set(schema.names),
        )
        raise ValueError(f"columns {lacking} are missing and {sorted(unknown)} unknown, expected {schema.names}")
    try:
        data = data.select(schema.names).cast(schema)
    except pa.ArrowInvalid as error:
        raise ValueError(f"rows do not fit the table: {error}") from error
    for field in schema:
        if pa.types.is_fixed_size_list(field.type) and not all(map(_is_finite, data[field.name].chunks)):
            raise ValueError(f"column {field.name!r} holds NaN, infinity or NULL; leave such rows out and say why")
    return data


def _is_finite(vectors: pa.FixedSizeListArray) -> bool:
    values = vectors.flatten()
    if vectors.null_count or values.null_count:
        return False
    numbers = values.to_numpy()
    if numbers.dtype != np.float16:
        return bool(np.isfinite(numbers).all())
    # Read as integers, ten times faster: of NaN and infinity all bits of the exponent are set.
    return not len(numbers) or int((numbers.view(np.uint16) & 0x7C00).max()) < 0x7C00

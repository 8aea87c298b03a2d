"""Reading an archive's tables: batches of chosen columns, rows by their keys, what is there.

Promises  every call opens the table anew, so it sees the latest version; memory is that of a batch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from raydist.store.schema import model_key_of
from raydist.store.sql import Value, is_in
from raydist.store.tables import lance_errors, need_table, open_table, table_names

__all__ = [
    "count_rows",
    "model_keys",
    "need_table",
    "open_table",
    "rows_by_key",
    "scan_batches",
    "table_names",
]

_KEYS_PER_SCAN = 10_000
"""A longer list makes the filter slower than a second pass over one integer column."""


def count_rows(location: str, table: str, where: str | None = None) -> int:
    """Rows of a table (where a condition is true); 0 if there is no such table."""
    dataset = open_table(location, table)
    if dataset is None:
        return 0
    with lance_errors(dataset.uri, where=where, schema=dataset.schema):
        return int(dataset.count_rows(where))


def model_keys(location: str) -> list[str]:
    """The models that have embeddings here, sorted."""
    names = map(model_key_of, table_names(location))
    return [name for name in names if name is not None]


def scan_batches(
    location: str,
    table: str,
    columns: Sequence[str] | None = None,
    *,
    where: str | None = None,
    batch_size: int = 8_192,
) -> Iterator[pa.RecordBatch]:
    """Rows in the table's natural order, batch by batch; nothing where there is no such table."""
    dataset = open_table(location, table)
    if dataset is None:
        return
    wanted = None if columns is None else list(columns)
    with lance_errors(dataset.uri, where=where, schema=dataset.schema):
        scanner = dataset.scanner(columns=wanted, filter=where, batch_size=batch_size, scan_in_order=True)
        yield from scanner.to_batches()


def rows_by_key(
    location: str, table: str, keys: Sequence[Value], columns: Sequence[str] | None = None, *, key: str = "clip_key"
) -> pa.Table:
    """The rows whose `key` is among `keys`, in table order for up to 10,000 keys; keys without a row are left out.

    Raises:
        StoreError: if there is no such table or column.
    """
    dataset = need_table(location, table)
    wanted = list(columns) if columns is not None else dataset.schema.names
    parts = []
    with lance_errors(dataset.uri):
        for start in range(0, max(len(keys), 1), _KEYS_PER_SCAN):
            where = is_in(key, keys[start : start + _KEYS_PER_SCAN])
            parts.append(dataset.scanner(columns=wanted, filter=where, scan_in_order=True).to_table())
    return pa.concat_tables(parts)

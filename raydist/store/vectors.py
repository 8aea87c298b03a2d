"""Rows of an embeddings table that pass a condition, with their vectors: a few at once, or all for an export.

Promises  an export sees one version of the table, however long it takes; its memory is that of a batch and some 60
          bytes a row
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store import filters
from raydist.store.current import current_rows
from raydist.store.schema import embeddings
from raydist.store.tables import lance_errors, need_table

COLUMNS = ("clip_id", "video_id", "start_s", "end_s", "split", "clip_key", "fingerprint", "vector")
_BATCH = 8_192


def rows_where(location: str, table: str, where: str | None, wanted: Sequence[str]) -> pa.Table:
    """All rows that pass, at once.

    Args:
        where: SQL over the table's columns and those of `videos`.
        wanted: columns.

    Raises:
        StoreError: no such table, or a condition that is none; it lists the columns.
    """
    dataset = need_table(location, table)
    passing = filters.resolve(dataset, location, where)
    with lance_errors(dataset.uri, where=where, schema=dataset.schema):
        return dataset.scanner(columns=list(wanted), batch_size=_BATCH, **passing.scan).to_table()


def columns(width: int) -> pa.Schema:
    """Names and types of what is exported."""
    table = embeddings(width)
    return pa.schema([table.field(name).remove_metadata() for name in COLUMNS])


class Export:
    """The rows, found when this is made."""

    def __init__(self, location: str, table: str, where: str | None = None) -> None:
        """
        Raises:
            StoreError: no such table, or a condition that is none; it lists the columns.
        """
        current = current_rows(location, table)
        self._dataset = need_table(location, table, version=current.version)
        self._filter = filters.resolve(self._dataset, location, where)
        self._addresses = np.sort(current.addresses)
        if where is not None:
            found = [np.empty(0, np.uint64)]
            with lance_errors(self._dataset.uri, where=where, schema=self._dataset.schema):
                scanner = self._dataset.scanner(
                    columns=["clip_key"], with_row_address=True, batch_size=1 << 16, **self._filter.scan
                )
                found += [batch["_rowaddr"].to_numpy() for batch in scanner.to_batches()]
            self._addresses = np.intersect1d(self._addresses, np.concatenate(found))
        self.width = current.width
        self.rows = len(self._addresses)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, batch by batch."""
        kinds = columns(self.width)
        with lance_errors(self._dataset.uri):
            scanner = self._dataset.scanner(
                columns=list(COLUMNS), with_row_address=True, batch_size=_BATCH, scan_in_order=True
            )
            for batch in scanner.to_batches():
                wanted = self._has(batch["_rowaddr"].to_numpy())
                if wanted.any():
                    yield batch.filter(pa.array(wanted)).select(list(COLUMNS)).cast(kinds)

    def _has(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not self.rows:
            return np.zeros(len(addresses), np.bool_)
        at = np.minimum(np.searchsorted(self._addresses, addresses), self.rows - 1)
        found: NDArray[np.bool_] = self._addresses[at] == addresses
        return found

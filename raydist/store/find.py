"""Rows by a text that no two rows share, looked up again and again.

Reads     the texts of a table once, at the second call; the wanted rows at each
Promises  exact; memory is 16 bytes a row of the table. What was committed since the texts were read is found too, a
          row that took the place of another may be told as it was then
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.store import read
from raydist.store.tables import lance_errors, need_table

_BATCH = 65_536


class Finder:
    """Finds rows of a table by one of its columns."""

    def __init__(self, location: str, table: str, key: str, columns: Sequence[str]) -> None:
        """
        Args:
            key: the column, which is among `columns`.
            columns: of the rows that are found.
        """
        self._location, self._table, self._key, self._columns = location, table, key, list(columns)
        self._calls = 0

    def find(self, texts: Sequence[str]) -> pa.Table:
        """The rows of these texts, each once, in any order; texts without a row are left out.

        Raises:
            StoreError: if there is no such table or column.
        """
        self._calls += 1
        if self._calls == 1:  # it may be the only one: a filter finds its rows sooner than all texts are read
            return self._filtered(texts)
        if self._calls == 2:
            self._read()
        rows = self._taken(texts)
        missing = set(texts).difference(rows[self._key].to_pylist())
        return pa.concat_tables([rows, self._filtered(sorted(missing))]) if missing else rows

    def _filtered(self, texts: Sequence[str]) -> pa.Table:
        return read.rows_by_key(self._location, self._table, texts, self._columns, key=self._key)

    def _read(self) -> None:
        """Take a number for each text, and which row has it."""
        self._dataset = need_table(self._location, self._table)
        numbers = [np.empty(0, np.int64)]
        with lance_errors(self._dataset.uri):
            scanner = self._dataset.scanner(columns=[self._key], batch_size=_BATCH, scan_in_order=True)
            for batch in scanner.to_batches():
                numbers.append(np.fromiter(map(hash, batch[self._key].to_pylist()), np.int64, batch.num_rows))
        unsorted = np.concatenate(numbers)
        self._rows = np.argsort(unsorted)
        self._numbers = unsorted[self._rows]

    def _taken(self, texts: Sequence[str]) -> pa.Table:
        wanted = np.fromiter(map(hash, texts), np.int64, len(texts))
        at = np.searchsorted(self._numbers, wanted)
        there = self._numbers.take(at, mode="clip") == wanted if len(self._numbers) else np.zeros(len(at), np.bool_)
        with lance_errors(self._dataset.uri):
            rows = self._dataset.take(np.unique(self._rows[at[there]]).tolist(), columns=self._columns)
        return rows.filter(pc.is_in(rows[self._key], value_set=pa.array(texts, pa.string())))

"""Rows of numbers, split by the range of their keys, in a temporary file without a name.

Writes    the folder for temporary files (`TMPDIR`), 8 bytes a number; gone when it is closed or its process dies
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydist.errors import StoreError
from raydist.store.prints import WORDS

_ROWS = 131_072
"""About as many are given at once."""


class Rows(NamedTuple):
    """Rows of a table, as numbers."""

    keys: NDArray[np.int64]
    prints: NDArray[np.int64]
    """[N, 4]; see `prints`."""
    numbers: NDArray[np.int64]
    """[N, any]: what goes with a row."""


class Spool:
    """Rows in 2 ** bits ranges of keys."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(2**bits)]
        """Of each range: where rows lie in the file, and how many numbers they are."""
        self._width = 0
        with _told():
            self._file = tempfile.TemporaryFile(prefix="raydist-", buffering=0)  # noqa: SIM115  # open until `close`

    def add(self, rows: Rows) -> None:
        """Keep rows.

        Raises:
            StoreError: if there is no room for them.
        """
        if not len(rows.keys):
            return
        records = np.column_stack(rows)
        self._width = records.shape[1]
        of = ((rows.keys >> (64 - self._bits)) + 2 ** (self._bits - 1)).astype(np.uint16)
        order = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=len(self._places)) * self._width
        place, left = self._file.tell(), records[order].data.cast("B")
        with _told():
            while left:
                left = left[self._file.write(left) :]
        for number in np.flatnonzero(counts).tolist():
            self._places[number].append((place, int(counts[number])))
            place += 8 * int(counts[number])

    def count(self, number: int) -> int:
        """How many rows are in a range."""
        return sum(count for _, count in self._places[number]) // max(1, self._width)

    def rows(self, number: int) -> Iterator[Rows]:
        """The rows of one range, in the order in which they came; the ranges are in the order of their keys."""
        held: list[NDArray[np.int64]] = []
        for place, count in self._places[number]:
            self._file.seek(place)
            held.append(np.frombuffer(self._file.read(8 * count), np.int64).reshape(-1, self._width))
            if sum(map(len, held)) >= _ROWS:
                yield _rows(held)
                held = []
        if held:
            yield _rows(held)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a temporary file raises into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the folder for temporary files cannot take the rows that are to be joined: {error}. It needs 150 bytes a "
            "clip, and TMPDIR=FOLDER in the environment names another."
        ) from error


def _rows(parts: list[NDArray[np.int64]]) -> Rows:
    records = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Rows(np.ascontiguousarray(records[:, 0]), records[:, 1 : 1 + WORDS], records[:, 1 + WORDS :])

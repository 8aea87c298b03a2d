"""Fingerprints as numbers of one width, which are compared at once.

Promises  exact: numbers are equal if and only if the texts are; an empty fingerprint equals nothing. 32 bytes of text
          (all that raydist writes) are their own numbers, read in place; any other text gets a number of its own
"""

from __future__ import annotations

from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WORDS = 4
"""Numbers (int64) a fingerprint."""

_BYTES = 8 * WORDS
# Bytes that begin no text in UTF-8, before the number of a text of another length, and before that of an empty one.
_OTHER, _NONE = (-1, -1, -1), (-1, -1, -2)


class Prints:
    """What turns fingerprints into numbers [N, 4]; only numbers of one and the same `Prints` may be compared."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._next = count()  # taken without a lock: two threads never get the same

    def of(self, column: pa.Array) -> NDArray[np.int64]:
        """Fingerprints as numbers [N, 4]."""
        if column.type != pa.string():
            column = column.cast(pa.string())
        whole = _in_place(column)
        if whole is not None:
            return whole
        lengths = pc.binary_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        ours = lengths == _BYTES
        words = np.empty((len(column), WORDS), np.int64)
        own = _in_place(column.filter(pa.array(ours)))
        assert own is not None
        words[ours] = own
        words[~ours] = [self._other(text) for text in column.filter(pa.array(~ours)).to_pylist()]
        return words

    def texts(self, words: NDArray[np.int64]) -> pa.Array:
        """The fingerprints that numbers of `of` stand for."""
        other = words[:, 0] == -1
        if not other.any():
            return _texts(words)
        names = {number: text for text, number in self._numbers.items()}
        found = np.empty(len(words), object)
        found[~other] = _texts(words[~other]).to_pylist()
        found[other] = [names[number] if mark == -1 else None for *_, mark, number in words[other].tolist()]
        return pa.array(found, pa.string())

    def _other(self, text: str | None) -> tuple[int, ...]:
        if text is None:
            return (*_NONE, next(self._next))
        return (*_OTHER, self._numbers.setdefault(text, next(self._next)))


def _in_place(column: pa.StringArray) -> NDArray[np.int64] | None:
    """The bytes of a column whose texts all have 32, as they lie in memory; None for any other column."""
    if column.null_count:
        return None
    _, places, data = column.buffers()
    if not len(column) or places is None or data is None:
        return np.empty((0, WORDS), np.int64) if not len(column) else None
    offsets = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1]
    if not (np.diff(offsets) == _BYTES).all():
        return None
    words = np.frombuffer(data, np.int64, len(column) * WORDS, offset=int(offsets[0]))
    return words.reshape(-1, WORDS)


def _texts(words: NDArray[np.int64]) -> pa.StringArray:
    offsets = np.arange(0, (len(words) + 1) * _BYTES, _BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(words), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(words).reshape(-1))
    )

"""ranged: a seekable file over reads of ranges, for decoders that read little of a large object.

Reads     what is asked for, and ahead while reading goes on in one direction: little after a jump, then more and more,
          never more than a small share of what was read so far; up to where it was told that reading ends
Promises  few requests and few bytes in vain; the ends of the object and recent ranges are not read twice. A failure is
          raised once and kept as `failure`; after it the file is at its end, so that a decoder which passes over errors
          comes to one. Whoever opened the file looks at `failure` before trusting what was made of it
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from raydist.errors import SourceError

END_BYTES = 64 << 10
"""Read at once at either end of the object, and kept: fingerprint, format and often the index lie there."""
_FIRST_BYTES = 64 << 10
"""Read after a jump where no more is asked for."""
_STEADY_BYTES = 512 << 10
"""Reading ahead doubles up to this; from then on it is a share of what was read."""
_SHARE = 8
_MOST_BYTES = 8 << 20
_KEPT_BYTES = 24 << 20
"""Recent ranges in memory: an index that is read once more, packets of streams that are interleaved."""


@dataclass(slots=True)
class _Piece:
    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RangedFile(io.RawIOBase):
    """A file of `size` bytes that `fetch(start, length)` gives exact ranges of; `head`: what is known of its start."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, head: bytes = b"") -> None:
        self.failure: SourceError | None = None
        self._fetch = fetch
        self._size = size
        self._place = 0
        self._ends = [_Piece(0, head)] if head else []
        self._recent: list[_Piece] = []
        """Oldest use first."""
        self._run = (0, len(head))
        """Where reading in one direction began, and up to where it has got."""
        self._ahead = len(head)
        self._expected = (0, 0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise ValueError(f"seek to {place}; expected a place in the file")
        self._place = place
        return place

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end.

        Raises:
            SourceError: what `fetch` raised, once.
        """
        if self.failure is not None:
            return b""
        end = self._size if size is None or size < 0 else min(self._size, self._place + size)
        parts = []
        while self._place < end:
            piece = self._piece(self._place, end)
            part = piece.data[self._place - piece.start : end - piece.start]
            parts.append(part)
            self._place += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed's Buffer is 3.12's
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def expect(self, start: int, end: int) -> None:
        """Say that reading will go from `start` to `end` and no further: no little steps at first, nothing beyond."""
        self._expected = (start, min(end, self._size))

    def _piece(self, place: int, end: int) -> _Piece:
        """What holds `place`: from memory, or fetched in view of a read up to `end`."""
        for number in range(len(self._recent) - 1, -1, -1):
            piece = self._recent[number]
            if piece.start <= place < piece.end:
                self._recent.append(self._recent.pop(number))
                return piece
        for piece in self._ends:
            if piece.start <= place < piece.end:
                return piece
        return self._fetched(place, end)

    def _fetched(self, place: int, end: int) -> _Piece:
        start, stop = self._range(place, end)
        for piece in (*self._ends, *self._recent):  # not twice
            if place < piece.start < stop:
                stop = piece.start
        try:
            data = self._fetch(start, stop - start)
        except SourceError as error:
            self.failure = error
            raise
        piece = _Piece(start, data)
        if len(data) <= END_BYTES and (start == 0 or piece.end == self._size):
            self._ends.append(piece)
            return piece
        self._recent.append(piece)
        while len(self._recent) > 1 and sum(len(old.data) for old in self._recent) > _KEPT_BYTES:
            del self._recent[0]
        return piece

    def _range(self, place: int, end: int) -> tuple[int, int]:
        """What to fetch for a read of [place, end)."""
        if place >= self._size - END_BYTES:
            return max(0, self._size - END_BYTES), self._size
        first, last = self._expected
        began, reached = self._run
        start = place
        if first <= place < last:
            ahead = last - place
            began, self._ahead = last, _FIRST_BYTES  # whoever reads on beyond that begins anew
        elif place and reached <= place <= reached + _FIRST_BYTES:  # a gap this small costs less than a jump
            start = max(reached, place - _FIRST_BYTES)
            self._ahead = max(min(2 * self._ahead, _STEADY_BYTES), (place - began) // _SHARE)
            ahead = self._ahead
        else:
            began, self._ahead = place, _FIRST_BYTES
            ahead = END_BYTES if place == 0 else _FIRST_BYTES
        stop = min(self._size, max(end, place + ahead), start + _MOST_BYTES)
        self._run = (began, stop)
        return start, stop

"""Which clips have a row elsewhere: a join by (clip_key, fingerprint) whose memory does not grow with the archive.

Reads     `clips` and the derived tables, two columns of each, once
Writes    where there are more clips than `PART_CLIPS`: all of it into temporary files, to be joined range by range
Promises  exact: fingerprints are compared, not hashed. At most some 8 million clips are held, 56 bytes each, and a
          batch of another table; the time grows with the rows of all tables
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store.prints import WORDS, Prints
from raydist.store.spool import Rows, Spool
from raydist.store.tables import lance_errors

PART_CLIPS = 8_000_000
"""Clips that are held at once."""

_BATCH = 131_072
_AHEAD = 2**26
"""Bytes that Lance reads ahead of what is asked for; two gigabytes if it is not told."""
_MOST_BITS = 12
_THREADS = 2

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A table whose rows are matched with clips."""

    dataset: lance.LanceDataset | None
    """None: a table that is not there has no rows."""
    where: str | None = None
    columns: Sequence[str] = ()
    """Read beside the key and the fingerprint, for `numbers`."""
    numbers: Callable[[pa.RecordBatch], Ints] | None = None
    """What goes with each row of a batch: [N, any]."""


class Keyed:
    """Rows to be found by key and fingerprint, numbered in the order in which they are given."""

    def __init__(self, keys: Ints, fingerprints: Ints, prints: Prints) -> None:
        self.prints = prints
        """What made the fingerprints numbers."""
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self.fingerprints = fingerprints
        """As numbers [N, 4]."""
        self._unlike = not (self._keys[1:] == self._keys[:-1]).any()

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Keyed:
        """The rows of a batch with a `clip_key` and a `fingerprint`."""
        prints = Prints()
        return cls(batch["clip_key"].to_numpy(), prints.of(batch["fingerprint"]), prints)

    def __len__(self) -> int:
        return len(self._keys)

    def places(self, batch: pa.RecordBatch) -> tuple[Ints, Ints]:
        """Pairs (row of these, row of the batch) of one key and fingerprint."""
        return self.find(batch["clip_key"].to_numpy(), self.prints.of(batch["fingerprint"]))

    def find(self, keys: Ints, fingerprints: Ints) -> tuple[Ints, Ints]:
        """Pairs (row of these, row of the given) of one key and fingerprint."""
        found: list[tuple[Ints, Ints]] = [(_EMPTY.keys, _EMPTY.keys)]
        rows, order = np.arange(len(keys)), np.argsort(keys)
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(self._keys, keys[order])  # sorted ones are found in a fraction of the time
        while len(at) and len(self):  # once, unless several of these have one key
            same = (self._keys.take(at, mode="clip") == keys) & (at < len(self))
            if not same.all():
                at, rows, keys, fingerprints = at[same], rows[same], keys[same], fingerprints[same]
            own = self._order.take(at)
            theirs = self.fingerprints.take(own, axis=0)
            equal = theirs[:, 0] == fingerprints[:, 0]
            for word in range(1, WORDS):  # a quarter of the time of all(axis=1)
                equal &= theirs[:, word] == fingerprints[:, word]
            found.append((own, rows) if equal.all() else (own[equal], rows[equal]))
            if self._unlike:
                break
            at = at + 1
        return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])

    def among(self, dataset: lance.LanceDataset | None, where: str | None = None) -> NDArray[np.bool_]:
        """For each of these, whether `dataset` has a row of its key and fingerprint (where a condition is true)."""
        found = np.zeros(len(self), np.bool_)
        for places, _ in self.matching(dataset, where):
            found[places] = True
        return found

    def matching(
        self, dataset: lance.LanceDataset | None, where: str | None = None, columns: Sequence[str] = ()
    ) -> Iterator[tuple[Ints, pa.RecordBatch]]:
        """Rows of `dataset` that have the key and fingerprint of one of these: which one, and the row."""
        for batch in _batches(Side(dataset=dataset, where=where, columns=columns)):
            places, rows = self.places(batch)
            if len(places):
                yield places, batch.take(pa.array(rows))


class Part(Keyed):
    """The clips whose keys lie in one range, numbered in the order of the table."""

    def __init__(self, clips: Rows, prints: Prints, sides: Callable[[str], Iterator[Rows]]) -> None:
        super().__init__(clips.keys, clips.prints, prints)
        self.addresses: NDArray[np.uint64] = np.ascontiguousarray(clips.numbers[:, :1]).reshape(-1).view(np.uint64)
        """Lance's row addresses (fragment id << 32 | row in the fragment), if they were asked for."""
        self._sides = sides

    def have(self, side: str) -> NDArray[np.bool_]:
        """For each clip, whether that table has a row of its key and fingerprint."""
        found = np.zeros(len(self), np.bool_)
        for clips, _ in self.matches(side):
            found[clips] = True
        return found

    def matches(self, side: str) -> Iterator[tuple[Ints, Ints]]:
        """Rows of that table that have a clip's key and fingerprint: which clip, and the row's numbers."""
        for given, (clips, rows) in self._found(side):
            if len(clips):
                yield clips, given.numbers[rows]

    def lacking(self, side: str) -> Iterator[list[tuple[int, str | None]]]:
        """Rows of that table whose clip is gone or has another fingerprint: their keys and fingerprints."""
        for given, (_, rows) in self._found(side):
            lacking = np.ones(len(given.keys), np.bool_)
            lacking[rows] = False
            if lacking.any():
                texts = self.prints.texts(given.prints[lacking]).to_pylist()
                yield list(zip(given.keys[lacking].tolist(), texts, strict=True))

    def _found(self, side: str) -> Iterator[tuple[Rows, tuple[Ints, Ints]]]:
        """Rows of that table with their clips, in the order of the table; looked up in threads, which leave Python."""
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[Rows, Future[tuple[Ints, Ints]]]] = deque()
            for given in self._sides(side):
                waiting.append((given, pool.submit(self.find, given.keys, given.prints)))
                if len(waiting) > _THREADS:
                    rows, found = waiting.popleft()
                    yield rows, found.result()
            for rows, found in waiting:
                yield rows, found.result()


def parts(
    clips: lance.LanceDataset,
    sides: Mapping[str, Side],
    *,
    addresses: bool = False,
    part_clips: int = PART_CLIPS,
) -> Iterator[Part]:
    """All clips, and the rows of other tables that may be theirs: in ranges of keys, one after the other.

    Args:
        sides: by the name that the parts know them by.
        addresses: the parts know where their clips lie.
        part_clips: about as many clips in a range at most. Keys are hashes, so equal ranges hold about equally many.

    Raises:
        StoreError: of the table, clips or a side, that cannot be read.
    """
    with lance_errors(clips.uri):
        count = clips.count_rows()
    prints = Prints()
    own = Side(dataset=clips, columns=("_rowaddr",) * addresses, numbers=_addresses if addresses else None)
    if count <= part_clips:
        yield Part(_whole(_read(own, prints), count), prints, lambda name: _read(sides[name], prints))
        return
    # Half as many in a range: the caller holds one while the next is read.
    bits = min(_MOST_BITS, (-(-2 * count // part_clips) - 1).bit_length())
    with ExitStack() as files:
        spooled = {}
        for name, side in {"": own, **sides}.items():
            spooled[name] = files.enter_context(closing(Spool(bits)))
            for rows in _read(side, prints):
                spooled[name].add(rows)
        for number in range(2**bits):
            there = spooled[""]
            yield Part(_whole(there.rows(number), there.count(number)), prints, partial(_of_range, spooled, number))


def _of_range(spooled: Mapping[str, Spool], number: int, name: str) -> Iterator[Rows]:
    return spooled[name].rows(number)


def _read(side: Side, prints: Prints) -> Iterator[Rows]:
    for batch in _batches(side):
        numbers = side.numbers(batch) if side.numbers else np.empty((batch.num_rows, 0), np.int64)
        yield Rows(batch["clip_key"].to_numpy(), prints.of(batch["fingerprint"]), numbers)


def _batches(side: Side) -> Iterator[pa.RecordBatch]:
    """Rows of a table that have a key."""
    if side.dataset is None:
        return
    wanted = ["clip_key", "fingerprint", *side.columns]
    with lance_errors(side.dataset.uri, where=side.where, schema=side.dataset.schema):
        scanner = side.dataset.scanner(columns=wanted, filter=side.where, batch_size=_BATCH, io_buffer_size=_AHEAD)
        for batch in scanner.to_batches():
            yield batch.filter(pc.is_valid(batch["clip_key"])) if batch["clip_key"].null_count else batch


def _whole(batches: Iterator[Rows], most: int) -> Rows:
    """All rows in one, each written to its place; no more than `most`."""
    keys, prints, numbers, at = np.empty(most, np.int64), np.empty((most, WORDS), np.int64), _EMPTY.numbers, 0
    for rows in batches:
        if not at:
            numbers = np.empty((most, rows.numbers.shape[1]), np.int64)
        stop = at + len(rows.keys)
        keys[at:stop], prints[at:stop], numbers[at:stop] = rows
        at = stop
    return Rows(keys[:at], prints[:at], numbers[:at])


def _addresses(batch: pa.RecordBatch) -> Ints:
    addresses: Ints = batch["_rowaddr"].to_numpy().astype(np.int64)[:, None]
    return addresses


_EMPTY = Rows(np.empty(0, np.int64), np.empty((0, WORDS), np.int64), np.empty((0, 0), np.int64))

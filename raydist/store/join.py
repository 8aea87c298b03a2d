"""Which clips have a row elsewhere: a join by (clip_key, fingerprint) whose memory does not grow with the archive.

Reads     `clips` and the derived tables, two columns of each, one range of clip keys (a bucket) at a time
Promises  exact: fingerprints are compared, not hashed; a bucket holds about two million clips (some 200 MB); what is
          left of a bucket is one bit a clip and question
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store.sql import all_of, between

BUCKET_ROWS = 2_000_000

_BATCH = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The clips whose keys lie in one range, sorted by key."""

    where: str
    """The range as SQL; "" for all keys."""
    keys: NDArray[np.int64]
    fingerprints: pa.Array
    addresses: NDArray[np.uint64]
    """Lance's row addresses: fragment id << 32 | row in the fragment."""

    def have(self, dataset: lance.LanceDataset | None, condition: str | None = None) -> NDArray[np.bool_]:
        """For each clip, whether `dataset` has a row of its key and fingerprint (where `condition` is true)."""
        found = np.zeros(len(self.keys), np.bool_)
        for clips, _ in self.matches(dataset, condition):
            found[clips] = True
        return found

    def matches(
        self, dataset: lance.LanceDataset | None, condition: str | None = None, columns: Sequence[str] = ()
    ) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
        """Rows of `dataset` that have a clip's key and fingerprint: which clip of the bucket, and the row's columns."""
        if dataset is None or not len(self.keys):
            return
        wanted = ["clip_key", "fingerprint", *columns]
        scanner = dataset.scanner(columns=wanted, filter=all_of(self.where, condition), batch_size=_BATCH)
        for batch in scanner.to_batches():
            batch = batch.filter(pc.is_valid(batch["clip_key"]))
            clips, rows = self.places(batch)
            if len(clips):
                yield clips, batch.take(pa.array(rows))

    def lacking(self, dataset: lance.LanceDataset) -> Iterator[pa.RecordBatch]:
        """Rows of `dataset` in this range (`clip_key`, `fingerprint`) whose clip is gone or has another fingerprint."""
        scanner = dataset.scanner(columns=["clip_key", "fingerprint"], filter=self.where or None, batch_size=_BATCH)
        for batch in scanner.to_batches():
            batch = batch.filter(pc.is_valid(batch["clip_key"]))
            lacking = np.ones(batch.num_rows, np.bool_)
            lacking[self.places(batch)[1]] = False
            if lacking.any():
                yield batch.filter(pa.array(lacking))

    def places(self, batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs (clip of the bucket, row of the batch) of one key and fingerprint."""
        keys = batch["clip_key"].to_numpy()
        rows = np.arange(len(keys))
        at, order = np.empty(len(keys), np.int64), np.argsort(keys)
        at[order] = np.searchsorted(self.keys, keys[order])  # sorted ones are found in a fraction of the time
        found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        while len(at):  # once and a bit, unless several clips had one key
            inside = at < len(self.keys)
            at, rows = at[inside], rows[inside]
            same = self.keys[at] == keys[rows]
            at, rows = at[same], rows[same]
            equal = pc.equal(batch["fingerprint"].take(pa.array(rows)), self.fingerprints.take(pa.array(at)))
            equal = equal.fill_null(False).to_numpy(zero_copy_only=False)
            found.append((at[equal], rows[equal]))
            at = at + 1
        return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def buckets(clips: lance.LanceDataset, rows: int, size: int = BUCKET_ROWS) -> Iterator[Bucket]:
    """All clips, in ranges of keys such that `rows` rows, spread evenly, give about `size` a range.

    Keys are hashes, so equal ranges hold about equally many.
    """
    for where in ranges(rows, size):
        yield bucket(clips, where)


def ranges(rows: int, size: int = BUCKET_ROWS) -> list[str]:
    """Those ranges, as SQL."""
    count = max(1, -(-rows // size))
    edges = [-(2**63) + (2**64 * number) // count for number in range(count + 1)]
    last = count - 1
    return [
        between("clip_key", edges[at] if at else None, edges[at + 1] - 1 if at < last else None) for at in range(count)
    ]


def bucket(clips: lance.LanceDataset, where: str) -> Bucket:
    """The clips of one range."""
    scanner = clips.scanner(
        columns=["clip_key", "fingerprint"], filter=where or None, with_row_address=True, batch_size=_BATCH
    )
    table = scanner.to_table()
    keys = table["clip_key"].to_numpy()
    order = np.argsort(keys)
    fingerprints = table["fingerprint"].combine_chunks()
    if isinstance(fingerprints, pa.ChunkedArray):  # of an empty table
        fingerprints = pa.array([], pa.string())
    return Bucket(
        where=where,
        keys=keys[order],
        fingerprints=fingerprints.take(pa.array(order)),
        addresses=table["_rowaddr"].to_numpy()[order],
    )


class RowBits:
    """One bit for each row of a version of a table, by row address."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        fragments = dataset.get_fragments()
        sizes = np.array([fragment.physical_rows for fragment in fragments], np.int64)
        ids = np.array([fragment.fragment_id for fragment in fragments], np.int64)
        self._order = np.argsort(ids)
        self._ids = ids[self._order]
        self._bases = (np.cumsum(sizes) - sizes)[self._order]
        self._bits = np.zeros(int(sizes.sum()) // 8 + 1, np.uint8)

    def set(self, addresses: NDArray[np.uint64]) -> None:
        """Set the bits of these rows."""
        at = self._positions(addresses)
        np.bitwise_or.at(self._bits, at >> 3, np.left_shift(1, at & 7).astype(np.uint8))

    def get(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """The bits of these rows."""
        at = self._positions(addresses)
        bits: NDArray[np.bool_] = (self._bits[at >> 3] >> (at & 7).astype(np.uint8) & 1).astype(np.bool_)
        return bits

    def any_in(self, fragment: lance.LanceFragment) -> bool:
        """Whether a row of the fragment may be set (its neighbours in the same byte may be the ones)."""
        base = int(self._bases[np.searchsorted(self._ids, fragment.fragment_id)])
        return bool(self._bits[base >> 3 : (base + fragment.physical_rows + 7 >> 3) + 1].any())

    def _positions(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        fragment = (addresses >> np.uint64(32)).astype(np.int64)
        row = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        positions: NDArray[np.int64] = self._bases[np.searchsorted(self._ids, fragment)] + row
        return positions

"""The rows of an embeddings table that are current, and their vectors by address: what a join of all clips reads.

Reads     `clips` and `embeddings_<model_key>`, each at one version
Promises  a row is current if `clips` has its key and fingerprint; vectors of one version stay readable by address
          while others write; memory: keys, fingerprints and addresses, some 60 bytes a row; vectors a batch at a time
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store.join import PART_CLIPS, Keyed, Side, parts
from raydist.store.sql import all_of
from raydist.store.tables import lance_errors, need_table

_PAIR = ["clip_key", "fingerprint"]

_BATCH = 2_048

_SAMPLED_AT_ONCE = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Current rows of one version of a table, sorted by clip key."""

    location: str
    table: str
    version: int
    width: int
    """Numbers a vector."""
    keys: NDArray[np.int64]
    fingerprints: pa.Array
    addresses: NDArray[np.uint64]
    """Lance's row addresses: fragment id << 32 | row in the fragment."""

    def among(self, others: pa.Table) -> NDArray[np.bool_]:
        """For each row, whether `others` (`clip_key`, `fingerprint`) has its key and fingerprint."""
        found = np.zeros(len(self.keys), np.bool_)
        own = Keyed.of(pa.RecordBatch.from_arrays([pa.array(self.keys), self.fingerprints], _PAIR))
        for batch in others.select(_PAIR).to_batches():
            found[own.places(batch)[0]] = True
        return found

    def only(self, wanted: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return replace(
            self,
            keys=self.keys[wanted],
            fingerprints=self.fingerprints.filter(pa.array(wanted)),
            addresses=self.addresses[wanted],
        )


def current_rows(
    location: str,
    table: str,
    where: str | None = None,
    *,
    part_clips: int = PART_CLIPS,
) -> Rows:
    """The current rows of a table of embeddings where a condition over its columns is true.

    Raises:
        StoreError: no such table, no clips, or a condition that is none; it lists the columns.
    """
    embeddings = need_table(location, table)
    clips = need_table(location, "clips")
    keys, addresses = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    fingerprints = [pa.array([], pa.string())]
    side = Side(dataset=embeddings, where=where, columns=["_rowaddr"], numbers=_key_and_address)
    for part in parts(clips, {table: side}, part_clips=part_clips):  # in the order of their keys
        matches = [*part.matches(table)] or [(np.empty(0, np.int64), np.empty((0, 2), np.int64))]
        at, numbers = (np.concatenate(column) for column in zip(*matches, strict=True))
        order = np.argsort(numbers[:, 0], kind="stable")
        keys.append(numbers[order, 0])
        addresses.append(numbers[order, 1].astype(np.uint64))
        fingerprints.append(part.prints.texts(part.fingerprints[at[order]]))
    return Rows(
        location=location,
        table=table,
        version=embeddings.version,
        width=embeddings.schema.field("vector").type.list_size,
        keys=np.concatenate(keys),
        fingerprints=pa.concat_arrays(fingerprints),
        addresses=np.concatenate(addresses),
    )


def _key_and_address(batch: pa.RecordBatch) -> NDArray[np.int64]:
    return np.column_stack([batch["clip_key"].to_numpy(), batch["_rowaddr"].to_numpy().astype(np.int64)])


def vectors_at(
    location: str, table: str, version: int, addresses: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """The vectors at sorted addresses: which of the addresses [B], and their vectors [B, D], batch by batch.

    Reads the stretch between the first address and the last, in the order of the table.
    """
    if not len(addresses):
        return
    dataset = need_table(location, table, version=version)
    stretch = all_of(f"_rowaddr >= {int(addresses[0])}", f"_rowaddr <= {int(addresses[-1])}")
    with lance_errors(dataset.uri):
        scanner = dataset.scanner(
            columns=["vector"],
            filter=stretch,
            with_row_address=True,
            batch_size=_BATCH,
            batch_readahead=4,  # Lance reads sixteen ahead, which a worker would hold for good
            fragment_readahead=1,
        )
        for batch in scanner.to_batches():
            found = batch["_rowaddr"].to_numpy()
            at = np.minimum(np.searchsorted(addresses, found), len(addresses) - 1)
            wanted = addresses[at] == found
            yield at[wanted], _numbers(batch.filter(pa.array(wanted)) if not wanted.all() else batch)


def sampled_vectors(location: str, table: str, version: int, addresses: NDArray[np.uint64]) -> NDArray[np.float16]:
    """The vectors [B, D] at some thousand sorted addresses that lie anywhere."""
    dataset = need_table(location, table, version=version)
    width = dataset.schema.field("vector").type.list_size
    parts = [np.empty((0, width), np.float16)]
    with lance_errors(dataset.uri):
        for start in range(0, len(addresses), _SAMPLED_AT_ONCE):
            wanted = ", ".join(map(str, addresses[start : start + _SAMPLED_AT_ONCE].tolist()))
            scanner = dataset.scanner(columns=["vector"], filter=f"_rowaddr IN ({wanted})", scan_in_order=True)
            parts += [_numbers(batch) for batch in scanner.to_batches()]
    return np.concatenate(parts)


def _numbers(batch: pa.RecordBatch) -> NDArray[np.float16]:
    column = batch["vector"]
    numbers: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return numbers

"""Which files the archive knows, in 16 bytes a file: what decides whether a file is opened again, and what vanished."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SETTLED = ("ok", "alias", "skipped", "failed")


def _hash(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


class KnownFiles:
    """Video ids of the archive with their size and time of change, as sorted hashes.

    A hash is 64 bits: among ten million files two share one with a chance of 3 in a million, and then a changed file
    would be taken for unchanged.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], retry_failed: bool = False) -> None:
        settled = tuple(state for state in SETTLED if state != "failed" or not retry_failed)
        ids: list[NDArray[np.uint64]] = []
        stamps: list[NDArray[np.uint64]] = []
        for batch in batches:
            rows = batch.to_pylist()
            present = [row for row in rows if row["state"] != "vanished"]
            ids.append(np.array([_hash(row["video_id"]) for row in present], np.uint64))
            stamps.append(
                np.array(
                    [
                        _hash(row["video_id"], row["bytes"], row["modified_ns"])
                        for row in present
                        if row["state"] in settled
                    ],
                    np.uint64,
                )
            )
        empty = np.empty(0, np.uint64)
        self._ids = np.sort(np.concatenate([empty, *ids]))
        self._stamps = np.sort(np.concatenate([empty, *stamps]))
        self._seen = np.zeros(len(self._ids), bool)

    def __len__(self) -> int:
        return len(self._ids)

    def see(self, video_id: str) -> bool:
        """Note that a file is there; True if the archive knows it."""
        place = self._find(self._ids, _hash(video_id))
        if place is None:
            return False
        self._seen[place] = True
        return True

    def unchanged(self, video_id: str, size: int, modified_ns: int) -> bool:
        """Whether the file was settled at this size and time of change."""
        return self._find(self._stamps, _hash(video_id, size, modified_ns)) is not None

    def gone(self, video_id: str) -> bool:
        """Whether the archive knew the file and `see` was not called for it."""
        place = self._find(self._ids, _hash(video_id))
        return place is not None and not self._seen[place]

    @staticmethod
    def _find(values: NDArray[np.uint64], value: int) -> int | None:
        place = int(np.searchsorted(values, np.uint64(value)))
        return place if place < len(values) and int(values[place]) == value else None

    def any_seen(self) -> bool:
        """Whether any file that the archive knows is still there."""
        return bool(self._seen.any())

"""Which files the archive knows, in 28 bytes a file: what decides whether a file is opened again, and what vanished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store.schema import VIDEO_STATES

_UNSETTLED_REASONS = ("id_collision",)
"""What hangs on other files too: such a file is looked at in every scan."""


_ENTRY = np.dtype([("id", "u8"), ("stamp", "u8"), ("folder", "i2"), ("state", "i1"), ("seen", "?")])


def _hash(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


class KnownFiles:
    """Video ids of the archive with their size and time of change, as sorted hashes.

    A hash is 64 bits: among ten million files two share one with a chance of 3 in a million, and then a changed file
    would be taken for unchanged.
    """

    def __init__(
        self,
        batches: Iterable[pa.RecordBatch],
        selected: Callable[[str, str], int] = lambda root, path: 0,
        unsettled: Callable[[dict[str, Any]], bool] = lambda row: False,
    ) -> None:
        """
        Args:
            batches: columns video_id, root, path, bytes, modified_ns, state, reason and what `unsettled` reads.
            selected: (root, path) -> the number of the folder that is scanned as a whole and holds the file, or -1.
            unsettled: files that are to be looked at again, whatever their size and time.
        """
        parts = [np.empty(0, _ENTRY)]
        for batch in batches:
            parts.append(
                np.array(
                    [
                        (
                            _hash(row["video_id"]),
                            _hash(row["bytes"], row["modified_ns"]),
                            -1 if row["state"] == "vanished" else selected(row["root"], row["path"]),
                            -1
                            if row["reason"] in _UNSETTLED_REASONS or unsettled(row)
                            else VIDEO_STATES.index(row["state"]),
                            False,
                        )
                        for row in batch.to_pylist()
                    ],
                    _ENTRY,
                )
            )
        self._files: NDArray[np.void] = np.sort(np.concatenate(parts), order="id")
        self._ids = np.ascontiguousarray(self._files["id"])

    def see(self, video_id: str) -> bool:
        """Note that a file is there; True if the archive has a row for it, be it of a file that had vanished."""
        place = self._find(video_id)
        if place is None:
            return False
        self._files["seen"][place] = True
        return True

    def settled(self, video_id: str, size: int, modified_ns: int) -> str:
        """The state of a file that was settled at this size and time of change; "" if it must be opened."""
        place = self._find(video_id)
        if place is None:
            return ""
        file = self._files[place]
        if file["state"] < 0 or int(file["stamp"]) != _hash(size, modified_ns):
            return ""
        state = VIDEO_STATES[int(file["state"])]
        return "" if state == "vanished" else state

    def emptied(self, folder: int) -> bool:
        """Whether the archive knows files of a folder that is scanned as a whole, and none of them was seen."""
        inside = self._files["folder"] == folder
        return bool(inside.any() and not self._files["seen"][inside].any())

    def gone(self, video_id: str) -> bool:
        """Whether the archive has a row for the file and `see` was not called for it."""
        place = self._find(video_id)
        return place is not None and not self._files["seen"][place]

    def _find(self, video_id: str) -> int | None:
        value = np.uint64(_hash(video_id))
        place = int(np.searchsorted(self._ids, value))
        return place if place < len(self._ids) and self._ids[place] == value else None

"""Rows that derive from what is no longer there: found by an anti-join, taken out, and finished after a crash.

A scan that changes clips leaves a mark (`unfinished`) while it works. Whoever starts next and finds the mark of a scan
that died repairs first: clips of files that `videos` does not hold, and derived rows of clips that changed or vanished.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.errors import StoreError
from raydist.store import commit, read, schema, sql
from raydist.store.lease import Lease
from raydist.store.location import folder

MARK = "unfinished"
_KEYS_A_DELETE = 5_000


class Unfinished:
    """The mark of a scan at work; entering repairs what a scan that died left behind."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._mark = folder(location) / MARK

    def __enter__(self) -> None:
        repair(self._location)
        self._mark.touch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._mark.unlink(missing_ok=True)


def repair(location: str) -> None:
    """Finish what a scan that died left behind; nothing to do without its mark."""
    mark = folder(location) / MARK
    if mark.exists():
        _delete_orphans(location)
        delete_stale(location)


def repair_unless_scanning(location: str) -> None:
    """Repair for a stage that only reads clips; a scan that is at work leaves its mark rightly and is left alone."""
    if (folder(location) / MARK).exists():
        with suppress(StoreError), Lease(location, "scan", exclusive=True):
            repair(location)
            (folder(location) / MARK).unlink(missing_ok=True)


def delete_stale(location: str) -> int:
    """Delete derived rows (embeddings, signatures) whose clip changed or is gone. Returns how many.

    Keys are compared as 64-bit hashes of (clip_key, fingerprint): 8 bytes a clip.
    """
    current = np.sort(_identities(location, "clips"))
    deleted = 0
    for table in derived_tables(location):
        stale: list[tuple[int, str]] = []
        for batch in read.scan_batches(location, table, ["clip_key", "fingerprint"]):
            marks = _marks(batch)
            place = np.minimum(np.searchsorted(current, marks), max(0, len(current) - 1))
            gone = current[place] != marks if len(current) else np.ones(len(marks), bool)
            rows = batch.filter(pa.array(gone))
            stale.extend(zip(rows["clip_key"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
        for start in range(0, len(stale), _KEYS_A_DELETE):
            keys, fingerprints = zip(*stale[start : start + _KEYS_A_DELETE], strict=True)
            condition = sql.all_of(sql.is_in("clip_key", keys), sql.is_in("fingerprint", set(fingerprints)))
            assert condition is not None
            deleted += commit.delete(location, table, condition)
    return deleted


def derived_tables(location: str) -> list[str]:
    """Tables whose rows are worthless once their clip has changed; captions are kept until a person confirms."""
    tables = read.table_names(location)
    return [name for name in tables if name == "signatures" or schema.model_key_of(name) is not None]


def _delete_orphans(location: str) -> None:
    """Clips of files that `videos` does not hold as `ok`: a crash came between the two commits."""
    held: set[str] = set()
    for batch in read.scan_batches(location, "videos", ["video_id", "state"]):
        held.update(batch.filter(pc.equal(batch["state"], "ok"))["video_id"].to_pylist())
    orphans: set[str] = set()
    for batch in read.scan_batches(location, "clips", ["video_id"]):
        orphans.update(name for name in pc.unique(batch["video_id"]).to_pylist() if name not in held)
    names = sorted(orphans)
    for start in range(0, len(names), _KEYS_A_DELETE):
        commit.delete(location, "clips", sql.is_in("video_id", names[start : start + _KEYS_A_DELETE]))


def _identities(location: str, table: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    batches = [_marks(batch) for batch in read.scan_batches(location, table, ["clip_key", "fingerprint"])]
    return np.concatenate([np.empty(0, np.uint64), *batches])


def _marks(batch: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """64 bits that stand for (clip_key, fingerprint): the fingerprint is a hash already, its first half is mixed in."""
    keys = np.array(batch["clip_key"].to_pylist(), np.int64).view(np.uint64)
    fingerprints = np.array([int(text[:16], 16) for text in batch["fingerprint"].to_pylist()], np.uint64)
    return keys * np.uint64(0x9E3779B97F4A7C15) ^ fingerprints

"""Rows that derive from what is no longer there: found by an anti-join, taken out, and finished after a crash.

A scan that changes clips leaves a mark (`unfinished`) while it works. Whoever starts next and finds the mark of a scan
that died repairs first: clips of files that `videos` does not hold, and derived rows of clips that changed or vanished.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

import pyarrow.compute as pc

from raydist.errors import StoreError
from raydist.store import commit, objects, read, schema, sql
from raydist.store.join import PART_CLIPS, Side, parts
from raydist.store.lease import Lease

MARK = "unfinished"
_KEYS_A_DELETE = 5_000


class Unfinished:
    """The mark of a scan at work; entering repairs what a scan that died left behind."""

    def __init__(self, location: str) -> None:
        self._location = location

    def __enter__(self) -> None:
        repair(self._location)
        objects.replace(self._location, MARK, b"")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            objects.delete(self._location, MARK)
            return
        with suppress(StoreError, OSError):
            objects.replace(self._location, MARK, b"", soon=True)  # who took the scan for dead has removed it


def repair(location: str) -> None:
    """Finish what a scan that died left behind; nothing to do without its mark."""
    if objects.read(location, MARK) is not None:
        _delete_orphans(location)
        delete_stale(location)


def repair_unless_scanning(location: str) -> None:
    """Repair for a stage that only reads clips; a scan that is at work leaves its mark rightly and is left alone."""
    if objects.read(location, MARK) is not None:
        with suppress(StoreError), Lease(location, "scan", exclusive=True):
            repair(location)
            objects.delete(location, MARK)


def delete_stale(location: str, *, part_clips: int = PART_CLIPS) -> int:
    """Delete derived rows (embeddings, signatures, cached frames) whose clip changed or is gone. Returns how many.

    What is deleted are exact pairs of key and fingerprint, so rows that `embed` commits meanwhile stay.
    """
    deleted = 0
    for table in derived_tables(location):
        derived = read.open_table(location, table)
        clips = read.open_table(location, "clips")  # after the derived table: no row in it is of a newer clip
        if derived is None or clips is None:
            continue
        for part in parts(clips, {table: Side(dataset=derived)}, part_clips=part_clips):
            for pairs in part.lacking(table):
                deleted += _delete_pairs(location, table, pairs)
    return deleted


def _delete_pairs(location: str, table: str, pairs: list[tuple[int, str | None]]) -> int:
    deleted = 0
    for start in range(0, len(pairs), _KEYS_A_DELETE):
        condition = sql.pairs_in("clip_key", "fingerprint", pairs[start : start + _KEYS_A_DELETE])
        deleted += commit.delete(location, table, condition)
    return deleted


def derived_tables(location: str) -> list[str]:
    """Tables whose rows are worthless once their clip has changed; captions are kept until a person confirms."""
    tables = read.table_names(location)
    return [
        name
        for name in tables
        if name == "signatures" or schema.is_frames(name) or schema.model_key_of(name) is not None
    ]


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

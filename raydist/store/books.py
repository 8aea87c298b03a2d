"""The books of an archive: what is done, failed and pending.

Reads     every table, at the version it has when it is opened
Promises  for each model, clips = rows + failed + pending, always: each clip is looked up once. Rows and failures count
          where they have a clip's key and its present fingerprint; done beats failed
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import read
from raydist.store.join import BUCKET_ROWS, Bucket, ranges
from raydist.store.join import bucket as load
from raydist.store.schema import embeddings_table
from raydist.store.sql import all_of, equals
from raydist.store.tables import lance_errors, open_table

_THREADS = 2
"""Ranges of clips that are counted at once; together they take the memory of a bucket."""

_DONE, _LOST = 0, 1
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBooks:
    """How far one model got. rows + failed + pending are all clips."""

    rows: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What an archive holds."""

    states: Mapping[str, int]
    """State of `schema.VIDEO_STATES` -> files; states without files are left out."""
    clips: int
    captions: int
    reasons: Mapping[str, int]
    """Reason -> what failed for it, the most frequent first: a file counts once, a clip once for each model."""
    captioned: Mapping[str, ModelBooks]
    """By origin (`sidecar`, or the model that captions): clips with a caption, failed ones, and the others."""
    embeddings: Mapping[str, ModelBooks]
    """By model_key."""

    @property
    def files(self) -> int:
        """Files that are videos or were meant to be: ok + alias + failed."""
        return sum(self.states.get(state, 0) for state in ("ok", "alias", "failed"))

    @property
    def failed_files(self) -> int:
        """Files that no clip can be cut from."""
        return self.states.get("failed", 0)


def books(
    location: str,
    stage: str = "embed",
    *,
    bucket_rows: int = BUCKET_ROWS // _THREADS,
) -> Books:
    """Count everything, one range of clips at a time; a table that is not there has no rows."""
    reasons: Counter[str] = Counter()
    states = _files(location, reasons)
    ledger = _Ledger(location, stage)
    clips = ledger.count(bucket_rows)
    return Books(
        states=states,
        clips=clips,
        captions=read.count_rows(location, "captions"),
        reasons=dict((reasons + ledger.reasons).most_common()),
        captioned=ledger.captioned(),
        embeddings=ledger.models(),
    )


def _files(location: str, reasons: Counter[str]) -> dict[str, int]:
    """Files by state; the reasons of failed ones are added to `reasons`."""
    states: Counter[str] = Counter()
    batches = read.scan_batches(location, "videos", ["state", "reason"], batch_size=65_536)
    for batch in batches:
        failed = batch.filter(pc.equal(batch["state"], "failed"))
        for counter, column in ((states, batch["state"]), (reasons, failed["reason"])):
            for pair in pc.value_counts(column).to_pylist():
                counter[pair["values"] or "unknown"] += pair["counts"]
    return dict(sorted(states.items()))


@dataclass(slots=True)
class _Part:
    """What one range of clips adds."""

    clips: int = 0
    sums: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """By model: rows, failed, pending."""
    reasons: Counter[str] = field(default_factory=Counter)
    captioned: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Origin and `_DONE` or `_LOST` -> clips."""


class _Ledger:
    """Rows, failures and pending clips of all models, added up bucket by bucket."""

    def __init__(self, location: str, stage: str) -> None:
        keys = read.model_keys(location)
        self.reasons: Counter[str] = Counter()
        self._stage = stage
        self._clips = open_table(location, "clips")
        self._failures = open_table(location, "failures")
        self._tables = {key: open_table(location, embeddings_table(key)) for key in keys}
        self._sums = {key: np.zeros(3, np.int64) for key in keys}
        self._captions = open_table(location, "captions")
        self._captioned: dict[str, NDArray[np.int64]] = {}

    def captioned(self) -> dict[str, ModelBooks]:
        """Clips by who captions."""
        return _as_books(self._captioned)

    def models(self) -> dict[str, ModelBooks]:
        """What was counted."""
        return _as_books(self._sums)

    def count(self, bucket_rows: int) -> int:
        """Count all clips once for each model; how many clips there are."""
        if self._clips is None:
            return 0
        clips, total = self._clips, 0
        captioned: Counter[tuple[str, int]] = Counter()
        with lance_errors(clips.uri), ThreadPoolExecutor(_THREADS) as pool:
            tables = [table for table in (clips, self._failures, *self._tables.values()) if table is not None]
            rows = max(table.count_rows() for table in tables)
            for part in pool.map(lambda where: self._of_range(clips, where), ranges(rows, bucket_rows)):
                total += part.clips
                self.reasons += part.reasons
                captioned += part.captioned
                for key, sums in part.sums.items():
                    self._sums[key] += sums
        for origin in {origin for origin, _ in captioned}:
            done, lost = captioned[origin, _DONE], captioned[origin, _LOST]
            self._captioned[origin] = np.array([done, lost, total - done - lost], np.int64)
        return total

    def _of_range(self, clips: lance.LanceDataset, where: str) -> _Part:
        """One range of clips, in a thread of its own: what takes the time leaves Python to others meanwhile."""
        part, bucket = _Part(), load(clips, where)
        part.clips = len(bucket.keys)
        for key, table in self._tables.items():
            part.sums[key] = self._of_bucket(bucket, key, table, part.reasons)
        self._count_captions(bucket, part.captioned)
        return part

    def _count_captions(self, bucket: Bucket, captioned: Counter[tuple[str, int]]) -> None:
        """Add up a bucket by origin."""
        done: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(bucket.keys), np.bool_))
        failed: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(bucket.keys), np.bool_))
        for clips, rows in bucket.matches(self._captions, None, ["origin"]):
            _mark(done, clips, rows["origin"].to_pylist())
        for clips, rows in bucket.matches(self._failures, equals("stage", "caption"), ["model_key"]):
            _mark(failed, clips, [key.rpartition("#")[0] for key in rows["model_key"].to_pylist()])
        for origin in {*done, *failed}:
            captioned[origin, _DONE] += int(done[origin].sum())
            captioned[origin, _LOST] += int((failed[origin] & ~done[origin]).sum())

    def _of_bucket(
        self, bucket: Bucket, key: str, table: lance.LanceDataset | None, reasons: Counter[str]
    ) -> NDArray[np.int64]:
        done = bucket.have(table)
        failed = np.zeros(len(done), np.bool_)
        newest: dict[int, tuple[datetime, str]] = {}
        condition = all_of(equals("stage", self._stage), equals("model_key", key))
        for clips, rows in bucket.matches(self._failures, condition, ["reason", "at"]):
            waiting = ~done[clips]
            failed[clips[waiting]] = True
            rows = rows.filter(pa.array(waiting))
            for clip, reason, at in zip(
                clips[waiting].tolist(), rows["reason"].to_pylist(), rows["at"].to_pylist(), strict=True
            ):
                candidate = (at or _NEVER, reason or "unknown")
                newest[clip] = max(newest.get(clip, candidate), candidate)
        reasons.update(reason for _, reason in newest.values())
        return np.array([done.sum(), failed.sum(), (~done & ~failed).sum()], np.int64)


def _as_books(sums: Mapping[str, NDArray[np.int64]]) -> dict[str, ModelBooks]:
    return {
        key: ModelBooks(rows=int(done), failed=int(failed), pending=int(waiting))
        for key, (done, failed, waiting) in sorted(sums.items())
    }


def _mark(marks: Mapping[str, NDArray[np.bool_]], clips: NDArray[np.int64], names: list[str]) -> None:
    """Set the marks of clips, each under its name."""
    column = np.array(names, dtype=object)
    for name in set(names):
        marks[name][clips[column == name]] = True

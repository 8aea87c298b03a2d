"""The books of an archive: what is done, failed and pending.

Reads     every table, at the version it has when it is opened
Promises  for each model, clips = rows + failed + pending, always: each clip is looked up once. Rows and failures count
          where they have a clip's key and its present fingerprint; done beats failed
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import read
from raydist.store.join import BUCKET_ROWS, Bucket, buckets
from raydist.store.schema import embeddings_table
from raydist.store.sql import all_of, equals
from raydist.store.tables import lance_errors, open_table

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
    bucket_rows: int = BUCKET_ROWS,
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
        total = 0
        with lance_errors(self._clips.uri):
            tables = [table for table in (self._clips, self._failures, *self._tables.values()) if table is not None]
            rows = max(table.count_rows() for table in tables)
            for bucket in buckets(self._clips, rows, bucket_rows):
                total += len(bucket.keys)
                for key, table in self._tables.items():
                    self._sums[key] += self._of_bucket(bucket, key, table)
                self._count_captions(bucket, total)
        return total

    def _count_captions(self, bucket: Bucket, total: int) -> None:
        """Add up a bucket by origin; `total`: clips so far, those of the bucket included."""
        done: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(bucket.keys), np.bool_))
        failed: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(bucket.keys), np.bool_))
        for clips, rows in bucket.matches(self._captions, None, ["origin"]):
            _mark(done, clips, rows["origin"].to_pylist())
        for clips, rows in bucket.matches(self._failures, equals("stage", "caption"), ["model_key"]):
            _mark(failed, clips, [key.rpartition("#")[0] for key in rows["model_key"].to_pylist()])
        for origin in {*done, *failed, *self._captioned}:
            sums = self._captioned.setdefault(origin, np.array([0, 0, total - len(bucket.keys)], np.int64))
            lost = failed[origin] & ~done[origin]
            sums += np.array([done[origin].sum(), lost.sum(), (~done[origin] & ~lost).sum()], np.int64)

    def _of_bucket(self, bucket: Bucket, key: str, table: lance.LanceDataset | None) -> NDArray[np.int64]:
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
        self.reasons.update(reason for _, reason in newest.values())
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

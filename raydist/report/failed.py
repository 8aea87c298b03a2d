"""What failed in a stretch of time, by stage and reason, with an example each.

Reads     `failures`, and where they failed the tables that would hold them now: `videos`, `clips`, a model's rows
Promises  a clip counts once for a stage and model, for its newest reason, whoever tried it and how often; a file once
          in `scan`. What succeeded since, changed since or left the archive does not count (of `train` and `eval`
          success leaves no row). Memory is that of `_ROWS` failures, and eight bytes a file
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.records import REASONS
from raydist.store import read, schema
from raydist.store.join import Keyed
from raydist.store.sql import all_of, between, equals, quote_name, quote_sql

_DETAIL_CHARS = 300
_ROWS = 500_000
"""Failures that are held at once."""
_FILES = "scan"
"""The stage that fails files; the others fail clips."""
_ELSEWHERE = "dedup"
"""The stage that also fails clips of other archives, which are not looked up in this one."""
_COLUMNS = ["clip_key", "fingerprint", "stage", "model_key", "reason", "at"]


@dataclass(slots=True, kw_only=True)
class Reason:
    """Failures of one stage for one reason."""

    stage: str
    reason: str
    count: int = 0
    example: str = ""
    """A file, or a clip's file where the clip's own name is not kept."""
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """For tools."""
        return {
            "stage": self.stage,
            "reason": self.reason,
            "what": REASONS.get(self.reason, ""),
            "count": self.count,
            "example": self.example,
            "detail": self.detail,
        }

    def shows(self, video_id: str | None, detail: str | None) -> None:
        """Take an example."""
        self.example, self.detail = video_id or "", (detail or "")[:_DETAIL_CHARS]


def since(location: str, began: datetime, ended: datetime, stage: str = "") -> Sequence[Reason]:
    """What failed in that time and is not done yet, the most frequent first.

    Args:
        stage: only of this one.
    """
    at = quote_name("at")
    of_stage = equals("stage", stage) if stage else None
    found = _Found(location, all_of(f"{at} >= {quote_sql(began)}", f"{at} <= {quote_sql(ended)}", of_stage))
    if stage in ("", _FILES):
        found.add_files()
    if stage != _FILES:
        found.add_clips()
    return sorted(found.reasons.values(), key=lambda reason: -reason.count)


@dataclass(slots=True)
class _Found:
    """Reasons, and how many failed for them."""

    location: str
    where: str | None
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)

    def add_files(self) -> None:
        """Files that `videos` holds as failed, for the reason that is there."""
        where = all_of(self.where, equals("stage", _FILES))
        names = [_hashes(batch) for batch in read.scan_batches(self.location, "failures", ["video_id"], where=where)]
        tried = np.unique(np.concatenate([np.empty(0, np.int64), *names]))
        if not len(tried):
            return
        columns = ["video_id", "reason", "detail"]
        for batch in read.scan_batches(self.location, "videos", columns, where=equals("state", "failed")):
            failed = batch.filter(pa.array(np.isin(_hashes(batch), tried)))
            for row in failed.to_pylist():
                reason = self._reason(_FILES, row["reason"])
                reason.count += 1
                if reason.count == 1:
                    reason.shows(row["video_id"], row["detail"])

    def add_clips(self) -> None:
        """Clips, a range of their keys after the other."""
        where = all_of(self.where, f"{quote_name('clip_key')} IS NOT NULL")
        count = read.count_rows(self.location, "failures", where)
        for low, high in _ranges(count) if count else ():
            part = all_of(where, between("clip_key", low, high))
            batches = list(read.scan_batches(self.location, "failures", _COLUMNS, where=part, batch_size=65_536))
            if batches:
                self._add(_newest(pa.Table.from_batches(batches)))

    def _add(self, rows: pa.Table) -> None:
        for group in rows.group_by(["stage", "model_key"]).aggregate([]).to_pylist():
            same = [pc.equal(rows[name], value) for name, value in group.items()]
            of_group = rows.filter(pc.and_(*same)).combine_chunks()
            standing = of_group.filter(pa.array(self._stands(of_group, **group)))
            for pair in pc.value_counts(standing["reason"]).to_pylist():
                reason = self._reason(group["stage"], pair["values"])
                reason.count += pair["counts"]
                if not reason.example:
                    self._show(reason, standing, group, pair["values"])

    def _stands(self, rows: pa.Table, stage: str, model_key: str) -> NDArray[np.bool_]:
        """Which of the failures are of clips that are there as they were, and not done."""
        clips = Keyed.of(rows.to_batches()[0])
        table, where = _done(stage, model_key)
        stands = ~clips.among(read.open_table(self.location, table) if table else None, where)
        return stands if stage == _ELSEWHERE else stands & clips.among(read.open_table(self.location, "clips"))

    def _show(self, reason: Reason, rows: pa.Table, group: dict[str, str], text: str) -> None:
        """Give a reason an example out of `rows`."""
        key = rows["clip_key"][pc.index(rows["reason"], text).as_py()].as_py()
        where = all_of(self.where, equals("clip_key", key), equals("stage", group["stage"]))
        for batch in read.scan_batches(self.location, "failures", ["video_id", "detail", "reason"], where=where):
            for row in batch.to_pylist():
                if (row["reason"] or "") == text:
                    reason.shows(row["video_id"], row["detail"])

    def _reason(self, stage: str, reason: str) -> Reason:
        reason = reason or "unknown"
        return self.reasons.setdefault((stage, reason), Reason(stage=stage, reason=reason))


def _newest(rows: pa.Table) -> pa.Table:
    """Of each clip the newest failure of each stage and model."""
    for name in ("stage", "model_key", "reason"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.fill_null(rows[name], ""))
    rows = rows.sort_by("at")
    rows = rows.append_column("row", pa.array(np.arange(len(rows))))
    last = rows.group_by(["stage", "model_key", "clip_key", "fingerprint"]).aggregate([("row", "max")])
    return rows.take(last["row_max"])


def _done(stage: str, model_key: str) -> tuple[str, str | None]:
    """Where a clip has a row once it is done, and which rows are that; "" where success leaves none."""
    if stage == "embed":
        return schema.embeddings_table(model_key), None
    if stage == "caption":
        origin, _, prompt = model_key.rpartition("#")
        return "captions", all_of(equals("origin", origin), equals("prompt_hash", prompt))
    return ("traces" if stage == _ELSEWHERE else ""), None


def _ranges(rows: int) -> Iterator[tuple[int | None, int | None]]:
    """Ranges of keys with some `_ROWS` rows each: keys are hashes."""
    parts = -(-rows // _ROWS)
    edges = [-(2**63) + part * 2**64 // parts for part in range(1, parts)]
    yield from zip([None, *edges], [*(edge - 1 for edge in edges), None], strict=True)


def _hashes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Of video ids; among a million two share one with a chance of one in thirty million."""
    return np.fromiter(map(hash, batch["video_id"].to_pylist()), np.int64, batch.num_rows)

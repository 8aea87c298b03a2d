"""Commits of a scan, wave by wave: failures, then clips, then videos.

In this order a crash leaves clips of a file that `videos` does not hold yet; `repair` takes them out at the next start.
A scan that stood still, and lost its lease over it, finds that out before its next commit and ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from raydist import gauges
from raydist.clips.naming import FEW_VIDEOS, Split
from raydist.errors import StoreError
from raydist.scan.known import KnownFiles
from raydist.scan.rows import (
    Cutting,
    Dealer,
    Place,
    Row,
    Stretches,
    clip_rows,
    collisions,
    failure_row,
    few_sources,
    place_of,
    without_aliases,
)
from raydist.store import commit, read, schema, sql
from raydist.store.forgotten import Forgotten

SKIPPED_REASONS = ("picture",)
"""What a probe finds that is no failure: it is counted and not looked at again."""

_HELD_FILES = 200_000
"""So many files are kept in memory at most, for a first scan to find out how few videos there are among them."""

_IDS_A_DELETE = 5_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Waves:
    """Turns probed files into rows and commits them."""

    def __init__(
        self, location: str, cutting: Cutting, known: KnownFiles, collided: set[str], check: Callable[[], None]
    ) -> None:
        """
        Args:
            check: raises a StoreError once the lease of the scan is lost.
        """
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.changed = 0
        self._location = location
        self._cutting = cutting
        self._dealer = Dealer()
        self._known = known
        self._collided = collided
        self._check = check
        self._videos = commit.Committer(location, "videos", _videos_schema(location))
        self._clips = commit.Committer(location, "clips", schema.CLIPS)
        self.forgotten = Forgotten(location)
        self._undealt = not read.count_rows(location, "clips")
        self._rate = gauges.Rate("scan")
        self._sources: set[str] = set()
        self._looked_at = 0

    @property
    def in_parts(self) -> bool:
        """Whether these are the first clips of the archive and come of few source videos."""
        return self._dealer.in_parts

    @property
    def files(self) -> int:
        """Files that are committed."""
        return sum(self.counts[state] for state in schema.VIDEO_STATES)

    def ready(self, probed: list[Row]) -> bool:
        """Whether a wave may be committed before the last file is probed: few videos are dealt all at once.

        Until it may, `probed` only grows, and what it held at the last call is not looked at again.
        """
        if not self._undealt or len(probed) >= _HELD_FILES:
            return True
        self._sources.update(self._place(row).source_id for row in probed[self._looked_at :] if not row["reason"])
        self._looked_at = len(probed)
        return len(self._sources) >= FEW_VIDEOS

    def commit(self, probed: list[Row], last: bool = False) -> None:
        """Commit one wave of probed files; `last`: the scan has no more."""
        if self._undealt and last:
            self._dealer = Dealer(few_sources(probed, self._cutting))
        self._undealt = False
        probed = [row for row in probed if row["video_id"] not in self._collided or row["reason"] == "id_collision"]
        probed.sort(key=lambda row: row["video_id"])  # which of two ways to cut comes first must not hang on Ray
        before = [row["video_id"] for row in probed if self._known.see(row["video_id"])]
        old_splits = _old_splits(self._location, before)
        probed = self._without_forgotten(probed)
        carried = self._carried(before)
        stretches = self._stretches(probed)
        videos: list[Row] = []
        clips: list[Row] = []
        for row in probed:
            kept = carried.get(row["video_id"], {})
            video, own = self._rows(row, old_splits, stretches)
            if kept.get("split_override"):
                own = [{**clip, "split": kept["split_override"]} for clip in own]
            videos.append({**kept, **video})
            clips.extend(own)
        self._fail_colliding(videos, clips)
        self._write(videos, clips, before)

    def _without_forgotten(self, probed: list[Row]) -> list[Row]:
        """Without files that hold what a person had forgotten. They get no row: it would bear the name again."""
        kept = [row for row in probed if not self._is_forgotten(row)]
        self.counts["forgotten"] += len(probed) - len(kept)
        return kept

    def _is_forgotten(self, row: Row) -> bool:
        if self.forgotten.has_video(row["video_id"]) or self.forgotten.has_content(row.get("file_fingerprint")):
            return True
        if row["reason"] or not self.forgotten:
            return False
        place = self._place(row)
        return place.pre_cut and self.forgotten.has_source(place.source_id)

    def _rows(self, row: Row, old_splits: dict[str, Split], stretches: Stretches) -> tuple[Row, list[Row]]:
        video = video_row(row)
        if video["state"] != "ok":
            return video, []
        place, clips = clip_rows(row, self._cutting, self._dealer, old_splits)
        if self._cutting.template is not None:
            clips = without_aliases(video, place, clips, stretches)
        return video, clips

    def _carried(self, video_ids: list[str]) -> dict[str, Row]:
        """What a person said of a file outlives the file's change: metadata columns and a split of its own."""
        own = {"split_override", *(name for name in self._videos.schema.names if name not in schema.VIDEOS.names)}
        rows: dict[str, Row] = {}
        table = read.rows_by_key(self._location, "videos", video_ids, ["video_id", *sorted(own)], key="video_id")
        rows.update({row.pop("video_id"): row for row in table.to_pylist()})
        return rows

    def _stretches(self, probed: list[Row]) -> Stretches:
        stretches = Stretches()
        if self._cutting.template is None:
            return stretches
        own = {row["video_id"] for row in probed}
        sources = sorted({self._place(row).source_id for row in probed if not row["reason"]})
        columns = ["clip_id", "video_id", "source_id", "source_start_s", "start_ms", "end_ms"]
        for clip in read.rows_by_key(self._location, "clips", sources, columns, key="source_id").to_pylist():
            if clip["video_id"] not in own:
                stretches.add(clip)
        return stretches

    def _place(self, row: Row) -> Place:
        return place_of(row["root"], row["path"], row["duration_ms"], self._cutting)

    def _fail_colliding(self, videos: list[Row], clips: list[Row]) -> None:
        """A key of two clips fails the files of both that are in this wave; neither is silently dropped."""
        keys = [clip["clip_key"] for clip in clips]
        there = read.rows_by_key(self._location, "clips", keys, ["clip_key", "clip_id"])
        known = dict(zip(there["clip_key"].to_pylist(), there["clip_id"].to_pylist(), strict=True))
        for key, (one, other) in collisions(clips, known).items():
            guilty = {clip["video_id"] for clip in clips if clip["clip_key"] == key}
            for video in videos:
                if video["video_id"] in guilty:
                    detail = f"{one!r} and {other!r} share the clip key {key}; rename one of the files"
                    video.update(state="failed", reason="id_collision", detail=detail)
            clips[:] = [clip for clip in clips if clip["video_id"] not in guilty]

    def _write(self, videos: list[Row], clips: list[Row], before: list[str]) -> None:
        failed = [video for video in videos if video["state"] == "failed"]
        rows = [
            failure_row(video["video_id"], video["file_fingerprint"] or "", video["reason"], video["detail"])
            for video in failed
        ]
        if rows:
            commit.append(self._location, "failures", _table(rows, schema.FAILURES), schema.FAILURES)
        replaced = sql.is_in("video_id", before) if before else None
        cut = _table(clips, schema.CLIPS)
        for committer, table in ((self._clips, cut), (self._videos, _table(videos, self._videos.schema))):
            self._check()
            fragments = commit.write_fragments(self._location, committer.table, table, committer.schema)
            committer.commit(fragments, delete_where=replaced)
        try:
            self._check()
        except StoreError:
            # Another may have taken the clips out meanwhile, as those of a scan that died; now they have their videos.
            commit.append(self._location, "clips", cut, schema.CLIPS)
            raise
        self.changed += len(before)
        self.counts.update(video["state"] for video in videos)
        self.counts["clips"] += len(clips)
        self.failures.update(video["reason"] for video in failed)
        self._rate.add(len(clips))
        gauges.done("scan", len(clips), Counter(video["reason"] for video in failed))


def video_row(row: Row) -> Row:
    """A row of `videos` for a probed file."""
    reason = row["reason"] or ""
    state = "ok" if not reason else "skipped" if reason in SKIPPED_REASONS else "failed"
    kept = {name: row.get(name) for name in row if name not in ("duration_ms", "gaps_ms", "reason", "detail")}
    duration_ms = row.get("duration_ms")
    return {
        **kept,
        "state": state,
        "reason": reason,
        "detail": row["detail"] or "",
        "duration_s": None if duration_ms is None else duration_ms / 1000,
        "gaps_ms": [edge for gap in row.get("gaps_ms") or () for edge in gap],
        "modified_at": _EPOCH + timedelta(microseconds=row["modified_ns"] // 1000),
    }


def vanish(location: str, known: KnownFiles, folder_of: Callable[[str, str], int]) -> list[str]:
    """Mark files that are gone: their clips leave the archive, their row stays with the state `vanished`.

    Args:
        location: of the archive.
        known: told by `see` which files are still there.
        folder_of: (root, encoded path) -> the number of the folder that was walked as a whole and holds it, or -1.

    Returns:
        Their video ids.
    """
    gone: list[Row] = []
    for batch in read.scan_batches(location, "videos"):
        for row in batch.to_pylist():
            if row["state"] != "vanished" and known.gone(row["video_id"]) and folder_of(row["root"], row["path"]) >= 0:
                gone.append({**row, "state": "vanished"})
    videos = commit.Committer(location, "videos", _videos_schema(location)) if gone else None
    for start in range(0, len(gone), _IDS_A_DELETE):
        part = gone[start : start + _IDS_A_DELETE]
        inside = sql.is_in("video_id", [row["video_id"] for row in part])
        assert videos is not None
        # The video first: clips of a video that is not `ok` are taken out by `repair` if this dies in between.
        fragments = commit.write_fragments(location, "videos", _table(part, videos.schema), videos.schema)
        videos.commit(fragments, delete_where=inside)
        commit.delete(location, "clips", inside)
    return [row["video_id"] for row in gone]


def _old_splits(location: str, video_ids: list[str]) -> dict[str, Split]:
    table = read.rows_by_key(location, "clips", video_ids, ["clip_id", "split"], key="video_id")
    return dict(zip(table["clip_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def _videos_schema(location: str) -> pa.Schema:
    """The schema of `videos` as it is, with the columns that the user added."""
    table = read.open_table(location, "videos")
    return schema.VIDEOS if table is None else table.schema


def _table(rows: list[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=columns)

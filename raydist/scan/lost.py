"""Files that have something to say again, because clips that they were copies of have left the archive.

Reads     `videos` and `clips` of an archive of pre-cut clips; others hold no copies
Promises  nothing is kept between scans, so a scan that died forgets none; a span in which no frame begins is not lost
"""

from __future__ import annotations

import pyarrow.compute as pc

from raydist.clips import naming
from raydist.records import Span
from raydist.scan.rows import Cutting, Row, Stretches, in_gap, place_of
from raydist.store import read, sql

_VIDEO_COLUMNS = ["video_id", "root", "path", "state", "alias_of", "duration_s"]
_CLIP_COLUMNS = ["clip_id", "video_id", "source_id", "source_start_s", "start_ms", "end_ms"]


def lost_copies(location: str, cutting: Cutting) -> set[str]:
    """Video ids of files of which a stretch is in no clip any more: as a whole, or spans of a longer video."""
    if cutting.template is None:
        return set()
    videos = read.open_table(location, "videos")
    columns = _VIDEO_COLUMNS + ["gaps_ms"] * (videos is not None and "gaps_ms" in videos.schema.names)
    aliases: dict[str, list[str]] = {}
    whole: dict[str, Row] = {}
    for batch in read.scan_batches(location, "videos", columns, where=sql.is_in("state", ["ok", "alias"])):
        for row in batch.to_pylist():
            row["duration_ms"] = round(row["duration_s"] * 1000)
            if row["state"] == "alias":
                aliases.setdefault(row["alias_of"], []).append(row["video_id"])
            if not place_of(row["root"], row["path"], row["duration_ms"], cutting).pre_cut:
                whole[row["video_id"]] = row
    return _without_clip(location, aliases) | _uncovered(location, _partly(location, whole, cutting), cutting)


def _without_clip(location: str, aliases: dict[str, list[str]]) -> set[str]:
    """Aliases whose clip is gone."""
    keys = [naming.clip_key(clip_id) for clip_id in aliases]
    there = set(read.rows_by_key(location, "clips", keys, ["clip_id"])["clip_id"].to_pylist()) if keys else set()
    return {video_id for clip_id, video_ids in aliases.items() if clip_id not in there for video_id in video_ids}


def _partly(location: str, whole: dict[str, Row], cutting: Cutting) -> list[Row]:
    """Videos that have fewer clips than spans."""
    if not whole:
        return []
    missing = {video_id: len(_spans(row, cutting)) for video_id, row in whole.items()}
    for batch in read.scan_batches(location, "clips", ["video_id"]):
        for count in pc.value_counts(batch["video_id"]).to_pylist():
            if count["values"] in missing:
                missing[count["values"]] -= count["counts"]
    return [whole[video_id] for video_id, count in missing.items() if count > 0]


def _uncovered(location: str, videos: list[Row], cutting: Cutting) -> set[str]:
    """Those of these videos with a span that is no clip, neither of their own nor of a pre-cut file."""
    if not videos:
        return set()
    sources = {row["video_id"]: naming.source_id(row["video_id"]) for row in videos}
    clips = read.rows_by_key(location, "clips", sorted(set(sources.values())), _CLIP_COLUMNS, key="source_id")
    stretches, there = Stretches(), set(clips["clip_id"].to_pylist())
    for clip in clips.to_pylist():
        stretches.add(clip)
    return {
        row["video_id"]
        for row in videos
        for span in _spans(row, cutting)
        if naming.clip_id(row["video_id"], span) not in there
        and not stretches.find(sources[row["video_id"]], span.start_ms, span.end_ms, pre_cut=False)
    }


def _spans(video: Row, cutting: Cutting) -> list[Span]:
    edges = video.get("gaps_ms") or []  # an older archive has no such column
    gaps = list(zip(edges[::2], edges[1::2], strict=True))
    return [
        span
        for span in naming.cut(video["duration_ms"], cutting.clip_ms, cutting.shortest_ms)
        if not in_gap(span, gaps)
    ]

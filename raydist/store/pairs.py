"""Clips and their captions: what training and evaluation learn from.

Reads     `captions`, `clips`, `videos`
Promises  a caption counts only with its clip's present fingerprint: a stale one is left out until a person confirms it;
          the same archive gives the same table, row for row
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raydist.store import read
from raydist.store.sql import equals

_OF_CLIP = {
    "clip_key": pa.int64(),
    "clip_id": pa.string(),
    "fingerprint": pa.string(),
    "video_id": pa.string(),
    "source_id": pa.string(),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "start_ms": pa.int64(),
    "end_ms": pa.int64(),
    "split": pa.string(),
}
_OF_FILE = {"root": pa.string(), "path": pa.string(), "file_fingerprint": pa.string()}
PAIRS = pa.schema({**_OF_CLIP, **_OF_FILE, "captions": pa.list_(pa.string())})
"""A row a clip; its captions are distinct and not empty, in the order of their origins and numbers."""


def captioned_clips(location: str, split: str | None) -> pa.Table:
    """The clips that have captions, with the file that each lies in, sorted by `clip_key`.

    Args:
        split: `train`, `val` or `test`; None: all of them, and clips in the gap between two of them.
    """
    captions = _captions(location)
    texts = _texts(captions)
    clips = _clips(location, split, captions)
    files = _files(location, clips)
    rows = []
    for clip in clips.to_pylist():
        file = files.get(clip["video_id"])
        own = texts.get((clip["clip_key"], clip["fingerprint"]))
        if file is not None and own:
            rows.append({**clip, **file, "captions": own})
    return pa.Table.from_pylist(rows, PAIRS)


def stale_captions(location: str, split: str | None = None) -> int:
    """How many captions wait for confirmation: their clip's file has changed since."""
    captions = _captions(location)
    now = {row["clip_key"]: row["fingerprint"] for row in _clips(location, split, captions).to_pylist()}
    columns = (captions["clip_key"].to_pylist(), captions["fingerprint"].to_pylist())
    return sum(now.get(key, then) != then for key, then in zip(*columns, strict=True))


def _captions(location: str) -> pa.Table:
    columns = ["clip_key", "fingerprint", "number", "caption", "origin"]
    batches = list(read.scan_batches(location, "captions", columns))
    kinds = {"clip_key": pa.int64(), "fingerprint": pa.string(), "number": pa.int32()}
    empty = pa.schema({**kinds, "caption": pa.string(), "origin": pa.string()})
    return pa.Table.from_batches(batches) if batches else empty.empty_table()


def _texts(captions: pa.Table) -> dict[tuple[int, str], list[str]]:
    """Key and fingerprint of a clip -> its captions."""
    order = [(name, "ascending") for name in ("origin", "number", "caption")]
    found: dict[tuple[int, str], dict[str, None]] = {}
    for row in captions.sort_by(order).to_pylist():
        text = (row["caption"] or "").strip()
        if text:
            found.setdefault((row["clip_key"], row["fingerprint"]), {})[text] = None
    return {clip: list(own) for clip, own in found.items()}


def _clips(location: str, split: str | None, captions: pa.Table) -> pa.Table:
    """The clips of a split whose keys have captions of whatever age, by key: one pass over the table of clips."""
    keys = pc.unique(captions["clip_key"])
    where = None if split is None else equals("split", split)
    parts = [pa.schema(_OF_CLIP).empty_table()]
    for batch in read.scan_batches(location, "clips", list(_OF_CLIP), where=where, batch_size=65_536):
        parts.append(pa.Table.from_batches([batch]).filter(pc.is_in(batch["clip_key"], value_set=keys)))
    return pa.concat_tables(parts).sort_by("clip_key")


def _files(location: str, clips: pa.Table) -> dict[str, dict[str, str]]:
    """Video id -> where its file is."""
    names = pc.unique(clips["video_id"]).to_pylist()
    if not names:
        return {}
    rows = read.rows_by_key(location, "videos", names, ["video_id", *_OF_FILE], key="video_id").to_pylist()
    return {row.pop("video_id"): row for row in rows}

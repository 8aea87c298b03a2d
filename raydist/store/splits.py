"""Splits that are told and not dealt: overrides of whole videos, and the copies of a split beside the vectors.

Reads     `videos` (`split_override`), `clips`, `embeddings_<model_key>`
Writes    the same three, in this order: the override first, then vectors, then clips
Again     safe after a crash between any two commits: what differs from what was told is moved when it is run again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from raydist.store import commit, read, schema, sql

SPLITS = ("train", "val", "test")
"""What a person may tell; a `gap` clip comes of dealing one video in parts only."""

_VIDEOS_AT_ONCE = 2_000


def override(location: str, wanted: Mapping[str, str | None]) -> int:
    """Give whole videos a split of their own, which later scans and deals keep; None takes it back.

    Videos of which nothing is told by `wanted` stay as they are. Clips whose video loses its override keep the split
    that they have until they are dealt again.

    Returns:
        How many clips changed their split.

    Raises:
        ValueError: for a split that is none.
    """
    strange = {split for split in wanted.values() if split is not None and split not in SPLITS}
    if strange:
        raise ValueError(f"split is {min(strange)!r}, expected one of {', '.join(SPLITS)}")
    there = overrides(location)
    told = {video: split for video, split in wanted.items() if there.get(video) != split}
    if told:
        rows = pa.table({
            "video_id": pa.array(list(told), pa.string()),
            "split_override": pa.array(list(told.values()), pa.string()),
        })  # fmt: skip
        commit.add_columns(location, "videos", rows)
    return _apply(location, {video: split for video, split in wanted.items() if split is not None})


def overrides(location: str) -> dict[str, str]:
    """Video id -> the split that it was told, of all videos that have one."""
    found: dict[str, str] = {}
    columns = ["video_id", "split_override"]
    where = f"{sql.quote_name('split_override')} IS NOT NULL"
    for batch in read.scan_batches(location, "videos", columns, where=where):
        found.update(zip(*(batch[name].to_pylist() for name in columns), strict=True))
    return {video: split for video, split in found.items() if split}


def finish(location: str) -> int:
    """Move clips that are not where their video was told to be: a run died before it had moved them. Returns how many.

    The copies beside the vectors are moved before the clips, so where no clip differs, nothing does.
    """
    told = overrides(location)
    late: set[str] = set()
    if told:
        for batch in read.scan_batches(location, "clips", ["video_id", "split"]):
            for video, split in zip(batch["video_id"].to_pylist(), batch["split"].to_pylist(), strict=True):
                if told.get(video, split) != split:
                    late.add(video)
    return _apply(location, {video: told[video] for video in late})


def move(location: str, clips: pa.Table) -> None:
    """Commit rows of `clips` that have another split now, the copies beside their vectors first."""
    _copy_to_vectors(location, clips)  # first: after a crash between the two, the clips still differ
    _replace(location, "clips", clips)


def _apply(location: str, wanted: Mapping[str, str]) -> int:
    """Move the clips of these videos, and the copies beside vectors that someone committed with the old split."""
    changed = 0
    videos = sorted(wanted)
    for start in range(0, len(videos), _VIDEOS_AT_ONCE):
        part = videos[start : start + _VIDEOS_AT_ONCE]
        clips = read.rows_by_key(location, "clips", part, key="video_id")
        told = [wanted[video] for video in clips["video_id"].to_pylist()]
        moved = _with_split(clips, told)
        _copy_to_vectors(location, moved)
        differs = [old != new for old, new in zip(clips["split"].to_pylist(), told, strict=True)]
        changes = moved.filter(pa.array(differs, pa.bool_()))
        if changes.num_rows:
            changed += changes.num_rows
            _replace(location, "clips", changes)
    return changed


def _with_split(rows: pa.Table, splits: Sequence[str]) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))


def _copy_to_vectors(location: str, clips: pa.Table) -> None:
    """Searches filter on the copy of the split that stands beside the vectors."""
    splits = dict(zip(clips["clip_key"].to_pylist(), clips["split"].to_pylist(), strict=True))
    for table in map(schema.embeddings_table, read.model_keys(location)):
        copies = read.rows_by_key(location, table, list(splits), ["clip_key", "split"])
        pairs = zip(copies["clip_key"].to_pylist(), copies["split"].to_pylist(), strict=True)
        late = sorted({key for key, split in pairs if splits[key] != split})
        if late:
            rows = read.rows_by_key(location, table, late)
            _replace(location, table, _with_split(rows, [splits[key] for key in rows["clip_key"].to_pylist()]))


def _replace(location: str, table: str, rows: pa.Table) -> None:
    """Commit rows in the place of those of the same clip and content; what changed meanwhile stays as it is."""
    columns = read.need_table(location, table).schema
    fragments = commit.write_fragments(location, table, rows.select(columns.names), columns)
    pairs = list(zip(rows["clip_key"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
    committer = commit.Committer(location, table, columns)
    committer.commit(fragments, delete_where=sql.pairs_in("clip_key", "fingerprint", pairs))

"""Deal the splits of an archive again, on request only: comparisons with earlier runs end."""

from __future__ import annotations

import pyarrow as pa

from raydist.clips import naming
from raydist.report import run_folder
from raydist.store import commit, read, schema, sql


def deal_again(location: str) -> list[str]:
    """Deal every clip's split anew: by source video, or in parts where those are few. Returns notes."""
    parts = _in_parts(location)
    changed = 0
    for batch in read.scan_batches(location, "clips"):
        dealt = [
            naming.deal(source) if parts is None else parts[key]
            for source, key in zip(batch["source_id"].to_pylist(), batch["clip_key"].to_pylist(), strict=True)
        ]
        rows = batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(dealt, pa.string()))
        differs = [old != new for old, new in zip(batch["split"].to_pylist(), dealt, strict=True)]
        changes = pa.Table.from_batches([rows.filter(pa.array(differs, pa.bool_()))])
        if changes.num_rows:
            changed += changes.num_rows
            _copy_to_vectors(location, changes)  # first: after a crash between the two, the clips still differ
            _replace(location, "clips", changes)
    how = "by source video" if parts is None else f"in parts, for fewer than {naming.FEW_VIDEOS} source videos"
    runs = sorted(path.parent.name for path in run_folder(location, "").glob("*/adapter") if path.is_dir())
    compare = f"; evaluations of {', '.join(runs)} can no longer be compared" if runs else ""
    return [f"splits dealt again {how}: {changed:,} clips changed{compare}"]


def _in_parts(location: str) -> dict[int, str] | None:
    """Clip key -> split where source videos are too few to be dealt whole, else None."""
    places: dict[str, dict[int, list[int]]] = {}
    columns = ["source_id", "source_start_s", "clip_key"]
    for batch in read.scan_batches(location, "clips", columns):
        for source, start_s, key in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            places.setdefault(source, {}).setdefault(round(start_s * 1000), []).append(key)
        if len(places) >= naming.FEW_VIDEOS:
            return None
    dealt: dict[int, str] = {}
    for source, starts in places.items():
        splits = naming.deal_parts(source, len(starts))
        dealt.update(
            {key: split for split, (_, keys) in zip(splits, sorted(starts.items()), strict=True) for key in keys}
        )
    return dealt


def _copy_to_vectors(location: str, clips: pa.Table) -> None:
    """Searches filter on the copy of the split that stands beside the vectors."""
    keys = clips["clip_key"].to_pylist()
    splits = dict(zip(keys, clips["split"].to_pylist(), strict=True))
    for table in map(schema.embeddings_table, read.model_keys(location)):
        rows = read.rows_by_key(location, table, keys)
        if rows.num_rows:
            dealt = pa.array([splits[key] for key in rows["clip_key"].to_pylist()], pa.string())
            _replace(location, table, rows.set_column(rows.schema.get_field_index("split"), "split", dealt))


def _replace(location: str, table: str, rows: pa.Table) -> None:
    columns = read.need_table(location, table).schema
    fragments = commit.write_fragments(location, table, rows.select(columns.names), columns)
    replaced = sql.is_in("clip_key", rows["clip_key"].to_pylist())
    commit.Committer(location, table, columns).commit(fragments, delete_where=replaced)

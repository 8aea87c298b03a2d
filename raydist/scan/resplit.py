"""Deal the splits of an archive again, on request only: comparisons with earlier runs end."""

from __future__ import annotations

import pyarrow as pa

from raydist.clips import naming
from raydist.report import run_folder
from raydist.store import commit, read, schema, sql


def deal_again(location: str) -> list[str]:
    """Deal every clip's split by its source video, whatever it was. Returns notes."""
    changed = 0
    for batch in read.scan_batches(location, "clips"):
        dealt = [naming.deal(source) for source in batch["source_id"].to_pylist()]
        rows = batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(dealt, pa.string()))
        differs = [old != new for old, new in zip(batch["split"].to_pylist(), dealt, strict=True)]
        changes = pa.Table.from_batches([rows.filter(pa.array(differs, pa.bool_()))])
        if changes.num_rows:
            changed += changes.num_rows
            _replace_clips(location, changes)
    runs = sorted(path.parent.name for path in run_folder(location, "").glob("*/adapter") if path.is_dir())
    compare = f"; evaluations of {', '.join(runs)} can no longer be compared" if runs else ""
    return [f"splits dealt again by source video: {changed:,} clips changed{compare}"]


def _replace_clips(location: str, rows: pa.Table) -> None:
    clips = commit.Committer(location, "clips", schema.CLIPS)
    fragments = commit.write_fragments(location, "clips", rows.select(schema.CLIPS.names), schema.CLIPS)
    clips.commit(fragments, delete_where=sql.is_in("clip_key", rows["clip_key"].to_pylist()))

"""Deal the splits of an archive again, on request only: comparisons with earlier runs end. What was told stays told."""

from __future__ import annotations

import pyarrow as pa

from raydist.clips import naming
from raydist.store import read, splits
from raydist.store.runs import listed


def deal_again(location: str) -> list[str]:
    """Deal every clip's split anew: by source video, or in parts where those are few. Returns notes."""
    parts = _in_parts(location)
    told = splits.overrides(location)
    changed = 0
    columns = ("video_id", "source_id", "clip_key")
    for batch in read.scan_batches(location, "clips"):
        dealt = [
            told.get(video) or (naming.deal(source) if parts is None else parts[key])
            for video, source, key in zip(*(batch[name].to_pylist() for name in columns), strict=True)
        ]
        rows = batch.set_column(batch.schema.get_field_index("split"), "split", pa.array(dealt, pa.string()))
        differs = [old != new for old, new in zip(batch["split"].to_pylist(), dealt, strict=True)]
        changes = pa.Table.from_batches([rows.filter(pa.array(differs, pa.bool_()))])
        if changes.num_rows:
            changed += changes.num_rows
            splits.move(location, changes)
    how = "by source video" if parts is None else f"in parts, for fewer than {naming.FEW_VIDEOS} source videos"
    runs = [file.partition("/")[0] for file in listed(location, "*/adapter/adapter_config.json")]
    compare = f"; evaluations of {', '.join(runs)} can no longer be compared" if runs else ""
    kept = [f"{len(told):,} videos keep the split that they were told"] * bool(told)
    return [f"splits dealt again {how}: {changed:,} clips changed{compare}", *kept]


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
        parts = naming.deal_parts(source, len(starts))
        dealt.update(
            {key: split for split, (_, keys) in zip(parts, sorted(starts.items()), strict=True) for key in keys}
        )
    return dealt

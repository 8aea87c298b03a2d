"""The captions of an archive that are current, with their clips, and the clips beside these in their videos.

Promises  in the order of videos, times, origins and numbers; a caption counts only with its clip's present fingerprint;
          memory: the captions and the clips of captioned videos, no vectors
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import read

# Shape legend: C clips, E embedding size

_CLIP = {
    "clip_key": pa.int64(),
    "clip_id": pa.string(),
    "video_id": pa.string(),
    "fingerprint": pa.string(),
    "start_ms": pa.int64(),
    "end_ms": pa.int64(),
}
_CAPTION = {
    "clip_key": pa.int64(),
    "fingerprint": pa.string(),
    "number": pa.int32(),
    "caption": pa.string(),
    "origin": pa.string(),
    "cut": pa.bool_(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Captions and clips; rows of both are referred to by number."""

    clips: pa.Table
    """All clips of videos that have captions."""
    captions: pa.Table
    """`number`, `caption`, `origin`, `cut`."""
    clip_of: NDArray[np.int64]
    """Row of each caption's clip, ascending."""

    def videos(self) -> Iterator[tuple[str, range, range]]:
        """Each video with its rows of `clips` and of `captions`."""
        names = self.clips["video_id"].to_pylist()
        starts = [row for row, name in enumerate(names) if not row or names[row - 1] != name] + [len(names)]
        for first, last in pairwise(starts):
            from_, to = np.searchsorted(self.clip_of, [first, last]).tolist()
            yield names[first], range(first, last), range(from_, to)


def present(location: str) -> Present:
    """Read them."""
    captions = _table(location, "captions", _CAPTION)
    texts = pc.utf8_trim_whitespace(pc.fill_null(captions["caption"], ""))
    captions = captions.filter(pc.not_equal(texts, ""))
    keys = pc.unique(captions["clip_key"])
    parts = list(read.scan_batches(location, "clips", list(_CLIP), batch_size=65_536))
    captioned = [batch["video_id"].filter(pc.is_in(batch["clip_key"], value_set=keys)) for batch in parts]
    videos = pc.unique(pa.chunked_array(captioned, pa.string()))
    parts = [batch.filter(pc.is_in(batch["video_id"], value_set=videos)) for batch in parts]
    order = [("video_id", "ascending"), ("start_ms", "ascending")]
    clips = pa.Table.from_batches(parts, pa.schema(_CLIP)).sort_by(order).combine_chunks()
    row = pc.index_in(captions["clip_key"], value_set=clips["clip_key"])
    captions = captions.append_column("row", row).filter(pc.is_valid(row))
    now = pc.equal(captions["fingerprint"], clips["fingerprint"].take(captions["row"]))
    captions = captions.filter(now).sort_by([(name, "ascending") for name in ("row", "origin", "number", "caption")])
    return Present(
        clips=clips,
        captions=captions.select(["number", "caption", "origin", "cut"]).combine_chunks(),
        clip_of=captions["row"].to_numpy().astype(np.int64),
    )


def vectors_of(present: Present, location: str, table: str, rows: Sequence[int]) -> NDArray[np.float32]:
    """Vectors [C, E] of some clips; NaN where a clip has none of its present content."""
    width = read.need_table(location, table).schema.field("vector").type.list_size
    wanted = present.clips.take(pa.array(rows, pa.int64()))
    found = read.rows_by_key(location, table, wanted["clip_key"].to_pylist(), ["clip_key", "fingerprint", "vector"])
    pairs = zip(wanted["clip_key"].to_pylist(), wanted["fingerprint"].to_pylist(), strict=True)
    place = {pair: number for number, pair in enumerate(pairs)}
    vectors_CE = np.full((len(place), width), np.nan, np.float32)
    for batch in found.to_batches():
        numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        keys = zip(batch["clip_key"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True)
        for vector_E, key in zip(numbers, keys, strict=True):
            if key in place:
                vectors_CE[place[key]] = vector_E
    return vectors_CE


def _table(location: str, name: str, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Columns of a table; those that an older archive lacks are null."""
    table = read.open_table(location, name)
    if table is None:
        return pa.schema(kinds).empty_table()
    there = [column for column in kinds if column in table.schema.names]
    found = pa.Table.from_batches(
        list(read.scan_batches(location, name, there)), pa.schema({c: kinds[c] for c in there})
    )
    for column in kinds.keys() - set(there):
        found = found.append_column(column, pa.nulls(found.num_rows, kinds[column]))
    return found.select(list(kinds))

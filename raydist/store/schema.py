"""The tables of an archive: names, columns, types, and what makes a row one and the same.

Promises  a table is a Lance dataset `<location>/<table>.lance`; times in the file are float64 seconds (`start_s`) and,
          in `clips`, exact int64 milliseconds too (`start_ms`); moments are timestamps in microseconds, UTC
"""

from __future__ import annotations

import re

import pyarrow as pa

FORMAT_VERSION = 1
"""Of the archive as a whole; `settings` upgrades older ones and refuses newer ones."""

DATA_STORAGE_VERSION = "2.2"
"""Lance's file format: the first one with miniblock encoding for wide float16 lists."""

EMBEDDINGS = "embeddings_"
FRAMES = "frames_"

_MOMENT = pa.timestamp("us", tz="UTC")
_MODEL_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")

ROOTS = pa.schema(
    {
        "name": pa.string(),
        "location": pa.string(),
        "at": _MOMENT,
    }
)

VIDEOS = pa.schema(
    {
        "video_id": pa.string(),
        "root": pa.string(),
        "path": pa.string(),  # below the root
        "state": pa.string(),  # one of VIDEO_STATES
        "reason": pa.string(),
        "detail": pa.string(),
        "alias_of": pa.string(),
        "bytes": pa.int64(),
        "modified_at": _MOMENT,
        "modified_ns": pa.int64(),  # as the file system gave it: to notice a change, never to compare moments
        "file_fingerprint": pa.string(),
        "duration_s": pa.float64(),
        "frames": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "rotation": pa.int32(),
        "fps": pa.float64(),
        "codec": pa.string(),
        "container": pa.string(),
        "bit_rate": pa.int64(),
        "has_audio": pa.bool_(),
        "start_offset_s": pa.float64(),
        "split_override": pa.string(),
        "gaps_ms": pa.list_(pa.int64()),  # start, end, start, ... of stretches in which no frame begins
    }
)

VIDEO_STATES = ("ok", "failed", "alias", "skipped", "vanished")

CLIPS = pa.schema(
    {
        "clip_id": pa.string(),
        "clip_key": pa.int64(),
        "video_id": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "duration_s": pa.float64(),
        "start_ms": pa.int64(),
        "end_ms": pa.int64(),
        "clip_index": pa.int64(),
        "source_id": pa.string(),
        "source_start_s": pa.float64(),
        "split": pa.string(),
        "fingerprint": pa.string(),
    }
)

CAPTIONS = pa.schema(
    {
        "clip_key": pa.int64(),
        "clip_id": pa.string(),
        "fingerprint": pa.string(),
        "number": pa.int32(),
        "caption": pa.string(),
        "origin": pa.string(),
        "prompt_hash": pa.string(),
        "at": _MOMENT,
    }
)

SIGNATURES = pa.schema(
    {
        "clip_key": pa.int64(),
        "fingerprint": pa.string(),
        "frame_hashes": pa.list_(pa.uint64()),
        "frame_times_s": pa.list_(pa.float64()),
        "hash_version": pa.int32(),
        "at": _MOMENT,
    }
)

FAILURES = pa.schema(
    {
        "video_id": pa.string(),
        "clip_key": pa.int64(),  # empty before clips exist
        "fingerprint": pa.string(),
        "stage": pa.string(),
        "model_key": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
        "at": _MOMENT,
    }
)

CACHED_FRAMES = pa.schema(
    {
        "clip_key": pa.int64(),
        "fingerprint": pa.string(),
        "filled_frames": pa.int32(),
        "frame_times_s": pa.list_(pa.float64()),
        "frames": pa.large_binary(),
        "at": _MOMENT,
    }
)
"""Of every table of cached frames; the name says of what size, which frames and how they are kept."""


def embeddings(width: int) -> pa.Schema:
    """The table of one model: a unit-length float16 vector of `width` numbers a clip, and what searches filter on."""
    if width < 1:
        raise ValueError(f"width is {width}, expected at least 1")
    vector = pa.field(
        "vector",
        pa.list_(pa.float16(), width),
        # Without it Lance lays wide lists out page by page and scans of them are slower.
        metadata={"lance-encoding:structural-encoding": "miniblock"},
    )
    return pa.schema(
        [
            pa.field("clip_key", pa.int64()),
            pa.field("clip_id", pa.string()),
            pa.field("fingerprint", pa.string()),
            vector,
            pa.field("filled_frames", pa.int32()),
            pa.field("at", _MOMENT),
            pa.field("video_id", pa.string()),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("duration_s", pa.float64()),
            pa.field("split", pa.string()),
        ]
    )


def embeddings_table(model_key: str) -> str:
    """The name of a model's table.

    Raises:
        ValueError: if the key holds anything but letters, digits, `.`, `_` and `-`.
    """
    if not _MODEL_KEY.match(model_key):
        raise ValueError(f"model_key is {model_key!r}, expected letters, digits, '.', '_' and '-'")
    return EMBEDDINGS + model_key


def model_key_of(table: str) -> str | None:
    """The model whose embeddings `table` holds; None for any other table."""
    return table.removeprefix(EMBEDDINGS) if table.startswith(EMBEDDINGS) else None


def is_frames(table: str) -> bool:
    """Whether `table` is a cache of decoded frames."""
    return table.startswith(FRAMES)


def identity(table: str) -> tuple[str, ...]:
    """The columns that make a row one and the same: two writers may bring it, the table keeps one. () for append-only.

    Derived rows carry the clip's fingerprint in it, so a row of an earlier content of the clip does not stand in the
    way of the new one.
    """
    fixed: dict[str, tuple[str, ...]] = {
        "roots": ("name",),
        "videos": ("video_id",),
        "clips": ("clip_key",),
        "captions": ("clip_key", "fingerprint", "number", "origin"),
        "signatures": ("clip_key", "fingerprint", "hash_version"),
        "failures": (),
    }
    return fixed.get(table, ("clip_key", "fingerprint"))

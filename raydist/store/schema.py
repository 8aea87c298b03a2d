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
DUPLICATES = "duplicates_"
OVERLAPS = "overlaps_"
GROUPS = "groups_"
JOINED = "joined_"

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
        "cut": pa.bool_(),  # at a clause, to fit the encoder; NULL in tables of before there was the column
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


TRACES = pa.schema(
    {
        "clip_key": pa.int64(),
        "clip_id": pa.string(),
        "video_id": pa.string(),
        "fingerprint": pa.string(),
        "trace_version": pa.int32(),
        "times_ms": pa.list_(pa.int32()),
        "pictures": pa.large_binary(),
        "at": _MOMENT,
    }
)
"""Small pictures of a clip, two a second: what duplicates are read again with. Clips of another archive that this one
was joined with are among them."""

PAIRS = pa.schema(
    {
        "a": pa.int64(),  # clip keys; within one archive a's clip id is the smaller text
        "b": pa.int64(),
        "a_id": pa.string(),
        "b_id": pa.string(),
        "a_fingerprint": pa.string(),
        "b_fingerprint": pa.string(),
        "a_video": pa.string(),
        "b_video": pa.string(),
        "archive_b": pa.string(),  # "" is this archive
        "similarity": pa.float32(),
        "kind": pa.string(),  # one of PAIR_KINDS
        "found_by": pa.string(),  # vectors, signatures, or neighbours: a pair beside them lies at that offset
        "offset_s": pa.float64(),  # time in b minus time in a at the start of the overlap; of copies
        "a_from_s": pa.float64(),  # the overlap, as times in the files; of copies
        "a_to_s": pa.float64(),
        "b_from_s": pa.float64(),
        "b_to_s": pa.float64(),
        "confidence": pa.float32(),  # 0.5: as likely a copy as not
        "threshold": pa.float32(),
        "at": _MOMENT,
    }
)
"""Of every table `duplicates_<model_key>`."""

PAIR_KINDS = ("copy", "similar", "different", "unread")

VIDEO_OVERLAPS = pa.schema(
    {
        "a_video": pa.string(),
        "b_video": pa.string(),
        "archive_b": pa.string(),
        "a_from_s": pa.float64(),
        "a_to_s": pa.float64(),
        "b_from_s": pa.float64(),
        "b_to_s": pa.float64(),
        "offset_s": pa.float64(),
        "speed": pa.float64(),  # seconds of b a second of a
        "pairs": pa.int32(),
        "confidence": pa.float32(),
        "at": _MOMENT,
    }
)
"""Of every table `overlaps_<model_key>`: a stretch of b shows what a stretch of a shows."""

GROUPED = pa.schema(
    {
        "clip_key": pa.int64(),
        "clip_id": pa.string(),
        "fingerprint": pa.string(),
        "video_id": pa.string(),
        "group": pa.int64(),
        "keep": pa.bool_(),
        "kept_by": pa.int64(),  # the kept clip that stands for this one
        "archive_b": pa.string(),  # where that one is
        "why": pa.string(),
        "at": _MOMENT,
    }
)
"""Of every table `groups_<model_key>`."""

JOINED_CLIPS = pa.schema(
    {
        "clip_key": pa.int64(),
        "clip_id": pa.string(),
        "video_id": pa.string(),
        "fingerprint": pa.string(),
        "threshold": pa.float32(),
        "crowd": pa.int64(),  # clip key of the pivot, where the clip is one of a crowd
        "at": _MOMENT,
    }
)
"""Of every table `joined_<model_key>`: the clips whose pairs are known, so that only new ones are joined again."""

DECISIONS = pa.schema(
    {
        "a": pa.string(),  # clip ids or video ids
        "b": pa.string(),
        "archive_b": pa.string(),
        "verdict": pa.string(),  # one of VERDICTS; of a and b
        "clip": pa.string(),  # a clip id or video id
        "keep": pa.bool_(),
        "by": pa.string(),
        "at": _MOMENT,
    }
)
"""What people said, whatever the model; the newest row about the same counts."""

VERDICTS = ("duplicate", "different")

FORGOTTEN = pa.schema({"hash": pa.string(), "at": _MOMENT})


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
        "traces": ("clip_key", "fingerprint", "trace_version"),
        "decisions": (),
        "forgotten": ("hash",),
    }
    of_models: dict[str, tuple[str, ...]] = {
        DUPLICATES: ("a", "b", "a_fingerprint", "b_fingerprint", "archive_b"),
        OVERLAPS: (),
        GROUPS: ("clip_key", "fingerprint"),
        JOINED: ("clip_key", "fingerprint"),
    }
    for prefix, columns in of_models.items():
        if table.startswith(prefix):
            return columns
    return fixed.get(table, ("clip_key", "fingerprint"))

"""Tables of cached frames in a bucket: their size, which was used last, and how one goes."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import pyarrow as pa
from loopback import Loopback
from stores import fill

from raydist.frames import room
from raydist.store import buckets, commit, frames, schema

ARCHIVE = "s3://cached/archive"
OLD, NEW = "frames_viclip_32_exact_8_raw", "frames_clip_32_exact_8_raw"


def cached(table: str, clips: int, bytes_each: int) -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "clip_key": key,
            "clip_id": f"a.mp4#t={key},{key + 1}",
            "fingerprint": "f",
            "frames": random.Random(key).randbytes(bytes_each),
            "at": now,
        }
        for key in range(clips)
    ]
    known = [{name: row.get(name) for name in schema.CACHED_FRAMES.names} for row in rows]
    data = pa.Table.from_pylist(known, schema=schema.CACHED_FRAMES)
    commit.append(ARCHIVE, table, data, schema.CACHED_FRAMES)
    frames.mark_used(ARCHIVE, table)


def test_what_was_used_longest_ago_comes_first_and_a_dropped_table_leaves_nothing(s3: Loopback, moto: int) -> None:
    fill(moto, "cached", {})
    cached(OLD, 8, 10_000)
    time.sleep(1.1)  # the server tells times in seconds
    cached(NEW, 8, 20_000)
    assert frames.tables(ARCHIVE) == [OLD, NEW]
    time.sleep(1.1)
    frames.mark_used(ARCHIVE, OLD)
    assert frames.tables(ARCHIVE) == [NEW, OLD]
    assert 80_000 < frames.bytes_on_disk(ARCHIVE, OLD) < 120_000 < frames.bytes_on_disk(ARCHIVE, NEW)
    room.refuse_full_disk(ARCHIVE, 1 << 60)
    frames.drop(ARCHIVE, NEW)
    frames.drop(ARCHIVE, NEW)
    assert frames.tables(ARCHIVE) == [OLD]
    assert frames.bytes_on_disk(ARCHIVE, NEW) == 0
    assert not [file["path"] for file in buckets.below(ARCHIVE, "") if NEW in file["path"]]
    stored = frames.open_stored(ARCHIVE, OLD)
    assert stored is not None
    assert frames.open_stored(ARCHIVE, OLD, stored) is stored, "its keys are not read again"
    frames.drop(ARCHIVE, OLD)
    cached(OLD, 8, 10_000)
    again = frames.open_stored(ARCHIVE, OLD, stored)
    assert again is not None
    assert again is not stored
    stored = again
    clips = pa.table({"clip_key": pa.array([3], pa.int64()), "fingerprint": ["f"]})
    assert stored.take(stored.places(clips))[0].as_py() == random.Random(3).randbytes(10_000)

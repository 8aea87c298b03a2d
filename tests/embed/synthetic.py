"""synthetic: a real archive of videos and clips that do not exist, written through the product's own store."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from raydist.clips import naming
from raydist.clips.signature import HASH_VERSION
from raydist.config import Config, load
from raydist.models.encoder import ModelInfo
from raydist.records import Span
from raydist.store import commit, read, roots, schema, settings

ROOT = "v"
CLIP_MS = 30_000
CLIPS_A_VIDEO = 25
_ROWS_A_FRAGMENT = 250_000


def configure(archive: Path, *changes: str) -> Config:
    """Settings of an embed run with `tiny`."""
    return load(changes=changes, options={"archive": str(archive), "embed.model": "tiny"}, environment={}).config


def write(archive: Path, clips: int) -> Path:
    """An archive of so many clips of 30 s, 25 a video."""
    archive.mkdir(parents=True)
    location = str(archive)
    settings.create_or_open(location, {"clip_seconds": 30.0})
    (archive.parent / "videos").mkdir(exist_ok=True)
    roots.remember(location, {ROOT: str(archive.parent / "videos")})
    for name, of in (("videos", schema.VIDEOS), ("clips", schema.CLIPS)):
        committer = commit.Committer(location, name, of)
        for start in range(0, clips, _ROWS_A_FRAGMENT):
            numbers = range(start, min(clips, start + _ROWS_A_FRAGMENT))
            rows = _videos(numbers) if name == "videos" else _clips(numbers)
            committer.commit(commit.write_fragments(location, name, rows, of))
    return archive


def embed(archive: Path, info: ModelInfo) -> None:
    """Rows and signatures of all clips but an eighth, as if a run had made them: each vector is the same."""
    location = str(archive)
    table, columns = schema.embeddings_table(info.model_key), schema.embeddings(info.dim)
    committer = commit.Committer(location, table, columns)
    signatures = commit.Committer(location, "signatures", schema.SIGNATURES)
    vector = np.full((1, info.dim), info.dim**-0.5, np.float16)
    moment = datetime.now(UTC)
    kept = ["clip_key", "clip_id", "fingerprint", "video_id", "start_s", "end_s", "duration_s", "split"]
    for batch in read.scan_batches(location, "clips", kept, where="start_s >= 75", batch_size=_ROWS_A_FRAGMENT):
        rows, count = pa.Table.from_batches([batch]), batch.num_rows
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(vector, count, axis=0).reshape(-1)), info.dim)
        rows = rows.append_column("vector", vectors)
        rows = rows.append_column("filled_frames", pa.array(np.zeros(count, np.int32)))
        rows = rows.append_column("at", pa.array([moment] * count, pa.timestamp("us", tz="UTC")))
        committer.commit(commit.write_fragments(location, table, rows.select(columns.names), columns))
        committed = _signatures(rows)
        signatures.commit(commit.write_fragments(location, "signatures", committed, schema.SIGNATURES))


def _signatures(rows: pa.Table) -> pa.Table:
    """Of clips with a row: eight hashes each, of frames that nobody saw."""
    count = rows.num_rows
    starts = pa.array(np.arange(0, 8 * count + 1, 8, dtype=np.int32))
    hashes = np.random.default_rng(count).integers(0, 2**63, 8 * count).astype(np.uint64)
    given = {
        "clip_key": rows["clip_key"],
        "fingerprint": rows["fingerprint"],
        "frame_hashes": pa.ListArray.from_arrays(starts, pa.array(hashes)),
        "frame_times_s": pa.ListArray.from_arrays(starts, pa.array(np.zeros(8 * count))),
        "hash_version": pa.array(np.full(count, HASH_VERSION, np.int32)),
        "at": rows["at"],
    }
    return pa.table([given[name] for name in schema.SIGNATURES.names], schema=schema.SIGNATURES)


def _fingerprint(video: int) -> str:
    return blake2b(b"video %d" % video, digest_size=16).hexdigest()


def _videos(clips: range) -> pa.Table:
    """The videos of these clips."""
    numbers = range(clips.start // CLIPS_A_VIDEO, -(-clips.stop // CLIPS_A_VIDEO))
    count = len(numbers)
    paths = [f"{number // 1000:04}/{number:08}.mp4" for number in numbers]
    given = {
        "video_id": [naming.video_id(ROOT, path) for path in paths],
        "root": [ROOT] * count,
        "path": paths,
        "state": ["ok"] * count,
        "bytes": [1] * count,
        "file_fingerprint": [_fingerprint(number) for number in numbers],
        "duration_s": [CLIPS_A_VIDEO * CLIP_MS / 1000] * count,
    }
    return _filled(given, schema.VIDEOS, count)


def _clips(numbers: range) -> pa.Table:
    rows: dict[str, list[object]] = {name: [] for name in ("clip_id", "clip_key", "video_id", "start_ms", "end_ms")}
    fingerprints = []
    for number in numbers:
        video, index = divmod(number, CLIPS_A_VIDEO)
        video_id = naming.video_id(ROOT, f"{video // 1000:04}/{video:08}.mp4")
        span = Span(start_ms=index * CLIP_MS, end_ms=(index + 1) * CLIP_MS)
        clip_id = naming.clip_id(video_id, span)
        values = (clip_id, naming.clip_key(clip_id), video_id, span.start_ms, span.end_ms)
        for column, value in zip(rows.values(), values, strict=True):
            column.append(value)
        fingerprints.append(naming.clip_fingerprint(_fingerprint(video), span))
    count = len(numbers)
    starts = [number % CLIPS_A_VIDEO * CLIP_MS / 1000 for number in numbers]
    given = {
        **rows,
        "fingerprint": fingerprints,
        "start_s": starts,
        "end_s": [start + CLIP_MS / 1000 for start in starts],
        "duration_s": [CLIP_MS / 1000] * count,
        "clip_index": [number % CLIPS_A_VIDEO for number in numbers],
        "source_id": rows["video_id"],
        "source_start_s": starts,
        "split": ["train"] * count,
    }
    return _filled(given, schema.CLIPS, count)


def _filled(given: dict[str, list[object]], of: pa.Schema, count: int) -> pa.Table:
    moment = datetime.now(UTC)
    columns = []
    for field in of:
        values = given.get(field.name, [moment if pa.types.is_timestamp(field.type) else None] * count)
        columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=of)

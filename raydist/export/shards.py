"""Shards of WebDataset: tar files whose members with one name up to its first dot are one sample.

A sample is a clip: its media, its first caption as text, and all that is known of it as JSON. The same archive gives
the same shards, byte for byte, as far as its pictures are encoded alike.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.caption.prepare import Preparer, Sending
from raydist.clips.naming import is_settled
from raydist.clips.units import UNITS
from raydist.records import Limits

_SAMPLE = pa.struct([("clip_key", pa.int64()), ("text", pa.string()), ("about", pa.string())])
PLAN = pa.schema([("shard", pa.int64()), ("files", UNITS.field("files").type), ("samples", pa.list_(_SAMPLE))])
"""A row a shard: where its clips lie, and what is written of each."""

_FAILURE = pa.struct([("reason", pa.string()), ("clips", pa.int64())])
DONE = pa.schema(
    [
        ("shard", pa.int64()),
        ("clips", pa.int64()),
        ("captions", pa.int64()),
        ("bytes", pa.int64()),
        ("failures", pa.list_(_FAILURE)),
        ("error", pa.string()),  # why the shard could not be written; empty: it is there
    ]
)


def name_of(shard: int) -> str:
    """Of its file."""
    return f"{shard:06d}.tar"


def key_of(clip_key: int) -> str:
    """Of a sample: 16 hex digits, the clip's key without a sign."""
    return f"{clip_key & (1 << 64) - 1:016x}"


def plan(clips: Iterable[dict[str, Any]], files: Mapping[str, Mapping[str, Any]], size: int) -> Iterator[pa.Table]:
    """Fill shards with clips in the order given, a row at a time.

    Args:
        clips: rows of `store.captioned.Captioned`.
        files: video id -> root, path and file fingerprint.
        size: clips of a shard.
    """
    rest = iter(clips)
    shard = 0
    while packed := list(islice(rest, size)):
        unit = [
            {"video_id": video_id, **files[video_id], "clips": [{**clip, "has_signature": True} for clip in group]}
            for video_id, group in groupby(packed, key=lambda clip: clip["video_id"])
        ]
        samples = [
            {
                "clip_key": clip["clip_key"],
                "text": clip["captions"][0]["caption"],
                "about": json.dumps(_about(clip), ensure_ascii=False),
            }
            for clip in packed
        ]
        yield pa.Table.from_pylist([{"shard": shard, "files": unit, "samples": samples}], PLAN)
        shard += 1


def _about(clip: Mapping[str, Any]) -> dict[str, Any]:
    named = ("clip_id", "video_id", "start_s", "end_s", "split", "fingerprint")
    return {
        **{name: clip[name] for name in named},
        "duration_s": (clip["end_ms"] - clip["start_ms"]) / 1000,
        "captions": clip["captions"],
    }


class ShardWriter:
    """A Ray actor: rows of `PLAN` in, shards on disk, rows of `DONE` out. Each shard is there whole or not at all."""

    def __init__(self, folder: str, roots: Mapping[str, str], sending: Sending | None, limits: Limits) -> None:
        """
        Args:
            sending: what is made of each clip; None: nothing, captions alone.
        """
        self._folder = Path(folder)
        self._preparer = Preparer(roots, sending, limits) if sending else None

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Write the shards."""
        for number, row in enumerate(table.to_pylist()):
            yield pa.Table.from_pylist([self._write(row, table.slice(number, 1))], DONE)

    def _write(self, row: dict[str, Any], unit: pa.Table) -> dict[str, Any]:
        done = {"shard": row["shard"], "clips": 0, "captions": 0, "bytes": 0, "failures": [], "error": ""}
        failures: Counter[str] = Counter()
        file = self._folder / name_of(row["shard"])
        part = file.with_suffix(".part")
        try:
            with tarfile.open(part, "w") as shard:
                for sample, media in self._samples(row, unit):
                    if media.get("reason"):
                        failures[media["reason"]] += 1
                        continue
                    for member in _members(sample, media):
                        _add(shard, *member)
                    done["clips"] += 1
                    done["captions"] += len(json.loads(sample["about"])["captions"])
            done["bytes"] = part.stat().st_size
            part.rename(file)
        except OSError as error:
            part.unlink(missing_ok=True)
            done["error"] = os.strerror(error.errno) if error.errno else str(error)
        done["failures"] = [{"reason": reason, "clips": count} for reason, count in failures.items()]
        return done

    def _samples(self, row: dict[str, Any], unit: pa.Table) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each sample with its media, in the order of the plan, which is that of the files."""
        unsettled = {
            clip["clip_key"]
            for file in row["files"]
            for clip in file["clips"]
            if not is_settled(clip, file["file_fingerprint"])
        }
        if self._preparer is None:
            yield from ((sample, {}) for sample in row["samples"])
            return
        samples = iter(row["samples"])
        for table in self._preparer(unit.select(["files"])):
            for media in table.to_pylist():
                sample = next(samples)
                assert sample["clip_key"] == media["clip_key"]
                yield sample, {"reason": "changed"} if media["clip_key"] in unsettled else media


def _members(sample: Mapping[str, Any], media: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Names and contents, neighbours in the shard."""
    key = key_of(sample["clip_key"])
    if media.get("clip"):
        yield f"{key}.mp4", media["clip"]
    for number, picture in enumerate(media.get("frames", ())):
        yield f"{key}.{number}.jpg", picture
    yield f"{key}.txt", sample["text"].encode()
    yield f"{key}.json", sample["about"].encode()


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))

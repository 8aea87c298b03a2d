"""dedup/traces: small pictures of clips, two a second, with which duplicates are read again.

Reads     the files of the clips that are asked for, those of another archive included
Writes    `traces`, and `failures` of what does not decode
Again     safe after any crash and beside other drivers: a clip that has a trace is not decoded again
"""

# Shape legend: T pictures, S = SIDE

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist import runtime
from raydist.clips.child import Child
from raydist.clips.naming import clip_fingerprint, locate
from raydist.clips.units import clips_a_unit, units
from raydist.config import Config
from raydist.progress import bar
from raydist.records import DecodedClip, Limits, Span
from raydist.store import commit, read, schema, sql
from raydist.store.manifest import Manifest
from raydist.store.runs import discard, new_run

if TYPE_CHECKING:
    import ray.data

TRACE_VERSION = 1
"""Goes up when the same clip gets another trace."""

SIDE = 48
"""Edge of the pictures in pixels: enough to find bars to 2 % and to line a crop up, 2.3 kB each."""

RATE = 2
"""Pictures a second."""

LEAST = 8
"""Pictures of a trace: a clip of less than 4 seconds has them nearer to each other."""

MOST = 2_400
"""Pictures of a trace: a clip of more than 20 minutes has them further apart."""

STAGE = "dedup"
"""Under which failures are recorded."""

_TIME = 4
"""Times the CPU time that a clip may take elsewhere: nearly all of its frames are decoded here, not some."""
_RESIZE = "squash-bilinear"
_ROWS_A_TABLE = 64
_LUMA = np.array([77, 150, 29], np.uint16)
_LEVEL = 1

Key: TypeAlias = tuple[int, str]
"""(clip key, fingerprint): a clip with one content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip of this archive or of another one, and where its file is."""

    clip_key: int
    clip_id: str
    fingerprint: str
    video_id: str
    start_ms: int
    end_ms: int
    place: str
    """Folder or address of its root."""
    path: str
    """Below the root, encoded."""
    file_fingerprint: str

    @property
    def key(self) -> Key:
        """What its trace is found by."""
        return self.clip_key, self.fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A clip as small grey pictures."""

    times_s: NDArray[np.float64]
    """[T] of the file, rising."""
    pictures_TSS: NDArray[np.uint8]
    start_s: float
    """Of the clip."""
    end_s: float


def clips_of(location: str, keys: Collection[int], places: Mapping[str, str]) -> dict[int, Clip]:
    """The clips of an archive that have these keys, those left out whose file is not known any more.

    Args:
        places: root name -> its folder or address (`store.roots.places`).
    """
    columns = ["clip_key", "clip_id", "fingerprint", "video_id", "start_ms", "end_ms"]
    if not keys or read.open_table(location, "clips") is None:
        return {}
    rows = read.rows_by_key(location, "clips", sorted(keys), columns).to_pylist()
    names = sorted({row["video_id"] for row in rows})
    fields = ["video_id", "root", "path", "file_fingerprint"]
    videos = {
        row["video_id"]: row for row in read.rows_by_key(location, "videos", names, fields, key="video_id").to_pylist()
    }
    found = {}
    for row in rows:
        video = videos.get(row["video_id"])
        if video is not None and video["root"] in places:
            where = {"place": places[video["root"]], "path": video["path"]}
            found[row["clip_key"]] = Clip(**row, **where, file_fingerprint=video["file_fingerprint"] or "")
    return found


def ensure(
    config: Config, clips: Iterable[Clip], resources: runtime.Resources, *, retry_failed: bool = False
) -> dict[Key, str]:
    """See that clips have traces; inside a `runtime.session`.

    Args:
        clips: which.
        resources: of the session.
        retry_failed: try clips again that failed in an earlier run.

    Returns:
        Why there is none, of the clips that cannot be had; those that failed in an earlier run included.
    """
    location = config.require_archive()
    wanted = {clip.key: clip for clip in clips}
    failed = {} if retry_failed else _failures(location, wanted)
    there = _there(location, wanted)
    failed |= {key: "changed" for key, clip in wanted.items() if key not in there and not _is_settled(clip)}
    missing = [clip for key, clip in wanted.items() if key not in there and key not in failed]
    if missing:
        missing.sort(key=lambda clip: (clip.place, clip.path, clip.start_ms))
        failed |= _decode(config, missing, resources)
    return failed


def load(location: str, clips: Collection[Clip]) -> dict[Key, Trace]:
    """The traces of clips; those that have none are left out."""
    wanted = {clip.key: clip for clip in clips}
    if not wanted or read.open_table(location, "traces") is None:
        return {}
    keys = sorted({key for key, _ in wanted})
    rows = read.rows_by_key(
        location, "traces", keys, ["clip_key", "fingerprint", "trace_version", "times_ms", "pictures"]
    )
    found = {}
    for row in rows.to_pylist():
        clip = wanted.get((row["clip_key"], row["fingerprint"]))
        if clip is not None and row["trace_version"] == TRACE_VERSION:
            found[clip.key] = unpack(row["times_ms"], row["pictures"], clip.start_ms, clip.end_ms)
    return found


def unpack(times_ms: Sequence[int], pictures: bytes, start_ms: int, end_ms: int) -> Trace:
    """A trace out of its row."""
    flat = np.frombuffer(zlib.decompress(pictures), np.uint8)
    return Trace(
        times_s=np.asarray(times_ms, np.float64) / 1000,
        pictures_TSS=flat.reshape(-1, SIDE, SIDE),
        start_s=start_ms / 1000,
        end_s=end_ms / 1000,
    )


def pack(decoded: DecodedClip) -> tuple[list[int], bytes]:
    """Times and pictures of a decoded clip as they are stored; a frame that was filled is there once."""
    assert decoded.frames is not None
    times, first = np.unique(np.asarray(decoded.frame_times_ms, np.int64), return_index=True)
    grey_TSS = (decoded.frames[first].astype(np.uint16) @ _LUMA) >> 8
    return times.tolist(), zlib.compress(grey_TSS.astype(np.uint8).tobytes(), _LEVEL)


def pictures_of(start_ms: int, end_ms: int) -> int:
    """How many pictures a span gets."""
    return max(LEAST, min(MOST, round((end_ms - start_ms) * RATE / 1000)))


def _is_settled(clip: Clip) -> bool:
    """Whether the clip was cut from the file as it is known."""
    span = Span(start_ms=clip.start_ms, end_ms=clip.end_ms)
    return clip_fingerprint(clip.file_fingerprint, span) == clip.fingerprint


def _there(location: str, wanted: Collection[Key]) -> set[Key]:
    if read.open_table(location, "traces") is None:
        return set()
    columns = ["clip_key", "fingerprint", "trace_version"]
    rows = read.rows_by_key(location, "traces", sorted({key for key, _ in wanted}), columns).to_pylist()
    found = {(row["clip_key"], row["fingerprint"]) for row in rows if row["trace_version"] == TRACE_VERSION}
    return found & set(wanted)


def _failures(location: str, wanted: Collection[Key]) -> dict[Key, str]:
    columns = ["clip_key", "fingerprint", "reason"]
    found: dict[Key, str] = {}
    for batch in read.scan_batches(location, "failures", columns, where=sql.equals("stage", STAGE)):
        for row in batch.to_pylist():
            if (row["clip_key"], row["fingerprint"]) in wanted:
                found[row["clip_key"], row["fingerprint"]] = row["reason"] or "unknown"
    return found


def _decode(config: Config, missing: Sequence[Clip], resources: runtime.Resources) -> dict[Key, str]:
    """Decode on the cluster; this process commits what the workers wrote."""
    location = config.require_archive()
    name = new_run("traces")
    manifest = Manifest.of_run(location, name)
    written = commit.Committer(location, "traces", schema.TRACES)
    failures = commit.Committer(location, "failures", schema.FAILURES)
    failed: dict[Key, str] = {}
    good: list[str] = []
    bad: list[str] = []
    since = time.monotonic()
    try:
        manifest.write([_units(missing)])
        plan = runtime.plan(
            resources,
            workers=config.embed.decoders,
            units=manifest.rows,
            worker_cpus=config.decode.cpus,
            memory_mb=config.decode.memory_mb,
        )
        runtime.announce(plan, resources)
        with bar("reading clips again", len(missing)) as progress:
            for block in runtime.blocks(_graph(manifest, plan, location, config.limits()), resources):
                rows = block.to_pylist()
                good += [fragment for row in rows for fragment in row["fragments"]]
                bad += [fragment for row in rows for fragment in row["failures"]]
                failed |= {(row["clip_key"], row["fingerprint"]): row["reason"] for row in rows if row["reason"]}
                progress.advance(len(rows))
                if time.monotonic() - since >= config.embed.commit_s:
                    written.commit(good)
                    failures.commit(bad)
                    good, bad, since = [], [], time.monotonic()
    finally:
        written.commit(good)
        failures.commit(bad)
        manifest.remove()
        discard(location, name)
    return failed


def _units(missing: Sequence[Clip]) -> pa.Table:
    """Units of work. Two archives may have one name for two files, so a file is named by its place."""
    clips, files = [], {}
    for clip in missing:
        name = f"{clip.place}\0{clip.path}\0{clip.video_id}"
        files[name] = {"root": clip.place, "path": clip.path, "file_fingerprint": clip.file_fingerprint}
        row = {name: getattr(clip, name) for name in ("clip_key", "clip_id", "fingerprint", "start_ms", "end_ms")}
        clips.append({**row, "video_id": name, "split": "", "has_signature": True})
    return units(clips, files, clips_a_unit(len(clips)), random.getrandbits(32))


def _graph(manifest: Manifest, plan: runtime.Plan, location: str, limits: Limits) -> ray.data.Dataset:
    """manifest -> tracers, which write."""
    return manifest.dataset().map_batches(
        # 1:N, CPU. An actor with one child process, as in `embed`; it writes its traces itself.
        Tracer,
        fn_constructor_args=(location, limits),
        batch_size=None,
        batch_format="pyarrow",
        compute=plan.worker_pool(),
        **plan.worker_args,
    )


_DONE = pa.schema(
    [
        ("clip_key", pa.int64()),
        ("fingerprint", pa.string()),
        ("reason", pa.string()),
        ("fragments", pa.list_(pa.string())),
        ("failures", pa.list_(pa.string())),
    ]
)
"""Rows that leave a worker, a clip each. The fragments of a block stand in its first row."""


class Tracer:
    """A Ray actor: units in, traces written; rows out that say which, or why not."""

    def __init__(self, location: str, limits: Limits) -> None:
        self._location = location
        self._child = Child(replace(limits, cpu_s=_TIME * limits.cpu_s))

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Decode all clips of all units, and write them some at a time."""
        rows: list[dict[str, Any]] = []
        for unit in table["files"].to_pylist():
            for file in unit:
                for row in self._decoded(file):
                    rows.append(row)
                    if len(rows) == _ROWS_A_TABLE:
                        yield self._written(rows)
                        rows = []
        if rows:
            yield self._written(rows)

    def _decoded(self, file: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Rows of both `traces` and `failures`. Clips of one length follow each other: they are one request."""
        *_, video_id = file["video_id"].split("\0")
        for count, group in groupby(file["clips"], key=lambda clip: pictures_of(clip["start_ms"], clip["end_ms"])):
            clips = list(group)
            decoded = self._child.decode(
                locate(file["root"], file["path"]),
                [Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"]) for clip in clips],
                frames=count,
                size_px=SIDE,
                resize=_RESIZE,
                hashes=False,
                fingerprint=file["file_fingerprint"],
            )
            for clip, result in zip(clips, decoded, strict=True):
                times_ms, pictures = ([], b"") if result.frames is None else pack(result)
                row = {name: clip[name] for name in ("clip_key", "clip_id", "fingerprint")}
                told = {"reason": result.reason, "detail": result.detail, "stage": STAGE, "model_key": ""}
                yield {
                    **row,
                    **told,
                    "video_id": video_id,
                    "trace_version": TRACE_VERSION,
                    "times_ms": times_ms,
                    "pictures": pictures,
                    "at": datetime.now(UTC),
                }

    def _written(self, rows: list[dict[str, Any]]) -> pa.Table:
        good, bad = [row for row in rows if not row["reason"]], [row for row in rows if row["reason"]]
        told: list[dict[str, Any]] = [{**row, "fragments": [], "failures": []} for row in rows]
        told[0]["fragments"] = self._fragments("traces", good, schema.TRACES)
        told[0]["failures"] = self._fragments("failures", bad, schema.FAILURES)
        return pa.Table.from_pylist(told, _DONE)

    def _fragments(self, table: str, rows: list[dict[str, Any]], columns: pa.Schema) -> list[str]:
        return (
            commit.write_fragments(self._location, table, pa.Table.from_pylist(rows, columns), columns) if rows else []
        )

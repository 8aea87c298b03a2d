"""Clips with their captions, for other trainers: pairs as Parquet or JSONL, or shards of WebDataset with the clips.

Promises  captions of current clips only; a file or a folder that is there whole or not at all; clips whose media cannot
          be made are left out of shards, counted by reason
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydist import runtime
from raydist.caption.prepare import Sending
from raydist.clips.naming import locate
from raydist.config import Config
from raydist.errors import ArchiveError, ResourceError, UsageError
from raydist.export import shards
from raydist.export.folders import free
from raydist.models.folders import written_whole
from raydist.progress import Bar, bar
from raydist.records import Report
from raydist.store import read, roots, settings
from raydist.store.captioned import Captioned, pairs_schema
from raydist.store.manifest import Manifest
from raydist.store.runs import new_run, save
from raydist.store.shown import refuse_address
from raydist.store.sql import all_of, equals, whole

if TYPE_CHECKING:
    import ray.data

PARQUET, JSONL = ".parquet", ".jsonl"
MEDIA = ("clip", "frames", "none")
SPLITS = ("train", "val", "test", "gap")
SHARD_CLIPS = 1000

_FEWEST, _SHARDS = 50, 64
"""A small archive gives smaller shards, so that all cores have something to do."""
_CLIP_BYTES = 256 << 20
"""Of one clip's media: no provider sets a limit here."""
_RATE = 10
"""Pictures a second of a clip that cannot be copied: other trainers may look closer than a provider does."""
_ROWS = 8_192


def captions(
    config: Config,
    out: str,
    *,
    media: str = "clip",
    split: str | None = None,
    origin: str | None = None,
    where: str | None = None,
    shard_clips: int = SHARD_CLIPS,
) -> Report:
    """Write the clips that have captions.

    Pairs: a row a caption, with clip_id, clip_key, video_id, path, start_s, end_s, split, number, caption, origin,
    prompt_hash, cut, fingerprint. Shards: a sample a clip, named by its key in hex; its first caption as `.txt`, all of
    them with what is known of the clip as `.json`.

    Args:
        config: `archive`, `roots`, `decode`, and of `caption` frames and frame_px matter.
        out: a file that is not there yet, which ends in `.parquet` or `.jsonl`; else a folder that is not, or empty. On
            a cluster all nodes must see the folder.
        media: of shards: `clip` (mp4, no longer edge than caption.frame_px), `frames` (JPEG), `none`.
        split: only clips of `train`, `val`, `test` or `gap`.
        origin: only captions of this origin: `sidecar`, or a model's name.
        where: SQL condition over the columns of `clips` and of `videos`.
        shard_clips: clips of a shard, at most.

    Raises:
        ArchiveError: no archive, or it has no captions.
        StoreError: a bad condition.
        ResourceError: it cannot be written, nothing is left of it; or the cluster cannot run the plan.
        UsageError: something is there already, or a name or number that is none.
    """
    began = time.monotonic()
    _check(media, split, shard_clips)
    location = config.require_archive()
    settings.open_existing(location)
    place = _place(out)
    of_split = equals("split", split) if split else None
    found = Captioned(location, all_of(whole(where) if where else None, of_split), origin)
    _refuse_none(location, found, origin)
    try:
        if place.suffix.lower() in (PARQUET, JSONL):
            counts, failures = _pairs(config, found, place), dict[str, int]()
        else:
            counts, failures = _shards(config, found, place, media, shard_clips)
    except OSError as error:
        raise _unwritable(out, error) from error
    report = Report(
        stage="export",
        run=new_run("export"),
        seconds=time.monotonic() - began,
        counts=counts,
        failures=failures,
        notes=tuple(_notes(place, counts, found.stale)),
        details={"attempted": counts["clips"] + sum(failures.values()), "file": str(place), "media": media}
        | {"split": split, "origin": origin},
    )
    save(report, location)
    return report


def _unwritable(out: str, error: OSError) -> ResourceError:
    return ResourceError(
        f"--out {out!r} cannot be written ({error.strerror or error}); nothing is left of it. Make room there, or "
        "name another place"
    )


def _check(media: str, split: str | None, shard_clips: int) -> None:
    if media not in MEDIA:
        raise UsageError(f"--media {media!r}: expected one of {', '.join(MEDIA)}")
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split!r}: expected one of {', '.join(SPLITS)}")
    if shard_clips < 1:
        raise UsageError(f"--shard-clips {shard_clips}: expected 1 or more")


def _place(out: str) -> Path:
    """The file or folder that will be."""
    refuse_address("--out", out)
    suffix = Path(out).suffix.lower()
    if suffix in (".csv", ".tsv", ".json", ".tar"):
        raise UsageError(f"--out {out!r}: expected a file that ends in .parquet or .jsonl, or a folder for shards")
    if suffix not in (PARQUET, JSONL):
        return free(out)
    file = Path(out).expanduser().absolute()
    if file.exists():
        raise UsageError(f"--out {out!r} is there already; name another file")
    if not file.parent.is_dir():
        raise UsageError(f"--out {out!r}: the folder {str(file.parent)!r} does not exist")
    return file


def _refuse_none(location: str, found: Captioned, origin: str | None) -> None:
    known = found.origins()
    if not known:
        raise ArchiveError(f"the archive {location!r} has no captions yet: run `raydist caption` first")
    if origin is not None and origin not in known:
        raise UsageError(f"--origin {origin!r}: no caption is of it; expected one of {', '.join(known)}")


def _notes(place: Path, counts: Mapping[str, int], stale: int) -> Iterator[str]:
    yield f"captions: {place}"
    if not counts["captions"]:
        yield "no clip with a caption passes: look at --split, --where and --origin"
    if stale:
        yield f"{stale:,} captions are of clips that changed and are left out: `raydist caption --keep` confirms them"


def _pairs(config: Config, found: Captioned, file: Path) -> dict[str, int]:
    """A row a caption."""
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    counts = {"clips": 0, "captions": 0}
    try:
        with bar("writing captions", None) as progress:
            tables = _counted(_tables(config, found), counts, progress)
            (_as_parquet if file.suffix.lower() == PARQUET else _as_jsonl)(tables, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return {**counts, "bytes": file.stat().st_size}


def _tables(config: Config, found: Captioned) -> Iterator[list[dict[str, Any]]]:
    """Rows of pairs, some thousand at a time."""
    location = config.require_archive()
    places = roots.places(location, config.roots)
    clips = iter(found)
    while some := list(islice(clips, _ROWS)):
        files = _files(location, some)
        # A name that is not UTF-8 cannot stand in a table of strings: it is shown with replacement characters.
        paths = {
            video_id: locate(places[file["root"]], file["path"])
            .encode(errors="surrogateescape")
            .decode(errors="replace")
            for video_id, file in files.items()
        }
        names = pairs_schema().names
        yield [
            {name: row.get(name) for name in names}
            for clip in some
            for caption in clip["captions"]
            for row in ({**clip, "path": paths.get(clip["video_id"]), **caption},)
        ]


def _counted(
    tables: Iterable[list[dict[str, Any]]], counts: dict[str, int], progress: Bar
) -> Iterator[list[dict[str, Any]]]:
    for rows in tables:
        yield rows
        counts["clips"] += len({row["clip_key"] for row in rows})
        counts["captions"] += len(rows)
        progress.advance(len(rows))


def _as_parquet(tables: Iterable[list[dict[str, Any]]], file: Path) -> None:
    with pq.ParquetWriter(file, pairs_schema()) as writer:
        for rows in tables:
            writer.write_table(pa.Table.from_pylist(rows, pairs_schema()))


def _as_jsonl(tables: Iterable[list[dict[str, Any]]], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        for rows in tables:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _files(location: str, clips: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Video id -> where its file is."""
    columns = ["video_id", "root", "path", "file_fingerprint"]
    names = sorted({clip["video_id"] for clip in clips})
    rows = read.rows_by_key(location, "videos", names, columns, key="video_id").to_pylist()
    return {row.pop("video_id"): row for row in rows}


def _shards(
    config: Config, found: Captioned, folder: Path, media: str, shard_clips: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Shards in a new folder; counts, and reasons of clips that were left out."""
    section = config.caption
    sending = (
        Sending(
            send="clip" if media == "clip" else "frames",
            frames=section.frames,
            frame_px=section.frame_px,
            max_bytes=_CLIP_BYTES,
            rate=_RATE,
        )
        if media != "none"
        else None
    )
    with written_whole(folder) as part:
        manifest = Manifest(part / "manifest", rows_per_file=16)
        clips = sum(1 for _ in found)
        manifest.write(_plan(config, found, min(shard_clips, max(_FEWEST, clips // _SHARDS))))
        counts = {"clips": 0, "captions": 0, "shards": 0, "bytes": 0}
        failures: Counter[str] = Counter()
        arguments = (str(part), roots.places(config.require_archive(), config.roots), sending, config.limits())
        with bar("writing shards", clips) as progress:
            for done in _written(config, manifest, arguments) if manifest.rows else ():
                if done["error"]:
                    raise OSError(None, f"{shards.name_of(done['shard'])}: {done['error']}")
                file = part / shards.name_of(done["shard"])
                if not file.is_file():
                    raise ResourceError(
                        f"--out {str(folder)!r}: a shard that another node wrote is not there; on a cluster name a "
                        "folder that all nodes see"
                    )
                left = {failure["reason"]: failure["clips"] for failure in done["failures"]}
                failures.update(left)
                progress.advance(done["clips"] + sum(left.values()))
                for name in ("clips", "captions", "bytes"):
                    counts[name] += done[name]
                counts["shards"] += 1
        manifest.remove()
    return {**counts, "left_out": failures.total()}, dict(failures)


def _plan(config: Config, found: Captioned, size: int) -> Iterator[pa.Table]:
    location = config.require_archive()
    known: dict[str, dict[str, Any]] = {}

    def with_files() -> Iterator[dict[str, Any]]:
        clips = iter(found)
        while some := list(islice(clips, _ROWS)):
            known.update(_files(location, some))
            yield from (clip for clip in some if clip["video_id"] in known)

    return shards.plan(with_files(), known, size)


def _written(config: Config, manifest: Manifest, arguments: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Write all shards: by Ray, or where no media are made in this process; a row of `shards.DONE` each."""
    if arguments[2] is None:
        writer = shards.ShardWriter(*arguments)
        for unit in manifest.units():
            for table in writer(unit):
                yield from table.to_pylist()
        return
    with runtime.session(config.ray) as resources:
        plan = runtime.plan(
            resources,
            workers=config.caption.decoders,
            units=manifest.rows,
            worker_cpus=config.decode.cpus,
            memory_mb=config.decode.memory_mb,
        )
        runtime.announce(plan, resources, what="writers")
        for block in runtime.blocks(_graph(manifest, plan, arguments), resources):
            yield from block.to_pylist()


def _graph(manifest: Manifest, plan: runtime.Plan, arguments: tuple[Any, ...]) -> ray.data.Dataset:
    """manifest -> writers."""
    return manifest.dataset().map_batches(
        # 1:1, CPU: a shard each. An actor with one child process: a decoder that dies costs one clip, not a shard.
        shards.ShardWriter,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=plan.worker_pool(),
        **plan.worker_args,
    )

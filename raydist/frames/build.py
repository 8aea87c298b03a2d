"""frames/build: decodes clips once, in parallel, into the frame cache.

Reads     the clips that the cache lacks, and the files they lie in
Writes    `frames_<geometry>_<frames>_<encoding>`, `signatures` on the way, `failures` of what does not decode
Again     safe after any crash and beside other drivers: cached clips are not decoded again, none is stored twice
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist import runtime
from raydist.clips.decoder import Geometry
from raydist.clips.naming import is_settled
from raydist.clips.signature import HASH_VERSION
from raydist.clips.units import clips_a_unit, units
from raydist.config import Config
from raydist.errors import SourceError
from raydist.frames import pixels, room
from raydist.frames.keep import Keeper, Target, Written, write_outcomes
from raydist.frames.room import estimate
from raydist.progress import bar, talk
from raydist.store import commit, frames, lease, outcomes, read, roots, schema, stale
from raydist.store.frames import Known
from raydist.store.manifest import Manifest
from raydist.store.runs import new_run, run_folder

if TYPE_CHECKING:
    import ray.data

__all__ = ["Built", "ensure", "estimate"]

_AT_ONCE = 32_768
"""Clips that are looked at as Python's own at a time."""

STAGES = ("train", "eval")
"""Whose failures count: what one of them could not decode, the other need not try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What is in the cache of the clips that were asked for."""

    table: str
    """"" where nothing is cached."""
    clips: int
    """Asked for."""
    decoded: int = 0
    """By this build."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Clip key -> reason of the clips that cannot be had, those that failed earlier included."""
    bytes: int = 0
    """What the clips take on disk, as estimated."""
    seconds: float = 0.0

    def without_failed(self, pairs: pa.Table) -> pa.Table:
        """The clips that can be had."""
        gone = pa.array(list(self.failed), pa.int64())
        return pairs.filter(pc.invert(pc.is_in(pairs["clip_key"], value_set=gone)))


def ensure(
    config: Config,
    pairs: pa.Table,
    geometry: Geometry,
    *,
    encoding: str = pixels.RAW,
    candidates: int = 1,
    stage: str = "train",
    retry_failed: bool = False,
) -> Built:
    """See that the cache holds the frames of clips.

    Args:
        pairs: rows of `store.pairs.captioned_clips`.
        geometry: `frames` is T, also where there are several candidates for each.
        encoding: `raw`, `jpeg`, or `none`: nothing is cached, and only clips without a signature are decoded, for it.
        candidates: frames to choose from for each of the T, 1 or 3.
        stage: under whose name failures are recorded.
        retry_failed: try clips again that failed earlier.

    Raises:
        ResourceError: the cache would be larger than `train.cache_gb`, or the cluster cannot run the plan.
        ValueError: another encoding, stage or number of candidates.
    """
    pixels.check(encoding, candidates)
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: expected one of {', '.join(STAGES)}")
    location, limit = config.require_archive(), int(config.train.cache_gb * 1e9)
    table = "" if encoding == pixels.NONE else pixels.table_of(geometry, encoding, candidates)
    target = Target(location=location, table=table, geometry=geometry, encoding=encoding, candidates=candidates)
    if table:
        room.refuse_too_large(pairs, geometry, encoding, candidates, limit=limit)
    with lease.Lease(location, stage) as held:
        Manifest.sweep(location, held.strangers)
        stale.repair_unless_scanning(location)
        build = _Build(config, pairs, target, stage, held, retry_failed=retry_failed)
        return build.run(limit)


class _Build:
    """One build: what is missing, its decoding, and the commits in between."""

    def __init__(
        self, config: Config, pairs: pa.Table, target: Target, stage: str, held: lease.Lease, *, retry_failed: bool
    ) -> None:
        self._config, self._pairs, self._target, self._stage, self._held = config, pairs, target, stage, held
        self._retry_failed = retry_failed
        self._location = target.location
        self._held_blocks: list[Any] = []
        self._written: tuple[Written, SourceError | None] | None = None
        self._losses = outcomes.Losses(config.max_failed)
        self._since = time.monotonic()
        self._stored_bytes = 0
        self._versions: dict[str, int] = {}
        self.decoded = 0
        self.failed: dict[int, str] = {}

    def run(self, limit: int) -> Built:
        """Decode what is missing and may be had."""
        began = time.monotonic()
        table, pairs = self._target.table, self._pairs
        missing = self._missing()
        if table:
            size = estimate(pairs, self._target.geometry, self._target.encoding, self._target.candidates)
            there = pairs.num_rows - missing.num_rows - len(self.failed)
            talk.print(
                f"frame cache: {pairs.num_rows:,} clips, {room.size_text(size)} ({self._target.encoding}); "
                f"{there:,} are there"
            )
            if missing.num_rows:
                missing = self._with_room(missing, limit)
                self._decode(missing, limit)
                self._tidy()
            frames.mark_used(self._location, table)
        else:
            unsigned = missing.filter(pc.invert(missing["has_signature"]))
            if unsigned.num_rows:
                talk.print(f"frames: {unsigned.num_rows:,} clips are decoded for their signatures; nothing is cached")
                self._decode(unsigned, limit)
        return Built(
            table=table,
            clips=pairs.num_rows,
            decoded=self.decoded,
            failed=self.failed,
            bytes=size if table else 0,
            seconds=time.monotonic() - began,
        )

    def _missing(self) -> pa.Table:
        """The clips to decode, in the order of their files; those that failed earlier or must wait are noted."""
        self.failed.clear()
        known: Known = frames.known(
            self._location, self._target.table, self._pairs, hash_version=HASH_VERSION, stages=STAGES
        )
        self._versions = known.versions
        clips = self._pairs.drop_columns(["captions"])
        wanted: list[bool] = []
        for number, clip in enumerate(clip for batch in clips.to_batches(_AT_ONCE) for clip in batch.to_pylist()):
            reason = "" if self._retry_failed else known.reasons[number]
            if not known.cached[number] and not reason and not is_settled(clip, clip["file_fingerprint"]):
                reason = "changed"
            if not known.cached[number] and reason:
                self.failed[clip["clip_key"]] = reason
            wanted.append(not known.cached[number] and not reason)
        clips = clips.append_column("has_signature", pa.array(known.signed))
        return clips.filter(pa.array(wanted, pa.bool_())).sort_by(
            [("video_id", "ascending"), ("start_ms", "ascending")]
        )

    def _with_room(self, missing: pa.Table, limit: int) -> pa.Table:
        """See that what is missing fits; the clips that are missing then."""
        target = self._target
        needed = missing.num_rows * pixels.bytes_a_clip(target.geometry, target.encoding, target.candidates)
        room.make_room(self._location, target.table, int(needed), limit=limit, held=self._held)
        missing = self._missing()  # the table itself may have gone
        needed = missing.num_rows * pixels.bytes_a_clip(target.geometry, target.encoding, target.candidates)
        room.refuse_full_disk(self._location, int(needed))
        return missing

    def _decode(self, missing: pa.Table, limit: int) -> None:
        """Run the graph; this process commits what comes out of it, also when it is stopped in the middle."""
        name = new_run("frames")
        manifest = Manifest.of_run(self._location, name)
        committers = _Committers.open(self._location, self._target.table, self._versions)
        try:
            manifest.write(_units(missing))
            with (
                runtime.session(self._config.ray) as resources,
                bar("decoding frames", missing.num_rows) as progress,
            ):
                plan = runtime.plan(
                    resources,
                    workers=self._config.embed.decoders,
                    units=manifest.rows,
                    worker_cpus=self._config.decode.cpus,
                    memory_mb=self._config.decode.memory_mb,
                )
                runtime.announce(plan, resources)
                try:
                    for block, rows in runtime.references(self._graph(manifest, plan), resources):
                        self._held_blocks.append(block)
                        progress.advance(rows)
                        if time.monotonic() - self._since >= self._config.embed.commit_s:
                            self._commit(committers)
                            self._refuse_more_than(limit)
                finally:
                    self._commit(committers, last=True)
            self._refuse_more_than(limit)
        finally:
            manifest.remove()
            with suppress(OSError):  # in a bucket there is none
                run_folder(self._location, name).rmdir()

    def _graph(self, manifest: Manifest, plan: runtime.Plan) -> ray.data.Dataset:
        """manifest -> decoders, which write."""
        places = roots.places(self._location, self._config.roots)
        return manifest.dataset().map_batches(
            # 1:N, CPU. An actor with one child process, as in `embed`; it writes its frames itself.
            Keeper,
            fn_constructor_args=(places, self._target, self._config.limits()),
            batch_size=None,
            batch_format="pyarrow",
            compute=plan.worker_pool(),
            **plan.worker_args,
        )

    def _commit(self, committers: _Committers, *, last: bool = False) -> None:
        """Make visible what was written: signatures and failures before the frames they belong to.

        Safe to call again after an interrupt at any moment: what was written is remembered, so that each row is
        committed once.

        Raises:
            SourceError: the place of most clips has gone; those that failed with it are not noted.
        """
        if self._held_blocks and self._written is None:
            self._written = self._write(last=last)
        if self._written is not None:
            written, gone = self._written
            committers.signatures.commit(written.signatures)
            if gone is None:
                committers.failures.commit(written.failures)
            if committers.frames is not None:
                committers.frames.commit(written.frames)
            self.decoded += written.clips - len(written.failed)
            if gone is None:
                self.failed.update(written.failed)
            self._stored_bytes += written.stored_bytes
            self._held_blocks, self._written = [], None
            if gone is not None:
                raise gone
        self._since = time.monotonic()

    def _write(self, *, last: bool) -> tuple[Written, SourceError | None] | None:
        """What became of the blocks; None where all went with a node: the next build does those anew."""
        import ray  # here: Ray reads its environment when it is imported, and `runtime.session` sets that

        write = ray.remote(num_cpus=0)(write_outcomes)
        given = (self._location, self._stage)
        written, _ = runtime.made_of(lambda there: write.remote(*given, *there), self._held_blocks, last=last)
        if written is None:
            self._held_blocks = []
            return None
        return written, self._losses.too_many(written.clips, written.failed.values())

    def _tidy(self) -> None:
        """Take out rows of clips that a scan changed meanwhile, and give back the disk of rows that were deleted."""
        if read.need_table(self._location, "clips").version != self._versions["clips"]:
            stale.delete_stale(self._location)
        if not self._held.strangers():
            frames.drop_old_versions(self._location, self._target.table)

    def _refuse_more_than(self, limit: int) -> None:
        """Stop where pictures turn out to need more than they were expected to.

        Raises:
            ResourceError: with the choices, and the size that was measured.
        """
        if self.decoded and self._stored_bytes > limit:
            whole = self._stored_bytes // self.decoded * self._pairs.num_rows
            target = self._target
            room.refuse_too_large(
                self._pairs, target.geometry, target.encoding, target.candidates, limit=limit, known_bytes=whole
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Committers:
    """Of the tables that a build writes."""

    frames: commit.Committer | None
    """None where nothing is cached."""
    signatures: commit.Committer
    failures: commit.Committer

    @staticmethod
    def open(location: str, table: str, versions: Mapping[str, int]) -> _Committers:
        return _Committers(
            frames=commit.Committer(location, table, schema.CACHED_FRAMES, version=versions[table]) if table else None,
            signatures=commit.Committer(location, "signatures", schema.SIGNATURES, version=versions["signatures"]),
            failures=commit.Committer(location, "failures", schema.FAILURES),
        )


def _units(clips: pa.Table) -> Iterator[pa.Table]:
    size, seed = clips_a_unit(clips.num_rows), random.getrandbits(32)
    for start in range(0, clips.num_rows, _AT_ONCE):
        some = clips.slice(start, _AT_ONCE).to_pylist()
        files = {clip["video_id"]: {name: clip[name] for name in ("root", "path", "file_fingerprint")} for clip in some}
        yield units(some, files, size, seed)

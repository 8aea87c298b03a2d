"""The driver of dedup: what is new is joined, its pairs are read again, and groups are settled anew from all pairs."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist import choice, runtime
from raydist.config import Config, archive_location
from raydist.dedup import decisions, read, shared
from raydist.dedup.known import JoinedClips, Pairs, Reference, by_first, edges_of, unread
from raydist.dedup.request import Request
from raydist.dedup.settled import Found, settled
from raydist.dedup.spread import CROWDS, KEYS, Joined, Side, join
from raydist.errors import ArchiveError, StoreError
from raydist.progress import talk
from raydist.records import Report
from raydist.store import current, lease, schema, settings, sql, stale
from raydist.store import read as tables
from raydist.store.location import is_uri
from raydist.store.models import Stored
from raydist.store.runs import SCRATCH, new_run, save, sweep_scratch

STAGE = "dedup"


_NOTHING = Joined(
    edges=Path(SCRATCH),
    crowds=CROWDS.empty_table(),
    pairs=0,
    written=0,
    clips=0,
    left_out=0,
    products=0,
    whole=0,
    share=0.0,
    bytes_read=0,
    keys=KEYS.empty_table(),
)
"""Of an archive without new clips."""


def run(config: Config, request: Request) -> Report:
    """Find duplicates; see `raydist.dedup.run`."""
    began, started = time.monotonic(), datetime.now(UTC)
    location = config.require_archive()
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    reference = _reference(location, request.against, model)
    name = new_run(STAGE)
    with lease.Lease(location, STAGE, run=name) as held:
        # Within the lease: a store that keeps no writers apart was refused before.
        decisions.record(location, request.said(reference.name), request.by)
        _refuse_twin(held)
        stale.repair_unless_scanning(location)
        sweep_scratch(location, f"{STAGE}-*")  # no other one is at work
        try:
            with shared.work(location, name) as scratch:
                found = _pairs(config, model, reference, scratch, retry_failed=request.retry_failed)
        except KeyboardInterrupt:
            talk.print("stopped; clips that were read again are kept, `raydist dedup` goes on from there")
            raise
        report = settled(config, request, model.model_key, reference, found, name)
    failed = _failures(location, started)
    report = _finished(report, found, failed, time.monotonic() - began)
    save(report, location)
    return report


def _reference(location: str, against: str | None, model: Stored) -> Reference:
    """
    Raises:
        ArchiveError: there is none, or it is this very one.
        StoreError: it has no vectors of the model.
    """
    if against is None:
        return Reference()
    place = archive_location(against)
    document = settings.open_existing(place)
    if place == location or (not is_uri(place) and Path(place).resolve() == Path(location).resolve()):
        raise ArchiveError(f"--against {against!r} is the archive itself: leave it out, or name another archive")
    if not tables.count_rows(place, schema.embeddings_table(model.model_key)):
        keys = ", ".join(tables.model_keys(place)) or "none"
        raise StoreError(
            f"--against {against!r} has no vectors of {model.model_key}, it has: {keys}; vectors of two models cannot "
            f"be compared: run `raydist embed --archive {against} --model {model.name}` first"
        )
    mark = json.dumps([document["created_at"], document["settings"]], sort_keys=True)
    last = place.rpartition("/")[2] if is_uri(place) else Path(place).resolve().name
    return Reference(location=place, name=f"{last}-{blake2b(mark.encode(), digest_size=4).hexdigest()}")


def _refuse_twin(held: lease.Lease) -> None:
    twins = held.living(lambda holder: holder.verb == STAGE)
    if twins:
        raise StoreError(f"{twins[0]} finds duplicates in this archive already: wait for it, or stop it")


def _pairs(config: Config, model: Stored, reference: Reference, scratch: Path, *, retry_failed: bool) -> Found:
    """Join what is new, read its pairs, and commit: pairs first, then which clips they are complete for."""
    location, threshold = config.require_archive(), config.dedup.threshold
    stored = Pairs(location, model.model_key, reference.location, reference.name)
    stored.forget_changed()
    clips = JoinedClips(location, model.model_key)
    known = None if reference.name else clips.load(threshold)
    table = schema.embeddings_table(model.model_key)
    other = Side(location=reference.location, table=table) if reference.name else None
    began = time.monotonic()
    # Ray takes seconds to start: for nothing new it stays away.
    quiet = known is not None and _is_complete(location, table, known)
    with nullcontext(None) if quiet else runtime.session(config.ray) as resources:
        joined = _NOTHING
        if resources is not None:
            side = Side(location=location, table=table)
            joined = join(config, resources, side, scratch, threshold=threshold, other=other, known=known)
        found = Found(joined=joined, clips=joined.keys.num_rows + (0 if known is None else known.num_rows))
        found.seconds["join"] = time.monotonic() - began
        began = time.monotonic()
        _read_pairs(config, model, reference, stored, edges_of(joined), retry_failed=retry_failed)
        found.seconds["read"] = time.monotonic() - began
    if not reference.name:
        clips.add(_with_crowds(location, joined), threshold)
    return found


def _is_complete(location: str, table: str, known: pa.Table) -> bool:
    """Whether all vectors of the archive are joined; `known` are clips as they are now."""
    keys = current.current_rows(location, table).keys
    return bool(np.isin(keys, known["clip_key"].to_numpy()).all())


def _read_pairs(
    config: Config, model: Stored, reference: Reference, stored: Pairs, edges: pa.Table, *, retry_failed: bool
) -> None:
    """Read the pairs that were not read before, and store them."""
    edges = stored.unknown(edges)
    if not config.dedup.read:
        location, threshold = config.require_archive(), config.dedup.threshold
        stored.add(unread(location, reference.location or location, edges, threshold))
        return
    before = stored.load(where=sql.equals("archive_b", reference.name))
    not_yet = pc.equal(before["kind"], "unread")
    again = before.filter(not_yet).select([*edges.schema.names, "found_by"])
    new = edges.append_column("found_by", pa.repeat(pa.scalar("vectors"), edges.num_rows))
    wanted, known = pa.concat_tables([new.cast(again.schema), again]), before.filter(pc.invert(not_yet))
    verified = read.verify(
        config, model.model_key, wanted, against=reference.location, known=known, retry_failed=retry_failed
    )
    name = pa.repeat(pa.scalar(reference.name), verified.num_rows)
    verified = verified.set_column(verified.schema.get_field_index("archive_b"), "archive_b", name)
    stored.add(by_first(verified), instead=bool(again.num_rows))


def _with_crowds(location: str, joined: Joined) -> pa.Table:
    """The clips that were joined, with their names and crowds."""
    keys = joined.keys["clip_key"].to_pylist()
    rows = tables.rows_by_key(location, "clips", keys, ["clip_key", "clip_id", "video_id"])
    table = joined.keys.join(rows, "clip_key", join_type="inner")
    return table.join(joined.crowds.select(["clip_key", "crowd"]), "clip_key", join_type="left outer")


def _finished(report: Report, found: Found, failed: Counter[str], seconds: float) -> Report:
    joined = found.joined
    steps = ", ".join(f"{step} {took:,.1f} s" for step, took in found.seconds.items())
    new = joined.keys.num_rows
    share = f"; {min(1, joined.share):.1%} of the pairs that they could make were computed" if new else ""
    notes = [f"{new:,} clips were new{share}; {steps}"]
    if joined.left_out:
        notes.append(
            f"{joined.left_out:,} pairs were only counted: so much is alike at {report.details['threshold']:g} that "
            "keepers may have pairs among them; `raydist dedup --sweep` shows higher thresholds"
        )
    return Report(
        stage=report.stage,
        run=report.run,
        seconds=seconds,
        counts=report.counts,
        failures=dict(failed),
        notes=tuple(notes),
        details={**report.details, "attempted": found.clips},
    )


def _failures(location: str, since: datetime) -> Counter[str]:
    """Reasons of what this run could not read."""
    where = sql.all_of(sql.equals("stage", STAGE), f"{sql.quote_name('at')} >= {sql.quote_sql(since)}")
    return Counter(
        reason
        for batch in tables.scan_batches(location, "failures", ["reason"], where=where)
        for reason in batch["reason"].to_pylist()
    )

"""The driver of dedup: what is new is joined, its pairs are read again, and groups are settled anew from all pairs."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist import choice, runtime
from raydist.clips import naming
from raydist.config import Config
from raydist.dedup import decisions, files, groups, page, read, statements, summary
from raydist.dedup.decisions import Said
from raydist.dedup.keepers import Kept
from raydist.dedup.known import JoinedClips, Pairs, edges_of, unread
from raydist.dedup.request import Request
from raydist.dedup.spread import CROWDS, EDGES, KEYS, Joined, Side, join
from raydist.errors import ArchiveError, StoreError
from raydist.progress import talk
from raydist.records import Report
from raydist.report import new_run, run_folder, save
from raydist.store import commit, current, lease, roots, schema, settings, sql, stale
from raydist.store import read as tables
from raydist.store.models import Stored

STAGE = "dedup"
_SCRATCH = "join"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The archive that `--against` names."""

    location: str = ""
    name: str = ""
    """How rows name it: its folder's name, and what tells it from others of that name; both move with it."""


_NOTHING = Joined(
    edges=Path(_SCRATCH),
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


@dataclass(slots=True)
class Found:
    """What a run found, for its report."""

    joined: Joined
    clips: int
    seconds: dict[str, float] = field(default_factory=dict)


def run(config: Config, request: Request) -> Report:
    """Find duplicates; see `raydist.dedup.run`."""
    began, started = time.monotonic(), datetime.now(UTC)
    location = config.require_archive()
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    reference = _reference(location, request.against, model)
    decisions.record(location, request.said(reference.name), request.by)
    name = new_run(STAGE)
    folder = run_folder(location, name)
    with lease.Lease(location, STAGE) as held:
        _refuse_twin(held)
        stale.repair_unless_scanning(location)
        _sweep_scratch(location, held)
        try:
            found = _pairs(config, model, reference, folder / _SCRATCH)
        except KeyboardInterrupt:
            talk.print("stopped; clips that were read again are kept, `raydist dedup` goes on from there")
            raise
        finally:
            shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        report = _settled(config, request, model, reference, found, name)
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
    document = settings.open_existing(against)
    if Path(against).resolve() == Path(location).resolve():
        raise ArchiveError(f"--against {against!r} is the archive itself: leave it out, or name another archive")
    if not tables.count_rows(against, schema.embeddings_table(model.model_key)):
        keys = ", ".join(tables.model_keys(against)) or "none"
        raise StoreError(
            f"--against {against!r} has no vectors of {model.model_key}, it has: {keys}; vectors of two models cannot "
            f"be compared: run `raydist embed --archive {against} --model {model.name}` first"
        )
    mark = json.dumps([document["created_at"], document["settings"]], sort_keys=True)
    return Reference(
        location=against, name=f"{Path(against).resolve().name}-{blake2b(mark.encode(), digest_size=4).hexdigest()}"
    )


def _refuse_twin(held: lease.Lease) -> None:
    twins = [holder for holder in held.others() if holder.verb == STAGE]
    if twins:
        raise StoreError(f"{twins[0]} finds duplicates in this archive already: wait for it, or stop it")


def _sweep_scratch(location: str, held: lease.Lease) -> None:
    """What runs that were killed left behind; no other one is at work."""
    del held  # who holds the lease knows that
    for folder in run_folder(location, "").glob(f"{STAGE}-*/{_SCRATCH}"):
        shutil.rmtree(folder, ignore_errors=True)


def _pairs(config: Config, model: Stored, reference: Reference, scratch: Path) -> Found:
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
        _read_pairs(config, model, reference, stored, edges_of(joined.edges))
        found.seconds["read"] = time.monotonic() - began
    if not reference.name:
        clips.add(_with_crowds(location, joined), threshold)
    return found


def _is_complete(location: str, table: str, known: pa.Table) -> bool:
    """Whether all vectors of the archive are joined; `known` are clips as they are now."""
    keys = current.current_rows(location, table).keys
    return bool(np.isin(keys, known["clip_key"].to_numpy()).all())


def _read_pairs(config: Config, model: Stored, reference: Reference, stored: Pairs, edges: pa.Table) -> None:
    """Read the pairs that were not read before, and store them."""
    before = stored.load()
    before = before.filter(pc.equal(before["archive_b"], reference.name))
    if config.dedup.read:
        not_yet = pc.equal(before["kind"], "unread")
        again = before.filter(not_yet).select(edges.schema.names).cast(edges.schema)
        wanted, known = pa.concat_tables([edges, again]), before.filter(pc.invert(not_yet))
        verified = read.verify(config, model.model_key, wanted, against=reference.location, known=known)
    else:
        location, threshold = config.require_archive(), config.dedup.threshold
        verified = unread(location, reference.location or location, edges, threshold)
    name = pa.repeat(pa.scalar(reference.name), verified.num_rows)
    stored.store(
        verified.set_column(verified.schema.get_field_index("archive_b"), "archive_b", name), instead=config.dedup.read
    )


def _with_crowds(location: str, joined: Joined) -> pa.Table:
    """The clips that were joined, with their names and crowds."""
    keys = joined.keys["clip_key"].to_pylist()
    rows = tables.rows_by_key(location, "clips", keys, ["clip_key", "clip_id", "video_id"])
    table = joined.keys.join(rows, "clip_key", join_type="inner")
    return table.join(joined.crowds.select(["clip_key", "crowd"]), "clip_key", join_type="left outer")


def _settled(config: Config, request: Request, model: Stored, reference: Reference, found: Found, name: str) -> Report:
    """Groups from all pairs that are known, what follows for files, and everything that a person looks at."""
    location, began = config.require_archive(), time.monotonic()
    places = roots.places(location, config.roots)
    said, rules = decisions.load(location), request.rules(config)
    stored = Pairs(location, model.model_key, reference.location, reference.name).load()
    stored = pa.concat_tables([stored, _told(location, said, stored, rules.threshold)])
    counting = groups.counting(stored, said, rules)
    crowds = _crowds(location, model.model_key)
    clips = _clips(location, reference, counting, crowds)
    graph = groups.graph_of(clips, counting, crowds, said, rules)
    alike = _Alike(location, schema.embeddings_table(model.model_key), rules.threshold)
    kept = groups.settle(clips, graph, said, _videos(location, clips), rules, alike)
    grouped = groups.table_of(clips, graph, kept, said, reference.name)
    _replace(location, schema.GROUPS + model.model_key, grouped, schema.GROUPED)
    overlaps = statements.overlaps(counting.filter(pc.equal(counting["kind"], "copy")))
    _replace(location, schema.OVERLAPS + model.model_key, overlaps, schema.VIDEO_OVERLAPS)
    redundant = files.redundant(location, grouped, _kept_videos(clips, kept, reference.name), places)
    found.seconds["decide"] = time.monotonic() - began
    details = _figures(found, stored, counting, grouped, rules.threshold, reference.name)
    details["model_key"] = model.model_key
    details |= {"overlaps": overlaps.drop_columns(["at"]).to_pylist(), "files": list(map(summary.file_row, redundant))}
    folder = run_folder(location, name)
    folder.mkdir(parents=True, exist_ok=True)
    details["keep"] = str(summary.write_keep(folder, files.to_keep(location, redundant, places)))
    summary.write_groups(folder, grouped)
    sheet = page.write(request.sheet or folder / "dedup.html", config, stored, said, rules, reference.location, details)
    details["sheet"] = str(sheet)
    details["json"] = str(summary.write_json(folder, details))
    return Report(stage=STAGE, run=name, seconds=0.0, counts=_counts(details), details=details)


def _told(location: str, said: Said, stored: pa.Table, threshold: float) -> pa.Table:
    """Pairs of clips of this archive that a person calls duplicates and no run has found."""
    names = [(a, b) for (a, b, archive_b), verdict in said.verdicts.items() if verdict == "duplicate" and not archive_b]
    clips = {(naming.clip_key(a), naming.clip_key(b)) for a, b in names if "#t=" in a and "#t=" in b}
    if not clips:
        return schema.PAIRS.empty_table()
    own = stored.filter(pc.equal(stored["archive_b"], ""))
    clips -= set(zip(own["a"].to_pylist(), own["b"].to_pylist(), strict=True))
    edges = pa.Table.from_pylist([{"a": a, "b": b} for a, b in sorted(clips)], EDGES)
    return unread(location, location, edges, threshold)


def _figures(
    found: Found, stored: pa.Table, counting: pa.Table, grouped: pa.Table, threshold: float, archive_b: str
) -> dict[str, Any]:
    joined = found.joined
    over = pc.greater_equal(stored["similarity"], pa.scalar(threshold, pa.float32()))
    written = int(pc.sum(pc.and_(over, pc.equal(stored["archive_b"], archive_b))).as_py() or 0)
    kinds = Counter(counting["kind"].to_pylist())
    return {
        "clips": found.clips,
        # Crowds: pairs that were counted and are not written.
        "pairs": written + joined.pairs - joined.written,
        "groups": len(pc.unique(grouped["group"])),
        "redundant": grouped.num_rows - int(pc.sum(grouped["keep"]).as_py() or 0),
        "threshold": threshold,
        "copies": kinds["copy"],
        "pairs_written": written,
        "new_clips": joined.keys.num_rows,
        "products": joined.products,
        "share_of_all_pairs": joined.share,
        "pairs_only_counted": joined.left_out,
        "bytes_read": joined.bytes_read,
        "seconds_by_step": found.seconds,
        "against": archive_b,
    }


def _counts(details: Mapping[str, Any]) -> dict[str, int]:
    return {name: details[name] for name in ("clips", "pairs", "copies", "groups", "redundant")}


def _finished(report: Report, found: Found, failed: Counter[str], seconds: float) -> Report:
    joined = found.joined
    steps = ", ".join(f"{step} {took:,.1f} s" for step, took in found.seconds.items())
    new = joined.keys.num_rows
    share = f"; {joined.share:.1%} of the pairs that they could make were computed" if new else ""
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


def _crowds(location: str, model_key: str) -> pa.Table:
    batches = list(
        tables.scan_batches(location, schema.JOINED + model_key, ["clip_key", "crowd"], where="crowd IS NOT NULL")
    )
    wanted = pa.schema({"clip_key": pa.int64(), "crowd": pa.int64()})
    return pa.Table.from_batches(batches, wanted)


def _clips(location: str, reference: Reference, pairs: pa.Table, crowds: pa.Table) -> groups.Clips:
    """All clips that pairs speak of, and crowds."""
    columns = ["clip_key", "clip_id", "fingerprint", "video_id", "start_s", "end_s"]
    foreign = pc.not_equal(pairs["archive_b"], "")
    keys = pa.concat_arrays(
        [
            *pairs["a"].chunks,
            *pairs.filter(pc.invert(foreign))["b"].chunks,
            *crowds["clip_key"].chunks,
            pa.array([], pa.int64()),
        ]
    )
    own = tables.rows_by_key(location, "clips", pc.unique(keys).to_pylist(), columns)
    if not reference.name:
        return groups.Clips(table=own, own=own.num_rows)
    others = pc.unique(pairs.filter(foreign)["b"]).to_pylist()
    theirs = tables.rows_by_key(reference.location, "clips", others, columns)
    return groups.Clips(table=pa.concat_tables([own, theirs]), own=own.num_rows)


def _videos(location: str, clips: groups.Clips) -> dict[str, dict[str, Any]]:
    """Properties of the videos of this archive's clips, which keepers are chosen by."""
    names = pc.unique(clips.table.slice(0, clips.own)["video_id"]).to_pylist()
    columns = ["video_id", "duration_s", "width", "height", "bit_rate", "modified_at"]
    rows = tables.rows_by_key(location, "videos", names, columns, key="video_id").to_pylist()
    return {row["video_id"]: row for row in rows}


def _kept_videos(clips: groups.Clips, kept: Kept, archive_b: str) -> dict[tuple[int, str], str]:
    """(clip key, archive) of the clips that stand for others -> their video."""
    rows = np.unique(kept.by_N[kept.by_N >= 0])
    keys, videos = (clips.table[name].take(pa.array(rows)).to_pylist() for name in ("clip_key", "video_id"))
    archives = ["" if row < clips.own else archive_b for row in rows.tolist()]
    return dict(zip(zip(keys, archives, strict=True), videos, strict=True))


@dataclass(frozen=True, slots=True)
class _Alike:
    """Whether the vectors of clips reach the threshold."""

    location: str
    table: str
    threshold: float

    def __call__(self, a: groups.Numbers, b: groups.Numbers) -> NDArray[np.bool_]:
        keys = np.unique(np.concatenate([a, b]))
        rows = tables.rows_by_key(self.location, self.table, keys.tolist(), ["clip_key", "vector"])
        vectors = np.stack(rows["vector"].to_pylist()).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        place = {key: row for row, key in enumerate(rows["clip_key"].to_pylist())}
        of_a, of_b = ([place[key] for key in side.tolist()] for side in (a, b))
        reached: NDArray[np.bool_] = (vectors[of_a] * vectors[of_b]).sum(axis=1) >= self.threshold
        return reached


def _replace(location: str, table: str, rows: pa.Table, columns: pa.Schema) -> None:
    """These rows in place of all that the table has, in one version."""
    committer = commit.Committer(location, table, columns)
    committer.commit(commit.write_fragments(location, table, rows, columns), delete_where="TRUE")


def pairs_of(config: Config, report: Report) -> Iterator[dict[str, Any]]:
    """The pairs that count in a run, most alike first."""
    location, details = config.require_archive(), report.details
    stored = Pairs(location, details["model_key"], archive_b=details["against"]).load()
    rules = Request().rules(config)
    return summary.pair_rows(
        groups.counting(stored, decisions.load(location), rules).sort_by([("similarity", "descending")])
    )

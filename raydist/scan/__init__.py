"""scan: files -> videos and clips.

Reads   folders, files, globs and addresses (`s3://`, `gs://`, `http(s)://`); the archive's `roots` and
        `videos` to leave unchanged files unopened
Writes  `roots`, `videos`, `clips`, `failures`; takes out rows that derive from changed or vanished files
Again   incremental, and safe after any stop or crash: what was not committed is looked at again, halves are repaired
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raydist import address, runtime
from raydist.clips import naming
from raydist.clips.naming import NamingTemplate
from raydist.config import Config
from raydist.errors import StoreError, UsageError
from raydist.progress import Bar, bar, talk
from raydist.records import Remote, Report
from raydist.scan import far, resplit, told
from raydist.scan import metadata as user_columns
from raydist.scan.known import KnownFiles
from raydist.scan.lost import lost_copies
from raydist.scan.probe import Prober, units
from raydist.scan.rows import Cutting
from raydist.scan.select import Selection, check, select
from raydist.scan.walk import Candidate, Walked, walk
from raydist.scan.wave import Waves, vanish
from raydist.sections import Scan
from raydist.store import compact, lease, read, roots, settings, splits, stale
from raydist.store.forgotten import Forgotten
from raydist.store.manifest import Manifest
from raydist.store.runs import new_run, save

WAVE_FILES = 20_000
WAVE_S = 60.0
_KNOWN_COLUMNS = ["video_id", "root", "path", "bytes", "modified_ns", "state", "reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one scan is asked to do."""

    inputs: Sequence[str] = ()
    as_name: str | None = None
    """Name for a new root."""
    metadata: str | None = None
    """CSV, JSONL or Parquet file with a `path` column: the user's own columns."""
    splits: str | None = None
    """CSV, TSV, JSONL or JSON file with a path and a split a line: the user's own split, by video."""
    moved: tuple[str, str] | None = None
    """A folder that was moved: where it was, where it is."""
    resplit: bool = False
    """Deal the splits again."""
    retry_failed: bool = False
    """Look again at files that failed."""


def run(config: Config, request: Request) -> Report:
    """Scan what was asked for and return what was found.

    Raises:
        UsageError: nothing to scan, or roots that do not fit together.
        ArchiveError: an archive of another format or of other settings.
        StoreError: another scan is at work on the archive.
    """
    started = time.monotonic()
    location = config.require_archive()
    if not (request.inputs or request.moved or request.metadata or request.splits or request.resplit):
        raise UsageError("nothing to scan: expected folders, files or globs of videos, such as `raydist scan ~/Videos`")
    remote = config.source.remote()
    check(request.inputs, remote)  # what was typed is wrong before an archive is made
    columns = user_columns.read_columns(request.metadata) if request.metadata else None
    own_splits = told.read_splits(request.splits) if request.splits else None
    config = _opened(config, location, create=bool(request.inputs))
    name = new_run("scan")
    with lease.Lease(location, "scan", exclusive=True, run=name) as held, stale.Unfinished(location):
        Manifest.sweep(location, held.others)
        notes = _moved(location, request.moved, remote) if request.moved else []
        selections = select(request.inputs, roots.places(location, config.roots), request.as_name, remote)
        _refuse_archive(selections, location)
        roots.remember(location, {selection.root.name: selection.root.location for selection in selections})
        counts, failures, more = _scan(config, request, selections, held) if selections else ({}, {}, [])
        notes += more
        if columns is not None:
            notes += user_columns.add(location, columns, roots.places(location, config.roots))
        if own_splits is not None:
            notes += told.tell(location, own_splits, roots.places(location, config.roots))
        splits.finish(location)
        if request.resplit:
            notes += resplit.deal_again(location)
        with compact.tidying(notes):
            for table in ("clips", "videos"):
                compact.compact_if_alone(location, table, held)
    report = Report(
        stage="scan",
        run=name,
        seconds=time.monotonic() - started,
        counts=counts,
        failures=failures,
        notes=tuple(notes),
        details={"attempted": counts.get("files", 0), "failed": counts.get("failed", 0)},
    )
    save(report, location)
    return report


def _moved(location: str, moved: tuple[str, str], remote: Remote) -> list[str]:
    if address.is_address(moved[1]):
        far.require_folder(moved[1], remote)
    return list(roots.move(location, *moved))


def archive_settings(section: Scan) -> dict[str, Any]:
    """The settings that belong to the archive: with others, its clips would mean something else."""
    return {
        "clip_seconds": section.clip_seconds,
        "min_clip_seconds": section.min_clip_seconds,
        "naming": section.naming,
        "index_base": section.index_base,
    }


def _opened(config: Config, location: str, create: bool) -> Config:
    """The configuration with the settings that the archive has; those that were chosen for this run must agree."""
    wanted = archive_settings(config.scan)
    if create and not settings.exists(location):
        there = settings.create_or_open(location, wanted)["settings"]
    else:
        settings.open_existing(location)  # it may say that there is none
        chosen = {name: value for name, value in wanted.items() if name in config.scan.model_fields_set}
        there = settings.create_or_open(location, chosen)["settings"]
    section = config.scan.model_copy(update={name: there[name] for name in wanted if name in there})
    return config.model_copy(update={"scan": section})


def _scan(
    config: Config, request: Request, selections: list[Selection], held: lease.Lease
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    location = config.require_archive()
    folder_of = _folder_of(selections)
    cutting = _cutting(config.scan)
    lost = lost_copies(location, cutting)
    known = KnownFiles(
        read.scan_batches(location, "videos", _KNOWN_COLUMNS),
        folder_of,
        lambda row: row["video_id"] in lost or (request.retry_failed and row["state"] == "failed"),
    )
    seen, walked = _Seen(), Walked()
    waves = Waves(location, cutting, known, seen.collided, held.check)
    manifest = Manifest.of_run(location, held.holder.run)
    try:
        with bar("looking for files") as progress:
            found = _found(selections, walked, os.path.realpath(location), config.source.remote())
            manifest.write(units(_to_open(found, known, seen, progress, waves.forgotten)))
        _refuse_emptied(selections, known, seen)
        if manifest.rows:
            _probe(config, manifest, waves, seen.opened, roots.places(location, config.roots))
    finally:
        manifest.remove()
    held.check()  # one that stood still for a minute here may have been passed by another scan
    gone = vanish(location, known, lambda root, path: -1 if _is_closed(walked, root, path) else folder_of(root, path))
    if waves.changed or gone:
        stale.delete_stale(location)
    notes = _notes(walked, waves, gone, config.scan)
    if seen.states["failed"]:
        notes.append(f"{seen.states['failed']:,} files failed in an earlier scan; --retry-failed looks at them again")
    forgotten = seen.forgotten + waves.counts["forgotten"]
    if forgotten:
        notes.append(f"skipped: {forgotten:,} that `raydist forget` took out; what is forgotten stays out")
    if lost_copies(location, cutting):
        notes.append("a clip of which another file held a copy is gone: scan once more, and the copy takes its place")
    if not seen.opened and not seen.states.total() and not forgotten:
        places = ", ".join(repr(selection.root.location) for selection in selections)
        notes.append(f"no file was found in {places}: is it the right folder? Hidden files and sidecars do not count")
    return _counts(waves, seen, walked, len(gone)), dict(waves.failures), notes


def _counts(waves: Waves, seen: _Seen, walked: Walked, gone: int) -> dict[str, int]:
    """What was counted, in the order in which it reads well; files = ok + alias + failed + unchanged."""
    states = {state: waves.counts[state] for state in ("ok", "alias", "failed")}
    unchanged = seen.states.total() - seen.states["skipped"]
    forgotten = seen.forgotten + waves.counts["forgotten"]
    skipped = walked.skipped.total() + waves.counts["skipped"] + seen.states["skipped"] + forgotten
    counts = {"files": sum(states.values()) + unchanged, **states, "unchanged": unchanged}
    counts |= {"clips": waves.counts["clips"], "skipped": skipped, "vanished": gone}
    return {name: count for name, count in counts.items() if count or name in ("files", "clips")}


class _Seen:
    """What the walk met."""

    def __init__(self) -> None:
        self.opened = 0
        self.forgotten = 0
        """Files of a name that is forgotten; those of forgotten bytes show when they are opened."""
        self.states: Counter[str] = Counter()
        """State -> files that the archive holds unchanged."""
        self.collided: set[str] = set()
        """Video ids that two files would have."""
        self.found: Counter[int] = Counter()
        """Number of the selection -> files."""


def _found(selections: list[Selection], walked: Walked, avoid: str, remote: Remote) -> Iterator[tuple[int, Candidate]]:
    """The files of all selections, each with the number of its selection."""
    for number, selection in enumerate(selections):
        for file in walk(selection, walked, avoid, remote):
            yield number, file


def _to_open(
    found: Iterable[tuple[int, Candidate]], known: KnownFiles, seen: _Seen, progress: Bar, forgotten: Forgotten
) -> Iterator[Candidate]:
    """Files that the archive does not hold unchanged, and need not leave alone."""
    for number, candidate in found:
        progress.advance()
        seen.found[number] += 1
        known.see(candidate.video_id)
        if candidate.reason == "id_collision":
            seen.collided.add(candidate.video_id)
        state = known.settled(candidate.video_id, candidate.bytes, candidate.modified_ns)
        if forgotten.has_video(candidate.video_id):
            seen.forgotten += 1
        elif state and candidate.reason != "id_collision":
            seen.states[state] += 1
        else:
            seen.opened += 1
            yield candidate


def _folder_of(selections: list[Selection]) -> Callable[[str, str], int]:
    """(root, encoded path) -> the number of the selection that is a whole folder and holds it, or -1."""
    folders: dict[str, list[tuple[str, int]]] = {}
    for number, selection in enumerate(selections):
        if selection.files is None:
            folders.setdefault(selection.root.name, []).append((naming.encode_path(selection.below), number))

    def folder_of(root: str, path: str) -> int:
        for below, number in folders.get(root, ()):
            if not below or path.startswith(below + "/"):
                return number
        return -1

    return folder_of


def _is_closed(walked: Walked, root: str, path: str) -> bool:
    """Whether the file lies in a folder that could not be listed: it may well be there."""
    return any(root == name and (not below or path.startswith(below + "/")) for name, below in walked.closed)


def _refuse_emptied(selections: list[Selection], known: KnownFiles, seen: _Seen) -> None:
    """A folder of which nothing is left is more likely an unmounted disk than a wish to lose its vectors."""
    for number, selection in enumerate(selections):
        if known.emptied(number) and not seen.found[number]:
            raise UsageError(
                f"{_place(selection)!r} is empty, and the archive knows files in it: is its disk mounted? "
                "`raydist scan --moved OLD NEW` tells where a folder is now; nothing was changed"
            )


def _place(selection: Selection) -> str:
    """The folder of a selection on this machine, or its address."""
    if address.is_address(selection.root.location):
        return address.join(selection.root.location, selection.below)
    return os.path.join(selection.root.location, os.fsdecode(selection.below)).rstrip("/") or "/"


def _refuse_archive(selections: list[Selection], location: str) -> None:
    archive = os.path.realpath(location)
    for selection in selections:
        if selection.files is None and _place(selection) == archive:
            raise UsageError(
                f"{archive!r} is the archive itself: expected a folder of videos. The archive may lie inside that "
                "folder, but needs a folder of its own: `--archive FOLDER/archive`"
            )


def _probe(config: Config, manifest: Manifest, waves: Waves, total: int, places: Mapping[str, str]) -> None:
    """Probe the files of the manifest and commit their rows wave by wave."""
    # For the few files of one unit Ray would take longer to start than they take.
    probed = _probed_here if manifest.rows == 1 else _probed_on_ray
    with bar("scanning", total) as progress:
        rows: list[dict[str, Any]] = []
        since = time.monotonic()
        try:
            for table in probed(config, manifest, places):
                rows.extend(table.to_pylist())
                progress.advance(table.num_rows)
                if (len(rows) >= WAVE_FILES or time.monotonic() - since > WAVE_S) and waves.ready(rows):
                    wave, rows = rows, []
                    waves.commit(wave)
                    since = time.monotonic()
        except KeyboardInterrupt:
            if rows and waves.ready(rows):
                with suppress(StoreError):  # what cannot be kept is looked at again
                    waves.commit(rows)
            talk.print(f"stopped; {waves.files:,} files of this scan are kept, `raydist scan` goes on from there")
            raise
        if rows:
            waves.commit(rows, last=True)


def _probed_here(config: Config, manifest: Manifest, places: Mapping[str, str]) -> Iterator[pa.Table]:
    prober = Prober(places, config.limits())
    try:
        yield from (prober(unit) for unit in manifest.units())
    finally:
        prober.close()


def _probed_on_ray(config: Config, manifest: Manifest, places: Mapping[str, str]) -> Iterator[pa.Table]:
    """Run the graph manifest -> probes."""
    with runtime.session(config.ray) as resources:
        plan = runtime.plan(
            resources,
            workers=config.scan.probes,
            units=manifest.rows,
            worker_cpus=config.decode.cpus,
            memory_mb=config.decode.memory_mb,
        )
        runtime.announce(plan, resources, what="probes")
        probed = manifest.dataset().map_batches(
            # 1:1, CPU. An actor with one child process: a file that kills its reader costs one file.
            Prober,
            fn_constructor_args=(dict(places), config.limits()),
            batch_size=None,
            batch_format="pyarrow",
            compute=plan.worker_pool(),
            **plan.worker_args,
        )
        yield from runtime.blocks(probed, resources)


def _cutting(section: Scan) -> Cutting:
    return Cutting(
        clip_ms=round(section.clip_seconds * 1000),
        shortest_ms=round(section.min_clip_seconds * 1000),
        template=NamingTemplate(template=section.naming, index_base=section.index_base) if section.naming else None,
    )


def _notes(walked: Walked, waves: Waves, gone: list[str], section: Scan) -> list[str]:
    notes = []
    if walked.skipped:
        notes.append("skipped: " + ", ".join(f"{count:,} {why}" for why, count in walked.skipped.most_common()))
    if waves.counts["skipped"]:
        notes.append(f"skipped: {waves.counts['skipped']:,} pictures")
    if walked.closed:
        root, below = walked.closed[0]
        notes.append(f"{len(walked.closed):,} folders could not be listed, such as {root}/{below}; their rows stay")
    if gone:
        notes.append(f"vanished: {', '.join(gone[:3])}{' …' if len(gone) > 3 else ''}; their rows were taken out")
    if waves.in_parts and waves.counts["clips"]:
        notes.append(
            f"fewer than {naming.FEW_VIDEOS} source videos: long ones were split in parts with a gap clip between, "
            "so evaluation on this archive says little about unseen videos"
        )
    if walked.hints and not section.naming:
        folder, template = next(iter(walked.hints.items()))
        notes.append(
            f"{folder!r} looks like pre-cut clips of longer videos; if so, start the archive with "
            f"`--set scan.naming='{template}'` to keep clips of one video in one split"
        )
    if waves.counts["clips"]:
        notes.append("next: `raydist embed`")
    return notes

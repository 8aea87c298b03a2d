"""scan: files -> videos and clips.

Reads   folders, files and globs; the archive's `roots` and `videos` to leave unchanged files unopened
Writes  `roots`, `videos`, `clips`, `failures`; takes out rows that derive from changed or vanished files
Again   incremental, and safe after any crash: what was not committed is looked at again, halves are repaired
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydist import runtime
from raydist.clips import naming
from raydist.clips.naming import NamingTemplate
from raydist.config import Config, Scan
from raydist.errors import UsageError
from raydist.progress import bar
from raydist.records import Report
from raydist.report import new_run, run_folder, save
from raydist.scan import metadata as user_columns
from raydist.scan import resplit
from raydist.scan.known import KnownFiles
from raydist.scan.probe import Prober, units
from raydist.scan.rows import Cutting, Dealer
from raydist.scan.walk import Candidate, Selection, Walked, select, walk
from raydist.scan.wave import Waves, vanish
from raydist.store import compact, lease, read, roots, settings, stale

WAVE_FILES = 20_000
WAVE_S = 60.0
_KNOWN_COLUMNS = ["video_id", "bytes", "modified_ns", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one scan is asked to do."""

    inputs: Sequence[str] = ()
    as_name: str | None = None
    """Name for a new root."""
    metadata: str | None = None
    """CSV, JSONL or Parquet file with a `path` column: the user's own columns."""
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
    if not (request.inputs or request.moved or request.metadata or request.resplit):
        raise UsageError("nothing to scan: expected folders, files or globs of videos, such as `raydist scan ~/Videos`")
    select(request.inputs, {}, request.as_name or "new")  # what was typed is wrong before an archive is made
    settings.create_or_open(location, archive_settings(config.scan))
    name = new_run("scan")
    with lease.Lease(location, "scan", exclusive=True) as held, stale.Unfinished(location):
        notes = list(roots.move(location, *request.moved)) if request.moved else []
        selections = select(request.inputs, roots.places(location, config.roots), request.as_name)
        roots.remember(location, {selection.root.name: selection.root.location for selection in selections})
        counts, failures, more = _scan(config, request, selections, name) if selections else ({}, {}, [])
        notes += more
        if request.metadata:
            notes += user_columns.add(location, request.metadata, roots.places(location, config.roots))
        if request.resplit:
            notes += resplit.deal_again(location)
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


def archive_settings(section: Scan) -> dict[str, Any]:
    """The settings that belong to the archive: with others, its clips would mean something else."""
    return {
        "clip_seconds": section.clip_seconds,
        "min_clip_seconds": section.min_clip_seconds,
        "naming": section.naming,
        "index_base": section.index_base,
    }


def _scan(
    config: Config, request: Request, selections: list[Selection], run_name: str
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    location = config.require_archive()
    known = KnownFiles(read.scan_batches(location, "videos", _KNOWN_COLUMNS), request.retry_failed)
    first = not read.count_rows(location, "clips")
    walked, collided, sources = Walked(), set[str](), _Sources(_cutting(config.scan)) if first else None
    candidates = _candidates(selections, walked, known, collided, sources, location)
    manifest = runtime.Manifest(run_folder(location, run_name) / "manifest")
    try:
        opened = _Counted(candidates)
        with bar("looking for files"):
            manifest.write(units(opened))
        _refuse_emptied(selections, walked, known)
        dealer = Dealer(sources.few() if sources else None)
        waves = Waves(location, _cutting(config.scan), dealer, known, collided)
        if manifest.rows:
            _probe(config, manifest, waves, opened.count, roots.places(location, config.roots))
    finally:
        manifest.remove()
    below = [(s.root.name, naming.encode_path(s.below)) for s in selections if s.files is None]
    gone = vanish(location, known, below)
    if waves.changed or gone:
        stale.delete_stale(location)
    states = {state: waves.counts[state] for state in ("ok", "alias", "failed") if waves.counts[state]}
    counts = {
        "files": opened.count + opened.settled,
        **states,
        "unchanged": opened.settled,
        "clips": waves.counts["clips"],
    }
    skipped = sum(walked.skipped.values()) + waves.counts["skipped"]
    counts |= {"skipped": skipped, "vanished": len(gone)}
    notes = _notes(walked, waves, gone, dealer, config.scan)
    return (
        {name: count for name, count in counts.items() if count or name in ("files", "clips")},
        dict(waves.failures),
        notes,
    )


class _Counted:
    """Candidates that must be opened, counted as they pass; the others are only counted."""

    def __init__(self, candidates: Iterator[Candidate | None]) -> None:
        self._candidates = candidates
        self.count = 0
        self.settled = 0

    def __iter__(self) -> Iterator[Candidate]:
        for candidate in self._candidates:
            if candidate is None:
                self.settled += 1
            else:
                self.count += 1
                yield candidate


class _Sources:
    """Source videos of a first scan and the places of their files, as long as they are few."""

    def __init__(self, cutting: Cutting) -> None:
        self._cutting = cutting
        self._places: dict[str, list[int]] = {}

    def add(self, candidate: Candidate) -> None:
        if len(self._places) >= naming.FEW_VIDEOS or candidate.reason:
            return
        found = self._cutting.template.match(candidate.path) if self._cutting.template else None
        video, index = found or (naming.source_id(candidate.path), 0)
        self._places.setdefault(naming.video_id(candidate.root, video), []).append(index)

    def few(self) -> Mapping[str, Sequence[int]] | None:
        """Source id -> sorted places, or None where there are enough videos to deal them whole."""
        if len(self._places) >= naming.FEW_VIDEOS:
            return None
        return {source: sorted(set(places)) for source, places in self._places.items()}


def _candidates(
    selections: list[Selection],
    walked: Walked,
    known: KnownFiles,
    collided: set[str],
    sources: _Sources | None,
    location: str,
) -> Iterator[Candidate | None]:
    """Files to open; None for each that the archive holds unchanged."""
    for candidate in itertools.chain.from_iterable(walk(selection, walked, location) for selection in selections):
        known.see(candidate.video_id)
        if candidate.reason == "id_collision":
            collided.add(candidate.video_id)
        if sources:
            sources.add(candidate)
        unchanged = known.unchanged(candidate.video_id, candidate.bytes, candidate.modified_ns)
        yield None if unchanged and not candidate.reason else candidate


def _refuse_emptied(selections: list[Selection], walked: Walked, known: KnownFiles) -> None:
    """A folder of which nothing is left is more likely an unmounted disk than a wish to lose its vectors."""
    if len(known) and not known.any_seen() and all(selection.files is None for selection in selections):
        places = ", ".join(repr(selection.root.location) for selection in selections)
        raise UsageError(
            f"no file that the archive knows is left in {places}: is the disk mounted? "
            "`raydist scan --moved OLD NEW` tells where a folder is now; nothing was changed"
        )


def _probe(config: Config, manifest: runtime.Manifest, waves: Waves, total: int, places: Mapping[str, str]) -> None:
    """Run the graph manifest -> probes, and commit its rows wave by wave."""
    with runtime.session(config.ray) as resources, bar("scanning", total) as progress:
        from ray.data import ActorPoolStrategy  # Ray is imported once its environment is set

        plan = runtime.plan(resources, workers=min(config.scan.probes or 10_000, int(resources.cpus), manifest.rows))
        probed = manifest.dataset().map_batches(
            # 1:1, CPU. An actor with one child process: a file that kills its reader costs one file.
            Prober,
            fn_constructor_args=(dict(places), config.decode.limits()),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=plan.workers),
            num_cpus=plan.worker_cpus,
        )
        rows: list[dict[str, Any]] = []
        since = time.monotonic()
        for block in runtime.blocks(probed):
            rows.extend(block.to_pylist())
            progress.advance(block.num_rows)
            if len(rows) >= WAVE_FILES or time.monotonic() - since > WAVE_S:
                waves.commit(rows)
                rows, since = [], time.monotonic()
        if rows:
            waves.commit(rows)


def _cutting(section: Scan) -> Cutting:
    return Cutting(
        clip_ms=round(section.clip_seconds * 1000),
        shortest_ms=round(section.min_clip_seconds * 1000),
        template=NamingTemplate(template=section.naming, index_base=section.index_base) if section.naming else None,
    )


def _notes(walked: Walked, waves: Waves, gone: list[str], dealer: Dealer, section: Scan) -> list[str]:
    notes = []
    if walked.skipped:
        notes.append("skipped: " + ", ".join(f"{count:,} {why}" for why, count in walked.skipped.most_common()))
    if waves.counts["skipped"]:
        notes.append(f"skipped: {waves.counts['skipped']:,} pictures")
    if gone:
        notes.append(f"vanished: {', '.join(gone[:3])}{' …' if len(gone) > 3 else ''}; their rows were taken out")
    if dealer.in_parts and waves.counts["clips"]:
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

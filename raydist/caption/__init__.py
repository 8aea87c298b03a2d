"""caption: clips -> captions.

Reads   a list of captions (`--from`): CSV, TSV, JSONL or JSON; `clips` and `videos` to find what its lines are about
Writes  `captions`: clip_key, fingerprint, number, caption, origin `sidecar`
Again   the same list again changes nothing; a changed one replaces the sidecar captions of the clips that it names
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from raydist import tabular
from raydist.caption.listed import bring
from raydist.caption.write import keep, stale_captions
from raydist.config import Config
from raydist.errors import ArchiveError, UsageError
from raydist.records import Report
from raydist.report import new_run, save
from raydist.store import lease, read, settings, stale


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one run is asked to do."""

    file: str | None = None
    """List of captions."""
    keep: bool = False
    """Captions of files that changed since are still right."""


def run(config: Config, request: Request) -> Report:
    """Give clips the captions of a list, or confirm those that they had before their file changed.

    Raises:
        UsageError: nothing to do, a file that cannot be read or lacks columns, or no line of it names a clip.
        ArchiveError: no archive, or nothing was scanned into it.
        StoreError: a scan or another import is at work on the archive.
    """
    started = time.monotonic()
    location = config.require_archive()
    if not (request.file or request.keep):
        raise UsageError("nothing to caption with: expected --from FILE, or --keep for captions of changed files")
    listing = tabular.read(request.file, "--from") if request.file else None
    settings.open_existing(location)
    if not read.count_rows(location, "clips"):
        raise ArchiveError(f"the archive {location!r} has no clips: run `raydist scan FOLDER` first")
    stale.repair_unless_scanning(location)
    counts: dict[str, int] = {}
    notes: list[str] = []
    with lease.Lease(location, "caption", exclusive=True):
        if listing is not None:
            counts, notes = bring(config, location, listing)
        if request.keep:
            counts["confirmed"], removed = keep(location)
            notes += [f"{removed:,} captions of earlier contents were outdated by newer ones and went"] * bool(removed)
        notes += _left(location)
    report = Report(
        stage="caption",
        run=new_run("caption"),
        seconds=round(time.monotonic() - started, 3),
        counts=counts,
        notes=tuple(notes),
    )
    save(report, location)
    return report


def _left(location: str) -> list[str]:
    """Notes on clips that no caption says anything of, and on captions of earlier contents."""
    present: set[tuple[int, str]] = set()
    names = ["clip_key", "fingerprint"]
    for batch in read.scan_batches(location, "captions", names):
        present.update(zip(*(batch[name].to_pylist() for name in names), strict=True))
    clips, lacking = 0, 0
    shown: list[str] = []
    for batch in read.scan_batches(location, "clips", [*names, "clip_id"]):
        for key, fingerprint, clip_id in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if (key, fingerprint) not in present:
                lacking += 1
                shown = sorted([*shown, clip_id])[:3]
        clips += batch.num_rows
    notes = []
    if lacking:
        more = " …" if lacking > len(shown) else ""
        notes.append(f"without a caption: {lacking:,} of {clips:,} clips, such as {', '.join(shown)}{more}")
    outdated = len(stale_captions(location))
    if outdated:
        notes.append(
            f"{outdated:,} clips have captions of an earlier content of their file, which are not used: "
            "`raydist caption --keep` confirms them"
        )
    return notes

"""caption: clips -> captions, from lists that people wrote, or by a model that looks at the clips.

Reads   a list of captions (`--from`), or the clips themselves (`--provider`); `clips`, `videos`
Writes  `captions`: clip_key, fingerprint, number, caption, origin (`sidecar`, or the model's name), prompt_hash, cut
Again   the same list again changes nothing; what a model has answered to a prompt is not asked again
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from raydist import tabular
from raydist.caption import listed
from raydist.caption.write import keep, stale_captions
from raydist.config import Config
from raydist.errors import ArchiveError, UsageError
from raydist.records import Report
from raydist.store import lease, read, settings, stale
from raydist.store.runs import new_run, save
from raydist.store.tables import ensure_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one run is asked to do."""

    file: str | None = None
    """List of captions."""
    keep: bool = False
    """Captions of files that changed since are still right."""
    limit: int = 0
    """Clips that a provider is asked about, at most; 0: all that have no caption."""
    dry_run: bool = False
    """Say what a provider would be asked and what it would cost; nothing is sent."""
    retry_failed: bool = False
    """Ask again about clips that failed."""
    review: bool = False
    """Look through the captions that there are."""
    sheet: str | None = None
    """File of the page that `review` writes; None: in the run's folder."""


def run(config: Config, request: Request) -> Report:
    """Give clips captions, of a list or of a model; confirm those from before their file changed; or look them through.

    Raises:
        UsageError: nothing to do or several things at once; a file that cannot be read or lacks columns, or no line of
            it names a clip; a provider that lacks its extra, its key or a model.
        ArchiveError: no archive, or nothing was scanned into it.
        ProviderError: the provider refuses all requests or does not answer any more; what was answered is kept.
        StoreError: a scan or another import is at work on the archive.
    """
    location = config.require_archive()
    _refuse_contradictions(config, request)
    listing = listed.read(request.file, "--from", config.caption) if request.file else None
    settings.open_existing(location)
    if not read.count_rows(location, "clips"):
        raise ArchiveError(f"the archive {location!r} has no clips: run `raydist scan FOLDER` first")
    if read.open_table(location, "captions") is not None:
        ensure_columns(location, "captions", {"cut": pa.bool_()})  # archives of before there was the column
    # Here and not above, both: they load torch, which a list of captions needs not wait for.
    if request.review:
        from raydist.caption import review

        return review.run(config, request.sheet)
    if not (request.file or request.keep):
        from raydist.caption import driver

        wanted = driver.Wanted(limit=request.limit, dry_run=request.dry_run, retry_failed=request.retry_failed)
        return driver.run(config, wanted)
    return _bring(config, location, request, listing)


def _refuse_contradictions(config: Config, request: Request) -> None:
    """Exactly one of a list (or confirming), a provider and a review; a provider in a file of settings is none."""
    if not (request.file or request.keep or request.review or config.caption.provider):
        raise UsageError(
            "nothing to caption with: expected --from FILE, --provider gemini, openai or local, --review, or --keep "
            "for captions of changed files"
        )
    if request.review and (request.file or request.keep):
        raise UsageError(
            "--review looks through the captions that there are: give --from or --keep in a call of their own"
        )
    if request.sheet and not request.review:
        raise UsageError(f"--sheet {request.sheet} is the page that --review writes: give --review, or leave it out")
    for name in ("limit", "dry_run", "retry_failed"):
        if getattr(request, name) and (request.file or request.keep or request.review):
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is for captions by a provider: leave it out, or --from, --keep and --review")
    if request.limit < 0:
        raise UsageError(f"--limit {request.limit}: expected a number of clips, 1 or more")


def _bring(config: Config, location: str, request: Request, listing: tabular.Listing | None) -> Report:
    started = time.monotonic()
    stale.repair_unless_scanning(location)
    counts: dict[str, int] = {}
    notes: list[str] = []
    with lease.Lease(location, "caption", exclusive=True):
        if listing is not None:
            counts, notes = listed.bring(config, location, listing)
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

"""report: what was done since when, what failed and why, what it cost, what to do next.

Reads     `runs/*/report.json` and `runs/*/run.json`, `failures`, the books, who is at work
Writes    nothing
Promises  a run that ended without a report is told too: stopped, failed, or dead with its process, and how far it was
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raydist.config import Config
from raydist.report import cost, failed, runs, steps
from raydist.report.period import parse
from raydist.report.shown import render
from raydist.store import models, settings
from raydist.store.books import books

__all__ = ["Request", "render", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    since: str = "24h"
    """A length of time back from now (`30m`, `12h`, `3d`), or a day or moment (`2026-11-25`, `2026-11-25T18:00`)."""
    run: str = ""
    """Only this run."""


def run(config: Config, request: Request = Request()) -> dict[str, Any]:  # frozen
    """The report of an archive, as one JSON object.

    Raises:
        ArchiveError: there is no archive.
        UsageError: a time that is none, or a run that is not there.
    """
    location = config.require_archive()
    settings.open_existing(location)
    since, until = parse(request.since), datetime.now(UTC)
    if request.run:
        found = [runs.one(location, request.run)]
        since, until = found[0].began, found[0].ended or until
    else:
        found = runs.since(location, since)
    counted = books(location)
    names = {model.model_key: model.name for model in models.stored(location)}
    reasons = failed.since(location, since, until, stage=found[0].stage if request.run else "")
    return {
        "archive": location,
        "since": since.isoformat(timespec="seconds"),
        "until": until.isoformat(timespec="seconds"),
        "stages": runs.by_stage(found),
        "runs": [item.as_json() for item in found],
        "failures": [reason.as_json() for reason in reasons],
        "cost": cost.of(found, config.report),
        "pending": {names.get(key) or key: count.pending for key, count in counted.embeddings.items()},
        "clips": counted.clips,
        "next": steps.after(found, reasons, counted, names),
    }

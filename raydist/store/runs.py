"""Runs: the folder `runs/<run>/` of the archive, where a run keeps its report and its files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from raydist.records import Report
from raydist.rendering import as_json


def new_run(stage: str) -> str:
    """A name for a run that sorts by time: `embed-20260131T120000.123456`."""
    return f"{stage}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"


def run_folder(location: str, run: str) -> Path:
    """Folder of a run's files in the archive."""
    return Path(location) / "runs" / run


def save(report: Report, location: str) -> Path:
    """Write the report to `runs/<run>/report.json` and return where it is."""
    folder = run_folder(location, report.run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.json"
    path.write_text(json.dumps(as_json(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path

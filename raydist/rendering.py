"""Reports: how a `records.Report` is rendered for a person and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from raydist.records import REASONS, Report


def as_json(report: Report) -> dict[str, Any]:
    """The report as one JSON object; empty parts are left out, counts are on the top level too."""
    values = {key: value for key, value in asdict(report).items() if value not in ({}, "", (), [])}
    return {**values, **{key: count for key, count in report.counts.items() if key not in values}}


def render(report: Report) -> str:
    """The report in lines for a person."""
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.counts.items())
    pace = f", {report.clips_per_s:,.1f} clips/s" if report.clips_per_s else ""
    lines = [f"{report.stage}: {counts} in {report.seconds:,.1f} s{pace}"]
    if report.shares:
        shares = ", ".join(f"{step} {share:.0%}" for step, share in report.shares.items())
        bound = f"; {report.bound_by} bounds the run" if report.bound_by else ""
        lines.append(f"  busy: {shares}{bound}")
    for reason, count in sorted(report.failures.items(), key=lambda item: -item[1]):
        lines.append(f"  failed: {count:,} {reason} ({REASONS.get(reason, 'see the failures table')})")
    lines.extend(f"  {note}" for note in report.notes)
    return "\n".join(lines)


def length(seconds: float) -> str:
    """A length of time in the unit that suits it, such as `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def too_many_failed(report: Report, max_failed: float) -> bool:
    """Whether more than that share of what the run attempted failed."""
    failed = sum(report.failures.values())
    return failed > max_failed * max(1, int(report.details.get("attempted", failed)))

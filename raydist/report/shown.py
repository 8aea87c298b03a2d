"""The report in lines for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from raydist.rendering import length

_SHOWN = 20
"""Runs that are listed one by one; the JSON has them all."""


def render(report: dict[str, Any]) -> str:
    """All of it: done, failed, cost, pending, next."""
    lines = [f"{report['archive']}, {_when(report['since'])} to {_when(report['until'])}"]
    for stage, sums in report["stages"].items():
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sums["counts"].items())
        pace = f", {sums['clips_per_s']:,.1f} clips/s" if sums["clips_per_s"] else ""
        how = ", ".join(f"{count} {how}" for how, count in sums["how"].items())
        lines.append(f"{stage:<10} {counts or 'no counts'} in {length(sums['seconds'])}{pace}  ({how})")
    if not report["stages"]:
        lines.append("done       nothing in this time; --since 7d looks further back")
    odd = [run for run in report["runs"] if run["how"] != "done"]
    lines += [f"           {_told(run)}" for run in odd[-_SHOWN:]]
    for reason in report["failures"]:
        what = f" ({reason['what']})" if reason["what"] else ""
        lines.append(f"failed     {reason['count']:,} {reason['reason']} in {reason['stage']}{what}")
        detail = f": {reason['detail']}" if reason["detail"] else ""
        lines.append(f"           such as {reason['example']}{detail}")
    lines.append(f"cost       {_cost(report['cost'])}")
    for name, count in report["pending"].items():
        lines.append(f"pending    {count:,} of {report['clips']:,} clips for {name}")
    lines += [f"{'next' if not at else '':<10} {step}" for at, step in enumerate(report["next"])]
    return "\n".join(lines)


def _told(run: dict[str, Any]) -> str:
    far = f" at {run['done']:,} of {run['total']:,} ({run['doing']})" if run.get("total") else ""
    where = f" on {run['host']}" if run.get("host") else ""
    error = f": {run['error']}" if run.get("error") else ""
    how = {"died": "died without a word", "running": "is running"}.get(run["how"], run["how"])
    return f"{run['run']}{where} {how}{far}{error}"


def _cost(cost: dict[str, Any]) -> str:
    parts = [f"{cost['core_hours']:,.2f} core hours held ({cost['busy_core_hours']:,.2f} at work)"]
    if cost["gpu_hours"]:
        parts.append(f"{cost['gpu_hours']:,.2f} GPU hours held ({cost['busy_gpu_hours']:,.2f} at work)")
    parts += [f"{amount:,.2f} {currency}".strip() for currency, amount in cost["money"].items()]
    left = f" (not noted, so less than it was: {', '.join(cost['unmeasured'])})" if cost["unmeasured"] else ""
    return ", ".join(parts) + left


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}"

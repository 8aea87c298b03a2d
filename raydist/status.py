"""status: the books of an archive, and who is at work on it, from any machine that reaches the archive.

Reads     every table, the leases
Writes    nothing: an archive that may only be read has a status too
Promises  files = ok + alias + failed; clips = rows + failed + pending, per model
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from raydist.config import Config
from raydist.rendering import length
from raydist.store import lease, models, settings
from raydist.store.books import books
from raydist.store.schema import VIDEO_STATES


def run(config: Config) -> dict[str, Any]:
    """Counts of files, clips, captions and failures, of rows, failures and pending clips per model, and who is at work.

    Raises:
        ArchiveError: if there is no archive.
    """
    location = config.require_archive()
    settings.open_existing(location)
    found = books(location)
    states = {state: found.states.get(state, 0) for state in VIDEO_STATES}
    return {
        "archive": location,
        "files": found.files,
        "ok": states["ok"],
        "alias": states["alias"],
        "failed_files": found.failed_files,
        "skipped": states["skipped"],
        "vanished": states["vanished"],
        "clips": found.clips,
        "captions": found.captions,
        "reasons": dict(found.reasons),
        "models": {model.model_key: model.name for model in models.stored(location)},
        "captioned": {
            origin: {"clips": count.rows, "failed": count.failed, "without": count.pending}
            for origin, count in found.captioned.items()
        },
        "embeddings": {
            key: {"rows": count.rows, "failed": count.failed, "pending": count.pending}
            for key, count in found.embeddings.items()
        },
        "at_work": [_at_work(holder) for holder in lease.holders(location, sweep=False)],
    }


def _at_work(holder: lease.Holder) -> dict[str, Any]:
    """One who writes, with what its last heartbeat said: up to ten seconds ago."""
    left = (holder.total - holder.done) / holder.rate if holder.rate and holder.total else None
    return {
        "verb": holder.verb,
        "run": holder.run,
        "host": holder.host,
        "pid": holder.pid,
        "since": holder.since,
        "state": holder.state,
        "doing": holder.doing,
        "done": holder.done,
        "total": holder.total,
        "rate": holder.rate,
        "waits": holder.waits,
        "left_s": None if left is None else round(max(0.0, left), 1),
    }


def render(books: dict[str, Any]) -> str:
    """The books in lines for a person, with what to do next."""
    lines = [
        f"archive    {books['archive']}",
        f"files      {books['files']:,} = {books['ok']:,} ok + {books['alias']:,} alias"
        f" + {books['failed_files']:,} failed",
        f"clips      {books['clips']:,}",
    ]
    lines += [f"{name:<10} {books[name]:,}" for name in ("skipped", "vanished") if books[name]]
    lines += [f"captions   {books['captions']:,}"] * bool(books["captions"] or books["captioned"])
    lines += [
        f"           {origin}: {count['clips']:,} clips + {count['failed']:,} failed + {count['without']:,} without"
        for origin, count in books["captioned"].items()
    ]
    lines += [f"failed     {count:,} {reason}" for reason, count in books["reasons"].items()]
    for key, count in books["embeddings"].items():
        name = books["models"].get(key) or key
        lines.append(
            f"{name:<10} {count['rows']:,} rows + {count['failed']:,} failed + {count['pending']:,} pending  ({key})"
        )
    lines += [_working(one) for one in books.get("at_work", [])]
    return "\n".join([*lines, f"next       {_next(books)}"])


def _working(one: dict[str, Any]) -> str:
    since_s = (datetime.now(UTC) - datetime.fromisoformat(one["since"])).total_seconds()
    who = f"at work    {one['verb']} on {one['host']} (process {one['pid']}) for {length(since_s)}"
    if one["state"] != "held":
        return f"{who}, waits for others to finish"
    if not one["doing"]:
        return who
    of = f" of {one['total']:,}" if one["total"] else ""
    pace = f", {one['rate']:,.1f} a second" if one["rate"] else ""
    left = f", {length(one['left_s'])} left" if one["left_s"] is not None else ""
    waits = f"; {one['waits']}" if one["waits"] else ""
    return f"{who}: {one['doing']}, {one['done']:,}{of}{pace}{left}{waits}"


def _next(books: dict[str, Any]) -> str:
    if not books["clips"]:
        return "`raydist scan FOLDER` finds videos and cuts them into clips"
    if not books["embeddings"]:
        return "`raydist embed` gives every clip a vector"
    waiting = [key for key, count in books["embeddings"].items() if count["pending"]]
    if any(one["verb"] == "embed" for one in books.get("at_work", [])):
        return "wait for the run that is at work; `raydist report` tells afterwards what it did"
    if waiting:
        name = books["models"].get(waiting[0]) or waiting[0]
        return f"`raydist embed --model {name}` goes on with {books['embeddings'][waiting[0]]['pending']:,} clips"
    return '`raydist search "words"`'

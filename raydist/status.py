"""status: the books of an archive. files = ok + alias + failed; clips = rows + failed + pending, per model."""

from __future__ import annotations

from typing import Any

from raydist.config import Config
from raydist.store import models, settings
from raydist.store.books import books
from raydist.store.schema import VIDEO_STATES


def run(config: Config) -> dict[str, Any]:
    """Counts of files, clips, captions and failures, and of rows, failures and pending clips per model.

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
    return "\n".join([*lines, f"next       {_next(books)}"])


def _next(books: dict[str, Any]) -> str:
    if not books["clips"]:
        return "`raydist scan FOLDER` finds videos and cuts them into clips"
    if not books["embeddings"]:
        return "`raydist embed` gives every clip a vector"
    waiting = [key for key, count in books["embeddings"].items() if count["pending"]]
    if waiting:
        name = books["models"].get(waiting[0]) or waiting[0]
        return f"`raydist embed --model {name}` goes on with {books['embeddings'][waiting[0]]['pending']:,} clips"
    return '`raydist search "words"`'

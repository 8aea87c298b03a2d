"""Runs: `runs/<run>/` of the archive, where a run keeps its report and its files.

Reads, writes   the folder itself of a local archive. Of one in a bucket, a working copy on this machine, below
                `$XDG_CACHE_HOME` or `~/.cache`: `fetch` brings what the bucket has, `publish` takes there what changed
Promises        a file is replaced as a whole, in the bucket and in the copy; what lies in a working copy only is no
                part of the archive
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, md5
from pathlib import Path
from typing import Any

from raydist.records import Report
from raydist.rendering import as_json
from raydist.store import buckets, credentials, objects
from raydist.store.location import folder, is_uri, prepare
from raydist.store.patience import Patience, patiently

FOLDER = "runs"
SCRATCH = "join"
"""In a run's folder: what is worth nothing without its process."""
_SEEN = ".published.json"
"""In a working copy: name -> [ETag in the bucket, size, time of change in ns] when both were last the same."""

_ALL = ("**/*",)


def new_run(stage: str) -> str:
    """A name for a run that sorts by time: `embed-20260131T120000.123456`."""
    return f"{stage}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"


def run_folder(location: str, run: str) -> Path:
    """Folder of a run's files on this machine: in the archive, or the working copy; it need not exist."""
    if not is_uri(location):
        return folder(location) / FOLDER / run
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", location.rstrip("/").rpartition("/")[2])
    prepare(location)
    # Buckets of two servers may have one name.
    mark = blake2b(f"{credentials.server_of(location)} {location}".encode(), digest_size=6).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "raydist" / "archives" / f"{name}-{mark}" / FOLDER / run


def fetch(location: str, run: str, only: Sequence[str] = _ALL) -> Path:
    """Bring what the bucket has and this machine lacks, or has older, into the working copy; nothing to do locally.

    A file that was changed here since it was last the same stays as it is, unless the bucket's changed too; one that
    was not, and is gone from the bucket, goes. Hidden files stay in the bucket.

    Args:
        only: patterns below the run's folder, such as `adapter/*`; `**` stands for any number of folders.

    Returns:
        The run's folder, see `run_folder`.
    """
    place = run_folder(location, run)
    if not is_uri(location):
        return place
    seen = _seen(place)
    wanted = _patterns(only)
    there = {name: entry for name, entry in _stored(location, run) if wanted.fullmatch(name) and not _is_hidden(name)}
    for name, entry in there.items():
        if not _is_here(place / name, entry, seen.get(name)):
            seen[name] = _downloaded(location, run, name, place / name)
            _remember(place, {name: seen[name]})
    for name, known in seen.items():
        path = place / name
        if wanted.fullmatch(name) and name not in there and path.is_file() and known[1:] == _stamp(path):
            path.unlink(missing_ok=True)
    return place


def publish(location: str, run: str, only: Sequence[str] = _ALL) -> None:
    """Take files of the working copy that are new or changed to the bucket; nothing to do locally.

    Hidden files stay here, and nothing is deleted there (see `discard`).
    """
    if not is_uri(location):
        return
    place = run_folder(location, run)
    seen = _seen(place)
    wanted = _patterns(only)
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if not wanted.fullmatch(name) or _is_hidden(name):
            continue
        try:
            if not path.is_file() or seen.get(name, ["", -1, -1])[1:] == _stamp(path):
                continue
            stamp = _stamp(path)  # before it is read: a change meanwhile is published next time
            _remember(place, {name: [buckets.replace(location, f"{FOLDER}/{run}/{name}", path), *stamp]})
        except FileNotFoundError:  # replaced or deleted meanwhile
            continue


def discard(location: str, run: str, only: Sequence[str] = _ALL) -> None:
    """Delete files of a run, in the archive and in the working copy."""
    place = run_folder(location, run)
    wanted = _patterns(only)
    if is_uri(location):
        names = [f"{FOLDER}/{run}/{name}" for name, _ in _stored(location, run) if wanted.fullmatch(name)]
        buckets.delete_all(location, names)
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif wanted.fullmatch(path.relative_to(place).as_posix()):
            path.unlink(missing_ok=True)
    if place.is_dir() and not [path for path in place.iterdir() if path.name != _SEEN]:
        shutil.rmtree(place, ignore_errors=True)


def sweep_scratch(location: str, run: str = "*") -> None:
    """Delete what processes that were killed left behind; none of those runs is at work.

    Args:
        run: a pattern of runs.
    """
    left = listed(location, f"{run}/{SCRATCH}/**/*")
    for name in sorted({name.partition("/")[0] for name in left}):
        discard(location, name, [f"{SCRATCH}/**"])


def listed(location: str, pattern: str) -> list[str]:
    """The files below `runs/` that match, such as `*/report.json`, as paths below `runs/`, sorted."""
    wanted = _patterns([pattern])
    if is_uri(location):
        found = [entry["path"].removeprefix(f"{FOLDER}/") for entry in buckets.below(location, FOLDER)]
        return sorted(name for name in found if wanted.fullmatch(name))
    top = run_folder(location, "")
    return sorted(path.relative_to(top).as_posix() for path in top.glob(pattern) if path.is_file())


def save(report: Report, location: str) -> None:
    """Write the report to `runs/<run>/report.json`, with when the run began and ended."""
    ended = datetime.now(UTC)
    times = {"began": ended - timedelta(seconds=report.seconds), "ended": ended}
    document = as_json(report) | {name: moment.isoformat(timespec="milliseconds") for name, moment in times.items()}
    data = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    # A night's work is told after a restart of the server too.
    patiently(lambda: objects.replace(location, f"{FOLDER}/{report.run}/report.json", data), Patience(tries=1))


def _stored(location: str, run: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files of a run in the bucket, by their name below its folder."""
    prefix = f"{FOLDER}/{run}"
    for entry in buckets.below(location, prefix):
        yield entry["path"].removeprefix(f"{prefix}/"), entry


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_here(path: Path, entry: dict[str, Any], seen: list[Any] | None) -> bool:
    """Whether this machine need not ask for what the bucket has."""
    if not path.is_file():
        return False
    if seen is not None:
        return bool(seen[0] == entry["e_tag"])
    # Nothing is known of how it came here. The ETag of what was sent in one piece is mostly its MD5.
    if path.stat().st_size == entry["size"]:
        with path.open("rb") as file:
            digest = md5(usedforsecurity=False)
            while piece := file.read(1 << 20):
                digest.update(piece)
        if (entry["e_tag"] or "").strip('"') == digest.hexdigest():
            return True
    return bool(path.stat().st_mtime > entry["last_modified"].timestamp())


def _downloaded(location: str, run: str, name: str, path: Path) -> list[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        tag = buckets.download(location, f"{FOLDER}/{run}/{name}", temporary)
        with temporary.open("rb") as file:  # what is noted as here must be, also after a power cut
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return [tag, *_stamp(path)]


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _seen(place: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads((place / _SEEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(place: Path, entries: dict[str, list[Any]]) -> None:
    """Note it at once: several processes of a run may publish, and what one forgets is only sent again."""
    objects.replace(str(place), _SEEN, json.dumps(_seen(place) | entries).encode())


def _patterns(patterns: Sequence[str]) -> re.Pattern[str]:
    """Paths that match one of several patterns, where `**/` stands for any number of folders."""
    return re.compile("|".join(_expression(pattern) for pattern in patterns))


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meant = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meant.get(part, re.escape(part)) for part in parts)

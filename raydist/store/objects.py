"""Small files beside the tables: created only if absent, replaced, listed, deleted.

Promises  `create` succeeds for exactly one of any number of callers and nobody ever reads half a file. This is the one
          seam for object stores: a conditional put stands for `create` there (see `buckets`).
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raydist.errors import StoreError
from raydist.store import buckets, credentials
from raydist.store.location import folder, is_uri

_PROBES = "probes"
_STRAY_S = 3600.0
_PROVEN: set[str] = set()
"""Of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a listing."""

    name: str
    modified_s: float
    """By the clock of the store, which is the only one that all writers share."""


def create(location: str, name: str, data: bytes) -> bool:
    """Write a file that must not exist; False if it does."""
    if is_uri(location):
        return buckets.create(location, name, data)
    path = _path(location, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _written(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        return _create_without_links(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def replace(location: str, name: str, data: bytes, *, soon: bool = False) -> None:
    """Write a file, whether or not it is there; `soon`: within seconds or not at all, where it is an object."""
    if is_uri(location):
        buckets.replace(location, name, data, soon=soon)
        return
    path = _path(location, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _written(path, data).replace(path)


def read(location: str, name: str, *, soon: bool = False) -> bytes | None:
    """A file's bytes, None if there is none; `soon` as for `replace`."""
    if is_uri(location):
        return buckets.read(location, name, soon=soon)
    try:
        return _path(location, name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def delete(location: str, name: str) -> None:
    """Delete a file; nothing happens if there is none."""
    if is_uri(location):
        buckets.delete(location, name)
        return
    _path(location, name).unlink(missing_ok=True)


def delete_all(location: str, names: Iterable[str]) -> None:
    """Delete files; nothing happens for those that are not there."""
    if is_uri(location):
        buckets.delete_all(location, list(names))
        return
    for name in names:
        delete(location, name)


def entries(location: str, prefix: str) -> list[Entry]:
    """The files directly below `prefix`, a folder ("" is the location); [] if there is none."""
    if is_uri(location):
        listed = [(file["path"], file["last_modified"].timestamp()) for file in buckets.direct(location, prefix)]
        return [Entry(name=name, modified_s=at) for name, at in listed if not name.rpartition("/")[2].startswith(".")]
    found = []
    above = f"{prefix}/" if prefix else ""
    try:
        with os.scandir(_path(location, prefix)) as listing:
            for entry in listing:
                if not entry.name.startswith("."):
                    found.append(Entry(name=f"{above}{entry.name}", modified_s=entry.stat().st_mtime))
    except FileNotFoundError:  # the folder, or a file that was deleted while it was listed
        return found if not _path(location, prefix).is_dir() else entries(location, prefix)
    return found


def now(location: str) -> float:
    """The time by the clock of the store, in seconds since 1970; of this machine where the store does not tell."""
    told = buckets.now(location) if is_uri(location) else None
    return time.time() if told is None else told


def require_create(location: str) -> None:
    """Make sure that `create`, and with it every commit, keeps writers apart; a folder always does.

    Raises:
        StoreError: the store writes what it was asked to create though it is there (it ignores `If-None-Match`): of two
            commits at once, one would be lost in silence.
    """
    if not is_uri(location) or _server_of(location) in _PROVEN:
        return
    name = f"{_PROBES}/{uuid.uuid4().hex}"
    buckets.create(location, name, b"first")
    probes = {entry.name: entry.modified_s for entry in entries(location, _PROBES)}
    # What a process left that was killed between two lines of this function.
    delete_all(location, [probe for probe, at in probes.items() if probes.get(name, at) - at > _STRAY_S])
    try:
        if buckets.create(location, name, b"second"):
            raise StoreError(
                f"{credentials.server_of(location)} keeps no writers apart: it wrote one key of {location!r} twice, "
                "asked to create it (If-None-Match: *). Commits would be lost in silence, so raydist does not "
                "write there: expected Amazon S3, Google Cloud Storage, or a server with conditional writes; else use "
                "a folder"
            )
    finally:
        buckets.delete(location, name)
    _PROVEN.add(_server_of(location))


def _server_of(location: str) -> str:
    return f"{credentials.server_of(location)} {location}"


def _path(location: str, name: str) -> Path:
    return folder(location) / name


def _written(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk: half a file would only take more of it
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def _create_without_links(path: Path, data: bytes) -> bool:
    """For file systems without hard links: a reader may see the file before its bytes, so they are written at once."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return True

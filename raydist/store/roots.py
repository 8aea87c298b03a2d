"""Roots: the places that were scanned, by name. Only here does an archive hold absolute paths and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import pyarrow as pa

from raydist import address
from raydist.errors import UsageError
from raydist.store import commit, read, schema, sql


def places(location: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Root name -> its folder on this machine, or its address: the archive's, unless the configuration overrides it."""
    known: dict[str, str] = {}
    for batch in read.scan_batches(location, "roots", ["name", "location"]):
        known.update(zip(batch["name"].to_pylist(), batch["location"].to_pylist(), strict=True))
    return {name: _resolved(overrides.get(name, place)) for name, place in known.items()}


def remember(location: str, roots: Mapping[str, str]) -> None:
    """Add roots (name -> folder) that the archive does not know."""
    known = places(location, {})
    new = {name: place for name, place in roots.items() if name not in known}
    if new:
        _write(location, new)


def move(location: str, old: str, new: str) -> Iterator[str]:
    """Re-root: what lay in folder `old` (or the root of that name) now lies in `new`. Yields a note a root.

    Raises:
        UsageError: no root lies there, the new folder does not exist (an address is not asked), or another root has it,
            or a part or parent.
    """
    if not address.is_address(new) and not os.path.isdir(os.path.expanduser(new)):
        raise UsageError(f"--moved {old!r} {new!r}: the new folder does not exist; expected where the videos are now")
    target = _resolved(new)
    known = places(location, {})
    source = _resolved(old)
    moved: dict[str, str] = {}
    for name, place in known.items():
        if old == name or place == source:
            moved[name] = target
        elif place.startswith(source.rstrip("/") + "/"):
            moved[name] = _joined(target, _below(place, source))
    if not moved:
        listed = ", ".join(f"{name} ({place})" for name, place in known.items()) or "none"
        raise UsageError(f"--moved {old!r}: no root of the archive lies there; its roots: {listed}")
    _refuse_overlap(moved, {name: place for name, place in known.items() if name not in moved})
    _write(location, moved)
    for name, place in moved.items():
        yield f"root {name!r} is now at {place}"


def _resolved(place: str) -> str:
    """A place in the one way to write it.

    Raises:
        UsageError: an address with a secret or a query.
    """
    if not address.is_address(place):
        return os.path.realpath(os.path.expanduser(place))
    try:
        return address.plain(place)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _below(place: str, folder: str) -> bytes:
    return address.below(place, folder) if address.is_address(place) else os.fsencode(os.path.relpath(place, folder))


def _joined(folder: str, below: bytes) -> str:
    return address.join(folder, below) if address.is_address(folder) else os.path.join(folder, os.fsdecode(below))


def _refuse_overlap(moved: Mapping[str, str], others: Mapping[str, str]) -> None:
    """A file below two roots would have two ids."""
    for name, place in moved.items():
        for other, there in others.items():
            if f"{place}/".startswith(f"{there}/") or f"{there}/".startswith(f"{place}/"):
                raise UsageError(
                    f"--moved: {name!r} would lie at {place!r}, where the root {other!r} ({there}) is: expected "
                    f"another folder. If {other!r} was moved too, tell so first with --moved; if both are one folder "
                    "now, scan it into another archive"
                )


def _write(location: str, roots: Mapping[str, str]) -> None:
    now = datetime.now(UTC)
    rows = [{"name": name, "location": place, "at": now} for name, place in roots.items()]
    table = commit.Committer(location, "roots", schema.ROOTS)
    data = pa.Table.from_pylist(rows, schema=schema.ROOTS)
    table.commit(
        commit.write_fragments(location, "roots", data, schema.ROOTS), delete_where=sql.is_in("name", list(roots))
    )

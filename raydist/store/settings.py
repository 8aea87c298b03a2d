"""`archive.json`: what makes a location an archive, and the settings that its clips' meaning hangs on.

Reads     `<location>/archive.json`
Writes    the same, once: the first of any number of creators wins, the others find its settings
Promises  an archive of an older format is upgraded, one of a newer format refused; other settings are refused, with
          the remedy
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raydist.errors import ArchiveError
from raydist.store import objects
from raydist.store.location import folder, is_uri
from raydist.store.schema import FORMAT_VERSION

FILE = "archive.json"

UPGRADES: dict[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}
"""Format version -> what turns an archive (location, its document) of it into the next version's document."""


def create_or_open(location: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The archive at `location`, made if there is none.

    Args:
        settings: of JSON types; what belongs to the archive because another value would change what its clips mean.

    Returns:
        The document: `format_version`, `created_at`, `settings`.

    Raises:
        ArchiveError: if the archive has other settings or a newer format, or the location cannot be one.
    """
    _refuse_files(location)
    wanted = json.loads(json.dumps(dict(settings)))
    if objects.read(location, FILE) is None:
        document = {
            "format_version": FORMAT_VERSION,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": wanted,
        }
        objects.require_create(location)
        try:
            objects.create(location, FILE, (json.dumps(document, indent=2) + "\n").encode())
        except OSError as error:
            raise ArchiveError(
                f"cannot make an archive at {location!r}: {error.strerror or error}; "
                "give a folder that you may write to"
            ) from error
    document = open_existing(location)
    _refuse_others(location, document["settings"], wanted)
    return document


def exists(location: str) -> bool:
    """Whether there is an archive at `location`, of whatever format."""
    _refuse_files(location)
    return objects.read(location, FILE) is not None


def open_existing(location: str) -> dict[str, Any]:
    """The document of the archive at `location`, upgraded if it is of an older format.

    Raises:
        ArchiveError: if there is none, or it cannot be read by this version; the message says what to do.
    """
    _refuse_files(location)
    data = objects.read(location, FILE)
    if data is None:
        raise ArchiveError(_missing(location))
    try:
        document = json.loads(data)
        version = int(document["format_version"])
        assert isinstance(document["settings"], dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ArchiveError(
            f"{location!r} holds a damaged {FILE} ({error!r}); restore it from a backup, or scan into a new archive"
        ) from error
    if version > FORMAT_VERSION:
        raise ArchiveError(
            f"the archive {location!r} has format {version}, this raydist reads up to {FORMAT_VERSION}; "
            "update raydist (`pip install --upgrade raydist`)"
        )
    return _upgraded(location, document, version)


def _upgraded(location: str, document: dict[str, Any], version: int) -> dict[str, Any]:
    if version == FORMAT_VERSION:
        return document
    for number in range(version, FORMAT_VERSION):
        if number not in UPGRADES:
            raise ArchiveError(
                f"the archive {location!r} has format {version}, which this raydist cannot upgrade to "
                f"{FORMAT_VERSION}; scan into a new archive"
            )
        document = {**UPGRADES[number](location, document), "format_version": number + 1}
    objects.replace(location, FILE, (json.dumps(document, indent=2) + "\n").encode())
    return document


def _refuse_others(location: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [name for name in wanted if name in there and there[name] != wanted[name]]
    if changed:
        pairs = "; ".join(f"{name} is {there[name]!r} there and {wanted[name]!r} here" for name in changed)
        raise ArchiveError(
            f"the archive {location!r} was made with other settings: {pairs}. Its clips would mean something else: "
            "use its values, or scan into another archive (`--archive OTHER`)"
        )


def _refuse_files(location: str) -> None:
    if not location:
        raise ArchiveError("the archive's location is empty; give a folder, such as `--archive ./archive`")
    if not is_uri(location):
        path = folder(location)
        if path.exists() and not path.is_dir():
            raise ArchiveError(f"{location!r} is a file, expected an archive's folder: give a folder with `--archive`")


def _missing(location: str) -> str:
    text = f"no archive at {location!r}: run `raydist scan FOLDER --archive {location}` first"
    if is_uri(location):
        return text
    path = folder(location)
    near = _archive_near(path)
    if near is not None:
        return f"no archive at {location!r}, but there is one at {str(near)!r}: give `--archive {near}`"
    if not path.exists():
        return f"{text} (that folder does not exist; is its name right?)"
    return text


def _archive_near(path: Path) -> Path | None:
    """An archive above, just below or beside a folder that is none: the usual slips."""
    above = [parent for parent in path.absolute().parents[:2] if (parent / FILE).is_file()]
    if above:
        return above[0]
    place = path if path.is_dir() else path.parent
    if not place.is_dir():
        return None
    with os.scandir(place) as listing:
        found = sorted(entry.path for entry in listing if entry.is_dir() and (Path(entry.path) / FILE).is_file())
    return Path(found[0]) if len(found) == 1 else None

"""What is submitted: a verb with its arguments, and what of this machine it needs.

The videos stay where they are, and so does everything that the cluster reads for itself. No credentials are in it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from raydist import address
from raydist.errors import RaydistError
from raydist.store import roots, settings
from raydist.version import __version__

LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path of this machine that the verb reads or writes; the cluster must have it too."""

    what: str
    """As it was given: `--adapter`, `embed.model`, ..."""
    path: str
    there: bool = True
    """Whether this machine has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job."""

    verb: str
    arguments: Sequence[str]
    """Of the verb, itself included, as the cluster gets them."""
    archive: str
    """An absolute path or an address."""
    source: Mapping[str, Any]
    """The section [source]: how videos on servers are read."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """RAYDIST_<SECTION>_<FIELD> of this machine."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name in the job's folder -> the file here: settings and lists."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Name in the job's folder -> what it holds."""
    places: Sequence[Place] = ()
    addresses: Sequence[str] = ()
    """Videos on servers that are named in the arguments."""
    archives: Sequence[str] = ()
    """Other archives on servers that are named in the arguments."""
    writes: bool = True
    """Whether the verb writes to the archive."""
    reads: bool = True
    """Whether the verb opens the archive's videos for certain."""
    installed: bool = False
    """Run the raydist that the cluster has."""
    any_version: bool = False

    def document(self) -> dict[str, Any]:
        """What the job's first step reads on the cluster."""
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("files", "texts")},
            "archive_made": made(self.archive),
            "python": list(sys.version_info[:2]),
            "least_python": list(LEAST_PYTHON),
            "ray": metadata.version("ray"),
            "raydist": __version__,
            "packaged": not self.installed,
            "requires": _requires(),
        }


def made(location: str) -> str:
    """What tells an archive from every other one, as far as this machine can read it; empty: it cannot."""
    try:
        document = settings.open_existing(location)
    except (RaydistError, OSError):
        return ""
    return json.dumps([document["created_at"], document["settings"]], sort_keys=True)


def roots_here(location: str, overridden: Collection[str]) -> list[Place]:
    """Folders of videos that the archive names and this machine has; not of roots that are overridden."""
    try:
        places = roots.places(location, {})
    except (RaydistError, OSError):
        return []  # no archive yet, or none that this machine can read: the cluster looks for itself
    return [
        Place(what=f"the videos of root {name!r}", path=place)
        for name, place in places.items()
        if name not in overridden and not address.is_address(place) and os.path.isdir(place)
    ]


def as_toml(table: Mapping[str, Any]) -> str:
    """Settings as a file of them: values, and sections of values."""
    lines = [f"{name} = {_as_toml(value)}" for name, value in table.items() if not isinstance(value, dict)]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{name} = {_as_toml(value)}" for name, value in values.items())]
    return "".join(f"{line}\n" for line in lines)


def _as_toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value).lower()  # true, inf, 1e-05: TOML's words are Python's in small letters


def _requires() -> list[str]:
    try:
        listed = metadata.requires("raydist") or []
    except metadata.PackageNotFoundError:
        return []  # run from its folder
    return [each for each in listed if "extra ==" not in each]

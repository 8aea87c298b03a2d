"""Which models an archive has vectors of: the name and place of a model stand in its table's schema."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from raydist.store import read
from raydist.store.location import is_uri, join
from raydist.store.runs import FOLDER, fetch, run_folder
from raydist.store.schema import embeddings_table
from raydist.store.tables import open_table

_NAME, _PLACE, _ADAPTER = b"raydist:model", b"raydist:model_location", b"raydist:model_adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model that an archive has a table of."""

    model_key: str
    name: str
    location: str
    """Folder of its weights where the table was made."""
    adapter: str = ""
    """Absolute folder of its adapter, which `brought` fills where the archive is in a bucket; empty: none."""


def marked(columns: pa.Schema, name: str, location: str, *, adapter: str = "", archive: str = "") -> pa.Schema:
    """An embeddings schema that says which model fills it.

    Args:
        columns: of the table.
        name: the model's.
        location: the folder of its weights.
        adapter: the folder of its adapter; below `archive` it is found again wherever the archive lies.
        archive: where the table lies.
    """
    notes = {_NAME: name.encode(), _PLACE: location.encode()}
    if adapter:
        inside = archive and is_own(adapter, archive)
        notes[_ADAPTER] = (Path(adapter).relative_to(_home(archive)).as_posix() if inside else adapter).encode()
    return columns.with_metadata(notes)


def stored(location: str) -> list[Stored]:
    """The models of the archive, by key; reads their names only."""
    found = []
    for model_key in read.model_keys(location):
        table = open_table(location, embeddings_table(model_key))
        notes = (table.schema.metadata or {}) if table is not None else {}
        name, place, adapter = (notes.get(key, b"").decode() for key in (_NAME, _PLACE, _ADAPTER))
        if adapter and not os.path.isabs(adapter):
            adapter = str(_home(location) / adapter)
        found.append(Stored(model_key=model_key, name=name, location=place, adapter=adapter))
    return found


def is_own(adapter: str, location: str) -> bool:
    """Whether the folder of an adapter, on this machine, is that of a run of the archive."""
    return Path(adapter).is_relative_to(_home(location))


def portable(adapter: str, location: str) -> str:
    """How an adapter's folder is named to other nodes: by its address where the archive is in a bucket, else as it is;
    `here` makes a folder of it."""
    if not adapter or not is_uri(location) or not is_own(adapter, location):
        return adapter
    return join(location, Path(adapter).relative_to(_home(location)).as_posix())


def here(adapter: str) -> str:
    """The folder, on this machine, of an adapter that `portable` named; its files are brought from the bucket.

    Raises:
        StoreError: the bucket does not give them.
    """
    if not is_uri(adapter):
        return adapter
    location, _, below = adapter.rpartition(f"/{FOLDER}/")
    run, _, folder = below.partition("/")
    return str(fetch(location, run, only=(f"{folder}/*",)) / folder)


def brought(location: str, adapter: str) -> str:
    """The folder of an adapter that `stored` named, to load it: of an archive in a bucket, its files are brought here,
    also those that somebody else's attempt left out or that are others now.

    Raises:
        StoreError: the bucket does not give them.
    """
    return here(portable(adapter, location))


def _home(location: str) -> Path:
    """The folder that holds `runs`, on this machine."""
    return run_folder(location, "").parent


def listed(models: Iterable[Stored]) -> str:
    """The models by name and key, for a message."""
    return ", ".join(f"{model.name or model.location} ({model.model_key})" for model in models)

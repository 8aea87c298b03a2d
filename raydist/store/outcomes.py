"""What decoding leaves beside its result: signatures of what was decoded, failures of what was not.

Writes    fragments of `signatures` and `failures`, which wait for a commit (see `store.commit`)
Promises  where a disk, a server or credentials go away, a run ends instead of noting all that is left as failed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from raydist.errors import SourceError
from raydist.store import commit, schema

LOST = ("missing", "unreadable", "forbidden")
"""Reasons that are of a place, and mostly of all that lies there."""
LEAST, WINDOW = 1_000, 10_000


class Losses:
    """How many of the last clips were lost with the place where they lie."""

    def __init__(self, most: float) -> None:
        """
        Args:
            most: share of clips that may be lost, as `max_failed` says; with 1 all may.
        """
        self._most = most
        self._lost: Counter[str] = Counter()
        self._looked = 0

    def too_many(self, clips: int, reasons: Iterable[str]) -> SourceError | None:
        """What ends the run, once so many are lost that their place has gone; for each commit, before it.

        Args:
            clips: of the commit, good and bad.
            reasons: why the bad ones are bad, one each.
        """
        if self._looked >= WINDOW:
            self._lost.clear()
            self._looked = 0
        self._looked += clips
        self._lost.update(reason for reason in reasons if reason in LOST)
        lost = self._lost.total()
        if lost < LEAST or lost <= self._most * self._looked:
            return None
        told = ", ".join(f"{reason} {count:,}" for reason, count in self._lost.most_common())
        return SourceError(
            self._lost.most_common(1)[0][0],
            f"{lost:,} of the last {self._looked:,} clips could not be read ({told}): has a disk, a server or a node's "
            "credentials gone? The last of them were not noted as failed. Once their place is there again the same "
            "command goes on; --retry-failed tries those again that were noted; max_failed=1 notes all",
        )


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

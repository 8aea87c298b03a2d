"""The driver's book of one embed run: what is pending, what came back, and the commits in between."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from raydist.clips.signature import HASH_VERSION
from raydist.embed.write import STAGE, Written, write_blocks
from raydist.models.encoder import ModelInfo
from raydist.store import commit, models, pending, schema

PENDING_BATCH = 65_536
"""Clips whose files are looked up at once."""


class Ledger:
    """Pending clips in, commits out; each clip that goes in comes out as a row or as a failure."""

    def __init__(self, location: str, info: ModelInfo, *, retry_failed: bool = False) -> None:
        self.info = info
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self._location = location
        self._table = schema.embeddings_table(info.model_key)
        columns = models.marked(schema.embeddings(info.dim), info.name, info.location)
        self._pending = pending.pending_clips(
            location,
            info.model_key,
            STAGE,
            hash_version=HASH_VERSION,
            retry_failed=retry_failed,
            batch_size=PENDING_BATCH,
        )
        seen = self._pending.versions
        self._embeddings = commit.Committer(location, self._table, columns, version=seen[self._table])
        self._signatures = commit.Committer(location, "signatures", schema.SIGNATURES, version=seen["signatures"])
        self._failures = commit.Committer(location, "failures", schema.FAILURES)
        self.expected = self._pending.count
        self.clips_version = seen["clips"]
        """Of the table that the pending clips were read from."""
        self.returned = 0
        """Clips that came back from the pipeline, as a row or a failure."""
        self._held: list[Any] = []
        self._held_rows = 0
        self._written: Written | None = None
        self._since = time.monotonic()
        self._launched = self._began = math.inf
        self._ended = -math.inf

    @property
    def active_s(self) -> float:
        """From the first clip that began to be decoded to the last one that had its vector."""
        return max(0.0, self._ended - self._began)

    @property
    def start_s(self) -> float:
        """What the workers and the model took to start."""
        return max(0.0, self._began - self._launched) if self.returned else 0.0

    @property
    def conflicts(self) -> int:
        """Commits that were redone because another writer came first."""
        return sum(table.conflicts for table in (self._embeddings, self._signatures, self._failures))

    def pending(self) -> Iterator[pa.Table]:
        """Clips to embed, in the order of their files."""
        yield from self._pending

    def start(self) -> None:
        """The pipeline is launched."""
        self._launched = time.time()
        self._since = time.monotonic()

    def add(self, block: Any, rows: int) -> None:
        """Hold a block (a reference into Ray's object store) until the next commit."""
        self._held.append(block)
        self._held_rows += rows

    def due(self, seconds: float, rows: int) -> bool:
        """Whether it is time to commit."""
        return self._held_rows >= rows or (self._held_rows > 0 and time.monotonic() - self._since >= seconds)

    def commit(self) -> None:
        """Write what is held and make it visible: signatures and failures before the embeddings they belong to.

        Safe to call again after an interrupt at any moment: what was written is remembered, so that each row is
        committed once.
        """
        if self._held:
            if self._written is None:
                import ray  # here: Ray reads its environment when it is imported, and `runtime.session` sets that

                write = ray.remote(num_cpus=0)(write_blocks)
                self._written = ray.get(
                    write.remote(self._location, self._table, self._embeddings.schema, self.info.model_key, *self._held)
                )
            written = self._written
            self._signatures.commit(written.signatures)
            self._failures.commit(written.failures)
            self.rows += self._embeddings.commit(written.embeddings)
            self._count(written)
            self._held, self._held_rows, self._written = [], 0, None
        self._since = time.monotonic()

    def _count(self, written: Written) -> None:
        self.returned += self._held_rows
        self.failures.update(written.reasons)
        self.busy.update(written.busy)
        self._began, self._ended = min(self._began, written.began), max(self._ended, written.ended)

"""The driver's book of one embed run: what is pending, what came back, and the commits in between."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from raydist import gauges, runtime
from raydist.clips.naming import is_settled
from raydist.clips.signature import HASH_VERSION
from raydist.clips.units import CLIP_COLUMNS
from raydist.embed.write import STAGE, Written, write_blocks
from raydist.errors import SourceError
from raydist.models.encoder import ModelInfo
from raydist.progress import talk
from raydist.runtime.cluster import spilled_bytes
from raydist.store import commit, models, outcomes, schema
from raydist.store.patience import Patience, patiently
from raydist.store.pending import Pending, pending_clips

PENDING_BATCH = 32_768
"""Clips whose files are looked up at once."""

_COLUMNS = ("video_id", *(name for name in CLIP_COLUMNS if name != "has_signature"))


class Tables(NamedTuple):
    """Committers of the tables that embed writes."""

    embeddings: commit.Committer
    signatures: commit.Committer
    failures: commit.Committer


class Ledger:
    """Pending clips in, commits out; each clip that goes in comes out as a row or as a failure."""

    def __init__(self, location: str, info: ModelInfo, *, retry_failed: bool = False, max_failed: float = 1.0) -> None:
        self.info = info
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.offset_s = 0.0
        """The farthest that a frame lies from where exact sampling would take it."""
        self._location = location
        self._table = schema.embeddings_table(info.model_key)
        columns = models.marked(
            schema.embeddings(info.dim), info.name, info.location, adapter=info.adapter, archive=location
        )
        self._columns = columns
        self._retry_failed = retry_failed
        self._pending = self._read()
        self._seen = self._pending.versions
        self._tables: Tables | None = None
        self.expected = self._pending.count
        self.clips_version = self._seen["clips"]
        """Of the table that the pending clips were first read from."""
        self.waiting = 0
        """Clips left out because a scan is in the middle of their file."""
        self.returned = 0
        """Clips that came back from the pipeline, as a row or a failure."""
        self.rounds = 1
        """More where nodes were lost and the rest was planned anew."""
        self.spilled_bytes = 0
        """What the object stores wrote to disk since the start, because they were full."""
        self._spilled_before = 0
        self._held: list[tuple[Any, int]] = []
        """References to blocks, and the rows of each."""
        self._held_rows = 0
        self.gone = 0
        """Clips whose blocks went with a node at the end: they are pending."""
        self._written: tuple[Written, SourceError | None] | None = None
        """What became of what is held, and what ends the run because of it."""
        self._losses = outcomes.Losses(max_failed)
        self.committed: Callable[[], None] = lambda: None
        """Called behind each commit."""
        self._since = time.monotonic()
        self._rate = gauges.Rate()
        self._launched = self._began = math.inf
        self._ended = -math.inf

    @property
    def active_s(self) -> float:
        """From the first clip that began to be decoded to the last one that had its vector."""
        return max(0.0, self._ended - self._began)

    @property
    def active(self) -> tuple[float, float]:
        """When that was, in seconds since the epoch."""
        return (self._began, self._ended) if self.returned else (0.0, 0.0)

    @property
    def start_s(self) -> float:
        """What the workers and the model took to start."""
        return max(0.0, self._began - self._launched) if self.returned else 0.0

    @property
    def conflicts(self) -> int:
        """Commits that were redone because another writer came first."""
        return 0 if self._tables is None else sum(table.conflicts for table in self._tables)

    def pending(self) -> Iterator[pa.Table]:
        """Clips to embed, in the order of their files."""
        yield from self._pending

    def again(self) -> None:
        """What did not come back is pending anew; what is committed is counted on."""
        self.rounds, self.gone = self.rounds + 1, 0
        if self._retry_failed:  # those that failed in this run are pending too
            self.returned -= self.failures.total()
            self.failures.clear()
        self._pending = patiently(self._read, Patience())
        self.expected, self.waiting = self.returned + self._pending.count, 0

    def _read(self) -> Pending:
        return pending_clips(
            self._location,
            self.info.model_key,
            STAGE,
            hash_version=HASH_VERSION,
            retry_failed=self._retry_failed,
            columns=_COLUMNS,
            batch_size=PENDING_BATCH,
        )

    def settled(self, clips: list[dict[str, Any]], files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Clips whose file stands in `videos` as it was cut; a scan at work commits clips first, the others wait."""
        ready = []
        for clip in clips:
            file = files.get(clip["video_id"])
            if file and is_settled(clip, file["file_fingerprint"]):
                ready.append(clip)
        self.waiting += len(clips) - len(ready)
        self.expected -= len(clips) - len(ready)
        return ready

    def start(self) -> None:
        """The pipeline is launched, perhaps not for the first time."""
        if math.isinf(self._launched):
            self._launched, self._spilled_before = time.time(), spilled_bytes()
        self._since = time.monotonic()

    def add(self, block: Any, rows: int) -> None:
        """Hold a block (a reference into Ray's object store) until the next commit."""
        self._held.append((block, rows))
        self._held_rows += rows
        waiting = self.expected - self.returned - self._held_rows
        gauges.show("raydist_clips_per_second", self._rate.add(rows), stage=STAGE)
        gauges.show("raydist_pending_clips", waiting, stage=STAGE)
        gauges.show("raydist_queue_blocks", len(self._held), stage="commit")

    def due(self, seconds: float, rows: int) -> bool:
        """Whether it is time to commit."""
        return self._held_rows >= rows or (self._held_rows > 0 and time.monotonic() - self._since >= seconds)

    def commit(self, *, last: bool = False) -> None:
        """Write what is held and make it visible: signatures and failures before the embeddings they belong to.

        Safe to call again after an interrupt at any moment: what was written is remembered, so that each row is
        committed once.

        Args:
            last: nothing makes blocks again that went with a node: they are left out, and stay pending.

        Raises:
            SourceError: the place of most clips has gone; those that failed with it are not noted, nor counted.
            PlacesLostError: blocks went with a node, and who could make them again has no place; they stay pending.
        """
        if self._held and self._written is None:
            self._open_tables()  # workers make none
            self._written = self._write(last=last)
        if self._written is not None:
            tables = self._open_tables()
            written, gone = self._written
            tables.signatures.commit(written.signatures)
            if gone is None:
                tables.failures.commit(written.failures)
            self.rows += tables.embeddings.commit(written.embeddings)
            self._count(written, noted=gone is None)
            self._held, self._held_rows, self._written = [], 0, None
            self.committed()
            self.spilled_bytes = max(self.spilled_bytes, spilled_bytes() - self._spilled_before)
            if gone is not None:
                raise gone
        self._since = time.monotonic()

    def _write(self, *, last: bool) -> tuple[Written, SourceError | None] | None:
        """What is held as files; None where it went with a node."""
        import ray  # here: Ray reads its environment when it is imported, and `runtime.session` sets that

        write = ray.remote(num_cpus=0)(write_blocks)
        given = (self._location, self._table, self._columns, self.info.model_key)
        blocks = [block for block, _ in self._held]
        written, places = runtime.made_of(lambda there: write.remote(*given, *there), blocks, last=last)
        self._held = [self._held[place] for place in places]
        rows = sum(rows for _, rows in self._held)
        if rows < self._held_rows:
            talk.print(
                f"{self._held_rows - rows:,} clips went with a node before they were committed; they stay pending"
            )
            self.gone += self._held_rows - rows
            self._held_rows = rows
        return None if written is None else (written, self._losses.too_many(rows, written.reasons.elements()))

    def counts(self) -> dict[str, int]:
        """What is committed so far."""
        return {"clips": self.returned, "rows": self.rows, "failed": sum(self.failures.values())}

    def _open_tables(self) -> Tables:
        """The committers; not before there is something to commit: a run that is refused leaves no empty table."""
        if self._tables is None:
            self._tables = Tables(
                embeddings=commit.Committer(
                    self._location, self._table, self._columns, version=self._seen[self._table]
                ),
                signatures=commit.Committer(
                    self._location, "signatures", schema.SIGNATURES, version=self._seen["signatures"]
                ),
                failures=commit.Committer(self._location, "failures", schema.FAILURES),
            )
        return self._tables

    def _count(self, written: Written, *, noted: bool) -> None:
        """Add up a commit; failures that were not noted leave their clips pending."""
        good = self._held_rows - written.reasons.total()
        reasons = written.reasons if noted else Counter[str]()
        self.returned += good + reasons.total()
        gauges.done(STAGE, good, reasons)
        self.failures.update(reasons)
        self.busy.update(written.busy)
        self.offset_s = max(self.offset_s, written.offset_s)
        self._began, self._ended = min(self._began, written.began), max(self._ended, written.ended)

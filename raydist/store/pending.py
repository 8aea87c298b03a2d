"""Which clips a stage still has to do.

Reads     `clips`, `embeddings_<model_key>` or `captions`, `failures`, `signatures`, each at one version
Promises  every clip is done, failed or pending, and only the last are given; in the order of the table, file after
          file, so that the spans of one file stay together; memory: one part of the join, and two bits a clip; each
          table is read once
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa

from raydist.store.join import PART_CLIPS, Side, parts
from raydist.store.rowbits import RowBits
from raydist.store.schema import CLIPS, embeddings_table
from raydist.store.sql import all_of, equals
from raydist.store.tables import lance_errors, need_table, open_table

DONE, FAILED, PENDING = "rows", "failed", "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The clips that wait, and what was known when that was found out. Iterating reads them from the table."""

    clips: int
    """All clips."""
    count: int
    """Clips that wait."""
    done: int
    failed: int
    """Clips that have a failure and no row; they wait too where failures are tried again."""
    versions: dict[str, int]
    """Table -> the version that was read, 0 for one that did not exist: what a `Committer` takes."""
    columns: tuple[str, ...]
    _clips: lance.LanceDataset
    _waiting: RowBits
    _signed: RowBits
    _batch: int

    def __iter__(self) -> Iterator[pa.Table]:
        """Clips in table order: the columns, and `has_signature`; at most a batch a table, none of them empty."""
        if not self.count:
            return
        with lance_errors(self._clips.uri):
            for fragment in self._clips.get_fragments():
                if self._waiting.any_in(fragment):
                    yield from self._of(fragment)

    def _of(self, fragment: lance.LanceFragment) -> Iterator[pa.Table]:
        scanner = fragment.scanner(columns=list(self.columns), with_row_address=True, batch_size=self._batch)
        for batch in scanner.to_batches():
            addresses = batch["_rowaddr"].to_numpy()
            waiting = self._waiting.get(addresses)
            if waiting.any():
                table = pa.Table.from_batches([batch]).select(list(self.columns))
                signed = pa.array(self._signed.get(addresses))
                yield table.append_column("has_signature", signed).filter(pa.array(waiting))


def pending_clips(
    location: str,
    model_key: str,
    stage: str = "embed",
    *,
    hash_version: int,
    retry_failed: bool = False,
    columns: Sequence[str] = tuple(CLIPS.names),
    batch_size: int = 8_192,
    part_clips: int = PART_CLIPS,
) -> Pending:
    """The clips without a row of this model and without a failure of this stage and model.

    Rows and failures count if they have the clip's key and its present fingerprint.

    Args:
        retry_failed: failures do not count.
        hash_version: of the signatures that `has_signature` asks for.
        batch_size: clips in one of the tables that iterating gives.

    Raises:
        StoreError: if there is no table of clips.
    """
    table = embeddings_table(model_key)
    failure = all_of(equals("stage", stage), equals("model_key", model_key))
    return _waiting(location, table, None, failure, hash_version, retry_failed, columns, batch_size, part_clips)


def uncaptioned_clips(
    location: str,
    origin: str,
    prompt_hash: str,
    model_key: str,
    *,
    add: bool = False,
    retry_failed: bool = False,
    columns: Sequence[str] = tuple(CLIPS.names),
    batch_size: int = 8_192,
    part_clips: int = PART_CLIPS,
) -> Pending:
    """The clips without a caption of this origin to this prompt, and without a failure to get one.

    Args:
        model_key: of the failures of `caption` that count.
        add: clips that have a caption of another origin wait too; otherwise they count as done.

    Raises:
        StoreError: if there is no table of clips.
    """
    own = all_of(equals("origin", origin), equals("prompt_hash", prompt_hash))
    done = own if add else f"({own}) OR NOT ({equals('origin', origin)})"
    failure = all_of(equals("stage", "caption"), equals("model_key", model_key))
    return _waiting(location, "captions", done, failure, None, retry_failed, columns, batch_size, part_clips)


def _waiting(
    location: str,
    table: str,
    done_where: str | None,
    failure: str | None,
    hash_version: int | None,
    retry_failed: bool,
    columns: Sequence[str],
    batch_size: int,
    part_clips: int,
) -> Pending:
    """Clips without a row in `table` (where `done_where` is true) and without such a failure."""
    clips = need_table(location, "clips")
    others = {name: open_table(location, name) for name in (table, "failures", "signatures")}
    sides = {
        table: Side(dataset=others[table], where=done_where),
        "failures": Side(dataset=others["failures"], where=failure),
        "signatures": Side(dataset=others["signatures"], where=equals("hash_version", hash_version)),
    }
    if hash_version is None:
        del sides["signatures"]
    waiting, signed = RowBits(clips), RowBits(clips)
    total = done_count = failed_count = waiting_count = 0
    for part in parts(clips, sides, addresses=True, part_clips=part_clips):
        done = part.have(table)
        failed = part.have("failures") & ~done
        wait = ~done if retry_failed else ~(done | failed)
        waiting.set(part.addresses[wait])
        if hash_version is not None:
            signed.set(part.addresses[part.have("signatures") & wait])
        total, waiting_count = total + len(part), waiting_count + int(wait.sum())
        done_count, failed_count = done_count + int(done.sum()), failed_count + int(failed.sum())
    return Pending(
        clips=total,
        count=waiting_count,
        done=done_count,
        failed=failed_count,
        versions={"clips": clips.version} | {name: ds.version if ds is not None else 0 for name, ds in others.items()},
        columns=tuple(columns),
        _clips=clips,
        _waiting=waiting,
        _signed=signed,
        _batch=batch_size,
    )

"""The tables of cached frames: which clips they hold, taking rows, their size.

Reads     `frames_<geometry>_<frames>_<encoding>`, and of other tables what is known of its clips
Promises  rows count with the clip's present fingerprint only; a handle stays on the version that it opened
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.store import buckets, objects, read
from raydist.store.commit import is_conflict
from raydist.store.join import Keyed
from raydist.store.location import folder, is_uri
from raydist.store.schema import FRAMES, is_frames
from raydist.store.sql import all_of, equals, is_in
from raydist.store.tables import again, lance_errors, open_table

_USED = "used"
"""In a bucket: an empty object a table, written anew when it is used."""

_KEEP = timedelta(hours=1)
"""Old versions stay that long: a reader may be in the middle of one."""


def table_name(*, resize: str, size_px: int, sampling: str, frames: int, encoding: str) -> str:
    """The table of frames of one kind: `frames_viclip_224_exact_8_raw`."""
    return f"{FRAMES}{resize}_{size_px}_{sampling}_{frames}_{encoding}"


def tables(location: str) -> list[str]:
    """All tables of cached frames, the one whose last use is longest ago first."""
    names = [name for name in read.table_names(location) if is_frames(name)]
    if is_uri(location):
        used = {entry.name: entry.modified_s for entry in objects.entries(location, _USED)}
        return sorted(names, key=lambda name: used.get(f"{_USED}/{name}", 0.0))
    return sorted(names, key=lambda name: os.path.getmtime(_folder(location, name)))


def mark_used(location: str, table: str) -> None:
    """Say that the table is in use now."""
    if is_uri(location):
        objects.replace(location, f"{_USED}/{table}", b"")
    elif os.path.isdir(_folder(location, table)):
        os.utime(_folder(location, table))


def bytes_on_disk(location: str, table: str) -> int:
    """What a table takes, files that no version knows any more included; 0 if there is none."""
    if is_uri(location):
        return sum(int(file["size"]) for file in buckets.below(location, f"{table}.lance"))
    total = 0
    for top, _, names in os.walk(_folder(location, table)):
        for name in names:
            try:
                total += os.lstat(os.path.join(top, name)).st_size
            except FileNotFoundError:  # a temporary file of a commit
                continue
    return total


def drop(location: str, table: str) -> None:
    """Delete a whole table; nothing happens if there is none."""
    if is_uri(location):
        files = [str(file["path"]) for file in buckets.below(location, f"{table}.lance")]
        # Versions first: a table without one is none, and nobody begins to read what is going.
        for of_versions in (True, False):
            buckets.delete_all(location, [name for name in files if ("/_versions/" in name) is of_versions])
        objects.delete(location, f"{_USED}/{table}")
        return
    shutil.rmtree(_folder(location, table), ignore_errors=True)


def drop_old_versions(location: str, table: str) -> None:
    """Give back the disk of rows that were deleted; for the only writer."""
    dataset = open_table(location, table)
    if dataset is not None:
        try:
            again(
                lambda: dataset.cleanup_old_versions(
                    older_than=_KEEP, delete_unverified=False, error_if_tagged_old_versions=False
                )
            )
        except OSError as error:
            if not is_conflict(error):
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an archive knows of some clips, one value a clip."""

    cached: NDArray[np.bool_]
    signed: NDArray[np.bool_]
    """Whether there is a signature."""
    reasons: list[str]
    """Why an earlier run could not decode it; "" where none failed."""
    versions: dict[str, int]
    """Table -> the version that was read, 0 for one that did not exist: what a `Committer` takes."""


def known(location: str, table: str, pairs: pa.Table, *, hash_version: int, stages: Sequence[str]) -> Known:
    """Look clips up.

    Args:
        table: of frames; it need not exist, "" is none.
        pairs: `clip_key` and `fingerprint` of clips, each once.
        stages: whose failures count, where they were recorded without a model.
    """
    opened = {
        name: open_table(location, name) for name in ("clips", "failures", "signatures", *([table] if table else []))
    }
    clips = Keyed.of(_as_batch(pairs))
    condition = all_of(equals("model_key", ""), is_in("stage", stages))
    reasons = [""] * pairs.num_rows
    for places, rows in clips.matching(opened["failures"], condition, ["reason"]):
        for place, reason in zip(places.tolist(), rows["reason"].to_pylist(), strict=True):
            reasons[place] = reason or "unknown"
    return Known(
        cached=clips.among(opened.get(table)),
        signed=clips.among(opened["signatures"], equals("hash_version", hash_version)),
        reasons=reasons,
        versions={name: 0 if dataset is None else dataset.version for name, dataset in opened.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version of a table of frames."""

    version: int
    _dataset: lance.LanceDataset
    _index: Keyed
    """By the row's number."""

    def places(self, pairs: pa.Table) -> NDArray[np.int64]:
        """Where the row of each clip (`clip_key`, `fingerprint`) is; -1 where there is none."""
        found = np.full(pairs.num_rows, -1, np.int64)
        clips, rows = self._index.places(_as_batch(pairs))
        found[rows] = clips
        return found

    def take(self, places: NDArray[np.int64]) -> pa.LargeBinaryArray:
        """The frames in rows that `places` gave, as they were written.

        Raises:
            StoreError: if the table is gone, or the storage fails.
        """
        with lance_errors(self._dataset.uri):
            column = self._dataset.take(places.tolist(), columns=["frames"])["frames"]
        return column.combine_chunks()


def open_stored(location: str, table: str, before: Stored | None = None) -> Stored | None:
    """The latest version of a table; None if there is none.

    Args:
        before: what was opened earlier; given back where nothing was written since, so its keys are not read again.
    """
    dataset = open_table(location, table)
    if dataset is None:
        return None
    if (
        before is not None
        and before.version == dataset.version
        and _first_file(before._dataset) == _first_file(dataset)
    ):
        return before
    with lance_errors(dataset.uri):
        rows = dataset.scanner(columns=["clip_key", "fingerprint"], scan_in_order=True).to_table()
    return Stored(version=dataset.version, _dataset=dataset, _index=Keyed.of(_as_batch(rows)))


def _first_file(dataset: lance.LanceDataset) -> str:
    """Tells a table from one that was dropped and made anew."""
    fragments = dataset.get_fragments()
    return str(fragments[0].metadata.files[0].path) if fragments else ""


def _as_batch(rows: pa.Table) -> pa.RecordBatch:
    columns = rows.select(["clip_key", "fingerprint"]).combine_chunks().to_batches()
    return columns[0] if columns else pa.RecordBatch.from_pylist([], rows.select(["clip_key", "fingerprint"]).schema)


def _folder(location: str, table: str) -> str:
    return str(folder(location) / f"{table}.lance")

"""Erasing videos: their rows in every table, then every byte of them in files of old versions and of indices.

Reads     all tables; a column's name says what it holds (see `_VIDEOS`, `_CLIPS`, `_KEYS`)
Writes    deletes; fragments without the deleted rows in the place of those with; no version but the last
Promises  `erase` leaves no row; `scour` leaves no file that held one. Both can be done again at any time. `scour` is
          for the only writer: it takes away files that no version knows, which might be a writer's next commit
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

import lance
import pyarrow as pa

from raydist.errors import StoreError
from raydist.store import commit, read
from raydist.store.schema import GROUPS, is_frames
from raydist.store.sql import Value, all_of, equals, is_in, starts_with
from raydist.store.tables import again, lance_errors, need_table, table_names

_VIDEOS = ("video_id", "a_video", "b_video")
_CLIPS = ("clip_id", "a_id", "b_id", "alias_of")
_KEYS = ("clip_key", "a", "b", "kept_by", "crowd")
_EITHER = ("a", "b", "clip")
"""Texts of `decisions` that name a clip or a video."""
_ELSEWHERE = ("b", "b_id", "b_video", "kept_by")
"""Columns that speak of another archive where `archive_b` names one."""

_A_DELETE = 2_000
"""Values a condition: a longer list is slower than another delete."""

_EVER = timedelta(days=-3650)
"""Also what another machine wrote whose clock is ahead of this one's: ages are told by both."""

_FRAMES_A_BATCH = 16
"""Rows of cached frames that are held at once: half a megabyte each, and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be erased."""

    video_ids: Collection[str]
    clip_ids: Collection[str]
    keys: Collection[int]


def clips_of(location: str, video_ids: Collection[str]) -> set[str]:
    """The ids of all clips of some videos that any table names, those of earlier contents too."""
    found: set[str] = set()
    for table in table_names(location):
        columns = need_table(location, table).schema
        texts = [name for name in {*_CLIPS, *_EITHER} & {*columns.names} if columns.field(name).type == pa.string()]
        for column in texts:
            for video in video_ids:
                batches = read.scan_batches(location, table, [column], where=starts_with(column, f"{video}#t="))
                found.update(name for batch in batches for name in batch[column].to_pylist())
    # `a#t=b.mp4` is a file that may be called so, and its clips are not those of `a`.
    return {name for name in found if name.rpartition("#t=")[0] in video_ids}


def erase(location: str, target: Target) -> dict[str, int]:
    """Delete all rows that are of the videos or name them; table -> how many there were.

    Groups of duplicates that one of their clips was in go as a whole: their keeper has to be chosen anew.
    """
    deleted = {}
    for table in table_names(location):
        columns = need_table(location, table).schema
        if table.startswith(GROUPS):
            conditions = list(_groups(location, table, target, columns))
        else:
            conditions = list(_conditions(target, columns))
        count = sum(commit.delete(location, table, condition) for condition in conditions)
        if count:
            deleted[table] = count
    return deleted


def _conditions(target: Target, columns: pa.Schema) -> Iterator[str]:
    for name in columns.names:
        is_text = columns.field(name).type == pa.string()
        values: list[Value] = []
        if is_text and name in _EITHER:
            values = [*target.video_ids, *target.clip_ids]
        elif is_text and name in _VIDEOS:
            values = [*target.video_ids]
        elif is_text and name in _CLIPS:
            values = [*target.clip_ids]
        elif columns.field(name).type == pa.int64() and name in _KEYS:
            values = [*target.keys]
        here = equals("archive_b", "") if name in _ELSEWHERE and "archive_b" in columns.names else None
        for start in range(0, len(values), _A_DELETE):
            yield all_of(is_in(name, values[start : start + _A_DELETE]), here) or "FALSE"


def _groups(location: str, table: str, target: Target, columns: pa.Schema) -> Iterator[str]:
    found: set[int] = set()
    for condition in _conditions(target, columns):
        for batch in read.scan_batches(location, table, ["group"], where=condition):
            found.update(batch["group"].to_pylist())
    groups = sorted(found)
    for start in range(0, len(groups), _A_DELETE):
        yield is_in("group", groups[start : start + _A_DELETE])


def scour(location: str, table: str) -> list[str]:
    """Take a table's deleted rows off the disk, with its old versions and with the indices that knew the rows.

    Returns:
        Names of the indices that were dropped; where no row was deleted they stay.

    Raises:
        StoreError: the storage fails.
    """
    dataset = need_table(location, table)
    dropped: list[str] = []
    with lance_errors(dataset.uri):
        fragments = dataset.get_fragments()
        if any(fragment.num_deletions for fragment in fragments) or _has_lost_rows(dataset):
            dropped = sorted({index.name for index in dataset.describe_indices()})
            for name in dropped:
                dataset.drop_index(name)
            # What holds no deleted row stays as it is: cached frames may take most of a disk.
            again(
                lambda: dataset.optimize.compact_files(
                    target_rows_per_fragment=max([1, *(fragment.physical_rows for fragment in fragments)]),
                    materialize_deletions=True,
                    materialize_deletions_threshold=0.0,
                    excluded_fragment_ids=[each.fragment_id for each in fragments if not each.num_deletions],
                    batch_size=_FRAMES_A_BATCH if is_frames(table) else 8_192,
                )
            )
        again(lambda: _drop_versions(location, table))
    return dropped


def _drop_versions(location: str, table: str) -> None:
    need_table(location, table).cleanup_old_versions(
        older_than=_EVER, delete_unverified=True, error_if_tagged_old_versions=False
    )
    left = need_table(location, table).versions()
    if len(left) > 1:
        raise StoreError(
            f"{len(left) - 1} old versions of table {table!r} in {location!r} could not be deleted, and they may hold "
            "rows that were to go: take the tags off them if they have any, and run this again"
        )


def _has_lost_rows(dataset: lance.LanceDataset) -> bool:
    """Whether an index knows fragments that are gone: all of their rows were deleted."""
    there = {fragment.fragment_id for fragment in dataset.get_fragments()}
    parts = [part for index in dataset.describe_indices() for part in index.segments]
    return any(not set(part.fragment_ids) <= there for part in parts)

"""Tidying up: many small fragments become few, and old versions go.

Reads     one table
Writes    the same rows in fragments of up to a million, in the same order
Promises  nothing happens while anybody else writes to the archive; a writer that begins meanwhile makes the tidying
          fail, never its own commit; files that no version knows are left to Lance, which waits for a week (they may
          belong to a commit that is about to come)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from raydist.errors import StoreError
from raydist.store.commit import is_conflict
from raydist.store.lease import Lease
from raydist.store.tables import again, lance_errors, need_table, open_table

ROWS_A_FRAGMENT = 1 << 20

_KEEP = timedelta(hours=1)
"""Old versions stay that long: a reader without a lease may be in the middle of one."""

_FRAGMENTS_WORTH_IT = 8

_THREADS = 4
"""At most, however many cores there are."""


@contextmanager
def tidying(notes: list[str]) -> Iterator[None]:
    """What is done once all rows are in: where the storage fails, the run has not; a note says what was left."""
    try:
        yield
    except (StoreError, OSError) as error:
        notes.append(f"the archive was not tidied, the next run does it: {error}")


def compact_if_alone(location: str, table: str, lease: Lease) -> bool:
    """Compact a table and drop its old versions, if `lease` is the only one.

    Returns:
        Whether it was done: False if others write, or one began meanwhile, or there is no such table.

    Raises:
        StoreError: if the lease was lost, or the storage fails.
    """
    lease.check()
    dataset = open_table(location, table)
    if dataset is None or lease.others():
        return False
    with lance_errors(dataset.uri):
        try:
            if len(dataset.get_fragments()) >= _FRAGMENTS_WORTH_IT:
                again(lambda: _compact(location, table))
            if lease.others():
                return False
            again(lambda: drop_old_versions(location, table))
        except OSError as error:
            if is_conflict(error):
                return False
            raise
    return True


def drop_old_versions(location: str, table: str) -> None:
    """Give back what only versions older than an hour hold; for the only writer."""
    need_table(location, table).cleanup_old_versions(
        older_than=_KEEP, delete_unverified=False, error_if_tagged_old_versions=False
    )


def _compact(location: str, table: str) -> None:
    # A batch of wide vectors is held in memory for each thread, and a thread works on a fragment to be.
    need_table(location, table).optimize.compact_files(
        target_rows_per_fragment=ROWS_A_FRAGMENT, batch_size=8_192, num_threads=min(_THREADS, os.cpu_count() or 1)
    )

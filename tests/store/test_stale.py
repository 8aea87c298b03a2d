"""Derived rows whose clip changed or is gone are taken out, and no others."""

from __future__ import annotations

import pyarrow as pa
import pytest
from store import tables

from raydist.store import commit, read, schema, stale


def append(location: str, table: str, rows: pa.Table) -> None:
    commit.append(location, table, rows, rows.schema)


def pairs(location: str, table: str) -> list[tuple[int, str]]:
    rows = pa.Table.from_batches(read.scan_batches(location, table, ["clip_key", "fingerprint"]))
    return sorted(zip(*rows.to_pydict().values(), strict=True))


@pytest.mark.parametrize("part_clips", [2, 1_000])
def test_rows_of_changed_and_vanished_clips_go_and_the_others_stay(location: str, part_clips: int) -> None:
    low, high = -(2**62), 2**62
    append(location, "clips", tables.clips([low, 2, high, 4], ["new", "a", "b", "it's"]))
    derived = ([low, low, 2, high, 9, 4, 4], ["old", "new", "a", "a", "b", "it's", "x' OR 1=1"])
    for table, rows in ((tables.TABLE, tables.embeddings(*derived)), ("signatures", tables.signatures(*derived))):
        append(location, table, rows)
    append(location, "captions", tables.filled(schema.CAPTIONS, 1, clip_key=9, fingerprint="old", caption="a dog"))

    assert stale.delete_stale(location, part_clips=part_clips) == 8

    for table in (tables.TABLE, "signatures"):
        assert pairs(location, table) == [(low, "new"), (2, "a"), (4, "it's")]
    assert pairs(location, "captions") == [(9, "old")]
    assert stale.delete_stale(location) == 0


def test_a_stale_pair_takes_no_row_that_shares_key_or_fingerprint(location: str) -> None:
    # 1 is now what 2 was, and 2 is now what 1 was: keys and fingerprints of the stale rows are those of good ones.
    append(location, "clips", tables.clips([1, 2], ["b", "a"]))
    append(location, tables.TABLE, tables.embeddings([1, 2, 1, 2], ["a", "b", "b", "a"]))
    assert stale.delete_stale(location) == 2
    assert pairs(location, tables.TABLE) == [(1, "b"), (2, "a")]


def test_thousands_of_stale_rows_go_at_once(location: str) -> None:
    append(location, "clips", tables.clips(range(6_000), "new"))
    append(location, "signatures", tables.signatures(range(6_000), "old"))
    assert stale.delete_stale(location) == 6_000
    assert read.count_rows(location, "signatures") == 0

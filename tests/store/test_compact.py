"""Tidying up keeps every row, and keeps out of the way of writers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store import tables

from raydist.store import commit, compact, read, schema
from raydist.store.lease import Lease

KIND = schema.embeddings(4)


@pytest.fixture
def fragmented(location: str) -> str:
    for start in range(0, 100, 10):
        commit.append(location, tables.TABLE, tables.embeddings(range(start, start + 10)), KIND)
    commit.delete(location, tables.TABLE, "clip_key = 55")
    return location


def keys(location: str) -> list[int]:
    batches = read.scan_batches(location, tables.TABLE, ["clip_key"])
    return [key for batch in batches for key in batch["clip_key"].to_pylist()]


def test_compaction_keeps_rows_and_their_order(fragmented: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "_KEEP", timedelta(0))
    before = keys(fragmented)
    with Lease(fragmented, "embed") as lease:
        assert compact.compact_if_alone(fragmented, tables.TABLE, lease)
    dataset = read.need_table(fragmented, tables.TABLE)
    assert len(dataset.get_fragments()) == 1
    assert len(dataset.versions()) == 1
    assert keys(fragmented) == before


def test_nothing_is_compacted_while_another_writes(fragmented: str) -> None:
    with Lease(fragmented, "embed") as lease, Lease(fragmented, "scan", exclusive=True):
        assert not compact.compact_if_alone(fragmented, tables.TABLE, lease)
    assert len(read.need_table(fragmented, tables.TABLE).get_fragments()) == 10


def test_a_table_that_is_not_there_is_no_error(location: str) -> None:
    with Lease(location, "embed") as lease:
        assert not compact.compact_if_alone(location, "signatures", lease)


def test_files_of_a_commit_about_to_come_survive_a_clean_up(fragmented: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "_KEEP", timedelta(0))
    committer = commit.Committer(fragmented, tables.TABLE, KIND)
    fragments = commit.write_fragments(fragmented, tables.TABLE, tables.embeddings(range(95, 120)), KIND)
    with Lease(fragmented, "embed") as lease:
        assert compact.compact_if_alone(fragmented, tables.TABLE, lease)
    assert committer.commit(fragments) == 20
    assert sorted(keys(fragmented)) == [key for key in range(120) if key != 55]

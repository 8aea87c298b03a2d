"""Which rows of embeddings count, and reading their vectors by address."""

from __future__ import annotations

import numpy as np
import pytest
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, current


def fill(location: str, keys: list[int], fingerprint: str | list[str] = "a", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(len(keys), 8)).astype(np.float16)
    rows = tables.embeddings(keys, fingerprint, tables.fixed(values), start_s=[float(key) for key in keys])
    commit.append(location, tables.TABLE, rows, rows.schema)
    return values


def clips(location: str, keys: list[int], fingerprint: str | list[str] = "a") -> None:
    rows = tables.clips(keys, fingerprint)
    commit.append(location, "clips", rows, rows.schema)


def read(rows: current.Rows) -> np.ndarray:
    order = np.argsort(rows.addresses)
    found = np.full((len(order), rows.width), np.nan, np.float16)
    for at, vectors in current.vectors_at(rows.location, rows.table, rows.version, rows.addresses[order]):
        found[order[at]] = vectors
    return found


@pytest.mark.parametrize("part_clips", [10, 1000])
def test_rows_of_clips_that_are_gone_or_changed_do_not_count(location: str, part_clips: int) -> None:
    clips(location, [30, 10, 20, -5], ["a", "a", "new", "a"])
    first = fill(location, [10, 20, 40])
    second = fill(location, [30, -5, 20], ["a", "a", "new"], seed=1)
    rows = current.current_rows(location, tables.TABLE, part_clips=part_clips)
    assert rows.keys.tolist() == [-5, 10, 20, 30]
    assert rows.fingerprints.to_pylist() == ["a", "a", "new", "a"]
    assert np.array_equal(read(rows), [second[1], first[0], second[2], second[0]])


def test_a_condition_narrows_the_rows(location: str) -> None:
    clips(location, list(range(50)))
    fill(location, list(range(50)))
    rows = current.current_rows(location, tables.TABLE, "start_s >= 47")
    assert rows.keys.tolist() == [47, 48, 49]
    with pytest.raises(StoreError, match="start_s"):
        current.current_rows(location, tables.TABLE, "nothing > 3")


def test_a_version_stays_readable_while_rows_go(location: str) -> None:
    clips(location, list(range(20)))
    values = fill(location, list(range(20)))
    rows = current.current_rows(location, tables.TABLE)
    commit.delete(location, tables.TABLE, "clip_key < 10")
    assert np.array_equal(read(rows), values)
    assert len(current.current_rows(location, tables.TABLE).keys) == 10
    some = rows.addresses[[3, 11, 19]]
    sample = current.sampled_vectors(rows.location, rows.table, rows.version, some)
    assert np.array_equal(sample, values[[3, 11, 19]])


def test_no_rows_are_no_vectors(location: str) -> None:
    clips(location, [1])
    fill(location, [2])
    rows = current.current_rows(location, tables.TABLE)
    assert len(rows.keys) == 0
    assert read(rows).shape == (0, 8)
    assert current.sampled_vectors(rows.location, rows.table, rows.version, rows.addresses).shape == (0, 8)

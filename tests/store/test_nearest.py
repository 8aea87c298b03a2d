"""Exact search: the true best, in one order, never too few."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, nearest

WIDTH = 16


def fill(location: str, values: np.ndarray, keys: list[int] | None = None, **columns: object) -> None:
    keys = list(range(len(values))) if keys is None else keys
    for start in range(0, len(values), 700):
        part = slice(start, start + 700)
        given = {name: value[part] if isinstance(value, list) else value for name, value in columns.items()}
        rows = tables.embeddings(keys[part], vector=tables.fixed(values[part]), **given)
        commit.append(location, tables.TABLE, rows, rows.schema)


def draw(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float16)


def search(location: str, queries: np.ndarray, k: int, where: str | None = None) -> list[pa.Table]:
    return nearest.top_k(location, tables.TABLE, queries.astype(np.float32), k, where)


def test_hits_are_those_of_a_full_comparison(location: str) -> None:
    vectors, queries = draw(2000), draw(300, seed=1)
    fill(location, vectors)
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for row, hits in zip(exact, search(location, queries, 7), strict=True):
        assert hits["clip_key"].to_pylist() == np.argsort(-row, kind="stable")[:7].tolist()
        assert hits["score"].to_pylist() == pytest.approx(np.sort(row)[::-1][:7].tolist(), rel=1e-5)
        assert hits.schema.names == ["clip_key", "clip_id", "fingerprint", "score"]


def test_equal_vectors_come_in_the_order_of_their_keys_wherever_they_lie(location: str) -> None:
    vectors = draw(3000)
    twins = np.random.default_rng(2).choice(3000, 500, replace=False)
    vectors[twins] = vectors[0] * 2
    keys = np.random.default_rng(3).permutation(3000).tolist()
    fill(location, vectors, keys)
    (hits,) = search(location, vectors[:1], 400)
    assert hits["clip_key"].to_pylist() == sorted(keys[at] for at in twins)[:400]
    assert len(set(hits["score"].to_pylist())) == 1


def test_a_query_finds_the_same_alone_and_among_others(location: str) -> None:
    fill(location, draw(1500))
    queries = draw(270, seed=4)
    together = search(location, queries, 5)
    assert all(search(location, queries[at : at + 1], 5)[0].equals(together[at]) for at in (0, 15, 16, 255, 256, 269))


def test_a_filter_never_leaves_fewer_than_there_are(location: str) -> None:
    fill(location, draw(1500), split=["test" if key % 300 == 0 else "train" for key in range(1500)])
    (hits,) = search(location, draw(1, seed=5), 10, "split = 'test'")
    assert sorted(hits["clip_key"].to_pylist()) == [0, 300, 600, 900, 1200]
    (none,) = search(location, draw(1, seed=5), 10, "split = 'val'")
    assert none.num_rows == 0
    assert none.schema.names == hits.schema.names


def test_deleted_rows_are_not_found(location: str) -> None:
    fill(location, draw(900))
    commit.delete(location, tables.TABLE, "clip_key < 895")
    (hits,) = search(location, draw(1), 10)
    assert sorted(hits["clip_key"].to_pylist()) == [895, 896, 897, 898, 899]


def test_more_than_there_are_gives_all(location: str) -> None:
    fill(location, draw(20))
    assert [hits.num_rows for hits in search(location, draw(3), 50)] == [20, 20, 20]
    assert search(location, np.empty((0, WIDTH)), 5) == []


@pytest.mark.parametrize("where", ["nope = 3", "split = = 'a'", "start_s", "split = 3 +", "video_id LIKE 3"])
def test_a_wrong_filter_names_itself_and_the_columns(location: str, where: str) -> None:
    fill(location, draw(5))
    with pytest.raises(StoreError) as caught:
        search(location, draw(1), 3, where)
    text = str(caught.value)
    assert repr(where) in text
    assert "start_s (double)" in text
    assert ".rs:" not in text


def test_vectors_of_another_width_are_refused(location: str) -> None:
    fill(location, draw(5))
    with pytest.raises(StoreError, match="holds 16-d vectors, the query has 8"):
        nearest.top_k(location, tables.TABLE, np.ones((1, 8), np.float32), 3)
    with pytest.raises(ValueError, match="finite"):
        search(location, np.full((1, WIDTH), math.nan), 3)


def test_a_model_without_a_table_is_refused_with_the_tables_there_are(location: str) -> None:
    fill(location, draw(5))
    with pytest.raises(StoreError, match=f"no table 'embeddings_x'.*{tables.TABLE}"):
        nearest.top_k(location, "embeddings_x", draw(1).astype(np.float32), 3)


scores = st.lists(st.integers(-3, 3), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(blocks=st.lists(scores, min_size=1, max_size=5), k=st.integers(1, 12))
def test_best_of_blocks_is_best_of_all(blocks: list[list[int]], k: int) -> None:
    best = nearest.Best(np.ones((1, 1), np.float32), k)
    pairs: list[tuple[int, int]] = []
    rng = np.random.default_rng(0)
    for block in blocks:
        keys = rng.permutation(1000)[: len(block)]
        best.see(np.array(block, np.float16)[:, None], keys, keys.astype(np.uint64))
        if len(block) % 2:
            best.finish()
        pairs += [(-score, int(key)) for score, key in zip(block, keys, strict=True)]
    best.finish()
    found = best.found[0]
    assert list(zip((-found[0]).tolist(), found[1].tolist(), strict=True)) == sorted(pairs)[:k]

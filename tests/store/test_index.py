"""The index: the same hits as exact search or nearly, whatever happens to the table below it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import tables
from store.clouds import ROWS, WIDTH, draw, indexed, put

from raydist.errors import StoreError
from raydist.store import centres, commit, compact, index, nearest, ranking, read
from raydist.store.lease import Lease


def recall(location: str, k: int = 10, where: str | None = None, queries: int = 40, probes: int = 60) -> float:
    """Of the index against exact search; no hit may be missing or deleted, and the scores are the exact ones."""
    asked = draw(queries, seed=1234).astype(np.float32)
    exact = nearest.top_k(location, tables.TABLE, asked, k, where)
    found = ranking.top_k(location, tables.TABLE, asked, k, where, probes=probes)
    shares = []
    for wanted, hits in zip(exact, found, strict=True):
        assert hits.num_rows == wanted.num_rows
        assert hits.schema == wanted.schema
        scores = dict(zip(wanted["clip_key"].to_pylist(), wanted["score"].to_pylist(), strict=True))
        both = [(key, score) for key, score in rows_of(hits) if key in scores]
        assert [score for _, score in both] == pytest.approx([scores[key] for key, _ in both], abs=1e-6)
        assert hits["score"].to_pylist() == sorted(hits["score"].to_pylist(), reverse=True)
        shares.append(len(both) / wanted.num_rows if wanted.num_rows else 1.0)
    return float(np.mean(shares))


def rows_of(hits: pa.Table) -> list[tuple[int, float]]:
    return list(zip(hits["clip_key"].to_pylist(), hits["score"].to_pylist(), strict=True))


def state(location: str) -> index.Built:
    found = index.find(read.need_table(location, tables.TABLE))
    assert found is not None
    return found


def test_an_index_finds_nearly_what_exact_search_finds(location: str) -> None:
    indexed(location)
    assert state(location).rows == ROWS
    assert state(location).unindexed == 0
    assert recall(location) > 0.95
    assert recall(location, queries=1) == 1
    assert recall(location, k=200) > 0.9


def test_it_survives_commits_deletions_and_compaction_together(location: str) -> None:
    indexed(location)
    put(location, 10_000, 500, seed=50)
    commit.delete(location, tables.TABLE, "clip_key % 10 = 3")
    assert state(location).unindexed == 450
    assert recall(location) > 0.95
    assert recall(location, queries=2) > 0.9
    with Lease(location, "test") as held:
        assert compact.compact_if_alone(location, tables.TABLE, held)
    put(location, 20_000, 800, seed=51)
    commit.delete(location, tables.TABLE, "clip_key % 10 = 4")
    assert recall(location) > 0.95
    assert state(location).unindexed > 0
    index.refresh(location, tables.TABLE)
    assert state(location).unindexed == 0
    assert len(state(location).parts) == 1
    assert state(location).rows == read.count_rows(location, tables.TABLE)
    assert recall(location) > 0.95


def test_a_query_finds_the_same_alone_and_among_others(location: str) -> None:
    indexed(location)
    asked = draw(300, seed=8).astype(np.float32)
    together = ranking.top_k(location, tables.TABLE, asked, 5, probes=8)
    for at in (0, 3, 255, 256, 299):
        (alone,) = ranking.top_k(location, tables.TABLE, asked[at : at + 1], 5, probes=8)
        assert alone.equals(together[at])


def test_rows_that_came_after_the_index_are_found(location: str) -> None:
    indexed(location)
    twin = draw(1, seed=7)
    rows = tables.embeddings([77_777], vector=tables.fixed(twin))
    commit.append(location, tables.TABLE, rows, rows.schema)
    for queries in (1, 20):
        found = ranking.top_k(location, tables.TABLE, np.repeat(twin, queries, axis=0).astype(np.float32), 3, probes=2)
        assert [hits["clip_key"][0].as_py() for hits in found] == [77_777] * queries


def test_a_commit_that_was_begun_before_the_index_goes_in(location: str) -> None:
    for number in range(4):
        put(location, number * 500, 500, seed=number)
    schema = read.need_table(location, tables.TABLE).schema
    committer = commit.Committer(location, tables.TABLE, schema)
    rows = tables.embeddings([90_000], vector=tables.fixed(draw(1, seed=7)))
    fragments = commit.write_fragments(location, tables.TABLE, rows, schema)
    index.build(location, tables.TABLE)
    assert committer.commit(fragments) == 1
    assert state(location).unindexed == 1
    assert read.count_rows(location, tables.TABLE) == 2_001


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("where", ["clip_key % 2 = 0", "split = 'test'", "clip_key < 10", "clip_key < 0"])
def test_a_filter_never_comes_back_short(location: str, where: str, k: int) -> None:
    indexed(location)
    put(location, 10_000, 500, seed=50)
    assert recall(location, k, where, queries=10, probes=0) > 0.95
    recall(location, k, where, queries=3, probes=1)  # it holds that none is missing


def test_deleted_rows_are_in_no_file_of_a_rebuilt_index(location: str) -> None:
    indexed(location)
    gone = read.need_table(location, tables.TABLE).to_table(columns=["vector"], filter="clip_key = 1500")
    secret = gone["vector"].combine_chunks().flatten().to_numpy().tobytes()
    folder = Path(location) / f"{tables.TABLE}.lance"
    assert any(secret in path.read_bytes() for path in (folder / "_indices").rglob("*.idx"))
    commit.delete(location, tables.TABLE, "clip_key = 1500")
    index.rebuild(location, tables.TABLE)
    now = state(location).parts
    assert all(secret not in path.read_bytes() for part in now for path in (folder / "_indices" / part).iterdir())
    assert state(location).rows == ROWS - 1


def test_a_dropped_index_is_gone_and_search_goes_on(location: str) -> None:
    indexed(location)
    assert index.drop(location, tables.TABLE)
    assert index.find(read.need_table(location, tables.TABLE)) is None
    assert index.read_card(location, tables.TABLE) is None
    assert not index.drop(location, tables.TABLE)
    assert not index.rebuild(location, tables.TABLE)
    assert not index.drop(location, "embeddings_none")
    assert recall(location) == 1


def test_what_an_index_needs_follows_from_its_rows(location: str) -> None:
    assert index.wants(location, tables.TABLE, 100, 0.1) == ""
    for number in range(3):
        put(location, number * 500, 500, seed=number)
    assert index.wants(location, tables.TABLE, 0, 0.1) == ""
    assert index.wants(location, tables.TABLE, 2_000, 0.1) == ""
    assert index.wants(location, tables.TABLE, 1_500, 0.1) == "build"
    index.build(location, tables.TABLE)
    assert index.wants(location, tables.TABLE, 1_500, 0.1) == ""
    put(location, 5_000, 300, seed=9)
    assert index.wants(location, tables.TABLE, 1_500, 0.1) == "refresh"
    assert index.wants(location, tables.TABLE, 1_500, 0.5) == ""
    put(location, 6_000, 1_500, seed=10)
    assert index.wants(location, tables.TABLE, 1_500, 0.1) == "build"


def test_an_empty_table_cannot_be_indexed(location: str) -> None:
    put(location, 0, 3)
    commit.delete(location, tables.TABLE, "TRUE")
    with pytest.raises(ValueError, match="empty"):
        index.build(location, tables.TABLE)
    with pytest.raises(StoreError, match="no table"):
        index.build(location, "embeddings_none")


def test_a_table_of_a_few_rows_can_be_indexed(location: str) -> None:
    put(location, 0, 3)
    index.build(location, tables.TABLE)
    assert recall(location, k=5, probes=0) == 1


def test_the_probes_of_a_depth_lie_between_those_measured() -> None:
    card = index.Card(partitions=400, trained_rows=10_000, probes={"10": 20, "100": 40, "1000": 80})
    assert [card.probes_for(depth) for depth in (1, 10, 100, 1000)] == [20, 20, 40, 80]
    assert 20 < card.probes_for(30) < 40
    assert card.probes_for(4_000) == 320
    assert card.probes_for(10**9) == 400
    unmeasured = index.Card(partitions=400, trained_rows=10_000)
    assert unmeasured.probes_for(1) == unmeasured.probes_for(10) == 40
    assert unmeasured.probes_for(100) > 80
    assert unmeasured.probes_for(10**9) == 400


def test_the_fewest_probes_reach_the_recall_they_were_chosen_for(location: str) -> None:
    indexed(location)
    dataset = read.need_table(location, tables.TABLE)
    asked = draw(100, seed=77).astype(np.float32)
    exact = nearest.top_k(location, tables.TABLE, asked, 10, columns=["vector", "clip_key"])
    ranks = index.partition_ranks(
        index.centres_of(dataset), asked, [nearest.vectors_of(hits["vector"]) for hits in exact]
    )
    probes = index.fewest_probes(ranks, 10, 0.9)
    for given_probes, low, high in ((probes, 0.89, 0.97), (max(1, probes // 3), 0.2, 0.88)):
        found = dataset.scanner(
            columns=["clip_key", "_distance"],
            nearest={"column": "vector", "q": asked, "k": 10, "nprobes": given_probes},
            disable_scoring_autoprojection=True,
        ).to_table()
        same = 0
        for at, hits in enumerate(exact):
            own = found.filter(pa.compute.equal(found["query_index"], at))["clip_key"].to_pylist()
            same += len(set(own) & set(hits["clip_key"].to_pylist()))
        assert low <= same / 1000 <= high


@given(rows=st.integers(1, 300), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_centres_are_unit_vectors_however_alike_the_sample(rows: int, count: int, seed: int) -> None:
    values = draw(rows, seed=seed)
    values[: rows // 2] = values[0]
    if count > rows:
        with pytest.raises(ValueError, match="expected between"):
            centres.train(values, count)
        return
    found = centres.train(values, count, seed=seed)
    assert found.shape == (count, WIDTH)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_centres_fall_where_the_vectors_are() -> None:
    values = draw(6_000)
    found = centres.train(values, 60, rounds=10)
    nearest_score = (values.astype(np.float32) @ found.T).max(axis=1)
    drawn = (values.astype(np.float32) @ values[:60].astype(np.float32).T).max(axis=1)
    assert nearest_score.mean() > drawn.mean() + 0.1


def test_an_archive_made_anew_in_the_same_place_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    location = str(tmp_path / "archive")
    for seed in (1, 2, 3):
        put(location, seed * 1_000, 600, seed=seed)
        index.build(location, tables.TABLE)
        asked = draw(20, seed=30 + seed).astype(np.float32)
        exact = nearest.top_k(location, tables.TABLE, asked, 5)
        for found in (
            ranking.top_k(location, tables.TABLE, asked, 5, exact=True),
            ranking.top_k(location, tables.TABLE, asked, 5, probes=10_000),
        ):
            assert [hits["clip_key"].to_pylist() for hits in found] == [hits["clip_key"].to_pylist() for hits in exact]
        shutil.rmtree(location)


STEPS = st.lists(st.sampled_from(["append", "delete", "refresh", "compact", "rebuild"]), max_size=5)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, k=st.integers(1, 60), modulus=st.sampled_from([1, 2, 7, 40, 900]))
def test_whatever_happened_no_hit_is_missing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], k: int, modulus: int
) -> None:
    location = str(tmp_path_factory.mktemp("archive"))
    indexed(location, rows=1_000)
    for number, step in enumerate(steps):
        if step == "append":
            put(location, 10_000 * (number + 1), 150, seed=number)
        elif step == "delete":
            commit.delete(location, tables.TABLE, f"clip_key % 5 = {number}")
        elif step == "refresh":
            index.refresh(location, tables.TABLE)
        elif step == "rebuild":
            assert index.rebuild(location, tables.TABLE)
        else:
            read.need_table(location, tables.TABLE).optimize.compact_files()
    where = f"clip_key % {modulus} = 0"
    assert recall(location, k, where, queries=10, probes=1) >= 0
    assert recall(location, k, where, queries=10, probes=10_000) > 0.98

"""How far a search looks: chosen by exact search on half of the queries, measured on the others."""

from __future__ import annotations

import numpy as np
import pytest
from store import tables
from store.clouds import draw, indexed

from raydist.store import calibrate, index, nearest, ranking, read
from raydist.store.calibrate import Asked


def far(count: int, seed: int = 3) -> np.ndarray:
    """Queries like texts: apart from all vectors, and with something of two clusters each."""
    away = np.random.default_rng(5).normal(size=32)
    values = draw(count, seed).astype(np.float64) + draw(count, seed + 1) + 1.5 * away / np.linalg.norm(away)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_the_recall_that_is_aimed_at_is_reached(location: str) -> None:
    indexed(location)
    card = calibrate.measure(location, tables.TABLE, {"text": Asked(far(200))})
    assert index.read_card(location, tables.TABLE) == card
    asked = far(300, seed=20)
    exact = nearest.top_k(location, tables.TABLE, asked, 10)
    found = ranking.top_k(location, tables.TABLE, asked, 10, probes=card.probes_for(10))
    keys = [
        {*mine["clip_key"].to_pylist()} & {*true["clip_key"].to_pylist()}
        for mine, true in zip(found, exact, strict=True)
    ]
    assert sum(map(len, keys)) / 3_000 > 0.93
    assert card.recall["text"] == pytest.approx(sum(map(len, keys)) / 3_000, abs=0.04)
    assert 1 <= card.probes["10"] <= card.probes["100"] <= card.probes["1000"] <= card.partitions


def test_texts_need_more_than_videos_and_the_most_is_kept(location: str) -> None:
    indexed(location)
    videos, texts = calibrate.sample(location, tables.TABLE, 100), Asked(far(100))
    both = calibrate.measure(location, tables.TABLE, {"text": texts, "video": videos})
    text = calibrate.measure(location, tables.TABLE, {"text": texts})
    assert both.probes["10"] >= text.probes["10"]
    assert set(both.recall) == {"text", "video"}
    assert both.recall["video"] > 0.95


def test_without_texts_a_tenth_of_the_partitions_is_looked_at(location: str) -> None:
    indexed(location)
    card = calibrate.measure(location, tables.TABLE, {"video": calibrate.sample(location, tables.TABLE, 50)})
    assert min(card.probes.values()) >= card.partitions / 10


def test_a_higher_aim_costs_more_probes(location: str) -> None:
    indexed(location)
    few = calibrate.measure(location, tables.TABLE, {"text": Asked(far(100))}, target=0.6)
    many = calibrate.measure(location, tables.TABLE, {"text": Asked(far(100))}, target=0.98)
    assert few.probes["10"] < many.probes["10"]
    assert few.recall["text"] < many.recall["text"]


def test_a_clip_is_not_its_own_neighbour(location: str) -> None:
    indexed(location, rows=1_000)
    asked = calibrate.sample(location, tables.TABLE, 20)
    hits = nearest.top_k(location, tables.TABLE, asked.vectors_QD, 11)
    assert asked.keys is not None
    assert [found["clip_key"][0].as_py() for found in hits] == asked.keys.tolist()
    for key, found in zip(asked.keys.tolist(), asked.without_own(hits, 10), strict=True):
        assert found.num_rows == 10
        assert key not in found["clip_key"].to_pylist()


def test_a_table_without_an_index_gets_one(location: str) -> None:
    indexed(location, rows=1_000)
    index.drop(location, tables.TABLE)
    card = calibrate.measure(location, tables.TABLE, {"text": Asked(far(20))})
    assert index.find(read.need_table(location, tables.TABLE)) is not None
    assert card.recall["text"] > 0.9

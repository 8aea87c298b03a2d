"""Metrics: ranks as the field counts them, ties that earn nothing, intervals that cover, a test that is fair."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from archives import fails_with
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from raydist.metrics import FIGURES, Places, Ranks, bootstrap, chance, compare, groups, ranks, summarise

SMALL = [[0.9, 0.1, 0.2, 0.3], [0.8, 0.7, 0.1, 0.2], [0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.6]]


def by_scores(scores_NM: NDArray[np.floating] | list[list[float]], pairs: NDArray[np.integer]) -> Ranks:
    """Ranks from a matrix of scores: its rows are vectors whose products with unit vectors are the scores."""
    scores = np.asarray(scores_NM)
    return ranks(scores, np.eye(scores.shape[1]), pairs)


def diagonal(count: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(count)[:, None], 2, axis=1)


def figures(places: Places) -> list[float]:
    found = summarise(places)
    return [found.r1, found.r5, found.r10, found.median_rank]


def test_ranks_by_hand() -> None:
    found = by_scores(SMALL, diagonal(4))
    assert found.video_to_text.ranks.tolist() == [1, 2, 3, 4]
    assert found.text_to_video.ranks.tolist() == [2, 3, 1.5, 1]
    assert summarise(found.video_to_text).r1 == 25


def test_ranks_by_hand_with_ties_and_several_right_answers() -> None:
    scores = [[0.5, 0.9, 0.1], [0.5, 0.2, 0.8], [0.5, 0.9, 0.3]]
    pairs = np.array([[0, 0], [1, 2], [2, 1], [0, 2]])
    found = by_scores(scores, pairs)
    assert found.text_to_video.ranks.tolist() == [2.0, 1.5, 1.0]  # text 2 is of videos 0 and 1: the best counts
    assert found.video_to_text.ranks.tolist() == [2.0, 1.0, 1.0]  # video 0 has texts 0 and 2: the best counts
    np.testing.assert_allclose(found.text_to_video.found[:2, 0], [1 / 3, 1 / 2])


@pytest.mark.parametrize(
    ("name", "rule", "pairs"),
    [
        ("square", "optimistic", diagonal(200)),
        ("multi", "optimistic", None),
        ("distractors", "optimistic", diagonal(50)),
        ("ties", "mean", diagonal(200)),
    ],
)
def test_the_reference_numbers_come_out(shared: Path, name: str, rule: str, pairs: NDArray[np.int64] | None) -> None:
    given = load_file(shared / "parity" / "metrics" / "similarity.safetensors")
    expected = json.loads((shared / "parity" / "metrics" / "expected.json").read_text())[name][rule]
    if pairs is None:
        owner = given["multi.text_to_video_index"]
        pairs = np.stack([owner, np.arange(len(owner))], axis=1)
    found = by_scores(given[f"{name}.sim"], pairs)
    for direction, wanted in expected.items():
        places = getattr(found, direction)
        known = places.ranks[places.known]
        assert len(known) == wanted["n"]
        assert known.mean() == pytest.approx(wanted["MeanR"])
        assert figures(places)[3] == wanted["MedR"]
        # The reference counts a query whole where its mean rank, from 0, is below the depth; raydist counts its share.
        recall = [100 * np.mean(known - 1 < depth) for depth in (1, 5, 10)] if rule == "mean" else figures(places)[:3]
        assert recall == pytest.approx([wanted[f"R@{depth}"] for depth in (1, 5, 10)])


@pytest.mark.parametrize("count", [2, 12, 20, 300])
def test_a_model_that_gives_one_vector_for_everything_scores_chance(count: int) -> None:
    vector = np.random.default_rng(0).normal(size=48).astype(np.float32)
    same = np.tile(vector / np.linalg.norm(vector), (count, 1))
    found = ranks(same, same, diagonal(count))
    expected = [100 * min(1.0, depth / count) for depth in (1, 5, 10)]
    for places in (found.text_to_video, found.video_to_text):
        assert figures(places) == pytest.approx([*expected, (count + 1) / 2])
        assert figures(places) == pytest.approx(
            [getattr(chance(np.ones(count, int), count), figure) for figure in FIGURES]
        )


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
def test_equal_scores_count_as_the_mean_over_all_their_orders(higher: int, wrong: int, right: int) -> None:
    """Against every order, written out."""
    scores = [2.0] * higher + [1.0] * (wrong + right)
    pairs = np.array([[0, place] for place in range(higher + wrong, len(scores))])
    place = by_scores([scores], pairs).video_to_text
    best = [1 + higher + order.index(True) for order in permutations([False] * wrong + [True] * right)]
    assert place.ranks[0] == pytest.approx(np.mean(best))
    assert place.found[0] == pytest.approx([np.mean([rank <= depth for rank in best]) for depth in (1, 5, 10)])


def test_chance_is_what_random_vectors_score() -> None:
    rng = np.random.default_rng(5)
    pairs = np.stack([np.arange(150) % 60, np.arange(150)], axis=1)  # 60 videos of 2 or 3 texts
    drawn = [by_scores(rng.normal(size=(60, 150)), pairs) for _ in range(200)]
    for direction, counts, candidates in (
        ("text_to_video", np.ones(150, int), 60),
        ("video_to_text", np.bincount(pairs[:, 0]), 150),
    ):
        expected = chance(counts, candidates)
        mean = np.mean([figures(getattr(one, direction)) for one in drawn], axis=0)
        assert mean == pytest.approx([getattr(expected, figure) for figure in FIGURES], rel=0.06)


def test_queries_without_a_right_answer_are_left_out() -> None:
    found = by_scores(SMALL, diagonal(2))
    assert np.isnan(found.video_to_text.ranks[2:]).all()
    assert summarise(found.text_to_video).queries == 2
    with fails_with(ValueError, "none of 4 queries"):
        summarise(by_scores(SMALL, np.empty((0, 2), int)).text_to_video)


def test_many_queries_are_ranked_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    videos, texts = rng.normal(size=(70, 8)), rng.normal(size=(90, 8))
    pairs = np.stack([rng.integers(70, size=120), rng.integers(90, size=120)], axis=1)
    whole = ranks(videos, texts, pairs)
    monkeypatch.setattr("raydist.metrics.ranking.BLOCK", 100)
    parts = ranks(videos, texts, pairs)
    np.testing.assert_array_equal(whole.text_to_video.ranks, parts.text_to_video.ranks)
    np.testing.assert_array_equal(whole.video_to_text.found, parts.video_to_text.found)


def test_vectors_that_are_no_numbers_are_refused() -> None:
    good, bad = np.eye(3), np.eye(3)
    bad[1] = np.nan
    with fails_with(ValueError, "1 of 3 vectors of texts", "NaN"):
        ranks(good, bad, diagonal(3))
    with fails_with(ValueError, "expected \\[N, E\\]"):
        ranks(good, np.eye(4), diagonal(3))
    with fails_with(ValueError, "a pair names"):
        ranks(good, good, np.array([[0, 3]]))


def test_clips_of_one_source_and_sources_that_share_a_text_are_one_group() -> None:
    sources = ["a", "a", "b", "c", "d"]
    pairs = np.array([[0, 0], [1, 1], [2, 1], [3, 2], [4, 3], [4, 4]])
    found = groups(sources, pairs, 6)
    a, c, d = found.videos[0], found.videos[3], found.videos[4]
    assert found.videos.tolist() == [a, a, a, c, d]
    assert found.texts.tolist() == [a, a, c, d, d, -1]
    assert found.count == len({a, c, d}) == 3


def test_one_group_has_no_interval_and_a_seed_gives_the_same_one_again() -> None:
    places = Places.of(np.random.default_rng(0).integers(1, 20, 40))
    assert bootstrap(places, np.zeros(40, int)) == dict.fromkeys(FIGURES)
    assert bootstrap(places, np.arange(40), seed=3) == bootstrap(places, np.arange(40), seed=3)
    assert bootstrap(places, np.arange(40), seed=3) != bootstrap(places, np.arange(40), seed=4)


def test_a_perfect_score_of_few_videos_is_not_certain() -> None:
    bounds = bootstrap(Places.of(np.ones(20)), np.arange(20))
    low, high = bounds["r1"] or (0, 0)
    assert high == 100
    assert low == pytest.approx(100 * 0.025 ** (1 / 20))  # Clopper and Pearson: 83.2 %
    change = compare(Places.of(np.ones(20)), Places.of(np.ones(20)), np.arange(20))
    assert change.difference["r1"] == pytest.approx((low - 100, 100 - low))
    assert change.p == dict.fromkeys(FIGURES, 1.0)


def test_intervals_are_wider_where_queries_come_in_groups() -> None:
    found = Places.of(np.repeat(np.where(np.random.default_rng(2).random(50) < 0.5, 1, 30), 8))
    alone, together = bootstrap(found, np.arange(400)), bootstrap(found, np.repeat(np.arange(50), 8))
    for figure in ("r1", "r5", "r10"):
        (low, high), (wide_low, wide_high) = alone[figure] or (0, 0), together[figure] or (0, 0)
        assert wide_high - wide_low > 2 * (high - low)


@pytest.mark.parametrize(("count", "share"), [(20, 0.5), (60, 0.3)])
def test_95_percent_intervals_hold_the_truth_about_95_times_in_a_hundred(count: int, share: float) -> None:
    rng = np.random.default_rng(7)
    held = 0
    for trial in range(400):
        hit_Q = np.repeat(rng.random(count) < share, 3) ^ (rng.random(3 * count) < 0.1)
        low, high = bootstrap(
            Places.of(np.where(hit_Q, 1, 99)), np.repeat(np.arange(count), 3), resamples=500, seed=trial
        )["r1"] or (0, 0)
        held += low <= 100 * (share * 0.9 + (1 - share) * 0.1) <= high
    assert 0.92 <= held / 400 <= 0.985


def test_the_paired_test_of_few_groups_counts_all_exchanges() -> None:
    base, adapter = Places.of(np.array([9, 9, 9, 9, 1])), Places.of(np.array([1, 1, 1, 1, 1]))
    assert compare(base, adapter, np.arange(5)).p["r1"] == 2 / 2**4
    assert compare(base, adapter, np.array([0, 0, 1, 1, 2])).p["r1"] == 2 / 2**2
    assert compare(base, adapter, np.arange(5)).p["median_rank"] < 1


def test_the_paired_test_is_fair_where_models_do_not_differ() -> None:
    """At 5 %, about 5 of a hundred comparisons of equals are taken for a difference, and a large gain nearly always."""
    rng = np.random.default_rng(11)
    wrongly, rightly = np.zeros(4), np.zeros(4)
    group_Q = np.repeat(np.arange(40), 2)
    for trial in range(200):
        base, other = rng.integers(1, 15, 80), rng.integers(1, 15, 80)
        alike = compare(Places.of(base), Places.of(other), group_Q, resamples=20, flips=400, seed=trial).p
        better = Places.of(np.maximum(1, other - 6))
        apart = compare(Places.of(base), better, group_Q, resamples=20, flips=400, seed=trial).p
        wrongly += [alike[figure] < 0.05 for figure in FIGURES]
        rightly += [apart[figure] < 0.05 for figure in FIGURES]
    assert (wrongly / 200 <= 0.09).all()
    assert (rightly / 200 >= 0.8).all()


def test_a_gain_that_all_resamples_see_is_no_chance() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(2, 60, 300)
    change = compare(Places.of(base), Places.of(np.where(rng.random(300) < 0.5, 1, base)), np.arange(300))
    low, high = change.difference["r1"] or (0, 0)
    assert 40 < low < 50 < high < 60
    assert change.p["r1"] == 1 / 10_001
    low, high = change.difference["median_rank"] or (0, 0)
    assert high < 0


def test_models_that_were_asked_other_queries_are_not_compared() -> None:
    one, other = np.array([1.0, np.nan]), np.array([1.0, 2.0])
    with fails_with(ValueError, "other queries"):
        compare(Places.of(one), Places.of(other), np.arange(2))

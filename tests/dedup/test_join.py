"""The exact join: the pairs of a full comparison, no more and no fewer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from archives import fails_with
from hypothesis import given, settings
from hypothesis import strategies as st

import raydist
from raydist.dedup import blocks, cells, exact, kernel
from raydist.errors import UsageError


def drawn(count: int, width: int, seed: int, kind: str) -> np.ndarray:
    """Random vectors with near and equal ones among them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(1, count // 8), width))
    spread = {"clustered": 0.25, "tight": 0.05, "diffuse": 5.0}[kind]
    values = centres[generator.integers(0, len(centres), count)] + generator.normal(size=(count, width)) * spread
    twins = generator.integers(0, max(1, count), (2, count // 5))
    values[twins[0]] = values[twins[1]] * (1 if seed % 2 else 1 + generator.random((len(twins[0]), 1)))
    return values


def brute(vectors: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    """The definition, pair by pair."""
    x = vectors.astype(np.float64)
    squares = (x * x).sum(axis=1)
    found = {}
    for a in range(len(x)):
        similarity = (x[a] * x).sum(axis=1) / np.sqrt(squares[a] * squares)
        for b in np.flatnonzero(similarity[a + 1 :] >= threshold).tolist():
            found[a, a + 1 + b] = float(similarity[a + 1 + b])
    return found


def check(vectors: np.ndarray, threshold: float) -> None:
    table = raydist.find_duplicates(vectors, threshold)
    wanted = brute(vectors, threshold)
    keys = list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True))
    assert keys == sorted(wanted)
    assert table["similarity"].to_pylist() == [float(np.float32(wanted[key])) for key in keys]


@settings(max_examples=60)
@given(
    count=st.integers(0, 400),
    width=st.sampled_from([1, 2, 3, 8, 64, 200]),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["clustered", "tight", "diffuse"]),
    threshold=st.sampled_from([0.05, 0.5, 0.8, 0.95, 0.99, 0.9999, 0.999999]),
    half=st.booleans(),
)
def test_pairs_are_those_of_a_full_comparison(
    count: int, width: int, seed: int, kind: str, threshold: float, half: bool
) -> None:
    vectors = drawn(count, width, seed, kind).astype(np.float16 if half else np.float32)
    vectors[(vectors == 0).all(axis=1)] = 1
    check(vectors, threshold)


@pytest.mark.parametrize("kind", ["clustered", "tight", "diffuse"])
@pytest.mark.parametrize("threshold", [0.6, 0.9, 0.97])
def test_many_cells_and_groups_lose_nothing(kind: str, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large archive: cells of a dozen vectors, groups that cut through cells, short heads, small products."""
    monkeypatch.setattr(exact, "GROUP_ROWS", 150)
    monkeypatch.setattr(cells, "cell_count", lambda pairs: 60)
    monkeypatch.setattr(kernel, "_ROWS", 48)
    monkeypatch.setattr(kernel, "_COLUMNS", 32)
    monkeypatch.setattr(kernel, "_TRIED", 8)
    monkeypatch.setattr(blocks, "_ROWS_AT_ONCE", 100)
    check(drawn(1_000, 80, 7, kind).astype(np.float16), threshold)


def test_a_tie_at_the_threshold_is_a_pair() -> None:
    """3-4-5 triangles: cosines of exactly 0.8 and 0.6, beside others that a float32 cannot tell from them."""
    vectors = np.zeros((6, 4), np.float32)
    vectors[:3, :2] = [[1, 0], [4, 3], [3, 4]]
    vectors[3:, :2] = [[1, 0], [4, np.nextafter(np.float32(3), np.float32(4))], [2.5, 0]]
    assert math.cos(math.acos(0.8)) == pytest.approx(0.8)
    check(vectors, 0.8)
    pairs = raydist.find_duplicates(vectors, 0.8)
    found = set(zip(pairs["a"].to_pylist(), pairs["b"].to_pylist(), strict=True))
    assert (0, 1) in found
    assert (0, 4) not in found
    assert (0, 2) not in found


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(-2, 2))
def test_a_threshold_beside_a_similarity_decides_it_exactly(seed: int, step: int) -> None:
    vectors = drawn(40, 16, seed, "clustered").astype(np.float16)
    similarities = sorted(value for value in brute(vectors, 0.3).values() if value < 1)
    if similarities:
        threshold = similarities[seed % len(similarities)]
        for _ in range(abs(step)):
            threshold = float(np.nextafter(threshold, math.copysign(2, step)))
        check(vectors, threshold)


def test_equal_vectors_have_a_similarity_of_one() -> None:
    vectors = np.repeat(drawn(1, 64, 3, "tight").astype(np.float32), 90, axis=0)
    table = raydist.find_duplicates(vectors, 0.999999)
    assert table.num_rows == 90 * 89 // 2
    assert set(table["similarity"].to_pylist()) == {1.0}


def test_vectors_too_short_for_heads_are_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in one cell, at one point: there is nothing to look for at its border."""
    monkeypatch.setattr(blocks, "_border", lambda layout, a, b: np.zeros((len(a), len(b.cells)), np.bool_))
    check(drawn(86, 1, 0, "clustered").astype(np.float32), 0.05)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors_are_no_trouble(count: int) -> None:
    table = raydist.find_duplicates(np.ones((count, 5), np.float16))
    assert table.to_pylist() == [{"a": 0, "b": 1, "similarity": 1.0}] * (count == 2)
    assert table.schema.names == ["a", "b", "similarity"]


@pytest.mark.parametrize(("value", "words"), [(0.0, "is zero"), (np.nan, "NaN"), (np.inf, "infinity")])
def test_a_vector_without_a_direction_is_refused(value: float, words: str) -> None:
    vectors = np.ones((9_000, 4), np.float32)
    vectors[8_765] = value
    with fails_with(UsageError, "vector 8765", words, "leave such rows out"):
        raydist.find_duplicates(vectors)


@pytest.mark.parametrize("vectors", [np.ones(3, np.float32), np.ones((2, 2)), np.ones((3, 0), np.float16)])
def test_another_shape_or_type_is_refused(vectors: np.ndarray) -> None:
    with fails_with(UsageError, "vectors have shape", "expected"):
        raydist.find_duplicates(vectors)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 95, math.nan])
def test_a_threshold_out_of_bounds_is_refused(threshold: float) -> None:
    with fails_with(UsageError, f"threshold is {threshold}", "above 0 and below 1"):
        raydist.find_duplicates(np.ones((2, 2), np.float32), threshold)


@given(
    seed=st.integers(0, 2**32 - 1), width=st.integers(2, 300), threshold=st.floats(0.1, 0.99), scale=st.floats(0.01, 3)
)
def test_heads_never_hide_a_pair(seed: int, width: int, threshold: float, scale: float) -> None:
    """The product of two heads, rounding included, is not below the similarity by more than is allowed for."""
    generator = np.random.default_rng(seed)
    vectors = (generator.normal(size=(60, width)) * generator.random(width) ** scale + 0.2).astype(np.float16)
    basis = cells.principal(kernel.block_of(vectors).units(slice(None)), threshold)
    block = kernel.block_of(vectors, basis)
    i, j = np.triu_indices(60)
    bound = (block.head[i].astype(np.float64) * block.head[j]).sum(axis=1)
    allowed = kernel.head_error(width, basis.shape[1])
    assert (bound + allowed >= block.similarity(i, block, j)).all()
    assert np.linalg.norm(basis.astype(np.float64), 2) <= 1

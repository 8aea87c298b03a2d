"""Groups and keepers: what the sequential rule says, however the work is done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.dedup.components import NONE, components, keepers


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """Clips, edges with repeats and loops in both directions, and cliques."""
    n = draw(st.integers(0, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    edges = generator.integers(0, n, (draw(st.integers(0, 2 * n)), 2)) if n else np.empty((0, 2), np.int64)
    if n and draw(st.booleans()):
        edges = np.concatenate([edges, np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)])  # a long chain
    clique = generator.integers(NONE, draw(st.integers(0, 5)), n)
    return n, edges, clique


def expanded(edges: np.ndarray, clique: np.ndarray) -> set[tuple[int, int]]:
    """All edges between two clips, those of the cliques written out, in both directions."""
    pairs = {(int(a), int(b)) for a, b in edges if a != b}
    pairs |= {
        (a, b) for a in range(len(clique)) for b in range(len(clique)) if a != b and clique[a] == clique[b] != NONE
    }
    return pairs | {(b, a) for a, b in pairs}


def one_by_one(order: np.ndarray, pairs: set[tuple[int, int]]) -> tuple[list[bool], list[int]]:
    """The rule as it is stated."""
    turns = np.argsort(order, kind="stable").tolist()
    kept: list[int] = []
    by = list(range(len(order)))
    for clip in turns:
        stands = [other for other in kept if (clip, other) in pairs]
        if stands:
            by[clip] = stands[0]
        else:
            kept.append(clip)
    return [clip in kept for clip in range(len(order))], by


@given(graphs())
def test_a_group_is_what_hangs_together(graph: tuple[int, np.ndarray, np.ndarray]) -> None:
    n, edges, clique = graph
    label = list(range(n))
    for _ in range(n):
        for a, b in expanded(edges, clique):
            label[a] = label[b] = min(label[a], label[b])
    assert components(n, edges, clique).tolist() == label


@given(graphs(), st.data())
def test_keepers_are_those_of_a_pass_one_by_one(graph: tuple[int, np.ndarray, np.ndarray], data: st.DataObject) -> None:
    n, edges, clique = graph
    order = np.array(data.draw(st.lists(st.integers(0, 20), min_size=n, max_size=n)), np.int64)
    pairs = expanded(edges, clique)
    kept, by = keepers(order, edges, clique)
    assert (kept.tolist(), by.tolist()) == one_by_one(order, pairs)
    assert all(kept[by[clip]] and (by[clip] == clip or (clip, by[clip]) in pairs) for clip in range(n))
    assert not any(kept[a] and kept[b] for a, b in pairs)


def test_a_long_chain_keeps_every_other_clip() -> None:
    n = 20_001
    kept, by = keepers(np.arange(n), np.stack([np.arange(n - 1), np.arange(1, n)], axis=1))
    assert kept.tolist() == [number % 2 == 0 for number in range(n)]
    assert by[1::2].tolist() == list(range(0, n - 1, 2))


def test_a_million_identical_clips_keep_one() -> None:
    n = 1_000_000
    kept, by = keepers(np.arange(n)[::-1], np.empty((0, 2), np.int64), np.zeros(n, np.int64))
    assert np.flatnonzero(kept).tolist() == [n - 1]
    assert (by == n - 1).all()
    assert (components(n, np.empty((0, 2), np.int64), np.zeros(n, np.int64)) == 0).all()


@pytest.mark.parametrize("edges", [[[0, 3]], [[-1, 0]], [[0, 1, 2]], [0, 1]])
def test_edges_that_are_none_are_refused(edges: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="edges"):
        components(3, np.array(edges))
    with pytest.raises(ValueError, match="edges"):
        keepers(np.arange(3), np.array(edges))


def test_a_clique_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="clique has 2 entries"):
        keepers(np.arange(3), np.empty((0, 2), np.int64), np.zeros(2, np.int64))

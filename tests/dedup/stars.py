"""stars: whether what a join wrote stands for all pairs that there are, with crowds as stars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist.dedup import facing
from raydist.dedup.spread import Joined

Pairs = dict[tuple[int, int], float]


def edges(found: Joined) -> Pairs:
    """The edges of a join."""
    written = edges_in(found.edges)
    assert len(written) == found.written
    return written


def edges_in(folder: Path) -> Pairs:
    """The edges of all files of a folder; none twice."""
    parts = [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    rows = pa.concat_tables([facing.EDGES.empty_table(), *parts]).to_pylist()
    result = {(row["a"], row["b"]): row["similarity"] for row in rows}
    assert len(result) == len(rows), "an edge is written twice"
    return result


def true_pairs(a: dict[int, np.ndarray], b: dict[int, np.ndarray] | None, threshold: float) -> Pairs:
    """By the definition; within one set those with the smaller key first."""
    others = a if b is None else b
    x, y = np.array(list(a.values()), np.float64), np.array(list(others.values()), np.float64)
    products = x @ y.T / np.sqrt((x * x).sum(axis=1)[:, None] * (y * y).sum(axis=1))
    keys, theirs = list(a), list(others)
    hits = zip(*(at.tolist() for at in np.nonzero(products >= threshold)), strict=True)
    return {(keys[i], theirs[j]): products[i, j] for i, j in hits if b is not None or keys[i] < theirs[j]}


def check(found: Joined, wanted: Pairs) -> None:
    """A join within one archive."""
    assert found.pairs == len(wanted)
    assert sum(found.histogram.values()) == pytest.approx(found.pairs, abs=0.02 * found.pairs)
    assert all(count >= 64 for count in found.crowds["crowd"].value_counts().field("counts").to_pylist())
    check_edges(edges(found), found.crowds, wanted)


def check_edges(written: Pairs, crowds: pa.Table, wanted: Pairs) -> None:
    """Each true pair is an edge, or stands in one of the ways that crowds allow; each edge is a true pair."""
    ordered = {(min(pair), max(pair)): value for pair, value in written.items()}
    assert len(ordered) == len(written), "an edge is written in both directions"
    assert {pair: pytest.approx(value, abs=1e-6) for pair, value in wanted.items() if pair in ordered} == ordered
    of = dict(zip(crowds["clip_key"].to_pylist(), crowds["crowd"].to_pylist(), strict=True))
    assert len(of) == crowds.num_rows, "a clip is in two crowds"
    linked = {frozenset((of.get(a, a), of.get(b, b))) for a, b in ordered}
    for a, b in wanted:
        if a in of or b in of:
            assert of.get(a, a) == of.get(b, b) or frozenset((of.get(a, a), of.get(b, b))) in linked
        else:
            assert (a, b) in ordered
    assert all(of[pivot] == pivot for pivot in of.values())
    members: dict[int, list[int]] = {}
    for clip, pivot in of.items():
        members.setdefault(pivot, []).append(clip)
    for group in members.values():
        assert {(a, b) for a in group for b in group if a < b} <= set(wanted), "two of a crowd are no pair"
    # One edge for a clip and a crowd, one for two crowds, none inside of one.
    crossing = [frozenset((of.get(a, a), of.get(b, b))) for a, b in ordered if a in of or b in of]
    assert len(crossing) == len(set(crossing))
    assert all(len(ends) == 2 for ends in crossing)

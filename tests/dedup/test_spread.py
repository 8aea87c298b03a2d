"""The join of archives on Ray: every pair counted once, and written where it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from archives import fails_with
from dedup import stars
from hypothesis import given
from hypothesis import strategies as st
from store import tables

from raydist import runtime
from raydist.config import load
from raydist.dedup import cells, spread
from raydist.dedup.spread import Joined, Side
from raydist.dedup.tasks import Shard
from raydist.errors import StoreError, UsageError
from raydist.store import commit

pytestmark = pytest.mark.ray

WIDTH = 24
T = 0.9


def drawn(count: int, seed: int, spreads: float = 0.3) -> np.ndarray:
    """Clips in clusters, a fifth of them equal or nearly equal to another."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(1, count // 12), WIDTH))
    values = centres[generator.integers(0, len(centres), count)] + generator.normal(size=(count, WIDTH)) * spreads
    twins = generator.integers(0, count, (2, count // 10))
    values[twins[0]] = values[twins[1]]
    return unit(values)


def crowd(count: int, seed: int, noise: float = 0.004) -> np.ndarray:
    """Nearly black clips; every third one is black."""
    generator = np.random.default_rng(5)
    values = np.repeat(generator.normal(size=(1, WIDTH)), count, axis=0)
    shaken = np.random.default_rng(seed).normal(size=(count, WIDTH)) * noise * np.sqrt(WIDTH)
    shaken[::3] = 0
    return unit(values + shaken)


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def fill(location: Path, vectors: np.ndarray, first: int = 0, stale: int = 0) -> dict[int, np.ndarray]:
    """Clips with vectors, in three fragments and any order, and rows that do not count. Key -> vector."""
    keys = (first + np.arange(len(vectors))).tolist()
    order = np.random.default_rng(first).permutation(len(vectors))
    clips = tables.clips([keys[at] for at in order])
    commit.append(str(location), "clips", clips, clips.schema)
    for part in np.array_split(order, 3):
        rows = tables.embeddings([keys[at] for at in part], "a", tables.fixed(vectors[part]))
        commit.append(str(location), tables.TABLE, rows, rows.schema)
    if stale:
        rows = tables.embeddings(keys[:stale], "old", tables.fixed(vectors[:stale]))
        commit.append(str(location), tables.TABLE, rows, rows.schema)
    return dict(zip(keys, vectors, strict=True))


def joined(place: Path, work: Path, threshold: float = T, **given: Any) -> Joined:
    config = load(options={"archive": str(place)}, environment={}).config
    side = Side(location=str(place), table=tables.TABLE, where=given.pop("where", None))
    with runtime.session(config.ray) as resources:
        return spread.join(config, resources, side, work, threshold=threshold, **given)


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large archive: many groups and small cells."""
    monkeypatch.setattr(spread, "_group_rows", lambda width: 250)
    monkeypatch.setattr(cells, "cell_count", lambda pairs: 20)


@pytest.mark.usefixtures("cluster", "many_groups")
def test_every_pair_of_an_archive_is_found_once(tmp_path: Path) -> None:
    vectors = fill(tmp_path / "a", drawn(900, 1), stale=50)
    found = joined(tmp_path / "a", tmp_path / "w")
    wanted = stars.true_pairs(vectors, None, T)
    assert len(wanted) > 1_000
    stars.check(found, wanted)
    assert found.clips == found.keys.num_rows == 900
    assert found.keys["clip_key"].to_pylist() == list(range(900))
    assert set(found.keys["fingerprint"].to_pylist()) == {"a"}
    assert 0 < found.products <= found.share * 900 * 899 / 2 + 1
    assert found.bytes_read > 900 * WIDTH * 2
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["edges"]


@pytest.mark.usefixtures("cluster", "many_groups")
@pytest.mark.parametrize("noise", [0.0, 0.004, 0.05])
def test_a_crowd_is_a_star_and_all_its_pairs_count(tmp_path: Path, noise: float) -> None:
    """700 black clips are cut up among groups; at the most noise their edge is ragged."""
    near = unit(crowd(40, 9, 0.1).astype(np.float64))
    vectors = fill(tmp_path / "a", np.concatenate([drawn(400, 2), crowd(700, 3, noise), near]))
    found = joined(tmp_path / "a", tmp_path / "w")
    stars.check(found, stars.true_pairs(vectors, None, T))
    assert found.crowds.num_rows > (200 if noise == 0.05 else 600)
    assert found.written < found.pairs / 2


@pytest.mark.usefixtures("cluster", "many_groups")
def test_new_clips_are_joined_with_all_and_known_ones_not_with_each_other(tmp_path: Path) -> None:
    everything = np.concatenate([drawn(700, 4), crowd(300, 6)])
    everything = everything[np.random.default_rng(8).permutation(1000)]
    vectors = fill(tmp_path / "a", everything)
    keys = list(range(0, 1000, 3))
    stale = pa.table({"clip_key": [1, 2], "fingerprint": ["old", "old"], "crowd": pa.nulls(2, pa.int64())})
    known = pa.table({"clip_key": keys, "fingerprint": ["a"] * len(keys), "crowd": pa.nulls(len(keys), pa.int64())})
    found = joined(tmp_path / "a", tmp_path / "w", known=pa.concat_tables([stale, known]))
    wanted = stars.true_pairs(vectors, None, T)
    fresh = {pair: value for pair, value in wanted.items() if pair[0] % 3 or pair[1] % 3}
    assert found.pairs == len(fresh)
    written = {(min(pair), max(pair)) for pair in stars.edges(found)}
    assert written <= set(fresh)
    assert found.keys["clip_key"].to_pylist() == [key for key in range(1000) if key % 3]
    of = set(found.crowds["clip_key"].to_pylist())
    black = {key for key in vectors if np.allclose(vectors[key], crowd(1, 0)[0], atol=0.1)}
    assert of <= black
    assert {pair for pair in fresh if not black & set(pair)} <= written
    nothing = joined(tmp_path / "a", tmp_path / "w", known=found.keys.append_column("crowd", pa.nulls(666, pa.int64())))
    assert nothing.clips == 1000
    assert nothing.keys.num_rows == 334


@pytest.mark.usefixtures("cluster", "many_groups")
def test_against_another_archive_only_pairs_across_count(tmp_path: Path) -> None:
    everything = np.concatenate([drawn(500, 10), crowd(300, 11)])
    everything = everything[np.random.default_rng(12).permutation(800)]
    a = fill(tmp_path / "a", everything[:400])
    b = fill(tmp_path / "b", everything[400:], first=200)  # the same keys may stand for others there
    other = Side(location=str(tmp_path / "b"), table=tables.TABLE)
    found = joined(tmp_path / "a", tmp_path / "w", other=other)
    wanted = stars.true_pairs(a, b, T)
    assert found.pairs == len(wanted)
    assert found.clips == 800
    assert found.crowds.num_rows == 0
    written = stars.edges(found)
    assert {pair: pytest.approx(wanted[pair], abs=1e-6) for pair in written} == written
    assert {key for key, _ in written} == {key for key, _ in wanted}, "each clip that has a partner there has an edge"
    best = {key: max(value for pair, value in wanted.items() if pair[0] == key) for key, _ in wanted}
    assert all(max(v for (k, _), v in written.items() if k == key) >= value - 1e-4 for key, value in best.items())


@given(seed=st.integers(0, 2**32 - 1), shards=st.integers(0, 4), limit=st.integers(1, 40))
def test_groups_hold_each_row_of_each_shard_once(seed: int, shards: int, limit: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = [generator.integers(0, 30, 6) * generator.integers(0, 2, 6) for _ in range(shards)]
    of = [Shard(folder=Path(str(number)), sizes=size, bytes_read=0) for number, size in enumerate(sizes)]
    groups = spread.grouped(of, limit)
    assert all(0 < sum(piece.end - piece.start for piece in group) <= limit for group in groups)
    pieces = [piece for group in groups for piece in group]
    assert [piece.cell for piece in pieces] == sorted(piece.cell for piece in pieces)
    for shard in of:
        cells_of = np.repeat(np.arange(6), shard.sizes).tolist()
        own = sorted((p.start, p.end, p.cell) for p in pieces if p.shard == shard.folder)
        rows = [(row, cell) for start, end, cell in own for row in range(start, end)]
        assert rows == list(enumerate(cells_of))


@pytest.mark.usefixtures("cluster")
def test_a_second_run_gives_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "a", np.concatenate([drawn(400, 13), crowd(200, 14)]))
    first = joined(tmp_path / "a", tmp_path / "w")
    assert "plan: 3 tasks x 1 CPU, on 1 node (4 CPUs)" in " ".join(capsys.readouterr().err.split())
    before = stars.edges(first)
    (tmp_path / "w" / "shards" / "a-0.9.draft").mkdir(parents=True)  # as a run leaves it that was killed
    again = joined(tmp_path / "a", tmp_path / "w")
    assert stars.edges(again) == before
    assert again.crowds.equals(first.crowds)
    assert (again.pairs, again.histogram) == (first.pairs, first.histogram)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("count", [1, 2])
def test_few_clips_are_no_trouble(tmp_path: Path, count: int) -> None:
    fill(tmp_path / "a", crowd(count, 1, 0))
    found = joined(tmp_path / "a", tmp_path / "w")
    assert (found.pairs, found.written, found.clips) == (count - 1, count - 1, count)
    none = joined(tmp_path / "a", tmp_path / "w", where="clip_key > 5")
    assert (none.pairs, none.clips, none.share, none.keys.num_rows) == (0, 0, 0, 0)


@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    vectors = drawn(30, 1)
    vectors[17] = 0
    fill(tmp_path / "a", vectors)
    with fails_with(StoreError, "clip 17", "is zero", "raydist embed"):
        joined(tmp_path / "a", tmp_path / "w")
    with fails_with(UsageError, "threshold is 1.5"):
        joined(tmp_path / "a", tmp_path / "w", threshold=1.5)
    with fails_with(StoreError, "nope", "clip_key"):
        joined(tmp_path / "a", tmp_path / "w", where="nope = 3")
    wide = tables.embeddings([1], "a", tables.fixed(np.ones((1, 8), np.float16)))
    commit.append(str(tmp_path / "b"), tables.TABLE, wide, wide.schema)
    clips = tables.clips([1])
    commit.append(str(tmp_path / "b"), "clips", clips, clips.schema)
    with fails_with(StoreError, "24-d", "8-d", "one model"):
        joined(tmp_path / "a", tmp_path / "w", other=Side(location=str(tmp_path / "b"), table=tables.TABLE))

"""Two groups of a join: their pairs on any device, and what is done where there are too many."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup import stars
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.dedup import cells, crowds, facing, scratch, spread, tasks
from raydist.dedup.kernel import block_of

T = 0.9


def grouped(work: Path, raw: np.ndarray) -> Path:
    """One group of all vectors, without crowds; a clip's key is its row."""
    basis = cells.principal(block_of(raw).units(slice(None)), T)
    layout = cells.learn(basis, block_of(raw, basis).head, T, 1e6)
    scratch.save_layout(work, layout)
    cell = layout.assign(block_of(raw, basis).head)
    order = np.argsort(cell, kind="stable")
    scratch.save(work / "shards" / "a-0", raw=raw[order], keys=order)
    ends = np.append(np.flatnonzero(np.diff(cell[order], prepend=-1)), len(raw)).tolist()
    pieces = [
        tasks.Piece(shard=work / "shards" / "a-0", start=start, end=end, cell=int(cell[order[start]]))
        for start, end in pairwise(ends)
    ]
    return tasks.assemble(pieces, work, work / "groups" / "a-0", None, T).folder


def faced(work: Path, group: Path, device: str = "cpu") -> tuple[facing.Faced, dict[tuple[int, int], float]]:
    found = facing.face(group, [group], work, work / "edges.parquet", T, device)
    rows = pq.read_table(work / "edges.parquet").to_pylist()
    (work / "edges.parquet").unlink()
    return found, {(min(row["a"], row["b"]), max(row["a"], row["b"])): row["similarity"] for row in rows}


def clustered(count: int, spread: float) -> np.ndarray:
    generator = np.random.default_rng(3)
    centres = generator.normal(size=(20, 32))[generator.integers(0, 20, count)]
    return (centres + generator.normal(size=(count, 32)) * spread).astype(np.float16)


def test_a_gpus_products_give_the_pairs_of_a_cpu(tmp_path: Path) -> None:
    """Its code on the CPU: the device is a word to torch."""
    from raydist.dedup.gpu import GpuKernel

    raw = clustered(1_500, 0.4)
    group = grouped(tmp_path, raw)
    found, wanted = faced(tmp_path, group)
    assert len(wanted) > 1_000
    kernels: list[GpuKernel] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facing, "_kernel", lambda *given: kernels.append(GpuKernel(*given)) or kernels[-1])
        on_device, edges = faced(tmp_path, group, "cpu")
    assert len(kernels) == 1
    assert edges == wanted
    assert (on_device.pairs, on_device.whole) == (found.pairs, on_device.compared)
    assert np.allclose(on_device.histogram, found.histogram)


def test_where_pairs_are_too_dense_some_are_written_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = clustered(1_200, 0.2)
    group = grouped(tmp_path, raw)
    found, wanted = faced(tmp_path, group)
    assert (found.pairs, found.written, found.left_out) == (len(wanted), len(wanted), 0)
    monkeypatch.setattr(facing, "DENSE", 100)
    monkeypatch.setattr(facing, "_DENSE_EACH", 20)
    thin, edges = faced(tmp_path, group)
    assert thin.pairs == found.pairs
    assert thin.pairs == thin.written + thin.left_out
    assert thin.left_out > 0
    assert edges.items() <= wanted.items()
    assert {clip for pair in edges for clip in pair} == {clip for pair in wanted for clip in pair}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 150),
    black=st.integers(0, 80),
    noise=st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    threshold=st.sampled_from([0.5, 0.8, 0.95, 0.999]),
    limit=st.integers(20, 120),
)
def test_all_groups_of_random_clips_together_give_every_pair_once(
    seed: int, count: int, black: int, noise: float, threshold: float, limit: int
) -> None:
    """The steps of a join in this process: clusters, copies, a crowd of some noise, cut up into groups anywhere."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(1, count // 10), 16))
    near = centres[generator.integers(0, len(centres), count)] + generator.normal(size=(count, 16)) * 0.3
    dark = generator.normal(size=(1, 16)) + generator.normal(size=(black, 16)) * noise
    raw = np.concatenate([near, dark, near[: count // 5], dark[: black // 3]]).astype(np.float16)
    raw = raw[generator.permutation(len(raw))]
    wanted = stars.true_pairs(dict(enumerate(raw)), None, threshold)
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(crowds, "MEMBERS", 8)
        work = Path(place)
        basis = cells.principal(block_of(raw).units(slice(None)), threshold)
        layout = cells.learn(basis, block_of(raw, basis).head, threshold, 1e6)
        scratch.save_layout(work, layout)
        cell = layout.assign(block_of(raw, basis).head)
        shards = []
        for number, rows in enumerate(np.array_split(np.arange(len(raw)), 3)):
            rows = rows[np.argsort(cell[rows], kind="stable")]
            shard = work / "shards" / f"a-{number}"
            scratch.save(shard, raw=raw[rows], keys=rows)
            shards.append(
                tasks.Shard(folder=shard, sizes=np.bincount(cell[rows], minlength=layout.cells), bytes_read=0)
            )
        groups = [
            tasks.assemble(pieces, work, work / "groups" / f"a-{at}", work / "crowds" / f"a-{at}.parquet", threshold)
            for at, pieces in enumerate(spread.grouped(shards, limit))
        ]
        pairs = sum(group.crowd_pairs for group in groups)
        for number, a in enumerate(groups):
            others = [b for b in groups[number:] if a.reaches[b.cells].any() or b.reaches[a.cells].any()]
            edges = work / "edges" / f"{a.folder.name}.parquet"
            pairs += facing.face(a.folder, [b.folder for b in others], work, edges, threshold, "cpu").pairs
        files = sorted((work / "crowds").glob("*.parquet"))
        members = pa.concat_tables([tasks.CROWDS.empty_table(), *map(pq.read_table, files)])
        assert pairs == len(wanted)
        stars.check_edges(stars.edges_in(work / "edges"), members, wanted)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300), half=st.booleans())
def test_equal_vectors_come_together_in_the_order_of_their_first(seed: int, count: int, half: bool) -> None:
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 3, (count, 3)).astype(np.float16 if half else np.float32)
    order, starts = crowds.collapsed(raw)
    rows = [tuple(row) for row in raw.tolist()]
    wanted = [[at for at, row in enumerate(rows) if row == value] for value in dict.fromkeys(rows)]
    assert [order[a:b].tolist() for a, b in pairwise(starts)] == wanted


@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0.3, 0.999), noise=st.floats(0, 0.5))
def test_each_two_of_a_crowd_are_a_pair(seed: int, threshold: float, noise: float) -> None:
    generator = np.random.default_rng(seed)
    raw = (generator.normal(size=(1, 12)) + generator.normal(size=(400, 12)) * noise).astype(np.float16)
    block = block_of(raw)
    weights = generator.integers(1, 3, len(raw))
    weights[::50] = crowds.MEMBERS + 6
    labels = crowds.labels(block.units(slice(None)), weights, np.array([0, 150, 400]), threshold)
    assert (labels[::50] != crowds.NONE).all()
    for crowd in range(labels.max() + 1):
        inside = np.flatnonzero(labels == crowd)
        assert weights[inside].sum() >= crowds.MEMBERS
        i, j = (inside[at] for at in np.triu_indices(len(inside), 1))
        assert (block.similarity(i, block, j) >= threshold).all()
    if noise == 0:
        assert labels.tolist() == [0] * 150 + [1] * 250

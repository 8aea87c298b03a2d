"""facing: two groups of a join face each other: their pairs are found, counted, and written where they should be.

Promises  each pair of clips at or above the threshold is counted once; written are the pairs of clips that are in no
          crowd, one edge for a clip and a crowd that it reaches, one for two crowds that reach each other
Memory    two groups, a product, and `_EDGES_AT_ONCE` edges

Shape legend: P pairs of distinct vectors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist.dedup import crowds, scratch, shared
from raydist.dedup.blocks import proposed
from raydist.dedup.kernel import Kernel, product_error
from raydist.dedup.scratch import Loaded

EDGES = pa.schema({"a": pa.int64(), "b": pa.int64(), "similarity": pa.float32()})

DENSE = 200_000
"""Pairs in one product, and `_DENSE_EACH` a row, from which they are too many to be written one by one."""

_DENSE_EACH = 64

_WRITTEN_EACH = 16
"""Pairs of a row of such a product that are written."""

_EDGES_AT_ONCE = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Faced:
    """What groups have in common."""

    pairs: int
    written: int
    left_out: int
    """Pairs that are neither written nor with a crowd: too dense a place that is no crowd."""
    compared: int
    whole: int
    bytes_read: int
    histogram: NDArray[np.float64]


def face(a: Path, others: Sequence[Path], work: Path, edges: Path, threshold: float, device: str) -> Faced:
    """Compare a group with others; where it is among them, with itself.

    Args:
        edges: the Parquet file to write; there is none where there are no edges.
        device: `cpu` or `cuda`.
    """
    layout = scratch.load_layout(work)
    width, size = layout.basis.shape
    one = scratch.load_group(a)
    histogram = crowds.Histogram(threshold)
    pairs = left_out = compared = whole = bytes_read = 0
    with Writer(edges) as writer:
        for b in others:
            two = one if a == b else scratch.load_group(b)
            kernel = _kernel(width, size, threshold, device)
            facing = _Facing(kernel, one, two, writer, histogram)
            if one is two:
                facing.equal_ones()
            for near in proposed(kernel, layout, one.plain, two.plain):
                facing.plain(*near)
            facing.clips_with_crowds(one, two, turned=False)
            if one is not two:
                facing.clips_with_crowds(two, one, turned=True)
                bytes_read += two.bytes_read()
            facing.crowds_with_crowds()
            pairs, left_out = pairs + facing.pairs, left_out + facing.left_out
            compared, whole = compared + kernel.count.pairs, whole + kernel.count.whole
    return Faced(
        pairs=pairs,
        written=writer.rows,
        left_out=left_out,
        compared=compared,
        whole=whole,
        bytes_read=bytes_read + one.bytes_read(),
        histogram=histogram.counts,
    )


def _kernel(width: int, size: int, threshold: float, device: str) -> Kernel:
    if device == "cpu":
        return Kernel(width, size, threshold)
    from raydist.dedup.gpu import GpuKernel  # torch is loaded where there is a GPU only: it takes 300 MB

    return GpuKernel(width, size, threshold, device)


class _Facing:
    """Two groups at work."""

    def __init__(self, kernel: Kernel, a: Loaded, b: Loaded, writer: Writer, histogram: crowds.Histogram) -> None:
        self._kernel, self._a, self._b, self._writer, self._histogram = kernel, a, b, writer, histogram
        self.pairs = self.left_out = 0

    def equal_ones(self) -> None:
        """The pairs of clips whose vectors are equal."""
        weights = self._a.weights[: len(self._a.plain)]
        for vector in np.flatnonzero(weights > 1).tolist():
            start, count = int(self._a.starts[vector]), int(weights[vector])
            i, j = np.triu_indices(count, 1)
            self.pairs += len(i)
            self._histogram.add(np.ones(1), float(len(i)))
            self._writer.add(self._a.keys[start + i], self._a.keys[start + j], np.ones(len(i)))

    def plain(self, i: NDArray[np.int64], j: NDArray[np.int64], near: NDArray[np.float32]) -> None:
        """Pairs of distinct vectors that may reach the threshold."""
        if len(i) > DENSE and len(i) > _DENSE_EACH * len(np.unique(i)):
            i, j = self._thinned(i, j, near)
        similarity = self._a.block.similarity(i, self._b.block, j)
        reach = similarity >= self._kernel.threshold
        i, j, similarity = i[reach], j[reach], similarity[reach]
        count = self._a.weights[i] * self._b.weights[j]
        self.pairs += int(count.sum())
        self._histogram.add(similarity, count.astype(np.float64))
        self._write(i, j, similarity)

    def _thinned(
        self, i: NDArray[np.int64], j: NDArray[np.int64], near: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A few pairs of each row; the others are decided, counted and left out."""
        order = np.argsort(i, kind="stable")
        i, j, near = i[order], j[order], near[order]
        first = np.flatnonzero(np.diff(i, prepend=-1))
        rank = np.arange(len(i)) - np.repeat(first, np.diff(np.append(first, len(i))))
        kept = rank < _WRITTEN_EACH
        left_i, left_j, near = i[~kept], j[~kept], near[~kept]
        reach = near >= self._kernel.sure
        open_ = np.flatnonzero(~reach)
        similarity = self._a.block.similarity(left_i[open_], self._b.block, left_j[open_])
        reach[open_] = similarity >= self._kernel.threshold
        count = int((self._a.weights[left_i[reach]] * self._b.weights[left_j[reach]]).sum())
        self.pairs += count
        self.left_out += count
        self._histogram.add(near[reach], float(count))
        return i[kept], j[kept]

    def clips_with_crowds(self, plain: Loaded, other: Loaded, *, turned: bool) -> None:
        """The clips of one group that are in no crowd, with the crowds of the other."""
        for crowd in range(len(other.crowds)):
            rows = self._reaching(plain, other.crowds, crowd)
            if not len(rows):
                continue
            members = other.crowds.members(crowd)
            found = crowds.tally(
                self._kernel,
                plain.block,
                rows,
                plain.weights[rows],
                other.block,
                members,
                other.weights[members],
                self._histogram,
            )
            self.pairs += found.pairs
            hit = found.best != crowds.NONE
            i, j = rows[hit], found.best[hit]
            similarity = plain.block.similarity(i, other.block, j)
            weights = plain.weights[i]
            clips = plain.clips(i)
            theirs = np.repeat(other.keys[other.starts[j]], weights)
            first, second = (theirs, clips) if turned else (clips, theirs)
            self._writer.add(first, second, np.repeat(similarity, weights))

    def _reaching(self, plain: Loaded, others: scratch.Crowds, crowd: int) -> NDArray[np.int64]:
        """The vectors that may reach the threshold with one of a crowd."""
        angle = np.arccos(self._kernel.threshold) + others.angles[crowd]
        if angle >= np.pi:
            return np.arange(len(plain.plain))
        floor = self._kernel.head_floor(float(np.cos(angle)))
        return np.flatnonzero(plain.plain.head @ others.heads[crowd] >= floor)

    def crowds_with_crowds(self) -> None:
        """The crowds of both groups with each other: all pairs are counted, the best is written."""
        a, b = self._a, self._b
        reach = np.arccos(self._kernel.threshold) + a.crowds.angles[:, None] + b.crowds.angles
        floor = np.where(reach < np.pi, np.cos(np.minimum(reach, np.pi)), -2) - product_error(a.block.width)
        near = a.crowds.centres @ b.crowds.centres.T >= floor
        for one, two in zip(*(at.tolist() for at in np.nonzero(near)), strict=True):
            if a is b and one >= two:
                continue
            rows, columns = a.crowds.members(one), b.crowds.members(two)
            at = np.arange(rows.start, rows.stop)
            found = crowds.tally(
                self._kernel, a.block, at, a.weights[rows], b.block, columns, b.weights[columns], self._histogram
            )
            self.pairs += found.pairs
            if found.pairs:
                best = int(found.products.argmax())
                i, j = at[best : best + 1], found.best[best : best + 1]
                similarity = a.block.similarity(i, b.block, j)
                self._writer.add(a.keys[a.starts[i]], b.keys[b.starts[j]], similarity)

    def _write(self, i: NDArray[np.int64], j: NDArray[np.int64], similarity: NDArray[np.float64]) -> None:
        """Write the pairs of all clips of two vectors each."""
        others = self._b.weights[j]
        count = self._a.weights[i] * others
        which = np.repeat(np.arange(len(i)), count)
        number = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        one, two = np.divmod(number, others[which])
        a = self._a.keys[self._a.starts[i][which] + one]
        b = self._b.keys[self._b.starts[j][which] + two]
        self._writer.add(a, b, similarity[which])


class Writer:
    """A Parquet file of edges, which appears when it is whole, and only if it has rows."""

    def __init__(self, file: Path) -> None:
        self.rows = 0
        self._file, self._draft = file, file.with_suffix(".draft")
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._open: pq.ParquetWriter | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._flush()
        if self._open is not None:
            self._open.close()
            if kind is None:
                self._draft.rename(self._file)
                shared.sent(self._file)

    def add(self, a: NDArray[np.int64], b: NDArray[np.int64], similarity: NDArray[np.floating]) -> None:
        """Write edges."""
        if len(a):
            columns = [pa.array(a), pa.array(b), pa.array(similarity.astype(np.float32))]
            self._held.append(pa.table(columns, schema=EDGES))
            self._held_rows += len(a)
            self.rows += len(a)
        if self._held_rows >= _EDGES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._held_rows:
            if self._open is None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._open = pq.ParquetWriter(self._draft, EDGES)
            self._open.write_table(pa.concat_tables(self._held))
        self._held, self._held_rows = [], 0

"""blocks: two groups of vectors, sorted by cell -> their pairs at or above a threshold, each once.

Promises  every pair is proposed (`cells` and `kernel` say why) and decided by the one definition of similarity; memory
          is that of the groups and of one product

Shape legend: N, M rows of a group, C cells in it, P pairs
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.cells import Layout
from raydist.dedup.kernel import Block, Kernel, Near

_ROWS_AT_ONCE = 4_096


@dataclass(slots=True)
class Group:
    """Vectors in the order of their cells."""

    block: Block
    """The first N of it; there may be others behind."""
    cell: NDArray[np.int32]
    """[N] ascending."""
    cells: NDArray[np.int32]
    """[C] those that occur."""
    starts: NDArray[np.int64]
    """[C + 1] where each begins."""
    radii: NDArray[np.float32]
    """[C] see `Layout.radius`."""
    reaches: NDArray[np.bool_] | None = None
    """[C, cells of the layout] where a vector of the cell may have to be compared; None: not known beforehand."""

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def head(self) -> NDArray[np.float32]:
        """[N, K + 1]."""
        return self.block.head[: len(self.cell)]

    def sizes(self) -> NDArray[np.int64]:
        """[C] rows of each cell."""
        return np.diff(self.starts)


def group_of(block: Block, cell: NDArray[np.int32], layout: Layout) -> Group:
    """A group of the first vectors of a block, which are sorted by cell."""
    cells, starts = np.unique(cell, return_index=True)
    ends = np.append(starts, len(cell)).astype(np.int64)
    radii = [layout.radius(block.head[ends[n] : ends[n + 1]], int(number)) for n, number in enumerate(cells)]
    return Group(block=block, cell=cell, cells=cells, starts=ends, radii=np.array(radii, np.float32))


def proposed(kernel: Kernel, layout: Layout, a: Group, b: Group) -> Iterator[Near]:
    """Pairs (row of a, row of b, product) that may reach the threshold, each once; of a group with itself a < b."""
    same = a is b
    if kernel.dense or not layout.basis.shape[1]:  # without heads all lie at one point, and no cell spares anything
        yield from _all(kernel, a, b, same=same)
        return
    from_a = _border(layout, a, b)
    from_b = from_a if same else _border(layout, b, a)
    pruned = int((from_a.sum(axis=0) * b.sizes()).sum())
    if not same:
        pruned += int((from_b.sum(axis=0) * a.sizes()).sum())
    everything = len(a) * len(b) // (2 if same else 1)
    if pruned >= everything:
        yield from _all(kernel, a, b, same=same)
    elif same:
        yield from _within(kernel, a, from_a)
    else:
        yield from _across(kernel, a, b, from_a)
        home = np.searchsorted(b.cells, b.cell)
        for j, i, near in _across(kernel, b, a, from_b):
            new = ~from_a[i, home[j]]
            if new.any():
                yield i[new], j[new], near[new]


def _border(layout: Layout, a: Group, b: Group) -> NDArray[np.bool_]:
    """[N, C of b] which vectors of a must be compared with which cells of b."""
    if a.reaches is None:
        return layout.border(a.head, a.cell, b.cells, b.radii)
    reaches = a.reaches[:, b.cells]
    columns = np.flatnonzero(reaches.any(axis=0))
    rows = np.flatnonzero(np.repeat(reaches.any(axis=1), a.sizes()))
    border = np.zeros((len(a), len(b.cells)), np.bool_)
    border[np.ix_(rows, columns)] = layout.border(a.head[rows], a.cell[rows], b.cells[columns], b.radii[columns])
    return border


def _across(kernel: Kernel, a: Group, b: Group, border: NDArray[np.bool_]) -> Iterator[Near]:
    """Each row of a with the cells of b in whose border it is."""
    for number in np.flatnonzero(border.any(axis=0)).tolist():
        rows = np.flatnonzero(border[:, number])
        cell = slice(int(b.starts[number]), int(b.starts[number + 1]))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            for i, j, near in kernel.near(a.block, part, b.block, cell):
                yield part[i], j + cell.start, near


def _within(kernel: Kernel, a: Group, border: NDArray[np.bool_]) -> Iterator[Near]:
    """The pairs of a group, where a row of each is in the border of the other's cell."""
    home = np.searchsorted(a.cells, a.cell)
    for i, j, near in _across(kernel, a, a, border):
        # Found from i. It is found from j too where j is in the border of i's cell: then the one with i < j counts.
        new = (i < j) | ~border[j, home[i]]
        low, high = np.minimum(i[new], j[new]), np.maximum(i[new], j[new])
        if len(low):
            yield low, high, near[new]


def _all(kernel: Kernel, a: Group, b: Group, *, same: bool) -> Iterator[Near]:
    """Each row with each: where cells spare nothing."""
    for start in range(0, len(a), _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, len(a)))
        columns = slice(start if same else 0, len(b))
        for i, j, near in kernel.near(a.block, part, b.block, columns):
            i, j = i + start, j + columns.start
            new = i < j if same else slice(None)
            if len(i[new]):
                yield i[new], j[new], near[new]

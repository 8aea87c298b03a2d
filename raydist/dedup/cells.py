"""cells: where in space vectors lie, so that only neighbouring ones are compared.

A `Layout` is learnt from a sample: a basis for heads (see `kernel`), the directions in which the sample varies most,
and centroids in the K numbers of V^T x, by k-means. Each vector is in the cell of a centroid near it.

A pair at or above the threshold t can only lie in cells that are neighbours, in this sense. Let x and y be unit vectors
with x . y >= t; their distance is at most r = sqrt(2 - 2t), and so is that of u = V^T x and v = V^T y, since V shortens
(|V| <= 1). For two centroids c and d let h(u) = ((|u - d|^2 - |u - c|^2) / 2) / |c - d|: how far u lies on c's side of
the hyperplane half-way between them, negative beyond it. h is linear, with a gradient of length 1, so

    h(u) - h(v) <= |u - v| <= r:    h(u) + (-h(v)) <= r

where -h(v) is how far v lies on d's side. Both cannot be more than r / 2: either u is within r / 2 of the hyperplane
(or beyond it), or v is. So it is enough to compare each vector, with *all* vectors of each cell whose hyperplane it is
within half the margin of. (The generalised hyperplane bound of metric trees: Uhlmann 1991; Zezula et al., Similarity
Search, 2006, section 1.7.) Nothing in this asks that vectors are in the cell of the *nearest* centroid: a rough k-means
costs time, never a pair. Where u has |u - d| > r + R, R the largest distance of d's vectors from d, there is no pair
either, by the triangle inequality.

Rounding. With the score s(u) = u . c - |c|^2 / 2, h(u) = (s_c(u) - s_d(u)) / |c - d|. A computed head is off by at
most e (`kernel.projection_error`), which moves h by at most e; a computed score is off by at most
g(K + 1) (|u| |c| + |c|^2 / 2) <= 2 g(K + 1), as |c| <= 1. `Layout.border` widens the margin by both.

Shape legend: N rows, D numbers a vector, K numbers of a head but for its last, C cells
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.kernel import U, projection_error

_SIZES = (32, 64, 96, 128, 192, 256)
"""Of heads, to choose from."""

SAMPLE = 4_096
"""Vectors from which the basis is learnt."""

_TRIED = 1_024
"""Of them, those with each other of which the size of heads is tried out."""

_CELLS = 0.005
"""Cells for each square root of the pairs: 350 for all pairs of 100,000 vectors, 3,500 for those of a million."""

_MOST_CELLS = 4_096
"""One process learns the layout and each task looks at all centroids."""

_ROUNDS = 8
"""Of k-means; more move few vectors."""

_A_CELL = 40
"""Vectors of the sample a cell: from fewer, centroids are noise."""

_AT_ONCE = 2_048
"""Rows of which all scores are held at a time: 32 MB with 4,096 cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A division of space; the same on every machine that works on a join."""

    basis: NDArray[np.float32]
    """V [D, K]."""
    centroids: NDArray[np.float32]
    """[C, K]."""
    halves: NDArray[np.float32]
    """[C] |c|^2 / 2."""
    reach: float
    """r, rounded up."""

    @property
    def cells(self) -> int:
        """C."""
        return len(self.centroids)

    def scores(self, head: NDArray[np.float32], cells: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """[N, cells] of heads."""
        found: NDArray[np.float32] = head[:, :-1] @ self.centroids[cells].T
        found -= self.halves[cells]
        return found

    def assign(self, head: NDArray[np.float32]) -> NDArray[np.int32]:
        """[N] the cell of each head."""
        found = np.empty(len(head), np.int32)
        for start in range(0, len(head), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = self.scores(head[part], slice(None)).argmax(axis=1)
        return found

    def border(
        self,
        head: NDArray[np.float32],
        own: NDArray[np.integer],
        cells: NDArray[np.integer],
        radii: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """Which rows must be compared with which cells.

        Args:
            head: [N, K + 1].
            own: [N] the cell of each row.
            cells: [M] the cells that are asked about.
            radii: [M] of `radius`, of the vectors in them.

        Returns:
            [N, M] whether the row is within half the margin of that cell; of its own cell: yes.
        """
        near = np.empty((len(head), len(cells)), np.bool_)
        for start in range(0, len(head), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            near[part] = self._border(head[part], own[part], cells, radii)
        return near

    def _border(
        self,
        head: NDArray[np.float32],
        own: NDArray[np.integer],
        cells: NDArray[np.integer],
        radii: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        size = self.basis.shape[1]
        rounding = np.float32(4 * (size + 4) * U)
        error = projection_error(len(self.basis), size)
        scores = self.scores(head, cells)
        mine = np.einsum("nk,nk->n", head[:, :-1], self.centroids[own]) - self.halves[own]
        homes, home = np.unique(own, return_inverse=True)
        gaps = np.sqrt(_squared_distances(self.centroids[homes], self.centroids[cells])).astype(np.float32)
        gaps *= np.float32(self.reach / 2 + error + U)
        near: NDArray[np.bool_] = scores >= (mine - rounding)[:, None] - gaps[home]
        # |u - d|^2 = |u|^2 - 2 s_d(u)
        squares = np.einsum("nk,nk->n", head[:, :-1], head[:, :-1])
        far = np.square(radii + np.float32(self.reach + 2 * error))
        near &= scores >= (squares / 2 - rounding)[:, None] - far / 2
        return near

    def neighbours(self, cells: NDArray[np.integer], radii: NDArray[np.float32]) -> NDArray[np.bool_]:
        """[M, C] which cells a vector may have to be compared with that is in one of M cells, of these radii.

        h grows by 1 at most with each step of length 1, and at c it is |c - d| / 2: so h(u) >= |c - d| / 2 - |u - c|.
        """
        gaps = np.sqrt(_squared_distances(self.centroids[cells], self.centroids))
        slack = 4 * projection_error(len(self.basis), self.basis.shape[1]) + 1e-5
        return np.asarray(gaps <= (2 * radii.astype(np.float64) + self.reach + slack)[:, None])

    def radius(self, head: NDArray[np.float32], cell: int) -> float:
        """The largest distance of heads from a centroid, rounded up."""
        apart = head[:, :-1].astype(np.float64) - self.centroids[cell]
        return float(np.sqrt((apart * apart).sum(axis=1).max())) + 2 * U


def learn(
    basis: NDArray[np.float32], heads: NDArray[np.float32], threshold: float, pairs: float, seed: int = 0
) -> Layout:
    """A layout for a join.

    Args:
        basis: of `principal`.
        heads: [S, K + 1] of vectors drawn evenly, `sample_size` of them.
        threshold: t.
        pairs: how many pairs there are to compare; more cells spare more of them, and cost more to find.
    """
    count = min(cell_count(pairs), max(1, len(heads) // _A_CELL))
    centroids = _neighbours_together(_kmeans(heads[:, :-1], count, np.random.default_rng(seed)), seed)
    return Layout(
        basis=basis,
        centroids=centroids,
        halves=(np.square(centroids.astype(np.float64)).sum(axis=1) / 2).astype(np.float32),
        reach=float(np.sqrt(2 - 2 * threshold)) + 1e-6,
    )


def cell_count(pairs: float) -> int:
    """Cells that pay for so many pairs."""
    return max(1, min(_MOST_CELLS, int(_CELLS * pairs**0.5)))


def sample_size(pairs: float) -> int:
    """Heads that `learn` needs."""
    return max(SAMPLE, cell_count(pairs) * _A_CELL)


def principal(sample: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """A basis V [D, K] for heads: directions in which a sample of unit vectors varies most (about 0, not its mean).

    K is what costs least: longer heads cost more themselves, shorter ones let more pairs pass. It is tried out on
    pairs of the sample.
    """
    width = sample.shape[1]
    some = sample[:SAMPLE].astype(np.float64)
    # Others than it is learnt from: those it fits too well.
    shown, held = some[len(some) // 4 :], some[: min(len(some) // 4, _TRIED)]
    _, vectors = np.linalg.eigh(shown.T @ shown)
    vectors = vectors[:, ::-1]
    numbers = held @ vectors
    best, size = np.inf, width // 2
    for tried in (size for size in _SIZES if size <= width // 2 and len(held) > 1):
        head = numbers[:, :tried]
        rest = np.sqrt(np.maximum(1 - (head * head).sum(axis=1), 0))
        passed = float(np.mean(head @ head.T + np.outer(rest, rest) >= threshold)) - 1 / len(held)
        cost = (tried + 16) / width + min(60 * passed, 1.0)  # one by one, or all whole: see `kernel._FEW`
        if cost < best:
            best, size = cost, tried
    basis = np.ascontiguousarray(vectors[:, :size]).astype(np.float32)
    if not size:
        return basis
    # Rounded, its largest singular value may be above 1, and a head would no longer bound the similarity.
    largest = np.linalg.norm(basis.astype(np.float64), 2)
    return (basis / (largest * (1 + 4 * U))).astype(np.float32)


def _kmeans(points: NDArray[np.float32], count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """[count, K] centroids by Lloyd's rounds; one that loses all its points starts again at a random one."""
    if not len(points):
        return np.zeros((1, points.shape[1]), np.float32)
    centroids = points[generator.choice(len(points), count, replace=False)]
    for _ in range(_ROUNDS if count > 1 else 1):
        nearest = np.empty(len(points), np.int64)
        halves = np.square(centroids).sum(axis=1) / 2
        for start in range(0, len(points), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            nearest[part] = (points[part] @ centroids.T - halves).argmax(axis=1)
        order = np.argsort(nearest, kind="stable")
        filled, first = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(points[order].astype(np.float64), first, axis=0)
        sizes = np.diff(np.append(first, len(points)))
        centroids = points[generator.choice(len(points), count, replace=False)]
        centroids[filled] = (sums / sizes[:, None]).astype(np.float32)
    return centroids


def _neighbours_together(centroids: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Centroids in such an order that those near each other have near numbers: groups are ranges of cells."""
    coarse = _kmeans(centroids, max(1, len(centroids) // 64), np.random.default_rng(seed))
    coarse = coarse[np.argsort(coarse[:, 0], kind="stable")] if coarse.shape[1] else coarse
    nearest = (centroids @ coarse.T - np.square(coarse).sum(axis=1) / 2).argmax(axis=1)
    return centroids[np.argsort(nearest, kind="stable")]


def _squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """[A, B], rounded up, so that a gap is never too small."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * (x @ y.T)
    rounded_up: NDArray[np.float64] = np.maximum(squares, 0) + 1e-12
    return rounded_up

"""kernel: which pairs of two blocks of vectors are near: fast in float32, then decided in float64.

The similarity of two vectors x and y is defined once, here, in float64 (`Block.similarity`):

    (x . y) / sqrt((x . x) (y . y))

Of float16 vectors of about unit length the sums are exact: a product of two float16 numbers is a multiple of 2^-48, and
so are the partial sums, which stay below 2 in magnitude: 49 bits, of the 53 that a float64 holds. The order of summing
then makes no difference. Of float32 vectors numpy sums a row in one fixed order. The similarity of equal vectors is 1:
x . y = x . x, and the root of a rounded square is the number squared.

Rounding. The blocked products are in float32 and only propose pairs: those at or above `threshold - margin`. Each of
them is decided by the definition, so a tie at the threshold is a pair. That none is missed takes a bound on the error
of a product. With u = 2^-24 and g(n) = n u / (1 - n u), a computed inner product of n terms is off by at most
g(n) |x| |y|, in whatever order it is summed and with fused multiply-adds too (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.1, (3.5)). Rounding a unit vector to float32 moves it by at most u. So for
stored x~, y~ and true unit vectors x, y: |fl(x~ . y~) - x . y| <= g(D) (1 + u)^2 + 2u + u^2, which `product_error`
rounds up; 3.1e-5 at D = 512. A product at or above `threshold + margin` is a pair for sure.

Head. Most pairs are far apart, and a part of the numbers shows it. Let V be [D, K] with |V| <= 1 (the largest singular
value), and P = V V^T. Then x . y = (V^T x) . (V^T y) + x^T (1 - P) y, and 1 - P is positive semidefinite, so by the
inequality of Cauchy and Schwarz the second term is at most p(x) p(y) with p(x) = sqrt(|x|^2 - |V^T x|^2). A vector's
head is the K numbers V^T x followed by p(x): the product of two heads is never below the similarity, at K + 1
multiplications instead of D. (Partial products with the norm of the rest prune in LEMP: Teflioudi, Gemulla, Mykytiuk,
SIGMOD 2015, and with V of a singular value decomposition in FEXIPRO: Li, Chan, Yiu, Mamoulis, SIGMOD 2017.)
A computed V^T x is off by at most e = sqrt(K) g(D) (1 + u) + u: each of its K numbers by g(D) |x| |v|, and x itself by
u. p(x) is computed from the computed head and rounded up by what that may hide, so that it is never too small. The
product of two heads is then at least x . y - (2e + e^2) - 2 g(K + 1) - ..., which `head_error` rounds up.

Shape legend: N, M rows of a block, D numbers a vector, K numbers of a head but for its last, P pairs
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U = 2.0**-24
"""Unit roundoff of float32."""

_ROWS, _COLUMNS = 2_048, 1_024
"""Of one product: 8 MB of float32, which stays in a core's cache while it is looked through."""

_AT_ONCE = 2_048

_FEW = 0.015
"""Up to this share of a product, pairs that heads let pass are multiplied one by one: a pair alone takes some 60 times
as long as a pair in a matrix product, because its vectors must be fetched for it."""

_MANY = 0.3
"""From this share on, heads are left out for the rest of the rows: they would spare little."""

_TRIED = 256
"""Rows whose heads are tried first."""


def product_error(width: int) -> float:
    """How far a float32 product of two stored unit vectors may be from their similarity."""
    return _g(width) * (1 + 3 * U) + 3 * U + 1e-12


def projection_error(width: int, size: int) -> float:
    """e: how far a computed head of `size` numbers may be from the true one, as a vector."""
    return float(np.sqrt(size)) * _g(width) * (1 + U) + 2 * U


def head_error(width: int, size: int) -> float:
    """How far below the similarity a computed product of two heads may be."""
    e = projection_error(width, size)
    return 2 * e + e * e + 2 * _g(size + 1) + 1e-12


def _g(terms: int) -> float:
    return terms * U / (1 - terms * U)


class Block:
    """Some vectors, ready to be compared. Their float32 units are made when they are first needed: of most vectors the
    heads suffice, and `raw` may lie on a disk."""

    def __init__(self, raw: NDArray[np.floating], squares: NDArray[np.float64], head: NDArray[np.float32]) -> None:
        """`raw` [N, D] as stored, float16 or float32; `squares` [N] x . x; `head` [N, K + 1], K 0 without heads."""
        self.raw, self.squares, self.head = raw, squares, head
        self.fetched = 0
        """Vectors taken from `raw` so far, some of them several times."""
        self._made = 0
        self._units: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def width(self) -> int:
        """D."""
        return int(self.raw.shape[1])

    def units(self, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Vectors of length 1 [rows, D]."""
        if self._units is None:
            wanted = len(range(*rows.indices(len(self)))) if isinstance(rows, slice) else len(rows)
            if wanted + self._made < len(self):  # else it is cheaper to keep them all
                self._made += wanted
                self.fetched += wanted
                return _normalised(self.raw[rows], self.squares[rows])
            self.fetched += len(self)
            self._units = _normalised(self.raw, self.squares)
        found: NDArray[np.float32] = self._units[rows]
        return found

    def similarity(self, rows: NDArray[np.integer], other: Block, others: NDArray[np.integer]) -> NDArray[np.float64]:
        """[P] of pairs (row of this block, row of the other), as defined above."""
        found = np.empty(len(rows))
        self.fetched += len(rows)
        other.fetched += len(rows)
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            x, y = self.raw[rows[part]].astype(np.float64), other.raw[others[part]]
            x *= y
            found[part] = x.sum(axis=1) / np.sqrt(self.squares[rows[part]] * other.squares[others[part]])
        return found


def block_of(raw: NDArray[np.floating], basis: NDArray[np.float32] | None = None) -> Block:
    """Vectors [N, D] as a block, with heads if there is a basis [D, K] for them.

    Raises:
        ValueError: for a vector that is zero, or holds NaN or infinity; it says which row.
    """
    squares = np.empty(len(raw))
    head = np.empty((len(raw), 1 + (0 if basis is None else basis.shape[1])), np.float32)
    for start in range(0, len(raw), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        x = raw[part].astype(np.float64)
        squares[part] = (x * x).sum(axis=1)
        _refuse_no_direction(squares[part], start)
        x /= np.sqrt(squares[part])[:, None]
        head[part] = heads(x.astype(np.float32), basis)
    return Block(raw, squares, head)


def _normalised(raw: NDArray[np.floating], squares: NDArray[np.float64]) -> NDArray[np.float32]:
    unit = np.empty(raw.shape, np.float32)
    lengths = np.sqrt(squares)[:, None]
    for start in range(0, len(raw), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        unit[part] = raw[part] / lengths[part]  # in float64, then rounded once
    return unit


def _refuse_no_direction(squares: NDArray[np.float64], first: int) -> None:
    bad = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
    if len(bad):
        row = first + int(bad[0])
        what = "is zero" if squares[bad[0]] == 0 else "holds NaN or infinity"
        raise ValueError(f"vector {row} {what}; it has no direction to compare: leave such rows out")


def heads(unit: NDArray[np.float32], basis: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """[N, K + 1] heads of unit vectors [N, D]."""
    width, size = (unit.shape[1], 0) if basis is None else basis.shape
    head = np.empty((len(unit), size + 1), np.float32)
    if basis is not None:
        np.matmul(unit, basis, out=head[:, :size])
    numbers = head[:, :size].astype(np.float64)
    # The true V^T x may be shorter by e than the computed one; x has length 1 by definition.
    short = np.sqrt((numbers * numbers).sum(axis=1)) - (projection_error(width, size) if size else 0.0)
    rest = np.sqrt(np.maximum(1.0 - np.square(np.maximum(short, 0.0)), 0.0))
    head[:, size] = np.nextafter(rest.astype(np.float32), np.float32(2))
    return head


@dataclass(slots=True)
class Count:
    """What was compared."""

    pairs: int = 0
    """Pairs of vectors that were compared, by their heads or whole."""
    whole: int = 0
    """Of them, those whose whole vectors were multiplied."""


Near = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rows, columns and float32 products of pairs."""


class Kernel:
    """Proposes the pairs of two blocks that may reach a threshold."""

    dense = False
    """Whether it should look at all pairs, rather than those that cells leave."""

    def __init__(self, width: int, size: int, threshold: float) -> None:
        """`width` is D, `size` K."""
        self.threshold = threshold
        self.floor = np.nextafter(np.float32(threshold - product_error(width)), np.float32(-2))
        """The smallest product that may be of a pair."""
        self.sure = np.nextafter(np.float32(threshold + product_error(width)), np.float32(2))
        """A product from which a pair is one without being decided."""
        self._width, self._size = width, size
        self._head_floor = self.head_floor(threshold)
        self._product = np.empty(_ROWS * _COLUMNS, np.float32)
        self._reach = np.empty(_ROWS * _COLUMNS, np.bool_)
        self.count = Count()

    def head_floor(self, threshold: float) -> np.float32:
        """The smallest product of two heads whose vectors may have a similarity of `threshold`."""
        floor = threshold - head_error(self._width, self._size)
        return np.float32(np.nextafter(np.float32(floor), np.float32(-2)))

    def near(self, a: Block, rows: NDArray[np.integer] | slice, b: Block, columns: slice) -> Iterator[Near]:
        """Pairs of `rows` of one block and `columns` of the other that reach `floor`, as places among those.

        At most 2,048 rows times 1,024 columns at a time; rows in rising order.
        """
        head = a.head[rows]
        if isinstance(rows, slice):
            rows = np.arange(len(a))[rows]
        start, step, useful = 0, _TRIED, self._size > 0
        while start < len(rows):
            some, some_heads = rows[start : start + step], head[start : start + step]
            passed = 0.0
            for first in range(columns.start, columns.stop, _COLUMNS):
                part = slice(first, min(first + _COLUMNS, columns.stop))
                self.count.pairs += len(some) * (part.stop - first)
                if useful:
                    found, share = self._by_heads(a, some, some_heads, b, part)
                    passed = max(passed, share)
                else:
                    found = self._whole(a.units(some), b.units(part))
                if len(found[0]):
                    yield found[0] + start, found[1] + (first - columns.start), found[2]
            useful = useful and passed < _MANY
            start, step = start + step, _ROWS

    def _by_heads(
        self, a: Block, rows: NDArray[np.integer], head: NDArray[np.float32], b: Block, columns: slice
    ) -> tuple[Near, float]:
        """Pairs, and the share of pairs that heads let pass."""
        passed = self.multiplied(head, b.head[columns]) >= self._head_floor
        places = np.flatnonzero(passed)
        share = len(places) / passed.size
        if share <= _FEW:
            i, j = np.divmod(places, passed.shape[1])
            self.count.whole += len(i)
            # Wanted in float32; made from the definition, which is nearer to the truth than a product.
            near = a.similarity(rows[i], b, j + columns.start).astype(np.float32)
            reach = near >= self.floor
            return (i[reach], j[reach], near[reach]), share
        i, j = np.flatnonzero(passed.any(axis=1)), np.flatnonzero(passed.any(axis=0))
        x, y, near = self._whole(a.units(rows[i]), b.units(j + columns.start))
        return (i[x], j[y], near), share

    def _whole(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> Near:
        self.count.whole += len(x) * len(y)
        product = self.multiplied(x, y)
        reach = np.greater_equal(product, self.floor, out=self._reach[: product.size].reshape(product.shape))
        places = np.flatnonzero(reach)
        i, j = np.divmod(places, len(y))
        return i, j, product.reshape(-1)[places]

    def multiplied(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, M] products of at most 2,048 by 1,024 rows, valid until the next call: fresh memory costs time."""
        product = self._product[: len(x) * len(y)].reshape(len(x), len(y))
        return np.matmul(x, y.T, out=product)

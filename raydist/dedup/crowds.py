"""crowds: many vectors at one place (black frames, logos, test cards), found without looking at each pair of them.

m clips of one kind make m (m - 1) / 2 pairs: a million black ones 5 * 10^11. Here they become a star, each with an edge
to one of them, the pivot, and their pairs are counted without being looked at.

Equal vectors, bit by bit, collapse to one with a weight. A crowd is a set of vectors of weight 64 or more within a
ball: each has a similarity of at least cos(T / 2) = sqrt((1 + t) / 2) to a centre, with T = arccos(t). The angle
between two of them is at most the sum of their angles to the centre (the triangle inequality on the sphere), hence at
most T: each two of a crowd are a pair, provably. Members are taken by a float32 product that is above the bound by more
than its error (see `kernel`), so rounding puts none in that does not belong.

A vector x outside can reach t with one of a crowd whose members are within an angle A of its centre only if
x . centre >= cos(T + A), two crowds only if their centres have a similarity of at least cos(T + A + B).

Which balls are found is a matter of cost, not of truth: a crowd that is missed is written out as pairs. Equal vectors
of that weight are never missed.

Shape legend: U distinct vectors, D numbers a vector, W crowds
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.kernel import Block, Kernel, product_error

MEMBERS = 64
"""From this weight on it is a crowd; 2,016 pairs."""

NONE = -1

_TRIALS = 48
"""Vectors of a cell around which a ball is tried; one of a crowd is among them that has a tenth of the cell."""

_ROWS, _COLUMNS = 2_048, 1_024

_SAMPLED = 1_024
"""Members whose similarities stand for those of all of a crowd in the histogram."""

BIN = 0.005
"""Width of a bin of the histogram of similarities."""


class Histogram:
    """Pairs by similarity, from a threshold up."""

    def __init__(self, threshold: float, counts: NDArray[np.float64] | None = None) -> None:
        self._threshold = threshold
        bins = int(np.ceil((1 - threshold) / BIN - 1e-9))
        self.counts = np.zeros(bins) if counts is None else counts

    def add(self, similarities: NDArray[np.floating], pairs: NDArray[np.floating] | float) -> None:
        """Count pairs: so many for each similarity, or so many in all with similarities as these."""
        if len(similarities):
            at = ((similarities - self._threshold) / BIN).astype(np.int64)
            at = np.clip(at, 0, len(self.counts) - 1)
            each = pairs if isinstance(pairs, np.ndarray) else np.full(len(at), pairs / len(at))
            self.counts += np.bincount(at, each, len(self.counts))

    def as_dict(self) -> dict[float, int]:
        """Lower end of a bin -> pairs."""
        return {round(self._threshold + BIN * bin_, 6): round(float(n)) for bin_, n in enumerate(self.counts)}


def collapsed(raw: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Equal vectors side by side: an order of the rows, and where in it each distinct vector begins [U + 1].

    Distinct vectors come in the order of their first row. Two rows are taken as equal if all of their bits are.
    """
    count = len(raw)
    bits = np.ascontiguousarray(raw).view(np.dtype(f"u{raw.dtype.itemsize}"))
    factors = np.random.default_rng(0).integers(0, 2**64, bits.shape[1], np.uint64) | np.uint64(1)
    hashes = np.empty(count, np.uint64)
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        hashes[part] = (bits[part].astype(np.uint64) * factors).sum(axis=1)
    order = np.argsort(hashes, kind="stable")
    new = np.ones(count, np.bool_)
    same_hash = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for start in range(0, len(same_hash), _ROWS):
        at = same_hash[start : start + _ROWS]
        new[at + 1] = (bits[order[at]] != bits[order[at + 1]]).any(axis=1)
    starts = np.flatnonzero(new)
    first = order[starts]  # the smallest row of each, for the sort is stable
    runs = np.argsort(first, kind="stable")
    sizes = np.diff(np.append(starts, count))[runs]
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    within = np.arange(count) - np.repeat(ends[:-1], sizes)
    return order[np.repeat(starts[runs], sizes) + within], ends


def labels(
    units: NDArray[np.float32], weights: NDArray[np.integer], starts: NDArray[np.integer], threshold: float
) -> NDArray[np.int64]:
    """Which crowd each distinct vector is in.

    Args:
        units: [U, D] of length 1, sorted by cell.
        weights: [U] how many vectors each stands for.
        starts: where the cells begin and the last one ends; a crowd lies in one cell.

    Returns:
        [U] numbers of crowds from 0 on, `NONE` for none.
    """
    found = np.full(len(units), NONE, np.int64)
    generator = np.random.default_rng(0)
    count = 0
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        left = np.arange(start, end)
        while weights[left].sum() >= MEMBERS:
            inside = _ball(units[left], weights[left].astype(np.float64), threshold, generator)
            if inside is None:
                break
            found[left[inside]] = count
            left, count = left[~inside], count + 1
        heavy = left[weights[left] >= MEMBERS]  # equal ones alone, in a place too ragged for a ball
        found[heavy] = count + np.arange(len(heavy))
        count += len(heavy)
    return found


def _ball(
    units: NDArray[np.float32], weights: NDArray[np.float64], threshold: float, generator: np.random.Generator
) -> NDArray[np.bool_] | None:
    """The vectors of a large ball, None if there is none of enough weight."""
    error = product_error(units.shape[1])
    heavy = np.argsort(-weights, kind="stable")[:4]
    tried = np.unique(np.concatenate([heavy, generator.permutation(len(units))[:_TRIALS]]))
    near = units[tried] @ units.T >= threshold
    cover = near @ weights
    for trial in np.argsort(-cover, kind="stable")[:3].tolist():
        if cover[trial] < MEMBERS:
            return None
        inside = near[trial]
        for _ in range(2):  # the middle of what is near, then the middle of what is inside
            centre = direction(units[inside], weights[inside])
            inside = units @ centre >= np.sqrt((1 + threshold) / 2) + error
            if weights[inside].sum() < MEMBERS:
                break
        else:
            found: NDArray[np.bool_] = inside
            return found
    return None


def direction(units: NDArray[np.float32], weights: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float32]:
    """[D] the mean direction, of length 1."""
    total = weights.astype(np.float64) @ units
    middle: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return middle


@dataclass(slots=True)
class Tally:
    """The pairs of some rows with a set of vectors, counted."""

    pairs: int
    """Each as often as its vectors' weights say."""
    best: NDArray[np.int64]
    """Of each row the place of the most similar vector, `NONE` if none reaches the threshold."""
    products: NDArray[np.float32] = field(repr=False)
    """Of each row with that one."""


def tally(
    kernel: Kernel,
    a: Block,
    rows: NDArray[np.integer],
    a_weights: NDArray[np.integer],
    b: Block,
    columns: slice,
    b_weights: NDArray[np.integer],
    histogram: Histogram,
) -> Tally:
    """Count the pairs of rows of one block with columns of the other; none of them is written down.

    Args:
        a_weights: [rows]; b_weights: [columns].
    """
    found = Tally(0, np.full(len(rows), NONE, np.int64), np.full(len(rows), -2, np.float32))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        units = a.units(rows[part])
        for first in range(columns.start, columns.stop, _COLUMNS):
            last = min(first + _COLUMNS, columns.stop)
            kernel.count.pairs += len(units) * (last - first)
            kernel.count.whole += len(units) * (last - first)
            product = kernel.multiplied(units, b.units(slice(first, last)))
            weights = b_weights[first - columns.start : last - columns.start].astype(np.float64)
            sure = product >= kernel.sure
            pairs = float(a_weights[part] @ (sure @ weights))
            i, j = np.nonzero((product >= kernel.floor) & ~sure)
            similarity = a.similarity(rows[part][i], b, j + first)
            reach = similarity >= kernel.threshold
            product[i[~reach], j[~reach]] = -2
            histogram.add(similarity[reach], a_weights[part][i[reach]] * weights[j[reach]])
            histogram.add(_some(product[sure]), pairs)
            found.pairs += round(pairs + float(a_weights[part][i[reach]] @ weights[j[reach]]))
            place = product.argmax(axis=1)
            value = product[np.arange(len(product)), place]
            better = (value >= kernel.floor) & (value > found.products[part])
            found.best[part][better] = place[better] + first
            found.products[part][better] = value[better]
    return found


def _some(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[:: len(values) // _SAMPLED + 1]


def inner(units: NDArray[np.float32], weights: NDArray[np.integer], threshold: float, histogram: Histogram) -> int:
    """The pairs of a crowd: all of them; their similarities are estimated from a sample, those of equal ones known."""
    total = int(weights.sum())
    equal = sum(int(weight) * (int(weight) - 1) // 2 for weight in weights.tolist())
    pairs = total * (total - 1) // 2
    histogram.add(np.ones(1), float(equal))
    if len(units) > 1:
        some = units[:: len(units) // _SAMPLED + 1]
        products = (some @ some.T)[np.triu_indices(len(some), 1)]
        histogram.add(np.maximum(products, threshold), float(pairs - equal))
    return pairs

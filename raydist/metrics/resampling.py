"""resampling: how sure a figure is, and whether two models differ, over groups of videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from raydist.metrics.ranking import BLOCK, TIE, Ints, Places

# Shape legend: Q queries, C groups of videos, K depths of recall, R resamples, S models, B resamples of a block

FIGURES = ("r1", "r5", "r10", "median_rank")
RESAMPLES = 2_000
FLIPS = 10_000
LEVEL = 0.95

Interval: TypeAlias = tuple[float, float]
Bounds: TypeAlias = dict[str, Interval | None]
"""Figure -> its interval; None where one group of videos is all there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same queries."""

    base: Bounds
    adapter: Bounds
    difference: Bounds
    """Of adapter minus base, resampled together."""
    p: dict[str, float]
    """Figure -> two-sided p-value that the difference is chance."""


def bootstrap(places: Places, group_Q: Ints, *, resamples: int = RESAMPLES, seed: int = 0) -> Bounds:
    """95 % intervals of the figures over groups of videos.

    Groups are drawn with replacement, all queries of a group together; the candidates stay as they are. Bounds are
    percentiles of the resamples, moved outwards for few groups.

    Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals); Davison
    and Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (clusters drawn whole); Hesterberg, The
    American Statistician 69 (2015), 371-386 (the expanded percentile interval). Where every group has the same figure,
    0 or 100 %, resampling shows no spread and the bound of Clopper and Pearson, Biometrika 26 (1934), over groups is
    given instead.
    """
    kept_Q = places.known
    return _bounds([places.take(kept_Q)], group_Q[kept_Q], resamples, seed)[0]


def compare(
    base: Places, adapter: Places, group_Q: Ints, *, resamples: int = RESAMPLES, flips: int = FLIPS, seed: int = 0
) -> Comparison:
    """Two models on the same queries: intervals of each and of the difference (as `bootstrap`), and a paired test.

    The test is the sign-flip randomisation test: were the models alike, each group's results could as well be the other
    model's. p is the share of such exchanges whose figures differ at least as much as those found: of all exchanges
    where there are at most `flips`, else (b + 1) / (flips + 1) of random ones, which is never 0.

    Sources: Fisher, The Design of Experiments (1935), section 21; Smucker, Allan and Carterette, CIKM 2007 (for
    retrieval); Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), article 39 (the + 1).

    Raises:
        ValueError: not the same queries have a right answer.
    """
    kept_Q = base.known
    if not np.array_equal(kept_Q, adapter.known):
        raise ValueError("the two models were asked other queries; expected places of the same ones")
    both, group_Q = [base.take(kept_Q), adapter.take(kept_Q)], group_Q[kept_Q]
    bounds = _bounds(both, group_Q, resamples, seed)
    p = _paired(both[0], both[1], group_Q, flips, seed)
    return Comparison(base=bounds[0], adapter=bounds[1], difference=bounds[2], p=p)


def _bounds(models: Sequence[Places], group_Q: Ints, resamples: int, seed: int) -> list[Bounds]:
    """Of each model and, where there are two, of their difference."""
    count = len(np.unique(group_Q))
    drawn_RSK = _resampled(models, group_Q, resamples, np.random.default_rng(seed)) if count > 1 else None
    shown = range(len(models) + (len(models) == 2))
    if drawn_RSK is None:
        return [dict.fromkeys(FIGURES) for _ in shown]
    drawn_RSK = np.concatenate([drawn_RSK, np.diff(drawn_RSK, axis=1)], axis=1)
    tail = _tail(count)
    low_SK, high_SK = np.quantile(drawn_RSK, [tail, 1 - tail], axis=0)
    flat_SK = np.ptp(drawn_RSK, axis=0) == 0
    unseen = 100 * (1 - ((1 - LEVEL) / 2) ** (1 / count))  # of groups, what none of `count` may show
    found: list[Bounds] = []
    for row in shown:
        bounds: Bounds = {}
        for column, figure in enumerate(FIGURES):
            low, high = float(low_SK[row, column]), float(high_SK[row, column])
            if flat_SK[row, column] and figure != "median_rank":
                floor = 0.0 if row < len(models) else -100.0
                low, high = max(floor, low - unseen), min(100.0, high + unseen)
            bounds[figure] = (low, high)
        found.append(bounds)
    return found


def _tail(count: int) -> float:
    """Share of resamples to leave out at either end, for `count` groups."""
    normal, free = NormalDist(), count - 1
    z = normal.inv_cdf((1 + LEVEL) / 2)
    # Student's quantile by its expansion in 1 / degrees of freedom (Abramowitz and Stegun, 26.7.5).
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * math.sqrt(count / free))


def _resampled(
    models: Sequence[Places], group_Q: Ints, resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[R, S, figures]: by sums of groups, so that a resample costs a row of a matrix product and a sum."""
    _, group_Q = np.unique(group_Q, return_inverse=True)
    count = int(group_Q.max()) + 1
    size_C = np.bincount(group_Q)
    found_CSK = np.stack([_sums(places.found, group_Q, count) for places in models], axis=1)
    orders = [np.argsort(places.ranks, kind="stable") for places in models]
    parts = []
    for rows in _steps(resamples, max(count, len(group_Q))):
        draws_BC = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times_BC = np.bincount(draws_BC.reshape(-1), minlength=rows * count).reshape(rows, count)
        total_B = times_BC @ size_C
        part = np.empty((rows, len(models), len(FIGURES)))
        part[..., :3] = 100 * np.tensordot(times_BC.astype(float), found_CSK, axes=1) / total_B[:, None, None]
        for model, (places, order_Q) in enumerate(zip(models, orders, strict=True)):
            reached_BQ = np.cumsum(times_BC[:, group_Q[order_Q]], axis=1, dtype=np.int32)
            part[:, model, 3] = _medians(places.ranks[order_Q], reached_BQ)
        parts.append(part)
    return np.concatenate(parts)


def _paired(base: Places, adapter: Places, group_Q: Ints, flips: int, seed: int) -> dict[str, float]:
    """Figure -> p-value, by exchanging the two models in groups at random."""
    _, group_Q = np.unique(group_Q, return_inverse=True)
    changed_Q = (base.ranks != adapter.ranks) | (base.found != adapter.found).any(axis=1)
    differs_C = np.bincount(group_Q, changed_Q) > 0  # in the others an exchange changes nothing
    apart = int(differs_C.sum())
    gain_CK = _sums(adapter.found - base.found, group_Q, len(differs_C))[differs_C]
    found = np.append(np.abs(gain_CK.sum(axis=0)), abs(np.median(adapter.ranks) - np.median(base.ranks)))
    rank_2Q = np.concatenate([base.ranks, adapter.ranks])
    order_2Q = np.argsort(rank_2Q, kind="stable")
    is_adapter_2Q, group_2Q = order_2Q >= len(group_Q), group_Q[order_2Q % len(group_Q)]
    column_2Q = np.where(differs_C[group_2Q], (np.cumsum(differs_C) - 1)[group_2Q], apart)
    exact = apart < 63 and 2**apart <= flips
    as_far_K, tried, done = np.zeros(len(FIGURES)), 2**apart if exact else flips, 0
    rng = np.random.default_rng([seed, 1])
    for rows in _steps(tried, len(rank_2Q)):
        swap_BC = np.zeros((rows, apart + 1), bool)  # the last column is of the groups that stay
        if exact:
            swap_BC[:, :apart] = (np.arange(done, done + rows)[:, None] >> np.arange(apart)) & 1
        else:
            swap_BC[:, :apart] = rng.random((rows, apart), np.float32) < 0.5
        done += rows
        gain_BK = (1 - 2.0 * swap_BC[:, :apart]) @ gain_CK
        first_B2Q = np.cumsum(swap_BC[:, column_2Q] == is_adapter_2Q, axis=1, dtype=np.int32)
        second_B2Q = np.arange(1, len(rank_2Q) + 1, dtype=np.int32) - first_B2Q
        medians_2B = [_medians(rank_2Q[order_2Q], reached_B2Q) for reached_B2Q in (first_B2Q, second_B2Q)]
        there_BK = np.column_stack([gain_BK, np.subtract(*medians_2B)])
        as_far_K += (np.abs(there_BK) >= found - TIE).sum(axis=0)
    p_K = as_far_K / tried if exact else (as_far_K + 1) / (tried + 1)
    return {figure: float(p) for figure, p in zip(FIGURES, p_K, strict=True)}


def _sums(found_QK: NDArray[np.float64], group_Q: Ints, count: int) -> NDArray[np.float64]:
    """[C, K] over the queries of each group."""
    return np.stack([np.bincount(group_Q, found_Q, count) for found_Q in found_QK.T], axis=1)


def _medians(sorted_Q: NDArray[np.float64], reached_BQ: NDArray[np.integer]) -> NDArray[np.float64]:
    """[B] medians of ranks in ascending order, each of which counts as often as `reached` grows there."""
    found = np.empty(len(reached_BQ))
    for row, reached_Q in enumerate(reached_BQ):
        total = int(reached_Q[-1])
        found[row] = sorted_Q[np.searchsorted(reached_Q, [(total + 1) // 2, total // 2 + 1])].mean()
    return found


def _steps(total: int, width: int) -> Iterator[int]:
    """Rows of each block of a matrix of that width."""
    step = max(1, BLOCK // max(1, width))
    for start in range(0, total, step):
        yield min(step, total - start)

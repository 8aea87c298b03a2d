"""ranking: where the right answers stand, and what chance would score.

Several texts of a video, several videos of a text: a query's place is that of its best right answer, as the field
counts it (text -> video over all captions, video -> text by the best caption).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Shape legend: N videos, M texts, P pairs, E embedding size, Q queries, C candidates, K depths of recall, U unlike
# counts, B queries of a block

DEPTHS = (1, 5, 10)

TIE = 1e-9
"""Scores as near as this are equal: the rounding of a product in float64, far below what float32 vectors tell apart."""
BLOCK = 1 << 22
"""Numbers that a step holds at once: 32 MB."""

Floats: TypeAlias = NDArray[np.floating]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where each query's best right answer stands; NaN for a query that has none. Equal scores: see `ranks`."""

    ranks: NDArray[np.float64]
    """[Q] from 1."""
    found: NDArray[np.float64]
    """[Q, K] whether it is among the first 1, 5 and 10: 0, 1, or how likely in random order of equal scores."""

    @classmethod
    def of(cls, rank_Q: Floats) -> Places:
        """From whole ranks, where no scores are equal."""
        whole = np.asarray(rank_Q, np.float64)
        return cls(whole, np.where(np.isnan(whole)[:, None], np.nan, whole[:, None] <= DEPTHS))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Queries that have a right answer."""
        return ~np.isnan(self.ranks)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Places:
        """Some of the queries."""
        return Places(self.ranks[rows], self.found[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Both directions of a retrieval."""

    text_to_video: Places
    """[M] texts, among all videos."""
    video_to_text: Places
    """[N] videos, among all texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Accuracy over the queries that have a right answer."""

    r1: float
    """Percent of queries whose right answer is first."""
    r5: float
    r10: float
    median_rank: float
    queries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Which queries may depend on one another."""

    videos: Ints
    """[N] number of each video's group."""
    texts: Ints
    """[M] of each text's; -1 for a text of no video."""
    count: int


def ranks(video_NE: Floats, text_ME: Floats, pairs_P2: NDArray[np.integer]) -> Ranks:
    """Rank every text's best video among all videos, and every video's best text among all texts.

    A rank is 1 + the candidates that score higher than the best right answer + what equal scores cost on average in
    random order: half of the wrong ones that are equal (the mean rule), or 1 / (t + 1) of them where t right answers
    share the score. Recall is the mean over those orders too. So a model that gives one vector for everything scores
    chance, neither luck nor bad luck.

    Args:
        video_NE: vectors of unit length.
        text_ME: vectors of unit length, each distinct text once.
        pairs_P2: rows (video, text) that belong together.

    Raises:
        ValueError: vectors that are not finite or do not fit each other, or a pair of a row that there is not.
    """
    videos, texts = np.asarray(video_NE, np.float64), np.asarray(text_ME, np.float64)
    if videos.ndim != 2 or texts.ndim != 2 or videos.shape[1] != texts.shape[1]:
        raise ValueError(f"vectors are {list(videos.shape)} and {list(texts.shape)}; expected [N, E] and [M, E]")
    for name, vectors in (("videos", videos), ("texts", texts)):
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors)).any(axis=1).sum())
            raise ValueError(f"{bad} of {len(vectors)} vectors of {name} hold NaN or infinity; expected finite numbers")
    pairs_P2 = _checked(pairs_P2, len(videos), len(texts))
    return Ranks(
        text_to_video=_places(texts, videos, pairs_P2[:, ::-1]),
        video_to_text=_places(videos, texts, pairs_P2),
    )


def _checked(pairs_P2: NDArray[np.integer], videos: int, texts: int) -> Ints:
    pairs = np.asarray(pairs_P2, np.int64).reshape(-1, 2)
    if len(pairs) and ((pairs < 0).any() or (pairs.max(axis=0) >= (videos, texts)).any()):
        raise ValueError(f"a pair names row {pairs.max(axis=0).tolist()} or a negative one of [{videos}, {texts}]")
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def _places(query_QE: NDArray[np.float64], candidate_CE: NDArray[np.float64], pairs_P2: Ints) -> Places:
    """In blocks of queries. Pairs are (query, candidate)."""
    pairs_P2 = pairs_P2[np.argsort(pairs_P2[:, 0], kind="stable")]
    parts = [np.empty((3, 0), np.int64)]
    step = max(1, BLOCK // max(1, len(candidate_CE)))
    for start in range(0, len(query_QE), step):
        score_BC = query_QE[start : start + step] @ candidate_CE.T
        first, last = np.searchsorted(pairs_P2[:, 0], [start, start + step])
        row, column = pairs_P2[first:last, 0] - start, pairs_P2[first:last, 1]
        best_B1 = np.full((len(score_BC), 1), -np.inf)
        np.maximum.at(best_B1[:, 0], row, score_BC[row, column])
        right_B = np.bincount(row[score_BC[row, column] >= best_B1[row, 0] - TIE], minlength=len(score_BC))
        higher_B = (score_BC > best_B1 + TIE).sum(axis=1)
        tied_B = (score_BC >= best_B1 - TIE).sum(axis=1) - higher_B - right_B
        parts.append(np.stack([higher_B, tied_B, right_B]))
    return _among(*np.concatenate(parts, axis=1))


def _among(higher_Q: Ints, tied_Q: Ints, right_Q: Ints) -> Places:
    """Places behind those that score higher, where `tied` wrong and `right` right answers share a score."""
    found_QK = np.zeros((len(right_Q), len(DEPTHS)))
    missed_Q = np.ones(len(right_Q))
    for place in range(max(DEPTHS)):
        left_Q = tied_Q - np.maximum(place - higher_Q, 0)
        chance_Q = np.maximum(left_Q, 0) / np.maximum(left_Q + right_Q, 1)
        missed_Q = np.where(place < higher_Q, 1.0, missed_Q * chance_Q)
        for column, depth in enumerate(DEPTHS):
            if place < depth:
                found_QK[:, column] = 1 - missed_Q
    rank_Q = np.where(right_Q > 0, 1 + higher_Q + tied_Q / (right_Q + 1), np.nan)
    return Places(rank_Q, np.where(right_Q[:, None] > 0, found_QK, np.nan))


def summarise(places: Places) -> Retrieval:
    """Recall in percent and the median rank (the mean of the middle two); queries without a right answer are left out.

    Raises:
        ValueError: no query has a right answer.
    """
    known = places.take(places.known)
    if not len(known.ranks):
        raise ValueError(f"none of {len(places.ranks)} queries has a right answer; expected at least one")
    r1, r5, r10 = (100 * known.found.mean(axis=0)).tolist()
    return Retrieval(r1=r1, r5=r5, r10=r10, median_rank=float(np.median(known.ranks)), queries=len(known.ranks))


def chance(right_Q: NDArray[np.integer], candidates: int) -> Retrieval:
    """What random order would score.

    Args:
        right_Q: how many right answers each query has; those with none are left out.
        candidates: among how many.

    Raises:
        ValueError: no query has a right answer.
    """
    counts: Ints = np.asarray(right_Q, np.int64)
    counts = counts[counts > 0]
    if not len(counts):
        raise ValueError("no query has a right answer; expected at least one")
    recall = summarise(_among(np.zeros_like(counts), candidates - counts, counts))
    # The rank that half of all queries, each in random order, do not exceed.
    counts_U, weights_U = np.unique(counts, return_counts=True)
    place_C1 = np.arange(candidates)[:, None]
    missed_CU = np.cumprod(np.clip((candidates - counts_U - place_C1) / (candidates - place_C1), 0, 1), axis=0)
    found_C = 1 - missed_CU @ weights_U / len(counts)
    lower, upper = np.searchsorted(found_C, [0.5 - 1e-12, 0.5 + 1e-12])  # apart where exactly half lies below
    return replace(recall, median_rank=1 + float(lower + upper) / 2)


def groups(source_N: Sequence[str], pairs_P2: NDArray[np.integer], texts: int) -> Groups:
    """Group videos: clips of one source belong together, and so do sources whose clips share a text.

    Args:
        source_N: the source of each clip.
        pairs_P2: rows (clip, text) that belong together.
        texts: how many there are.
    """
    names, source = np.unique(np.asarray(source_N, dtype=object).astype(str), return_inverse=True)
    pairs = _checked(pairs_P2, len(source_N), texts)
    parent = list(range(len(names)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    of_text = np.full(texts, -1)
    for clip, text in pairs.tolist():
        if of_text[text] < 0:
            of_text[text] = source[clip]
        else:
            parent[root(int(source[clip]))] = root(int(of_text[text]))
    _, number = np.unique([root(node) for node in range(len(names))], return_inverse=True)
    number = np.asarray(number, np.int64)
    return Groups(
        videos=number[source],
        texts=np.where(of_text >= 0, number[np.maximum(of_text, 0)], -1),
        count=int(number.max(initial=-1)) + 1,
    )

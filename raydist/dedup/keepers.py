"""Which clip of a group stays: a greedy maximal independent set in the order of priority.

Clips are taken best first. A clip is dropped when clips that are kept already show at least `cover` of it; else it is
kept. So every dropped clip has a kept neighbour, and of two clips that show all of each other one is dropped. Groups
alone could not decide: they are chains, whose ends may be unlike.

A pair whose clips were cut at other borders shows a part of each; several such neighbours together may cover a clip.
"""

# Shape legend: N clips, E pairs

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.components import components, keepers

Numbers = NDArray[np.int64]
Times = NDArray[np.float64]

PRIORITIES = ("longest", "largest", "bit_rate", "oldest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Clips, and which show what of each other."""

    spans_N2: Times
    """Start and end of each clip in its file, seconds."""
    pairs_E2: Numbers
    a_shown_E2: Times
    """The stretch of the first clip that the second shows too, in the first one's file."""
    b_shown_E2: Times
    clique_N: Numbers
    """Clips of one number here all show each other whole; -1: of none."""
    forced_N: NDArray[np.bool_]
    """Kept whatever else is kept: a person said so, or the clip is another archive's."""

    @property
    def clips(self) -> int:
        """N."""
        return len(self.spans_N2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What stays."""

    kept_N: NDArray[np.bool_]
    by_N: Numbers
    """The kept clip that stands for a dropped one: of several the one that shows most of it. -1 for kept clips."""
    groups_N: Numbers
    """Clips that hang together by pairs bear one number."""


def choose(graph: Graph, order_N: Numbers, cover: float) -> Kept:
    """Keep and drop clips.

    Args:
        graph: clips and pairs.
        order_N: all clips, the one to keep first at the front. Forced ones are taken before all others.
        cover: share of a clip that kept ones must show to drop it, above 0, at most 1.
    """
    order_N = np.concatenate([order_N[graph.forced_N[order_N]], order_N[~graph.forced_N[order_N]]])
    rank_N = np.empty(graph.clips, np.int64)
    rank_N[order_N] = np.arange(graph.clips)
    groups_N = components(graph.clips, graph.pairs_E2, graph.clique_N)
    a_E, b_E = graph.pairs_E2[:, 0], graph.pairs_E2[:, 1]
    whole_E = (_share(graph.a_shown_E2, graph.spans_N2[a_E]) >= cover) & (
        _share(graph.b_shown_E2, graph.spans_N2[b_E]) >= cover
    )
    uneven = np.zeros(graph.clips, np.bool_)  # by group
    uneven[groups_N[a_E[~whole_E]]] = True
    uneven[groups_N[graph.forced_N]] = True
    simple_E = ~uneven[groups_N[a_E]]
    kept_N, by_N = keepers(rank_N, graph.pairs_E2[simple_E], graph.clique_N)
    by_N[kept_N] = -1
    clips = order_N[uneven[groups_N[order_N]]]
    if len(clips):
        _one_by_one(graph, clips, ~simple_E, cover, kept_N, by_N)
    return Kept(kept_N=kept_N, by_N=by_N, groups_N=groups_N)


def _share(shown_E2: Times, spans_E2: Times) -> Times:
    lengths = np.minimum(shown_E2[:, 1], spans_E2[:, 1]) - np.maximum(shown_E2[:, 0], spans_E2[:, 0])
    share: Times = lengths / np.maximum(spans_E2[:, 1] - spans_E2[:, 0], 1e-9)
    return share


def _one_by_one(
    graph: Graph, order: Numbers, some_E: NDArray[np.bool_], cover: float, kept_N: NDArray[np.bool_], by_N: Numbers
) -> None:
    """Decide the clips in `order`, whose pairs are `some_E`; the results are written into `kept_N` and `by_N`."""
    around = _Around(graph, some_E)
    kept_N[order], by_N[order] = False, -1
    of_clique: dict[int, int] = {}
    for clip in order.tolist():
        clique = int(graph.clique_N[clip])
        if not graph.forced_N[clip]:
            if clique in of_clique:
                by_N[clip] = of_clique[clique]
                continue
            shown = [(other, low, high) for other, low, high in around.of(clip) if kept_N[other]]
            start, end = graph.spans_N2[clip]
            if shown and _covered(shown, start, end) >= cover * (end - start) - 1e-9:
                by_N[clip] = max(shown, key=lambda part: (part[2] - part[1], -part[0]))[0]
                continue
        kept_N[clip] = True
        if clique >= 0:
            of_clique.setdefault(clique, clip)


class _Around:
    """The neighbours of each clip, with what they show of it."""

    def __init__(self, graph: Graph, some_E: NDArray[np.bool_]) -> None:
        pairs, a_shown, b_shown = graph.pairs_E2[some_E], graph.a_shown_E2[some_E], graph.b_shown_E2[some_E]
        ends = np.concatenate([pairs[:, 0], pairs[:, 1]])
        by_clip = np.argsort(ends, kind="stable")
        self._firsts = np.searchsorted(ends[by_clip], np.arange(graph.clips + 1))
        self._others = np.concatenate([pairs[:, 1], pairs[:, 0]])[by_clip].tolist()
        self._shown = np.concatenate([a_shown, b_shown])[by_clip].tolist()

    def of(self, clip: int) -> Iterator[tuple[int, float, float]]:
        for place in range(self._firsts[clip], self._firsts[clip + 1]):
            yield self._others[place], *self._shown[place]


def _covered(shown: Sequence[tuple[int, float, float]], start: float, end: float) -> float:
    """Seconds of [start, end) that lie in any of the stretches."""
    total, reached = 0.0, start
    for _, low, high in sorted(shown, key=lambda part: part[1]):
        low, high = max(low, reached), min(high, end)
        if high > low:
            total, reached = total + high - low, high
    return total


def by_priority(
    videos: Mapping[str, Mapping[str, Any]],
    video_ids: Sequence[str],
    starts_s: Times,
    said_N: Numbers,
    priorities: Sequence[str],
) -> Numbers:
    """The order in which clips are kept: what a person said, then the video's properties, its id, the clip's start.

    Args:
        videos: video id -> its row in `videos`; one that is missing comes last.
        video_ids: of each clip.
        starts_s: of each clip.
        said_N: 0 keep, 1 nothing was said, 2 drop.
        priorities: of `PRIORITIES`, the most important first.
    """
    ranked = sorted(set(video_ids), key=lambda name: (*_properties(videos.get(name), priorities), name))
    rank = {name: place for place, name in enumerate(ranked)}
    ranks = np.array([rank[name] for name in video_ids], np.int64)
    order: Numbers = np.lexsort((starts_s, ranks, said_N))
    return order


def _properties(video: Mapping[str, Any] | None, priorities: Sequence[str]) -> tuple[float, ...]:
    """Smaller is better."""
    if video is None:
        return (float("inf"),) * len(priorities)
    values = {
        "longest": -(video["duration_s"] or 0.0),
        "largest": -float((video["width"] or 0) * (video["height"] or 0)),
        "bit_rate": -float(video["bit_rate"] or 0),
        "oldest": _age(video["modified_at"]),
    }
    return tuple(values[name] for name in priorities)


def _age(moment: datetime | None) -> float:
    return float("inf") if moment is None else moment.timestamp()

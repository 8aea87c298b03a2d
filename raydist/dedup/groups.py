"""From pairs to decisions: which pairs count, what people said of them, and which clip of a group stays.

Takes   pairs as they stand in `duplicates_<model_key>`, crowds, decisions, the clips and their videos
Gives   a row a clip that has a pair that counts: its group, whether it is kept, and by which kept clip it is not

A crowd (hundreds of clips alike) is stored as a star: only its pivot has pairs with the others, and a clip outside has
one pair with all of them. Which of its clips is kept is known at the end only, so pairs of that clip are looked at
then, by their vectors, and the choice is made again until nothing is new.
"""

# Shape legend: N clips, E pairs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.dedup.decisions import Said
from raydist.dedup.keepers import Graph, Kept, by_priority, choose
from raydist.store import schema

Numbers = NDArray[np.int64]
Alike = Callable[[Numbers, Numbers], NDArray[np.bool_]]
"""Clip keys a and b of this archive -> whether their vectors reach the threshold."""

SLACK_S = 0.5
"""Overlaps are known to half a second: their ends are taken as reached when they are that near."""

_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which pairs make a clip redundant."""

    threshold: float
    copies_only: bool
    """Only pairs that were read and show the same pictures; else every pair of vectors over the threshold too."""
    cover: float
    priorities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """The clips that pairs speak of, a row each; those of this archive first."""

    table: pa.Table
    """clip_key, clip_id, fingerprint, video_id, start_s, end_s."""
    own: int
    """So many are of this archive; the others are the reference's."""

    def rows(self, keys: pa.ChunkedArray, foreign: NDArray[np.bool_]) -> Numbers:
        """Row of each key; -1 where there is none."""
        known = self.table["clip_key"].to_numpy()
        wanted = keys.to_numpy()
        found = np.full(len(wanted), -1, np.int64)
        for part, base, size in ((~foreign, 0, self.own), (foreign, self.own, len(known) - self.own)):
            here = known[base : base + size]
            order = np.argsort(here, kind="stable")
            at = np.minimum(np.searchsorted(here[order], wanted[part]), max(0, size - 1))
            if size:
                rows = order[at]
                found[part] = np.where(here[rows] == wanted[part], rows + base, -1)
        return found


COLUMNS = (
    "a", "b", "archive_b", "similarity", "kind", "confidence", "a_from_s", "a_to_s", "b_from_s", "b_to_s",
)  # fmt: skip
"""Of pairs, what is needed for all of them at once."""


def counting(pairs: pa.Table, verdicts: Mapping[tuple[int, int, str], bool], rules: Rules) -> pa.Table:
    """The pairs that count.

    Args:
        pairs: `COLUMNS` of them; of the kind `told` are those that only a person knows.
        verdicts: what people said: (a, b, archive of b) -> whether they are duplicates.
        rules: what counts without a word.
    """
    copies = pc.is_in(pairs["kind"], pa.array(["copy", "told"]))
    # Pairs of clips without vectors, which frame hashes gave, have no similarity.
    over = pc.fill_null(pc.greater_equal(pairs["similarity"], pa.scalar(rules.threshold, pa.float32())), False)
    counts = (copies if rules.copies_only else pc.or_(copies, over)).to_numpy()
    if verdicts:
        spoken_of = pc.is_in(pairs["a"], pa.array(sorted({a for a, _, _ in verdicts})))
        for row in np.flatnonzero(spoken_of.to_numpy()).tolist():
            key = tuple(pairs[name][row].as_py() for name in ("a", "b", "archive_b"))
            counts[row] = verdicts.get(key, bool(counts[row]))
    return pairs.filter(counts)


def graph_of(clips: Clips, pairs: pa.Table, crowds: pa.Table, said: Said, rules: Rules) -> Graph:
    """Clips and pairs that count, as numbers.

    Args:
        clips: all that `pairs` name.
        pairs: of `counting`; both clips stand in `clips`.
        crowds: clip_key, crowd: clips of this archive whose crowd is known.
        said: what people said of clips.
        rules: cover and priorities do not matter here.
    """
    foreign = pc.not_equal(pairs["archive_b"], "").to_numpy()
    a_E = clips.rows(pairs["a"], np.zeros(len(foreign), np.bool_))
    b_E = clips.rows(pairs["b"], foreign)
    table = clips.table
    spans = np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)
    names = table["clip_id"].to_pylist() if said.keep else []
    forced = np.array([said.of_clip(name) is True for name in names[: clips.own]] or [False] * clips.own, np.bool_)
    forced = np.concatenate([forced, np.ones(table.num_rows - clips.own, np.bool_)])
    shown = [_shown(pairs, side, spans[rows]) for side, rows in (("a", a_E), ("b", b_E))]
    clique = _cliques(clips, crowds, a_E, b_E, shown, spans)
    _part(clips, clique, said)
    return Graph(
        spans_N2=spans,
        pairs_E2=np.stack([a_E, b_E], axis=1),
        a_shown_E2=shown[0],
        b_shown_E2=shown[1],
        clique_N=clique,
        forced_N=forced,
    )


def _shown(pairs: pa.Table, side: str, spans_E2: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of the clips on one side the other side shows: all of it, unless they are copies with an overlap."""
    ends = [pc.fill_null(pairs[f"{side}_{end}_s"], float("nan")).to_numpy() for end in ("from", "to")]
    known = np.stack(ends, axis=1) + np.array([-SLACK_S, SLACK_S])
    read = pc.equal(pairs["kind"], "copy").to_numpy() & ~np.isnan(known).any(axis=1)
    inside = np.clip(known, spans_E2[:, :1], spans_E2[:, 1:])
    return np.where(read[:, None], inside, spans_E2)


def _cliques(
    clips: Clips,
    crowds: pa.Table,
    a_E: Numbers,
    b_E: Numbers,
    shown: Sequence[NDArray[np.float64]],
    spans: NDArray[np.float64],
) -> Numbers:
    """The crowd of each clip whose pair with the pivot counts, and shows both whole."""
    clique = np.full(clips.table.num_rows, -1, np.int64)
    if not crowds.num_rows:
        return clique
    none = np.zeros(crowds.num_rows, np.bool_)
    members, pivots = (clips.rows(crowds[name], none) for name in ("clip_key", "crowd"))
    known = (members >= 0) & (pivots >= 0)
    pivot_of = np.full(len(clique), -1, np.int64)
    pivot_of[members[known]] = pivots[known]
    whole = np.ones(len(a_E), np.bool_)
    for part, rows in zip(shown, (a_E, b_E), strict=True):
        whole &= np.abs(part - spans[rows]).max(axis=1, initial=0) < 1e-6
    for one, other in ((a_E, b_E), (b_E, a_E)):
        star = whole & (pivot_of[one] == other) & (pivot_of[other] == other)
        clique[one[star]] = other[star]
        clique[other[star]] = other[star]
    return clique


def _part(clips: Clips, clique_N: Numbers, said: Said) -> None:
    """Take clips out of a crowd, in place, of which a person said that they are no duplicates of each other."""
    apart = [names for *names, archive_b in said.different() if not archive_b]
    if not apart:
        return
    rows: dict[str, list[int]] = {}
    for column in ("clip_id", "video_id"):
        for row, name in enumerate(clips.table[column].to_pylist()[: clips.own]):
            rows.setdefault(name, []).append(row)
    for a, b in apart:
        ones, others = np.array(rows.get(a, []), np.int64), np.array(rows.get(b, []), np.int64)
        both = np.intersect1d(clique_N[ones], clique_N[others])
        for some in (ones, others):
            clique_N[some[np.isin(clique_N[some], both)]] = -1


def settle(
    clips: Clips, graph: Graph, said: Said, videos: dict[str, dict[str, Any]], rules: Rules, alike: Alike
) -> Kept:
    """Choose what stays; see the top of this module."""
    names = clips.table["clip_id"].to_pylist()
    said_N = np.ones(graph.clips, np.int64)
    if said.keep:
        opinions = [said.of_clip(name) for name in names[: clips.own]]
        said_N[: clips.own] = [1 if opinion is None else 0 if opinion else 2 for opinion in opinions]
    order = by_priority(videos, clips.table["video_id"].to_pylist(), graph.spans_N2[:, 0], said_N, rules.priorities)
    keys = clips.table["clip_key"].to_numpy()
    looked_at: set[tuple[int, int]] = set()
    for _ in range(_ROUNDS):
        kept = choose(graph, order, rules.cover)
        new = _untold(graph, kept.kept_N, looked_at)
        looked_at.update(map(tuple, new.tolist()))
        both = new[(new < clips.own).all(axis=1)]
        if len(both) and not rules.copies_only:
            both = both[alike(keys[both[:, 0]], keys[both[:, 1]])]
        if not len(both):
            break
        graph = replace(
            graph,
            pairs_E2=np.concatenate([graph.pairs_E2, both]),
            a_shown_E2=np.concatenate([graph.a_shown_E2, graph.spans_N2[both[:, 0]]]),
            b_shown_E2=np.concatenate([graph.b_shown_E2, graph.spans_N2[both[:, 1]]]),
        )
    return kept


def _untold(graph: Graph, kept_N: NDArray[np.bool_], looked_at: set[tuple[int, int]]) -> Numbers:
    """Pairs of kept clips that no row tells of, because a pair of their crowds stands for them."""
    clique = graph.clique_N
    if (clique < 0).all():
        return np.empty((0, 2), np.int64)
    stands_for = np.arange(graph.clips)
    (members,) = np.nonzero((clique >= 0) & kept_N)
    of_clique = np.full(graph.clips, -1, np.int64)  # the pivot's row is the number of a clique
    of_clique[clique[members]] = members
    inside = (clique >= 0) & (of_clique[clique] >= 0)
    stands_for[inside] = of_clique[clique[inside]]
    ends = stands_for[graph.pairs_E2]
    new = (ends != graph.pairs_E2).any(axis=1) & kept_N[ends].all(axis=1) & (ends[:, 0] != ends[:, 1])
    ends = np.unique(np.sort(ends[new], axis=1), axis=0)
    codes = ends[:, 0] * graph.clips + ends[:, 1]
    told = np.sort(graph.pairs_E2, axis=1)
    ends = ends[~np.isin(codes, told[:, 0] * graph.clips + told[:, 1])]
    fresh = [pair not in looked_at for pair in map(tuple, ends.tolist())]
    return ends[np.array(fresh, np.bool_)]


def table_of(clips: Clips, graph: Graph, kept: Kept, said: Said, archive_b: str) -> pa.Table:
    """Rows of `schema.GROUPED`: the clips of this archive that have a pair, or are of a crowd."""
    has_pair = np.zeros(graph.clips, np.bool_)
    has_pair[graph.pairs_E2.ravel()] = True
    (rows,) = np.nonzero((has_pair | (graph.clique_N >= 0))[: clips.own])
    keys = clips.table["clip_key"].to_numpy()
    group = np.full(graph.clips, np.iinfo(np.int64).max)
    np.minimum.at(
        group, kept.groups_N[: clips.own], keys[: clips.own]
    )  # the smallest key: the same number in every run
    by = kept.by_N[rows]
    own = clips.table.take(pa.array(rows))
    now = pa.scalar(datetime.now(UTC), schema.GROUPED.field("at").type)
    return pa.table(
        {
            **{name: own[name] for name in ("clip_key", "clip_id", "fingerprint", "video_id")},
            "group": group[kept.groups_N[rows]],
            "keep": kept.kept_N[rows],
            "kept_by": pa.array(keys[by], mask=by < 0),
            "archive_b": pa.array(np.where(by >= clips.own, archive_b, "")),
            "why": _reasons(own["clip_id"].to_pylist(), kept.kept_N[rows].tolist(), said),
            "at": pa.repeat(now, len(rows)),
        },
        schema=schema.GROUPED,
    )


def _reasons(names: Sequence[str], kept: Sequence[bool], said: Said) -> list[str]:
    """Why each clip stays or need not: `said` by a person, `priority` among those that show it, or it is `shown`."""
    return [
        ("said" if said.of_clip(name) else "priority") if stays else "shown"
        for name, stays in zip(names, kept, strict=True)
    ]

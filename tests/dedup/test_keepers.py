"""Which clip of a group stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raydist.dedup.keepers import Graph, Kept, by_priority, choose

COVER = 0.9
LENGTH = 10.0


def graph(
    clips: int,
    pairs: list[tuple[int, int]],
    shown: list[tuple[float, float, float, float]] | None = None,
    clique: list[int] | None = None,
    forced: list[int] | None = None,
) -> Graph:
    """Clips of 10 s from 0 on; pairs that show all, or [from, to) of the first and of the second."""
    spans = np.tile([0.0, LENGTH], (clips, 1))
    parts = np.array(shown if shown is not None else [(0.0, LENGTH, 0.0, LENGTH)] * len(pairs)).reshape(-1, 4)
    return Graph(
        spans_N2=spans,
        pairs_E2=np.array(pairs, np.int64).reshape(-1, 2),
        a_shown_E2=parts[:, :2],
        b_shown_E2=parts[:, 2:],
        clique_N=np.array(clique if clique is not None else [-1] * clips, np.int64),
        forced_N=np.isin(np.arange(clips), forced or []),
    )


def chosen(given_graph: Graph, order: list[int] | None = None) -> Kept:
    return choose(given_graph, np.array(order or range(given_graph.clips), np.int64), COVER)


def stays(kept: Kept) -> list[int]:
    return np.flatnonzero(kept.kept_N).tolist()


def test_the_ends_of_a_chain_both_stay_and_its_middle_goes() -> None:
    kept = chosen(graph(3, [(0, 1), (1, 2)]))
    assert stays(kept) == [0, 2]
    assert kept.by_N.tolist() == [-1, 0, -1]
    assert len(set(kept.groups_N.tolist())) == 1


def test_priority_decides_and_not_the_place() -> None:
    assert stays(chosen(graph(3, [(0, 1), (1, 2)]), [1, 0, 2])) == [1]


def test_a_clip_that_two_neighbours_show_together_goes() -> None:
    shown = [(6.0, 10.0, 0.0, 4.0), (0.0, 6.0, 4.0, 10.0)]
    kept = chosen(graph(3, [(0, 2), (1, 2)], shown))
    assert stays(kept) == [0, 1]
    assert kept.by_N[2] == 1, "the neighbour that shows more of it stands for it"


def test_a_clip_that_is_shown_in_part_stays() -> None:
    shown = [(6.0, 10.0, 0.0, 4.0), (0.0, 4.0, 4.0, 8.0)]
    assert stays(chosen(graph(3, [(0, 2), (1, 2)], shown))) == [0, 1, 2]


def test_stretches_that_lie_upon_each_other_count_once() -> None:
    shown = [(0.0, 6.0, 0.0, 6.0), (0.0, 6.0, 0.0, 6.0)]
    assert 2 in stays(chosen(graph(3, [(0, 2), (1, 2)], shown)))


def test_of_a_crowd_one_clip_stays_without_a_pair_being_written() -> None:
    kept = chosen(graph(5, [], clique=[0, 0, 0, -1, 0]), [2, 0, 1, 3, 4])
    assert stays(kept) == [2, 3]
    assert kept.by_N.tolist() == [2, 2, -1, -1, 2]


def test_forced_clips_all_stay_and_take_the_place_of_others() -> None:
    kept = chosen(graph(4, [(0, 1), (1, 2), (2, 3)], forced=[1, 2]))
    assert stays(kept) == [1, 2]
    assert chosen(graph(3, [], clique=[0, 0, 0], forced=[1, 2])).kept_N.tolist() == [False, True, True]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[int]]:
    clips = draw(st.integers(1, 9))
    pairs = draw(st.lists(st.tuples(st.integers(0, clips - 1), st.integers(0, clips - 1)), max_size=14))
    pairs = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
    ends = st.sampled_from([(0.0, 10.0), (0.0, 10.0), (0.0, 5.0), (5.0, 10.0), (2.0, 8.0)])
    shown = [(*draw(ends), *draw(ends)) for _ in pairs]
    clique = draw(st.lists(st.sampled_from([-1, -1, 0, 1]), min_size=clips, max_size=clips))
    forced = draw(st.lists(st.integers(0, clips - 1), max_size=2))
    order = draw(st.permutations(range(clips)))
    return graph(clips, pairs, shown, clique, forced), list(order)


def shown_by(given_graph: Graph, clip: int, kept: NDArray[np.bool_]) -> float:
    """Seconds of a clip that kept clips show, counted in tenths of a second."""
    tenths = np.zeros(round(LENGTH * 10), bool)
    for (a, b), a_part, b_part in zip(
        given_graph.pairs_E2.tolist(), given_graph.a_shown_E2, given_graph.b_shown_E2, strict=True
    ):
        for one, other, part in ((a, b, a_part), (b, a, b_part)):
            if one == clip and kept[other]:
                tenths[round(part[0] * 10) : round(part[1] * 10)] = True
    clique = given_graph.clique_N[clip]
    if clique >= 0 and any(kept[other] for other in np.flatnonzero(given_graph.clique_N == clique) if other != clip):
        tenths[:] = True
    return float(tenths.sum()) / 10


@given(graphs())
def test_choosing_is_the_plain_walk_in_the_order_of_priority(drawn: tuple[Graph, list[int]]) -> None:
    given_graph, order = drawn
    kept = np.zeros(given_graph.clips, bool)
    for clip in [clip for clip in order if given_graph.forced_N[clip]]:
        kept[clip] = True
    for clip in [clip for clip in order if not given_graph.forced_N[clip]]:
        kept[clip] = shown_by(given_graph, clip, kept) < COVER * LENGTH
    found = chosen(given_graph, order)
    assert found.kept_N.tolist() == kept.tolist()
    for clip in np.flatnonzero(~kept).tolist():
        assert kept[found.by_N[clip]], "a dropped clip has a kept neighbour"
        assert found.groups_N[clip] == found.groups_N[found.by_N[clip]]
    assert (found.by_N[kept] == -1).all()


def video(**values: Any) -> dict[str, Any]:
    return {"duration_s": 60.0, "width": 320, "height": 240, "bit_rate": 1000, "modified_at": None, **values}


def test_the_order_is_that_of_the_priorities() -> None:
    videos = {
        "long": video(duration_s=61.0),
        "large": video(width=640),
        "old": video(modified_at=datetime(2001, 1, 1, tzinfo=UTC)),
        "new": video(modified_at=datetime(2021, 1, 1, tzinfo=UTC)),
    }
    names = ["new", "old", "large", "long", "gone"]
    none = np.ones(len(names), np.int64)

    def order(*priorities: str, said: NDArray[np.int64] = none) -> list[str]:
        return [names[clip] for clip in by_priority(videos, names, np.zeros(len(names)), said, priorities)]

    assert order("longest", "largest", "bit_rate", "oldest") == ["long", "large", "old", "new", "gone"]
    assert order("oldest", "longest") == ["old", "new", "long", "large", "gone"]
    assert order("longest", said=np.array([0, 1, 1, 2, 1]))[::4] == ["new", "long"]


def test_clips_of_one_video_come_one_after_another() -> None:
    videos = {"a": video(), "b": video(duration_s=90.0)}
    names, starts = ["a", "b", "a", "b"], np.array([30.0, 30.0, 0.0, 0.0])
    order = by_priority(videos, names, starts, np.ones(4, np.int64), ("longest",))
    assert order.tolist() == [3, 1, 2, 0]

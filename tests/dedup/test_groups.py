"""Groups and keepers where crowds are stored as stars: as if every pair had been written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raydist.dedup import groups
from raydist.dedup.decisions import Said
from raydist.dedup.groups import Clips, Rules
from raydist.store import schema

THRESHOLD = 0.8
RULES = Rules(threshold=THRESHOLD, copies_only=False, cover=0.9, priorities=("longest",))


def clips_of(count: int, own: int | None = None) -> Clips:
    """A clip of 10 s a video; clip keys are 100, 101, ..."""
    table = pa.table(
        {
            "clip_key": [100 + number for number in range(count)],
            "clip_id": [f"v/{number:03}.mp4#t=0,10" for number in range(count)],
            "fingerprint": ["f"] * count,
            "video_id": [f"v/{number:03}.mp4" for number in range(count)],
            "start_s": [0.0] * count,
            "end_s": [10.0] * count,
        }
    )
    return Clips(table=table, own=count if own is None else own)


def pairs_of(clips: Clips, edges: list[tuple[int, int]], **values: Any) -> pa.Table:
    """Rows of pairs of the clips with those numbers."""
    names = clips.table["clip_id"].to_pylist()
    empty = dict.fromkeys(schema.PAIRS.names)
    rows = [
        {
            **empty, "a": 100 + a, "b": 100 + b, "a_id": names[a], "b_id": names[b], "archive_b": "",
            "a_video": names[a][:9], "b_video": names[b][:9], "similarity": 0.99, "kind": "similar", **values,
        }
        for a, b in edges
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema.PAIRS)


def crowds_of(members: list[list[int]]) -> pa.Table:
    """Stars, the first of each list the pivot."""
    columns = pa.schema({"clip_key": pa.int64(), "crowd": pa.int64()})
    rows = [{"clip_key": 100 + clip, "crowd": 100 + crowd[0]} for crowd in members for clip in crowd]
    return pa.Table.from_pylist(rows, columns)


def settled(
    clips: Clips, pairs: pa.Table, crowds: pa.Table, alike: groups.Alike, said: Said | None = None, rules: Rules = RULES
) -> list[bool]:
    said = said or Said()
    verdicts = {
        (row["a"], row["b"], row["archive_b"]): verdict == "duplicate"
        for row in pairs.to_pylist()
        if (verdict := said.of_pair(row["a_id"], row["b_id"], row["archive_b"]))
    }
    counting = groups.counting(pairs.select(groups.COLUMNS), verdicts, rules)
    graph = groups.graph_of(clips, counting, crowds, said, rules)
    return [bool(stays) for stays in groups.settle(clips, graph, said, {}, rules, alike).kept_N]


def never(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.zeros(len(a), np.bool_)


def test_of_a_crowd_one_stays_also_when_its_pivot_goes() -> None:
    clips = clips_of(5)
    stars = [(4, 1), (4, 2), (4, 3)]
    assert settled(clips, pairs_of(clips, stars), crowds_of([[4, 1, 2, 3]]), never) == [True, True, False, False, False]
    outside = pairs_of(clips, [*stars, (0, 1)])
    assert settled(clips, outside, crowds_of([[4, 1, 2, 3]]), never) == [True, False, True, False, False]


def test_stars_of_look_alikes_are_no_crowd_of_copies() -> None:
    clips = clips_of(3)
    rules = Rules(threshold=THRESHOLD, copies_only=True, cover=0.9, priorities=())
    both = pa.concat_tables([pairs_of(clips, [(0, 1)], kind="copy"), pairs_of(clips, [(0, 2)])])
    assert settled(clips, both, crowds_of([[0, 1, 2]]), never, rules=rules) == [True, False, True]


def test_what_a_person_called_different_leaves_the_crowd() -> None:
    clips = clips_of(3)
    said = Said(verdicts={("v/000.mp4", "v/002.mp4", ""): "different"})
    assert settled(clips, pairs_of(clips, [(0, 1), (0, 2)]), crowds_of([[0, 1, 2]]), never, said) == [True, False, True]


def test_two_of_a_crowd_that_a_person_called_different_do_not_stand_for_each_other() -> None:
    clips = clips_of(4)
    stars = pairs_of(clips, [(3, 0), (3, 1), (3, 2)])
    said = Said(verdicts={("v/000.mp4#t=0,10", "v/001.mp4", ""): "different"})
    assert settled(clips, stars, crowds_of([[3, 0, 1, 2]]), never) == [True, False, False, False]
    assert settled(clips, stars, crowds_of([[3, 0, 1, 2]]), never, said) == [True, True, True, False]


def test_clips_of_the_reference_stay_and_are_not_mistaken_for_own_ones_of_the_same_key() -> None:
    clips = clips_of(4, own=2)
    table = clips.table.set_column(0, "clip_key", pa.array([100, 101, 100, 101]))
    clips = Clips(table=table, own=2)
    pairs = pairs_of(clips, [(0, 1)], archive_b="other")
    assert settled(clips, pairs, crowds_of([]), never) == [False, True, True, True]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[list[int]]]:
    """Vectors in the plane, and crowds among them: sets within half the angle of a pivot."""
    count = draw(st.integers(2, 24))
    angles = np.array(draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))) * 0.05
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inside = vectors @ vectors.T >= np.sqrt((1 + THRESHOLD) / 2)
    free = set(range(count))
    crowds = []
    for pivot in draw(st.lists(st.integers(0, count - 1), max_size=3)):
        members = [clip for clip in sorted(free) if inside[pivot, clip]]
        if pivot in free and len(members) >= 3:
            crowds.append([pivot, *(clip for clip in members if clip != pivot)])
            free -= set(members)
    return vectors, crowds


@settings(max_examples=200)
@given(worlds())
def test_stars_give_what_all_pairs_would(world: tuple[NDArray[np.float64], list[list[int]]]) -> None:
    vectors, crowds = world
    cosines = vectors @ vectors.T
    count = len(vectors)
    parts = [*crowds, *([clip] for clip in range(count) if not any(clip in crowd for crowd in crowds))]
    edges = [(crowd[0], clip) for crowd in crowds for clip in crowd[1:]]
    for number, one in enumerate(parts):
        for other in parts[number + 1 :]:
            best = max(((a, b) for a in one for b in other), key=lambda pair: cosines[pair])
            if cosines[best] >= THRESHOLD:
                edges.append(best)
    clips = clips_of(count)
    pairs = pairs_of(clips, edges)

    def alike(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        return cosines[a - 100, b - 100] >= THRESHOLD

    kept: list[bool] = []
    for clip in range(count):  # without known videos, priority is the order of names
        kept.append(not any(stays and cosines[clip, other] >= THRESHOLD for other, stays in enumerate(kept)))
    assert settled(clips, pairs, crowds_of(crowds), alike) == kept

"""Moments: neighbouring clips of one video that fit about as well become one hit, and never a whole film."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from archives import configure, made, rows, scanned, videos, write_viclip
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raydist import search
from raydist.clips.naming import parse_clip_id
from raydist.search import Query
from raydist.search.moments import SHARE, Film, grow
from raydist.store import commit, read

DIM = 32
SECONDS = 12


def film(scores: list[float], gaps_ms: dict[int, int] | None = None) -> Film:
    """Clips of ten seconds, one after the other, with gaps before some."""
    starts, at = [], 0
    for place in range(len(scores)):
        at += (gaps_ms or {}).get(place, 0)
        starts.append(at)
        at += 10_000
    start_ms = np.array(starts, np.int64)
    return Film(
        keys_N=np.arange(len(scores)),
        start_ms_N=start_ms,
        end_ms_N=start_ms + 10_000,
        scores_N=np.array(scores, np.float32),
    )


def test_neighbours_join_while_they_fit_nearly_as_well() -> None:
    assert grow(film([0.1, 0.46, 0.5, 0.48, 0.3, 0.5]), 2, set(), 120_000) == range(1, 4)


def test_what_the_query_scores_everywhere_does_not_count_as_fitting() -> None:
    scores = [0.62, 0.66, 0.68, 0.61]
    assert grow(film(scores), 2, set(), 120_000) == range(4)
    assert grow(film(scores), 2, set(), 120_000, usual=0.6) == range(1, 3)
    assert grow(film(scores), 2, set(), 120_000, usual=0.7) == range(2, 3)


def test_a_moment_ends_at_a_gap_in_the_video() -> None:
    assert grow(film([0.5, 0.5, 0.5], {1: 400, 2: 600}), 0, set(), 120_000) == range(0, 2)


def test_a_moment_takes_no_clip_of_another() -> None:
    assert grow(film([0.5] * 5), 2, {1, 4}, 120_000) == range(2, 4)


def test_a_film_that_fits_throughout_is_never_one_moment() -> None:
    assert len(grow(film([0.5] * 100), 50, set(), 120_000)) == 12
    assert grow(film([0.5] * 3), 1, set(), 5_000) == range(1, 2)


def test_a_clip_below_the_cut_off_joins_nothing() -> None:
    assert grow(film([0.5, 0.47, 0.46]), 0, set(), 120_000, least=0.465) == range(0, 2)


def test_a_clip_that_does_not_fit_at_all_stays_alone() -> None:
    assert grow(film([-0.1, -0.1]), 0, set(), 120_000) == range(0, 1)


@given(
    scores=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30),
    data=st.data(),
    limit_s=st.integers(1, 400),
)
def test_a_moment_holds_its_best_clip_and_keeps_its_bounds(
    scores: list[float], data: st.DataObject, limit_s: int
) -> None:
    best = data.draw(st.integers(0, len(scores) - 1))
    taken = data.draw(st.sets(st.integers(0, len(scores) - 1))) - {best}
    shown = film(scores)
    inside = grow(shown, best, taken, limit_s * 1000)
    assert best in inside
    assert not taken & set(inside)
    assert len(inside) == 1 or len(inside) * 10 <= limit_s
    assert all(place == best or scores[place] >= np.float32(SHARE * np.float32(scores[best])) for place in inside)


@dataclass(frozen=True)
class Made:
    """An archive of two videos of a dozen clips, whose vectors are set by hand."""

    archive: Path
    scores: dict[str, float]
    """Clip id -> its cosine to `QUERY`."""


QUERY = np.eye(1, DIM, dtype=np.float32)[0]
"""Against it a vector's first number is its score."""


def with_score(score: float, seed: int) -> NDArray[np.float16]:
    rest = np.random.default_rng(seed).normal(size=DIM - 1)
    vector = np.concatenate([[score], rest / np.linalg.norm(rest) * np.sqrt(1 - score**2)])
    return vector.astype(np.float16)


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("moments")
    scanned(top / "archive", videos(top / "v", 2, SECONDS))
    made(top / "archive", write_viclip(top / "small"))
    (key,) = read.model_keys(str(top / "archive"))
    table = f"embeddings_{key}"
    old = pa.Table.from_batches(list(read.scan_batches(str(top / "archive"), table)))
    first = [0.1, 0.1, 0.67, 0.69, 0.68, 0.1, 0.1, 0.55, 0.1, 0.1, 0.65, 0.64]
    second = [0.7, 0.69, 0.68, 0.67, 0.69, 0.68, 0.7, 0.69, 0.68, 0.67, 0.69, 0.71]
    given_scores = {"v/v000.mp4": first, "v/v001.mp4": second}
    scores = {row["clip_id"]: given_scores[row["video_id"]][int(row["start_s"])] for row in old.to_pylist()}
    vectors = [with_score(scores[name], number) for number, name in enumerate(old["clip_id"].to_pylist())]
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), DIM)
    new = old.set_column(old.schema.get_field_index("vector"), old.schema.field("vector"), column)
    commit.delete(str(top / "archive"), table, "TRUE")
    commit.append(str(top / "archive"), table, new, new.schema)
    return Made(top / "archive", scores)


def hits_of(once: Made, *changes: str, where: str | None = None) -> list[dict[str, Any]]:
    config = configure(once.archive, "", *changes)
    found: list[dict[str, Any]] = search.run(config, [Query(vector=QUERY)], where=where).to_pylist()
    return found


def spans(hits: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    return [(hit["video_id"][2:6], hit["start_s"], hit["end_s"]) for hit in hits]


def test_a_hit_spans_its_moment_and_is_named_by_its_best_clip(once: Made) -> None:
    hits = hits_of(once, "search.moment_s=4", where="video_id = 'v/v000.mp4'")
    assert spans(hits)[:3] == [("v000", 2, 5), ("v000", 10, 12), ("v000", 7, 8)]
    assert [hit["clip_id"] for hit in hits[:3]] == [f"v/v000.mp4#t={n},{n + 1}" for n in (3, 10, 7)]
    assert [round(hit["score"], 2) for hit in hits[:3]] == [0.69, 0.65, 0.55]
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))


def test_a_video_that_fits_throughout_becomes_several_moments(once: Made) -> None:
    hits = hits_of(once, "search.moment_s=4", where="video_id = 'v/v001.mp4'")
    assert sum(end - start for _, start, end in spans(hits)) == SECONDS
    assert all(end - start <= 4 for _, start, end in spans(hits))
    assert len(hits) >= 3


def test_no_clip_is_in_two_moments_and_none_is_lost(once: Made) -> None:
    hits = hits_of(once, "search.top=100", "search.moment_s=3")
    covered = sorted((video, float(second)) for video, start, end in spans(hits) for second in np.arange(start, end))
    assert covered == [(video, float(second)) for video in ("v000", "v001") for second in range(SECONDS)]


@pytest.mark.parametrize("top", [1, 2, 3, 5, 8])
def test_the_first_hits_do_not_hang_on_how_many_are_asked_for(once: Made, top: int) -> None:
    every = hits_of(once, "search.top=100", "search.moment_s=5")
    assert hits_of(once, f"search.top={top}", "search.moment_s=5") == every[:top]


def test_each_clip_is_a_hit_of_its_own_where_that_is_asked_for(once: Made) -> None:
    hits = hits_of(once, "search.top=100", "search.moment_s=0")
    assert [hit["clip_id"] for hit in hits] == sorted(
        once.scores, key=lambda name: (-once.scores[name], _key(once, name))
    )
    for hit in hits:
        span = parse_clip_id(hit["clip_id"])[1]
        assert (hit["start_s"] * 1000, hit["end_s"] * 1000) == (span.start_ms, span.end_ms)


def test_a_moment_keeps_within_the_filter(once: Made) -> None:
    hits = hits_of(once, "search.moment_s=100", where="start_s >= 3 AND start_s < 5")
    assert sorted(spans(hits)) == [("v000", 3, 5), ("v001", 3, 5)]


def test_a_video_gives_no_more_hits_than_it_may_and_others_come_in_their_place(once: Made) -> None:
    hits = hits_of(once, "search.per_video=1", "search.moment_s=2", "search.top=2")
    assert [video for video, _, _ in spans(hits)] == ["v001", "v000"]
    hits = hits_of(once, "search.per_video=3", "search.moment_s=0", "search.top=50")
    assert [video for video, _, _ in spans(hits)] == ["v001"] * 3 + ["v000"] * 3


def test_a_cut_off_ends_the_hits_and_the_moments(once: Made) -> None:
    hits = hits_of(once, "search.min_score=0.675", "search.moment_s=100", where="video_id = 'v/v000.mp4'")
    assert spans(hits) == [("v000", 3, 5)]
    assert hits_of(once, "search.min_score=0.9") == []


def _key(once: Made, clip_id: str) -> int:
    (row,) = [row for row in rows(once.archive, "clips") if row["clip_id"] == clip_id]
    return int(row["clip_key"])

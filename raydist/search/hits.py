"""From ranked clips to the hits that a person is shown: moments, and no more than so many of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raydist.search import moments
from raydist.search.found import COLUMNS, Asked, Row, current, rank
from raydist.search.moments import Film
from raydist.store.sql import all_of, is_in, not_in
from raydist.store.vectors import rows_where

_TOGETHER = 16
"""Queries whose neighbouring clips are read at once: a hundred megabytes of vectors in the worst case."""
_ROUNDS_OPEN = 2
"""Rounds after which videos that have given all they may are left out of the search instead of passed over."""

# Shape legend: D embedding size, N clips of a video


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How hits are made."""

    top: int
    moment_ms: int
    """A moment is at most so long; 0: every clip is a hit of its own."""
    per_video: int
    """Hits of one video, at most; 0: any number."""


class _Gathered:
    """The hits of one query so far."""

    def __init__(self) -> None:
        self.hits: list[Row] = []
        self.taken: set[int] = set()
        self.videos: Counter[str] = Counter()


def gather(location: str, table: str, asked: Sequence[Asked], wanted: Wanted) -> list[list[Row]]:
    """The hits of each query, `wanted.top` while there are so many: columns of `COLUMNS` and `score`.

    `clip_id`, `clip_key` and `score` are those of the best clip, `start_s` and `end_s` those of the moment.
    """
    gathered = [_Gathered() for _ in asked]
    open_ones = list(range(len(asked)))
    depth = wanted.top * (3 if wanted.moment_ms or wanted.per_video else 1)
    rounds = 0
    while open_ones:
        now = [_without_full(asked[index], gathered[index], wanted, rounds) for index in open_ones]
        ranked = rank(location, table, now, depth)
        for start in range(0, len(open_ones), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            lists = [one.rows for one in ranked[part]]
            films = _films(location, table, now[part], lists) if wanted.moment_ms else [{} for _ in lists]
            for index, rows, own in zip(open_ones[part], lists, films, strict=True):
                _add(gathered[index], rows, own, asked[index], wanted)
        open_ones = [
            index
            for index, one in zip(open_ones, ranked, strict=True)
            if not one.is_all and len(gathered[index].hits) < wanted.top
        ]
        depth, rounds = depth * 4, rounds + 1
    return [one.hits for one in gathered]


def _without_full(asked: Asked, gathered: _Gathered, wanted: Wanted, rounds: int) -> Asked:
    """The query without the videos that have given all their hits: one of a million clips would hide all others."""
    full = [video for video, count in gathered.videos.items() if wanted.per_video and count >= wanted.per_video]
    if not full or rounds < _ROUNDS_OPEN:
        return asked
    return replace(asked, where=all_of(asked.where, not_in("video_id", full)))


def _add(gathered: _Gathered, rows: Iterable[Row], films: Mapping[str, Film], asked: Asked, wanted: Wanted) -> None:
    for row in rows:
        if len(gathered.hits) >= wanted.top:
            return
        video = row["video_id"]
        if row["clip_key"] in gathered.taken:
            continue
        if wanted.per_video and gathered.videos[video] >= wanted.per_video:
            continue
        hit = _moment(row, films[video], gathered.taken, asked, wanted.moment_ms) if video in films else row
        gathered.taken.add(row["clip_key"])
        gathered.videos[video] += 1
        gathered.hits.append(hit)


def _moment(row: Row, film: Film, taken: set[int], asked: Asked, limit_ms: int) -> Row:
    (places,) = np.nonzero(film.keys_N == row["clip_key"])
    if not len(places):  # it came meanwhile
        return row
    least = -2.0 if asked.floor is None else asked.floor
    inside = moments.grow(film, int(places[0]), taken, limit_ms, usual=asked.usual, least=least)
    taken.update(film.keys_N[inside.start : inside.stop].tolist())
    start_ms = film.start_ms_N[inside.start]
    end_ms = film.end_ms_N[inside.start : inside.stop].max()
    return {**row, "start_s": float(start_ms) / 1000, "end_s": float(end_ms) / 1000}


def _films(location: str, table: str, asked: Sequence[Asked], lists: Sequence[Sequence[Row]]) -> list[dict[str, Film]]:
    """For each query: the videos among its clips, with all their clips that may be hits."""
    films: list[dict[str, Film]] = [{} for _ in asked]
    for condition in {one.where for one in asked}:
        members = [index for index, one in enumerate(asked) if one.where == condition]
        videos = sorted({row["video_id"] for index in members for row in lists[index]})
        if not videos:
            continue
        clips = _Clips(location, table, all_of(condition, is_in("video_id", videos)))
        for index in members:
            own = {row["video_id"] for row in lists[index]}
            films[index] = {video: clips.film(video, asked[index].vector_D) for video in own if video in clips.videos}
    return films


class _Clips:
    """All current clips of some videos, with their vectors."""

    def __init__(self, location: str, table: str, where: str | None) -> None:
        rows = rows_where(location, table, where, (*COLUMNS, "vector"))
        keys = rows["clip_key"].to_pylist()
        now = current(location, set(keys))
        fresh = [pair in now for pair in zip(keys, rows["fingerprint"].to_pylist(), strict=True)]
        rows = rows.filter(fresh).sort_by([("video_id", "ascending"), ("start_s", "ascending")])
        self._keys = rows["clip_key"].to_numpy()
        self._start_ms, self._end_ms = (
            np.rint(rows[name].to_numpy() * 1000).astype(np.int64) for name in ("start_s", "end_s")
        )
        column = rows["vector"].combine_chunks()
        self._vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
        self.videos: dict[str, slice] = {}
        names = rows["video_id"].to_pylist()
        start = 0
        for place in range(1, len(names) + 1):
            if place == len(names) or names[place] != names[start]:
                self.videos[names[start]] = slice(start, place)
                start = place

    def film(self, video: str, vector_D: NDArray[np.float32]) -> Film:
        """The clips of one video with their scores for one query."""
        part = self.videos[video]
        return Film(
            keys_N=self._keys[part],
            start_ms_N=self._start_ms[part],
            end_ms_N=self._end_ms[part],
            scores_N=self._vectors[part].astype(np.float32) @ vector_D,
        )

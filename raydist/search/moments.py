"""Moments: neighbouring clips of one video that are as good an answer as the best of them become one hit.

A moment begins with the best clip that is not part of one yet. The better of its two neighbours joins while that
neighbour

 - touches the moment: at most `APART_MS` lie between them;
 - stands out from what the query scores on average in the archive by at least `SHARE` of what the best clip does;
 - leaves the moment no longer than the limit, `search.moment_s`;
 - is a possible hit itself: it passes the filters and the cut-off, and is in no other moment.

So a long stretch that fits throughout becomes several moments, and never a whole film. The hits do not hang on how many
are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.75
"""Measured on 16 drawn films of ten scenes of 6 s, cut into clips of 2 s, and searched by the scenes' captions."""

APART_MS = 500

# Shape legend: N clips of a video, in the order of their starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """The clips of one video that may be hits, with their scores for one query."""

    keys_N: NDArray[np.int64]
    start_ms_N: NDArray[np.int64]
    end_ms_N: NDArray[np.int64]
    scores_N: NDArray[np.float32]


def grow(film: Film, best: int, taken: set[int], limit_ms: int, *, usual: float = 0.0, least: float = -2.0) -> range:
    """The moment around a clip.

    Args:
        film: of the clip's video.
        best: the clip's place in it.
        taken: keys of clips that are in other moments.
        limit_ms: how long a moment may be; one clip may always be longer.
        usual: what the query scores on average in the archive.
        least: the cut-off, which its clips must reach too.

    Returns:
        The places of its clips, `best` among them.
    """
    lift = film.scores_N[best] - usual
    floor = max(least, usual + SHARE * lift) if lift > 0 else np.inf
    left, right = best, best
    while True:
        near = [
            place
            for place in (left - 1, right + 1)
            if 0 <= place < len(film.keys_N)
            and film.scores_N[place] >= floor
            and int(film.keys_N[place]) not in taken
            and _apart_ms(film, left, right, place) <= APART_MS
            and _length_ms(film, min(left, place), max(right, place)) <= limit_ms
        ]
        if not near:
            return range(left, right + 1)
        better = max(near, key=lambda place: film.scores_N[place])
        left, right = min(left, better), max(right, better)


def _apart_ms(film: Film, left: int, right: int, place: int) -> int:
    if place < left:
        return int(film.start_ms_N[left] - film.end_ms_N[place])
    return int(film.start_ms_N[place] - film.end_ms_N[left : right + 1].max())


def _length_ms(film: Film, left: int, right: int) -> int:
    return int(film.end_ms_N[left : right + 1].max() - film.start_ms_N[left])

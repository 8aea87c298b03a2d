"""Captions that do not fit their clips, as a model's vectors see it: of another clip, or a whole video moved by some.

What counts is how far a similarity is above those of random pairs of the archive, in deviations of these. Before that
the mean of the caption over random clips, and of the clip over random captions, are taken off: some fit everything.

A caption is suspect if it fits its clip no better than random pairs fit (`_RANDOM`) and stands out from the archive's
own captions, by `_OUTLIER` of their spread; or if it fits another clip of the video better by a clear margin. The
captions of a video are moved if those some clips later or earlier fit better, by `_MOVED` on average and most of them.

The figures were chosen on 480 films of the demo that `tiny` has not seen (`tests/benchmarks/suspects.py`), in videos
of 4, 8 and 16 clips, also with texts made vaguer by noise: right captions then lie 3.0, 2.5 and 1.8 deviations above
random ones. Of right captions 0, 2 and 3 % are suspect. Where one caption in ten is of another video, 94, 84 and 53 %
of these are found, and of the suspects 100, 92 and 69 % are such. Of 42 videos that were moved by one clip, 42, 42 and
38 are found where their clips differ, 28, 20 and 8 where all have one colour and scene; of 1,260 right ones, none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raydist.caption.present import Present
from raydist.progress import bar

# Shape legend: N captions, C clips, R reference clips, each with a caption; E embedding size

LEAST = 8
"""Captioned clips with vectors; of fewer, nothing can be said."""
_REFERENCES, _SEED = 512, 0
_CLIPS_AT_ONCE, _CELLS_AT_ONCE = 4_096, 4_000_000
_RANDOM = 1.64
"""Deviations: one of twenty random pairs lies above."""
_OUTLIER = 2.5
_MARGIN = 1.0
_USUAL = 16
"""Clips of the videos that the figures were chosen on."""
_MOVED = 0.5
_MOST = 0.6
_STEPS = (-3, -2, -1, 1, 2, 3)
_WEAK = 0.5
"""Median of the archive's captions below which the model does not tell them from random ones."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> unit vectors [N, E]."""
Vectors = Callable[[Sequence[int]], NDArray[np.float32]]
"""Rows of clips -> their unit vectors [C, E]; NaN where there is none of a clip's present content."""
Groups = NDArray[np.int64]
"""A number for each caption; those that differ in form only have the same, see `repeated.groups`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A caption that may be of another clip. `caption` and the clips are rows of `Present`."""

    caption: int
    similarity: float
    """Cosine with its clip."""
    better: float
    """Share of random clips that it fits better."""
    other: int = -1
    """The clip of the same video that it fits better by far; -1: none."""
    other_similarity: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A video whose captions fit clips some places further."""

    video_id: str
    step: int
    """Clips later, or earlier (below 0)."""
    fit: int
    """Captions that fit better there."""
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What was found."""

    suspects: tuple[Suspect, ...]
    """The most doubtful first."""
    moved: tuple[Moved, ...]
    compared: int
    """Captions whose clip has a vector."""
    better: float
    """Median share of random clips that a caption fits better than its own."""
    is_weak: bool
    """Whether the model tells the captions of the archive hardly from random ones."""
    similarity_N: NDArray[np.float32]
    """Of each caption with its clip; NaN where that has no vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """Random clips of the archive, each with one of its captions."""

    clips_RE: NDArray[np.float32]
    texts_RE: NDArray[np.float32]
    rows: NDArray[np.int64]
    video: NDArray[np.int64]
    level_R: NDArray[np.float32]
    """Mean similarity of each clip with captions of others."""
    mean: float
    """Of all those pairs."""
    spread: float
    """Deviation of such pairs from what their caption and their clip let expect."""
    places: dict[int, list[int]]
    """Group of captions -> where in here clips have one of it."""


@dataclass(slots=True)
class _Measured:
    """For each caption, in deviations of random pairs; NaN where its clip has no vector."""

    similarity_N: NDArray[np.float32]
    above_N: NDArray[np.float32]
    better_N: NDArray[np.float32]
    gain_N: NDArray[np.float32]
    """How much better the best other clip of the video fits, more than by luck."""
    other_N: NDArray[np.int64]
    other_similarity_N: NDArray[np.float32]
    steps: list[tuple[str, range, list[tuple[int, float, int, int]]]] = field(default_factory=list)
    """Video, its captions; step, mean gain, how many fit better, of how many."""


def doubts(present: Present, group: Groups, vectors: Vectors, encode: Encode) -> Doubts | None:
    """Compare captions with the clips of their videos and with random ones; None where there are too few."""
    video = _numbered(present)
    reference = _reference(present, group, video, vectors, encode)
    if reference is None:
        return None
    measured = _empty(len(present.clip_of))
    with bar("captions", len(present.clip_of)) as progress:
        for part in _parts(present):
            texts = slice(part[0][2].start, part[-1][2].stop)
            vectors_NE = _texts(encode, present.captions["caption"][texts.start : texts.stop].to_pylist())
            clips = range(part[0][1].start, part[-1][1].stop)
            clips_CE = vectors(clips)
            for name, own, rows in part:
                moved = slice(own.start - clips.start, own.stop - clips.start)
                texts_NE = vectors_NE[rows.start - texts.start : rows.stop - texts.start]
                _measure(measured, present, group, reference, (name, own, rows), clips_CE[moved], texts_NE, video)
            progress.advance(texts.stop - texts.start)
    return _judged(measured)


def _numbered(present: Present) -> NDArray[np.int64]:
    """A number for each clip's video."""
    video = np.zeros(present.clips.num_rows, np.int64)
    for number, (_, clips, _) in enumerate(present.videos()):
        video[clips.start : clips.stop] = number
    return video


def _parts(present: Present) -> Iterator[list[tuple[str, range, range]]]:
    """Whole videos, some thousand clips at a time."""
    part: list[tuple[str, range, range]] = []
    for video in present.videos():
        part.append(video)
        if part[-1][1].stop - part[0][1].start >= _CLIPS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _texts(encode: Encode, texts: Sequence[str]) -> NDArray[np.float32]:
    """Each different text is encoded once."""
    place: dict[str, int] = {}
    order = [place.setdefault(text, len(place)) for text in texts]
    return encode(list(place))[order]


def _reference(
    present: Present, group: Groups, video: NDArray[np.int64], vectors: Vectors, encode: Encode
) -> _Reference | None:
    """Random captioned clips; None where fewer than `LEAST` have vectors."""
    captioned, first = np.unique(present.clip_of, return_index=True)
    drawn = np.sort(np.random.default_rng(_SEED).permutation(len(captioned))[: 2 * _REFERENCES])
    clips_RE = vectors(captioned[drawn].tolist())
    kept = np.flatnonzero(np.isfinite(clips_RE).all(axis=1))
    kept = np.sort(np.random.default_rng(_SEED).permutation(kept)[:_REFERENCES])
    if len(kept) < LEAST:
        return None
    rows, clips_RE = captioned[drawn][kept], clips_RE[kept]
    texts_RE = _texts(encode, present.captions["caption"].take(first[drawn][kept]).to_pylist())
    places: dict[int, list[int]] = defaultdict(list)
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    for caption in np.flatnonzero(np.isin(present.clip_of, rows)).tolist():
        places[int(group[caption])].append(place_of[int(present.clip_of[caption])])
    similar_RR = texts_RE @ clips_RE.T
    is_random = _is_random(rows, group[first[drawn][kept]], video[rows], rows, video[rows], places)
    random_RR = np.where(is_random, similar_RR, np.nan)
    mean, count_R = float(np.nanmean(random_RR)), is_random.sum(axis=0)
    # A clip that has the captions of all others has no random pair.
    level_R = np.where(count_R, np.nansum(random_RR, axis=0) / np.maximum(count_R, 1), mean).astype(np.float32)
    left_RR = random_RR - np.nanmean(random_RR, axis=1, keepdims=True) - level_R + mean
    return _Reference(
        clips_RE=clips_RE,
        texts_RE=texts_RE,
        rows=rows,
        video=video[rows],
        level_R=level_R,
        mean=mean,
        spread=max(float(np.nanstd(left_RR)), 1e-6),
        places=places,
    )


def _is_random(
    clips: NDArray[np.int64],
    group: Groups,
    videos: NDArray[np.int64],
    rows: NDArray[np.int64],
    video: NDArray[np.int64],
    places: dict[int, list[int]],
) -> NDArray[np.bool_]:
    """[N, R]: whether a caption and a reference clip are a random pair: of two videos where there are enough, and the
    clip has no such caption."""
    apart = videos[:, None] != video
    is_random: NDArray[np.bool_] = (apart | (apart.sum(axis=1, keepdims=True) < LEAST)) & (clips[:, None] != rows)
    for caption, number in enumerate(group.tolist()):
        if number in places:
            same = is_random[caption].copy()
            same[places[number]] = False
            if same.any():
                is_random[caption] = same
    return is_random


def _empty(captions: int) -> _Measured:
    unknown = [np.full(captions, np.nan, np.float32) for _ in range(5)]
    return _Measured(
        similarity_N=unknown[0],
        above_N=unknown[1],
        better_N=unknown[2],
        gain_N=unknown[3],
        other_N=np.full(captions, -1, np.int64),
        other_similarity_N=unknown[4],
    )


def _measure(
    measured: _Measured,
    present: Present,
    group: Groups,
    reference: _Reference,
    about: tuple[str, range, range],
    clips_CE: NDArray[np.float32],
    texts_NE: NDArray[np.float32],
    video: NDArray[np.int64],
) -> None:
    """The captions of one video with all of its clips, in blocks of a bounded size."""
    name, clips, rows = about
    level_C = _levels(reference, clips_CE, int(video[clips.start]))
    size = max(1, _CELLS_AT_ONCE // (len(clips) + len(reference.rows)))
    steps: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
    for start in range(0, len(rows), size):
        part = slice(rows.start + start, min(rows.start + start + size, rows.stop))
        own = present.clip_of[part]
        block_NE = texts_NE[start : start + size]
        similar_NC = block_NE @ clips_CE.T
        similar_NR = block_NE @ reference.clips_RE.T
        is_random = _is_random(own, group[part], video[own], reference.rows, reference.video, reference.places)
        random_NR = np.where(is_random, similar_NR, np.nan)
        mean_N = np.nanmean(random_NR, axis=1, keepdims=True)
        above_NC = (similar_NC - mean_N - level_C + reference.mean) / reference.spread
        above_NR = (random_NR - mean_N - reference.level_R + reference.mean) / reference.spread
        each, at = np.arange(len(own)), own - clips.start
        above_N = above_NC[each, at]
        measured.similarity_N[part], measured.above_N[part] = similar_NC[each, at], above_N
        better_N = (above_NR > above_N[:, None]).sum(axis=1) / is_random.sum(axis=1)
        measured.better_N[part] = np.where(np.isfinite(above_N), better_N, np.nan)
        for step in _STEPS:
            inside = (at + step >= 0) & (at + step < len(clips))
            steps[step].append(above_NC[each[inside], at[inside] + step] - above_N[inside])
        _best_other(measured, present, group, (clips, rows), part, above_NC, similar_NC)
    if len(clips) > len(_STEPS) // 2 and len(np.unique(group[rows.start : rows.stop])) > 1:
        measured.steps.append((name, rows, list(_gains(steps))))


def _levels(reference: _Reference, clips_CE: NDArray[np.float32], video: int) -> NDArray[np.float32]:
    """Mean similarity of clips of a video with random captions."""
    others = reference.video != video
    texts_RE = reference.texts_RE[others] if others.sum() >= LEAST else reference.texts_RE
    level_C: NDArray[np.float32] = clips_CE @ texts_RE.mean(axis=0)
    return level_C


def _best_other(
    measured: _Measured,
    present: Present,
    group: Groups,
    about: tuple[range, range],
    part: slice,
    above_NC: NDArray[np.float32],
    similar_NC: NDArray[np.float32],
) -> None:
    """For some captions of a video the other clip that fits best, those left out that have the same caption."""
    clips, rows = about
    same = {number: set[int]() for number in group[part].tolist()}
    for caption in range(rows.start, rows.stop):
        if int(group[caption]) in same:
            same[int(group[caption])].add(int(present.clip_of[caption]) - clips.start)
    others_NC = np.where(np.isfinite(above_NC), above_NC, -np.inf)
    for place, number in enumerate(group[part].tolist()):
        others_NC[place, list(same[number])] = -np.inf
    best_N, each = others_NC.argmax(axis=1), np.arange(len(others_NC))
    # The best of many random clips fits better than the best of a few.
    luck = max(0.0, math.sqrt(2 * math.log(len(clips))) - math.sqrt(2 * math.log(_USUAL)))
    gain_N = others_NC[each, best_N] - measured.above_N[part] - luck
    measured.gain_N[part] = gain_N
    measured.other_N[part] = np.where(np.isfinite(gain_N), best_N + clips.start, -1)
    measured.other_similarity_N[part] = similar_NC[each, best_N]


def _gains(steps: dict[int, list[NDArray[np.float32]]]) -> Iterator[tuple[int, float, int, int]]:
    for step, parts in steps.items():
        gains = np.concatenate(parts)
        gains = gains[np.isfinite(gains)]
        if len(gains) >= 3:
            yield step, float(gains.mean()), int((gains > 0).sum()), len(gains)


def _judged(measured: _Measured) -> Doubts:
    """What is doubtful, by the archive's own distribution."""
    _, spread = _middle(measured.above_N)
    moved: list[tuple[Moved, range]] = []
    for name, rows, steps in measured.steps:
        likely = [
            (gain, Moved(video_id=name, step=step, fit=fit, compared=compared))
            for step, gain, fit, compared in steps
            if gain >= max(_MOVED, spread) and fit >= _MOST * compared
        ]
        if likely:
            moved.append((max(likely, key=lambda each: each[0])[1], rows))
    stays_N = np.isfinite(measured.above_N)
    for _, rows in moved:
        stays_N[rows.start : rows.stop] = False
    middle, spread = _middle(measured.above_N[stays_N])
    is_weak = bool(stays_N.any()) and middle < _WEAK
    is_low_N = stays_N & (measured.above_N < min(middle - _OUTLIER * spread, _RANDOM))
    is_others_N = stays_N & (measured.gain_N >= max(_MARGIN, _OUTLIER * spread)) & (measured.above_N < middle)
    doubt_N = np.maximum(middle - measured.above_N, np.where(is_others_N, measured.gain_N, 0))
    found = np.flatnonzero(is_low_N | is_others_N) if not is_weak else np.empty(0, np.int64)
    known = measured.better_N[np.isfinite(measured.better_N)]
    return Doubts(
        suspects=tuple(
            Suspect(
                caption=row,
                similarity=float(measured.similarity_N[row]),
                better=float(measured.better_N[row]),
                other=int(measured.other_N[row]) if is_others_N[row] else -1,
                other_similarity=float(measured.other_similarity_N[row]) if is_others_N[row] else 0.0,
            )
            for row in found[np.argsort(-doubt_N[found], kind="stable")].tolist()
        ),
        moved=tuple(each for each, _ in moved),
        compared=len(known),
        better=float(np.median(known)) if len(known) else 0.0,
        is_weak=is_weak,
        similarity_N=measured.similarity_N,
    )


def _middle(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median, and the deviation of the upper half, which wrong captions do not widen."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    middle = float(np.median(known))
    above = known[known >= middle] - middle
    return middle, max(1.4826 * float(np.median(above)), 1e-3)

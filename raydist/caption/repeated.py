"""Captions that several clips share: letter for letter, or but for case, punctuation and white space.

Promises  a caption that one clip has twice is no repetition; nothing is removed
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.caption.present import Present

LISTED = 100
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A caption of several clips."""

    caption: str
    """In its most frequent form."""
    clips: int
    forms: int
    """In how many ways it is written."""
    clip_ids: tuple[str, ...]
    """Some of the clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """What is repeated in an archive."""

    repeats: tuple[Repeat, ...]
    """The most frequent ones first, `LISTED` at most."""
    count: int
    """How many captions are of several clips."""
    exact: int
    """How many of them in one form only."""
    clips: int
    """Clips without a caption of their own alone."""
    videos: tuple[tuple[str, int, str], ...]
    """Videos all of whose clips have one caption: which, how many clips, what."""


def plain(text: str) -> str:
    """A caption without case, punctuation and white space that says nothing; itself where nothing else is left."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in folded).split()
    return " ".join(words) or re.sub(r"\s+", " ", text.strip())


def groups(captions: pa.Table) -> NDArray[np.int64]:
    """A number for each caption; those that differ in form only have the same."""
    numbers: dict[str, int] = {}
    texts = captions["caption"].to_pylist()
    return np.array([numbers.setdefault(plain(text), len(numbers)) for text in texts], np.int64)


def repeated(present: Present, group: NDArray[np.int64]) -> Repeated:
    """What several clips share.

    Args:
        group: of each caption, see `groups`.
    """
    if not len(group):
        return Repeated(repeats=(), count=0, exact=0, clips=0, videos=())
    pairs = np.unique(np.stack([group, present.clip_of], axis=1), axis=0)
    shared_by = np.bincount(pairs[:, 0])
    is_shared = shared_by[group] > 1
    own = np.unique(present.clip_of[~is_shared])
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(is_shared).tolist():
        members.setdefault(int(group[row]), []).append(row)
    texts = present.captions["caption"]
    forms = {number: Counter(texts.take(rows).to_pylist()) for number, rows in members.items()}
    most = sorted(members, key=lambda number: (-shared_by[number], number))[:LISTED]
    ids = present.clips["clip_id"]
    return Repeated(
        repeats=tuple(
            Repeat(
                caption=forms[number].most_common(1)[0][0],
                clips=int(shared_by[number]),
                forms=len(forms[number]),
                clip_ids=tuple(
                    ids[row].as_py() for row in dict.fromkeys(present.clip_of[members[number]].tolist()[:_EXAMPLES])
                ),
            )
            for number in most
        ),
        count=len(members),
        exact=sum(len(found) == 1 for found in forms.values()),
        clips=len(np.unique(present.clip_of)) - len(own),
        videos=tuple(_of_one_caption(present, group)),
    )


def _of_one_caption(present: Present, group: NDArray[np.int64]) -> list[tuple[str, int, str]]:
    found = []
    for video, _, rows in present.videos():
        clips = len(np.unique(present.clip_of[rows.start : rows.stop]))
        if clips > 1 and len(np.unique(group[rows.start : rows.stop])) == 1:
            found.append((video, clips, present.captions["caption"][rows.start].as_py()))
    return found

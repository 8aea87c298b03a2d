"""From what a probe told to rows of `videos` and `clips`: spans, places in the source video, aliases, splits."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from raydist.clips import naming
from raydist.clips.naming import NamingTemplate, Split
from raydist.records import Span

ALIAS_TOLERANCE_MS = 500
"""A pre-cut clip is the same stretch as a span of its source video if both ends agree this well."""

LONGEST_CUT = 1.5
"""A file longer than this many clip lengths is a video of its own, whatever its name looks like."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How an archive cuts files into clips; fixed when it is made."""

    clip_ms: int
    shortest_ms: int
    template: NamingTemplate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a file lies in its source video."""

    source_id: str
    offset_ms: int = 0
    pre_cut: bool = False


def source_start_ms(clip: Row) -> int:
    """Start of a clip in its source video."""
    start_s: float = clip["source_start_s"]
    return round(start_s * 1000)


@dataclass(slots=True)
class Stretches:
    """Stretches of source videos that already are clips: (source id, cell of the start, pre-cut) -> stretches.

    A cell is as long as the tolerance, so what starts close lies in the same cell or beside it.
    """

    _by_start: dict[tuple[str, int, bool], list[tuple[int, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, clip: Row) -> None:
        """Remember a clip row; one that names another source than its own file is pre-cut."""
        start_ms = source_start_ms(clip)
        end_ms = start_ms + clip["end_ms"] - clip["start_ms"]
        pre_cut = clip["source_id"] != naming.source_id(clip["video_id"])
        cell = start_ms // ALIAS_TOLERANCE_MS
        self._by_start[clip["source_id"], cell, pre_cut].append((start_ms, end_ms, clip["clip_id"]))

    def find(self, source_id: str, start_ms: int, end_ms: int, pre_cut: bool) -> str:
        """Clip id of the same stretch, cut in the other way; empty if there is none."""
        cell = start_ms // ALIAS_TOLERANCE_MS
        for near in (cell - 1, cell, cell + 1):
            for start, end, clip_id in self._by_start.get((source_id, near, not pre_cut), ()):
                if abs(start - start_ms) <= ALIAS_TOLERANCE_MS and abs(end - end_ms) <= ALIAS_TOLERANCE_MS:
                    return clip_id
        return ""


class Dealer:
    """Gives clips their split: by source video, once; an earlier decision stays.

    `counts` (source id -> sorted places of its files) stands only at the first deal of an archive of few source videos,
    which are dealt in parts.
    """

    def __init__(self, counts: Mapping[str, Sequence[int]] | None = None) -> None:
        self.in_parts = counts is not None
        self._counts = counts or {}
        self._parts: dict[str, dict[int, Split]] = {}

    def deal(self, place: Place, spans: int, clip_ms: int) -> list[Split]:
        """Splits of the clips of one file, in order."""
        if not self.in_parts:
            return [naming.deal(place.source_id)] * spans
        if not place.pre_cut:
            return naming.deal_parts(place.source_id, spans)
        return [self._parts_of(place.source_id)[place.offset_ms // clip_ms]] * spans

    def _parts_of(self, source_id: str) -> dict[int, Split]:
        if source_id not in self._parts:
            places = self._counts[source_id]
            self._parts[source_id] = dict(zip(places, naming.deal_parts(source_id, len(places)), strict=True))
        return self._parts[source_id]


def few_sources(rows: Iterable[Row], cutting: Cutting) -> dict[str, list[int]] | None:
    """Source id -> sorted places of its files, of the videos among probed files; None where they are enough."""
    places: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        if not row["reason"]:
            place = place_of(row["root"], row["path"], row["duration_ms"], cutting)
            places[place.source_id].add(place.offset_ms // cutting.clip_ms)
            if len(places) >= naming.FEW_VIDEOS:
                return None
    return {source: sorted(found) for source, found in places.items()}


def place_of(root: str, path: str, duration_ms: int, cutting: Cutting) -> Place:
    """Where the file at this path lies in its source video."""
    if cutting.template is not None and duration_ms <= LONGEST_CUT * cutting.clip_ms:
        found = cutting.template.match(path)
        if found is not None:
            video, index = found
            return Place(source_id=naming.video_id(root, video), offset_ms=index * cutting.clip_ms, pre_cut=True)
    return Place(source_id=naming.source_id(naming.video_id(root, path)))


def clip_rows(video: Row, cutting: Cutting, dealer: Dealer, old_splits: Mapping[str, Split]) -> tuple[Place, list[Row]]:
    """Rows of `clips` for a probed file, before aliases are taken out; a span in which no frame begins is no clip."""
    duration_ms = video["duration_ms"]
    place = place_of(video["root"], video["path"], duration_ms, cutting)
    spans = (
        [Span(start_ms=0, end_ms=duration_ms)]
        if place.pre_cut
        else naming.cut(duration_ms, cutting.clip_ms, cutting.shortest_ms)
    )
    splits = dealer.deal(place, len(spans), cutting.clip_ms)
    gaps = video.get("gaps_ms") or ()
    rows = []
    before: Split | None = None
    for index, (span, split) in enumerate(zip(spans, splits, strict=True)):
        clip_id = naming.clip_id(video["video_id"], span)
        if in_gap(span, gaps):
            continue
        before = old_splits.get(clip_id, before)  # what a file gained since lies in the part that it continues
        rows.append(
            {
                "clip_id": clip_id,
                "clip_key": naming.clip_key(clip_id),
                "video_id": video["video_id"],
                "start_s": span.start_ms / 1000,
                "end_s": span.end_ms / 1000,
                "duration_s": (span.end_ms - span.start_ms) / 1000,
                "start_ms": span.start_ms,
                "end_ms": span.end_ms,
                "clip_index": place.offset_ms // cutting.clip_ms + index,
                "source_id": place.source_id,
                "source_start_s": (place.offset_ms + span.start_ms) / 1000,
                "split": before or split,
                "fingerprint": naming.clip_fingerprint(video["file_fingerprint"], span),
            }
        )
    return place, rows


def in_gap(span: Span, gaps: Sequence[Sequence[int]]) -> bool:
    """Whether one of these stretches, rising and apart from each other, holds all of a span."""
    before = bisect_right(gaps, span.start_ms, key=lambda gap: gap[0])
    return before > 0 and span.end_ms <= gaps[before - 1][1]


def without_aliases(video: Row, place: Place, clips: list[Row], stretches: Stretches) -> list[Row]:
    """Take out clips that the archive has already, cut in the other way; a file without any left is an alias."""
    kept, first = [], ""
    for clip in clips:
        start_ms = source_start_ms(clip)
        end_ms = start_ms + clip["end_ms"] - clip["start_ms"]
        same = stretches.find(place.source_id, start_ms, end_ms, place.pre_cut)
        first = first or same
        if not same:
            kept.append(clip)
    if clips and not kept:
        video["state"], video["alias_of"] = "alias", first
    for clip in kept:
        stretches.add(clip)
    return kept


def collisions(clips: Iterable[Row], known: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """Clip keys that two different clip ids share: key -> both ids. `known` holds ids of the archive by key."""
    seen = dict(known)
    found: dict[int, tuple[str, str]] = {}
    for clip in clips:
        other = seen.setdefault(clip["clip_key"], clip["clip_id"])
        if other != clip["clip_id"]:
            found[clip["clip_key"]] = (other, clip["clip_id"])
    return found


def failure_row(video_id: str, fingerprint: str, reason: str, detail: str) -> Row:
    """A row of `failures` for a file that gave no clips."""
    return {
        "video_id": video_id,
        "clip_key": None,
        "fingerprint": fingerprint,
        "stage": "scan",
        "model_key": "",
        "reason": reason,
        "detail": detail,
        "at": datetime.now(UTC),
    }

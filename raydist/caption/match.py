"""Which clip each line of a list of captions is about, or why none.

Promises  strict: what may mean two clips means none, and the reason says what to write instead
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.caption.subtitles import without_language
from raydist.caption.times import milliseconds
from raydist.caption.words import texts_of, whole
from raydist.clips import naming
from raydist.clips.matching import Videos
from raydist.errors import ClipError
from raydist.records import Span
from raydist.tabular import Line

_MARK = "#t="
_WHOLE_MS = 500
"""A span of a list is that of a clip if both ends agree this well; what a spreadsheet rounds to half a second does."""

_KEY = re.compile(r"-?\d{1,19}|\d{20}|(?:0x)?[0-9a-f]{16}", re.IGNORECASE)
"""A clip's key: signed or unsigned, or in hexadecimal digits as shards have it."""

WHY: dict[str, str] = {
    "unknown": "name no video of the archive",
    "ambiguous": "name several videos: write the path below the scanned folder, or the video id",
    "several clips": (
        "name a whole video that has several clips, and which one is not said: add columns `start` and `end` "
        "(seconds in the file), or name the clips by `clip_id`"
    ),
    "no clip": "lie where the archive has no clip: the video failed, vanished, or ends before",
    "across clips": "reach across clips, with no more than half in any of them: cut them at the clips' ends",
    "no such clip": "name a clip that the archive does not have: `raydist status` has the clips' length",
    "no time": "have a time that is none: expected seconds (12.5) or h:m:s (0:01:02.5), and the end after the start",
    "no text": "have a caption that is no text",
}
"""Why a line is about no clip, in words that follow "N lines"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a list that say what it is about."""

    place: str
    """A path, a video id or a clip id."""
    texts: tuple[str, ...]
    start: str = ""
    end: str = ""
    moment: str = ""
    stem: str = ""
    """A path without its suffix, of a file that has its video's name; where the place says nothing."""
    others: str = ""
    """A list of other names of the video, for stems that name none."""
    cue: str = ""
    """Whether the span is that of a subtitle."""


@dataclass(slots=True)
class Matched:
    """What became of the lines."""

    texts: dict[int, list[str]] = field(default_factory=dict)
    """Row of the clip in `Clips.table` -> its distinct captions, in the order of the list."""
    lines: int = 0
    empty: int = 0
    """Lines without a caption."""
    repeated: int = 0
    """Lines that say of a clip what another line has said."""
    parts: int = 0
    """Captions of a stretch that is not that of the clip that holds most of it."""
    unmatched: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Reason of `WHY` -> where the line is, and what it names."""
    example: tuple[int, str, str] | None = None
    """A row, a caption that it got, and where that stands."""


class Clips:
    """The clips of an archive, to be found by video and time."""

    def __init__(self, table: pa.Table, aliases: Mapping[str, str]) -> None:
        """
        Args:
            table: columns clip_id, clip_key, video_id, start_ms, end_ms, fingerprint.
            aliases: video id -> the clip that shows the same, for files that are copies of a clip.
        """
        self.table = table.sort_by([("video_id", "ascending"), ("start_ms", "ascending")])
        self._starts_ms: NDArray[np.int64] = self.table["start_ms"].to_numpy()
        self._ends_ms: NDArray[np.int64] = self.table["end_ms"].to_numpy()
        self._places: dict[str, range] = {}
        names = self.table["video_id"].to_pylist()
        first = 0
        for row in range(1, len(names) + 1):
            if row == len(names) or names[row] != names[first]:
                self._places[names[first]] = range(first, row)
                first = row
        self._aliases = aliases
        keys = self.table["clip_key"].to_numpy()
        self._by_key = np.argsort(keys)
        self._keys: NDArray[np.int64] = keys[self._by_key]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def by_id(self, clip_id: str) -> int | str:
        """The row of a clip, or a reason."""
        try:
            key = naming.clip_key(naming.clip_id(*naming.parse_clip_id(clip_id)))  # `0,1.000` is `0,1`
        except ClipError:
            return "no such clip"
        row = self._of_key(key)
        return "no such clip" if row is None else row

    def by_key(self, written: str) -> int | None:
        """The row of the clip with a key, however it is written; None if it is none."""
        if not _KEY.fullmatch(written):
            return None
        numbers = [int(written)] if not written.lower().startswith("0x") and _is_decimal(written) else []
        if len(written.lower().removeprefix("0x")) == 16:
            numbers.append(int(written, 16))
        for number in numbers:
            key = number - (1 << 64) if number >= 1 << 63 else number
            if not -(1 << 63) <= key < 1 << 63:
                continue
            row = self._of_key(key)
            if row is not None:
                return row
        return None

    def _of_key(self, key: int) -> int | None:
        place = int(np.searchsorted(self._keys, key))
        if place < len(self._keys) and self._keys[place] == key:
            return int(self._by_key[place])
        return None

    def under(self, video_id: str, span: Span) -> list[int] | str:
        """The rows of the clips that a subtitle stands for, or a reason: the one that holds most of it, and those of
        which it covers half."""
        rows = self._places.get(video_id)
        if rows is None:
            row, _ = self.of(video_id, span)
            return row if isinstance(row, str) else [row]
        starts, ends = self._starts_ms[rows.start : rows.stop], self._ends_ms[rows.start : rows.stop]
        inside = np.minimum(ends, span.end_ms) - np.maximum(starts, span.start_ms)
        covered = 2 * inside >= ends - starts
        if not covered.any() and 2 * int(np.maximum(inside, 0).sum()) <= span.end_ms - span.start_ms:
            return "no clip"
        covered[inside.argmax()] = True
        return [rows[int(place)] for place in np.flatnonzero(covered)]

    def of(self, video_id: str, span: Span | None) -> tuple[int | str, bool]:
        """The row of the clip that a span of a video means, or a reason; and whether the clip's is another span."""
        rows = self._places.get(video_id)
        if rows is None and video_id in self._aliases:
            return self.by_id(self._aliases[video_id]), False
        if rows is None:
            return "no clip", False
        if span is None:
            return (rows[0] if len(rows) == 1 else "several clips"), False
        starts, ends = self._starts_ms[rows.start : rows.stop], self._ends_ms[rows.start : rows.stop]
        # A moment is a span of one millisecond.
        inside = np.minimum(ends, span.end_ms) - np.maximum(starts, span.start_ms)
        best = int(inside.argmax())
        if inside[best] <= 0:
            return "no clip", False
        if 2 * int(inside[best]) <= span.end_ms - span.start_ms:
            return "across clips", False
        whole = abs(starts[best] - span.start_ms) <= _WHOLE_MS and abs(ends[best] - span.end_ms) <= _WHOLE_MS
        return rows[best], not whole


def match(lines: Sequence[Line], columns: Columns, clips: Clips, videos: Videos) -> Matched:
    """Find the clip of each line that has a caption."""
    matched = Matched(lines=len(lines))
    for line in lines:
        texts = _texts(line, columns.texts)
        if texts == []:
            matched.empty += 1
            continue
        written = whole(str(line.values.get(columns.place) or "")).strip()
        named = written or str(line.values.get(columns.stem) or "")
        rows, part = _rows(line, written, columns, clips, videos) if texts else ("no text", False)
        if isinstance(rows, str):
            matched.unmatched[rows].append((line.where, named))
            continue
        assert texts is not None
        new = False
        for row in rows:
            known = matched.texts.setdefault(row, [])
            fresh = [text for text in texts if text not in known]
            known.extend(fresh)
            new |= bool(fresh)
        matched.repeated += not new
        matched.parts += part
        matched.example = matched.example or (rows[0], texts[0], line.where)
    return matched


def is_known(written: str, clips: Clips, videos: Videos) -> bool:
    """Whether a value names one clip or one video of the archive."""
    written = whole(written)
    if _MARK in written and isinstance(clips.by_id(written), int):
        return True
    return len(videos.find(written)) == 1 or clips.by_key(written) is not None


def _is_decimal(written: str) -> bool:
    return written.removeprefix("-").isdigit()


def _rows(line: Line, written: str, columns: Columns, clips: Clips, videos: Videos) -> tuple[list[int] | str, bool]:
    """The rows of the clips that a line is about, or a reason; and whether it is about another span than theirs."""
    if _MARK in written or (written and columns.stem):
        return _one(_by_clip_id(written, clips, videos)), False
    found = _by_stem(line, columns, videos) if columns.stem else videos.find(written)
    if not found:
        key = clips.by_key((written or str(line.values.get(columns.stem) or "")).rpartition("/")[2])
        if key is not None:
            return [key], False
    if len(found) != 1:
        return ("ambiguous" if found else "unknown"), False
    span = _span(line.values, columns)
    if isinstance(span, str):
        return span, False
    (video,) = found
    if span is not None and line.values.get(columns.cue):
        return clips.under(video, span), False
    row, part = clips.of(video, span)
    return _one(row), part


def _one(row: int | str) -> list[int] | str:
    return row if isinstance(row, str) else [row]


def _by_stem(line: Line, columns: Columns, videos: Videos) -> set[str]:
    """The videos that have a file's name, without its language, or one of the names that it gives."""
    stem = str(line.values.get(columns.stem) or "")
    found = videos.find_stem(stem)
    if not found and line.values.get(columns.cue):
        found = videos.find_stem(without_language(stem))
    for name in () if found else line.values.get(columns.others) or ():
        found = found or videos.find(whole(str(name)))
    return found


def _by_clip_id(written: str, clips: Clips, videos: Videos) -> int | str:
    row = clips.by_id(written)
    if isinstance(row, int):
        return row
    name, _, times = written.rpartition(_MARK)
    found = videos.find(name)  # the id's first part as a path
    return clips.by_id(f"{found.pop()}{_MARK}{times}") if len(found) == 1 else row


def _span(values: Mapping[str, Any], columns: Columns) -> Span | str | None:
    """The span that a line names, None if it names no time, or a reason."""
    given = {name: values.get(name) for name in (columns.start, columns.end, columns.moment) if name}
    given = {name: value for name, value in given.items() if value not in (None, "") and str(value).strip()}
    if not given:
        return None
    times = {name: milliseconds(value, in_ms=name.strip().lower().endswith("_ms")) for name, value in given.items()}
    if any(time is None for time in times.values()):
        return "no time"
    start, end = times.get(columns.start), times.get(columns.end)
    if start is None:
        start, end = times.get(columns.moment), None
    if start is None:
        return "no time"  # an end alone
    if end is None:
        return Span(start_ms=start, end_ms=start + 1)
    return Span(start_ms=start, end_ms=end) if end > start else "no time"


def _texts(line: Line, columns: Sequence[str]) -> list[str] | None:
    """The distinct captions of a line, without white space at their ends; None if one is no text."""
    found: list[str] = []
    for column in columns:
        texts = texts_of(line.values.get(column))
        if texts is None:
            return None
        found += [text for text in texts if text not in found]
    return found

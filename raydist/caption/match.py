"""Which clip each line of a list of captions is about, or why none.

Promises  strict: what may mean two clips means none, and the reason says what to write instead
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.clips import naming
from raydist.clips.matching import Videos
from raydist.errors import ClipError
from raydist.records import Span
from raydist.tabular import Line

_MARK = "#t="
_WHOLE_MS = 500
"""A span of a list is that of a clip if both ends agree this well; what a spreadsheet rounds to half a second does."""

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,3}):)?(\d+(?:[.,]\d+)?)s?")

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
    unmatched: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    """Reason of `WHY` -> line number and what it names."""


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

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def by_id(self, clip_id: str) -> int | str:
        """The row of a clip, or a reason."""
        try:
            video_id, span = naming.parse_clip_id(clip_id)
        except ClipError:
            return "no such clip"
        for row in self._places.get(video_id, ()):
            if self._starts_ms[row] == span.start_ms and self._ends_ms[row] == span.end_ms:
                return row
        return "no such clip"

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
        written = str(line.values.get(columns.place) or "").strip()
        if texts == []:
            matched.empty += 1
            continue
        row, part = _row(line, written, columns, clips, videos) if texts else ("no text", False)
        if isinstance(row, str):
            matched.unmatched[row].append((line.number, written))
            continue
        known = matched.texts.setdefault(row, [])
        assert texts is not None
        new = [text for text in texts if text not in known]
        known.extend(new)
        matched.repeated += not new
        matched.parts += part
    return matched


def is_known(written: str, clips: Clips, videos: Videos) -> bool:
    """Whether a value names one clip or one video of the archive."""
    return isinstance(clips.by_id(written), int) if _MARK in written else len(videos.find(written)) == 1


def _row(line: Line, written: str, columns: Columns, clips: Clips, videos: Videos) -> tuple[int | str, bool]:
    if _MARK in written:
        return _by_clip_id(written, clips, videos), False
    found = videos.find(written)
    if len(found) != 1:
        return ("ambiguous" if found else "unknown"), False
    span = _span(line.values, columns)
    if isinstance(span, str):
        return span, False
    return clips.of(found.pop(), span)


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


def milliseconds(value: Any, *, in_ms: bool = False) -> int | None:
    """A time as people write it: 12.5, "12,5", "1:02", "00:01:02,500"; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = float(value)
        if not math.isfinite(number) or number < 0:
            return None
        return round(number if in_ms else number * 1000)
    found = _CLOCK.fullmatch(str(value).strip())
    if found is None:
        return None
    hours, minutes, rest = (float((part or "0").replace(",", ".")) for part in found.groups())
    return round(rest) if in_ms else round((hours * 3600 + minutes * 60 + rest) * 1000)


def _texts(line: Line, columns: Sequence[str]) -> list[str] | None:
    """The distinct captions of a line, without white space at their ends; None if one is no text."""
    found: list[str] = []
    for column in columns:
        value = line.values.get(column)
        for text in value if isinstance(value, list) else [value]:
            if text is not None and not isinstance(text, str):
                return None
            if text and text.strip() and text.strip() not in found:
                found.append(text.strip())
    return found

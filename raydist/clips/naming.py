"""Names that never change: video ids, clip ids, clip keys, fingerprints, spans, splits and naming templates.

All pure functions. A `video_id` is the root's name, `/`, and the path below the root (NFC; bytes that are not UTF-8 as
`%XX`, a literal `%` as `%25`). A `clip_id` is a media fragment (https://www.w3.org/TR/media-frags/) of it:
`talks/a.mp4#t=210,240`. Times are whole milliseconds, computed in integers.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from raydist import address
from raydist.errors import ClipError
from raydist.records import Span

Split = Literal["train", "val", "test", "gap"]

SPLIT_SHARES: tuple[tuple[Split, float], ...] = (("train", 0.8), ("val", 0.1), ("test", 0.1))
FEW_VIDEOS = 20
"""With fewer source videos than this, a split by video would leave a part empty; videos are cut into parts instead."""

_FRAGMENT = "#t="
_TIME = re.compile(r"\d+(\.\d{1,3})?")


def encode_path(raw: bytes) -> str:
    """A path below a root as text that turns back into its bytes: `%XX` where it is not UTF-8, `%25` for `%`."""
    text = raw.replace(b"%", b"%25").decode("utf-8", errors="surrogateescape")
    return "".join(f"%{ord(char) - 0xDC00:02X}" if "\udc80" <= char <= "\udcff" else char for char in text)


def decode_path(path: str) -> bytes:
    """The bytes of a path that `encode_path` wrote."""
    return unquote_to_bytes(path)


def locate(root: str, path: str) -> str:
    """The file at an encoded path below a root's folder or address; bytes that are not UTF-8 are surrogates."""
    if address.is_address(root):
        return address.join(root, decode_path(path))
    return os.path.join(root, os.fsdecode(decode_path(path)))


def video_id(root: str, path: str) -> str:
    """Id of the file at an encoded `path` below the root of that name."""
    return f"{root}/{unicodedata.normalize('NFC', path)}"


def source_id(video_id: str) -> str:
    """Id of the source video that a file is, or holds a part of: its video id without the suffix."""
    head, slash, name = video_id.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{head}{slash}{stem}"


def format_seconds(time_ms: int) -> str:
    """Milliseconds as seconds without exponent or trailing zeros: 7500 -> `7.5`."""
    whole, rest = divmod(time_ms, 1000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)


def clip_id(video_id: str, span: Span) -> str:
    """Id of a span of a video: `talks/a.mp4#t=210,240`.

    Raises:
        ClipError: if the span is empty, reversed or starts before 0.
    """
    if not 0 <= span.start_ms < span.end_ms:
        raise ClipError(
            f"[{format_seconds(span.start_ms)}, {format_seconds(span.end_ms)}) s of {video_id!r} is no span: "
            "expected 0 <= start < end. `raydist scan` makes spans that are."
        )
    return f"{video_id}{_FRAGMENT}{format_seconds(span.start_ms)},{format_seconds(span.end_ms)}"


def parse_clip_id(clip_id: str) -> tuple[str, Span]:
    """The video id and the span of a clip id, split at the last `#t=`.

    Raises:
        ClipError: if it is not of the form `VIDEO_ID#t=START,END`.
    """
    name, mark, times = clip_id.rpartition(_FRAGMENT)
    start, comma, end = times.partition(",")
    if not (mark and comma and name and _TIME.fullmatch(start) and _TIME.fullmatch(end)):
        raise ClipError(f"{clip_id!r} is no clip id: expected VIDEO_ID#t=START,END, such as talks/a.mp4#t=210,240")
    return name, Span(start_ms=_milliseconds(start), end_ms=_milliseconds(end))


def _milliseconds(seconds: str) -> int:
    whole, _, rest = seconds.partition(".")
    return int(whole) * 1000 + int(rest.ljust(3, "0"))


def clip_key(clip_id: str) -> int:
    """Signed 64-bit key: the first 8 bytes of blake2b(clip_id), big-endian."""
    return int.from_bytes(blake2b(clip_id.encode()).digest()[:8], "big", signed=True)


def clip_fingerprint(file_fingerprint: str, span: Span) -> str:
    """32 hex digits that change when the file or the span does."""
    return blake2b(f"{file_fingerprint}:{span.start_ms}:{span.end_ms}".encode(), digest_size=16).hexdigest()


def is_settled(clip: Mapping[str, Any], file_fingerprint: str | None) -> bool:
    """Whether a clip (a row of `clips`) was cut from the file as it is known.

    A scan at work commits clips before their files; those that are not settled wait until it is done.
    """
    span = Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"])
    return bool(clip_fingerprint(file_fingerprint or "", span) == clip["fingerprint"])


def cut(duration_ms: int, clip_ms: int, shortest_ms: int) -> list[Span]:
    """Spans of `clip_ms` that cover a file; a shorter last one stays if it has `shortest_ms`.

    A file always has at least one span, however short it is.
    """
    if clip_ms <= 0:
        raise ValueError(f"clip_ms is {clip_ms}; expected more than 0")
    total_ms = max(1, duration_ms)
    spans = [
        Span(start_ms=start, end_ms=min(start + clip_ms, total_ms))
        for start in range(0, total_ms, clip_ms)
        if min(clip_ms, total_ms - start) >= min(shortest_ms, clip_ms)
    ]
    return spans or [Span(start_ms=0, end_ms=total_ms)]


def deal(source_id: str) -> Split:
    """Split of a source video, by hash: 80 % train, 10 % val, 10 % test; the same on every machine."""
    place = int.from_bytes(blake2b(source_id.encode(), digest_size=8, person=b"raydist-split").digest(), "big") / 2**64
    for split, share in SPLIT_SHARES:
        if place < share:
            return split
        place -= share
    return "test"


def deal_parts(source_id: str, clips: int) -> list[Split]:
    """Splits of the clips of one video, in order, where videos are too few to be dealt whole.

    Contiguous parts with a `gap` clip between them, so that no two neighbours lie on two sides. A video of fewer than
    five clips cannot give all parts and goes whole to one.
    """
    if clips < 5:
        return [deal(source_id)] * clips
    held = max(1, round(0.1 * clips))
    train = clips - 2 * held - 2
    parts: list[tuple[Split, int]] = [("train", train), ("gap", 1), ("val", held), ("gap", 1), ("test", held)]
    return [split for split, count in parts for _ in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingTemplate:
    """How the names of pre-cut clips hold their source video and index, such as `{video}_{index}`.

    It is matched against the path below the root without the suffix, so `{video}/clip_{index}` is a folder a video.
    """

    template: str
    index_base: int = 0
    """The index of the first clip."""

    def __post_init__(self) -> None:
        if self.template.count("{video}") != 1 or self.template.count("{index}") != 1:
            raise ValueError(
                f"naming is {self.template!r}; expected {{video}} and {{index}} once each: {{video}}_{{index}}"
            )

    def match(self, path: str) -> tuple[str, int] | None:
        """(path of the source video without suffix, place of the clip from 0), or None if the name does not fit."""
        stem = source_id(path)
        pattern = (
            re.escape(self.template).replace(r"\{video\}", "(?P<video>.+)").replace(r"\{index\}", r"(?P<index>\d+)")
        )
        found = re.fullmatch(pattern, stem, flags=re.DOTALL)
        if found is None or int(found["index"]) < self.index_base:
            return None
        return found["video"], int(found["index"]) - self.index_base


_NUMBERED = re.compile(r"(?P<video>.+?)(?P<mark>[_\-. ])(?P<index>\d{1,8})", flags=re.DOTALL)


def looks_pre_cut(names: list[str]) -> str | None:
    """The naming template that most file names of one folder suggest, or None.

    At least five names must be numbered parts of fewer sources than there are parts, with indices that follow each
    other; dates and years do not.
    """
    parts: dict[tuple[str, str], list[int]] = {}
    for name in names:
        found = _NUMBERED.fullmatch(source_id(name))
        if found:
            parts.setdefault((found["video"], found["mark"]), []).append(int(found["index"]))
    runs = {key: sorted(set(numbers)) for key, numbers in parts.items() if len(numbers) > 1}
    following = {key: run for key, run in runs.items() if run[0] <= 1 and run[-1] - run[0] == len(run) - 1}
    count = sum(len(run) for run in following.values())
    if count < 5 or count < 0.5 * len(names):
        return None
    mark = next(iter(following))[1]
    return f"{{video}}{mark}{{index}}"

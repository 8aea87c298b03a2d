"""caption/prepare: the Ray actor that makes clips ready to be sent. Every clip in is one row out: media, or a reason.

Reads     units of work (`clips.units`)
Gives     `tables.PREPARED`: the frames of each clip as JPEG, or each clip as an mp4 of its own
Promises  what is made for a clip shows its span and nothing else, and is no larger than may be sent
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import pyarrow as pa

from raydist.caption.tables import PREPARED
from raydist.clips.child import Child
from raydist.clips.jpeg import QUALITY, jpeg
from raydist.clips.naming import locate
from raydist.records import CUT_RATE, DecodedClip, Limits, Span

_ROWS_A_TABLE = 16
_BYTES_A_TABLE = 32 << 20
_QUALITIES = (QUALITY, 70, 50, 30)
"""Of JPEG: the next where a clip's frames together are larger than may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What is sent of a clip."""

    send: Literal["frames", "clip"]
    frames: int
    """Pictures of a clip; fewer of a clip that has fewer."""
    frame_px: int
    """Longest edge of a picture or of the cut clip."""
    max_bytes: int
    """Of all media of one request."""
    rate: int = CUT_RATE
    """Pictures a second of a clip that cannot be copied, at most."""


class Preparer:
    """A Ray actor: units in, clips with their media out."""

    def __init__(self, roots: Mapping[str, str], sending: Sending, limits: Limits) -> None:
        self._roots = dict(roots)
        self._sending = sending
        self._child = Child(limits)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Prepare all clips of all units."""
        rows: list[dict[str, Any]] = []
        size = 0
        for unit in table["files"].to_pylist():
            for file in unit:
                for row in self._rows(file):
                    rows.append(row)
                    size += len(row["clip"]) + sum(map(len, row["frames"]))
                    if len(rows) == _ROWS_A_TABLE or size > _BYTES_A_TABLE:
                        yield pa.Table.from_pylist(rows, PREPARED)
                        rows, size = [], 0
        if rows:
            yield pa.Table.from_pylist(rows, PREPARED)

    def _rows(self, file: dict[str, Any]) -> Iterator[dict[str, Any]]:
        clips = file["clips"]
        spans = [Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"]) for clip in clips]
        location = locate(self._roots[file["root"]], file["path"])
        made = self._frames if self._sending.send == "frames" else self._cuts
        began = time.monotonic()
        for clip, media in zip(clips, made(location, spans, file["file_fingerprint"]), strict=True):
            yield {**_row(file["video_id"], clip), **media, "prepare_s": time.monotonic() - began}
            began = time.monotonic()

    def _frames(self, location: str, spans: list[Span], fingerprint: str) -> Iterator[dict[str, Any]]:
        decoded = self._child.decode(
            location,
            spans,
            frames=self._sending.frames,
            size_px=self._sending.frame_px,
            resize="fit",
            hashes=False,
            fingerprint=fingerprint,
        )
        for clip in decoded:
            began = time.thread_time()
            media = self._pictures(clip)
            yield {**media, "prepare_cpu_s": clip.cpu_s + time.thread_time() - began}

    def _cuts(self, location: str, spans: list[Span], fingerprint: str) -> Iterator[dict[str, Any]]:
        sending = self._sending
        for cut in self._child.cut(
            location,
            spans,
            max_px=sending.frame_px,
            max_bytes=sending.max_bytes,
            rate=sending.rate,
            fingerprint=fingerprint,
        ):
            yield {
                "clip": cut.data,
                "width_px": cut.width_px,
                "height_px": cut.height_px,
                "prepare_cpu_s": cut.cpu_s,
                "reason": cut.reason,
                "detail": cut.detail,
            }

    def _pictures(self, clip: DecodedClip) -> dict[str, Any]:
        if clip.frames is None:
            return {"reason": clip.reason, "detail": clip.detail}
        # A clip with fewer frames than are wanted has its last one again: to send that twice costs money for nothing.
        times = clip.frame_times_ms
        new = [0, *(place for place, (before, after) in enumerate(pairwise(times), 1) if after > before)]
        _, height, width, _ = clip.frames.shape
        size = 0
        for quality in _QUALITIES:
            pictures = [jpeg(clip.frames[place], quality) for place in new]
            size = sum(map(len, pictures))
            if size <= self._sending.max_bytes:
                return {"frames": pictures, "width_px": width, "height_px": height}
        detail = (
            f"{len(new)} pictures of {width} x {height} take {size:,} bytes, {self._sending.max_bytes:,} may be sent: "
            "lower caption.frames or caption.frame_px"
        )
        return {"reason": "too_big", "detail": detail}


def _row(video_id: str, clip: dict[str, Any]) -> dict[str, Any]:
    """A row without media, which has every column."""
    return {
        "clip_key": clip["clip_key"],
        "clip_id": clip["clip_id"],
        "video_id": video_id,
        "fingerprint": clip["fingerprint"],
        "reason": "",
        "detail": "",
        "prepare_s": 0.0,
        "prepare_cpu_s": 0.0,
        "frames": [],
        "clip": b"",
        "width_px": 0,
        "height_px": 0,
        "duration_s": (clip["end_ms"] - clip["start_ms"]) / 1000,
    }

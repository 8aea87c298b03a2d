"""probe: what a file holds, without decoding more than its first frame.

Length and number of frames come from the packets, never from what the header declares. Of files above `WHOLE_BYTES`
only the head and the tail are read. A few frames whose times lie far behind all others do not make a file longer.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from raydist.clips.container import (
    REORDER,
    Head,
    Video,
    VideoPacket,
    first_frame,
    no_frames,
    open_video,
    read_head,
)
from raydist.clips.picture import rotation
from raydist.clips.source import file_fingerprint, open_source, shown
from raydist.clips.timeline import Clock, end_tick, length_ms, timeline
from raydist.errors import SourceError
from raydist.records import Limits, Probe

WHOLE_BYTES = 64 << 20
"""Files up to this size are read whole."""
WHOLE_REMOTE_BYTES = 1 << 20
"""The same for files on a server."""
LONGEST_MS = 10 * 24 * 3600 * 1000
"""Longer files fail: their spans would be more than a scan can hold."""
_LONGEST_GAP_S = 3600
_TAIL_S = 5
_GAP_MS = 1000
_FAR = 1 << 62


_Measured: TypeAlias = tuple[int, int, tuple[tuple[int, int], ...]]
"""Length in ms; presented frames, -1 where they were not counted; gaps, see `Probe`."""


@dataclass
class _Table:
    """Times of the presented packets, in decoding order."""

    times: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    untimed: list[int] = field(default_factory=list)
    """Places of the packets without a time."""

    def add(self, packet: VideoPacket) -> None:
        if packet.pts is None:
            self.untimed.append(len(self.times))
        self.times.append(packet.pts or 0)
        self.durations.append(packet.duration or 0)


def probe(location: str, limits: Limits | None = None, waits: Callable[[float], None] = lambda seconds: None) -> Probe:
    """Look at a file.

    Raises:
        SourceError: with the reason why it is no video that can be decoded; `too_large` beyond `LONGEST_MS`.
    """
    limits = limits or Limits()
    with open_source(location, limits.remote, waits) as source:
        fingerprint = file_fingerprint(source)
        try:
            with open_video(source, limits) as video:
                return _probe(video, fingerprint)
        except MemoryError as error:
            raise SourceError(
                "too_large", f"{shown(location)} needs more than {limits.memory_bytes:,} bytes"
            ) from error


def _probe(video: Video, fingerprint: str) -> Probe:
    source = video.source
    head = read_head(video)
    if head.packet.has_sidedata("encryption_info"):
        raise SourceError("encrypted", f"{shown(source.location)} is encrypted")
    frame = first_frame(video)
    length, count, gaps = _measure(video, head)
    if length > LONGEST_MS:
        raise SourceError(
            "too_large",
            f"{shown(source.location)} lasts {length // 1000:,} s by its packets' times; the limit is "
            f"{LONGEST_MS // 1000:,} s. If it is shorter, write its times anew: `ffmpeg -i IN -c copy OUT`",
        )
    stream, decoder = video.stream, video.decoder
    start = head.clock.first * head.clock.base if head.clock else 0
    return Probe(
        bytes=source.bytes,
        file_fingerprint=fingerprint,
        duration_ms=length,
        frames=count,
        width=decoder.width or frame.width,
        height=decoder.height or frame.height,
        rotation=rotation(frame),
        fps=_fps(video, length, count),
        codec=video.codec,
        container=video.container.format.name,
        bit_rate=stream.bit_rate or source.bytes * 8000 // length,
        has_audio=bool(video.container.streams.audio),
        start_offset_s=float(start),
        gaps_ms=gaps,
    )


def _measure(video: Video, head: Head) -> _Measured:
    whole = WHOLE_REMOTE_BYTES if video.source.is_remote else WHOLE_BYTES
    if head.clock is not None and video.source.bytes > whole:
        length = _tail_ms(video, head.clock)
        if length is not None:
            return length, -1, ()
    table = _Table()
    video.rewind()
    for packet in video.packets():
        if video.presented(packet):
            table.add(packet)
    if not table.times:
        raise no_frames(video, "it has no packets")
    if head.clock is None:
        return _counted_ms(video, table)
    return _timed_ms(table, head.clock)


def _timed_ms(table: _Table, clock: Clock) -> _Measured:
    missing = set(table.untimed)
    timed = sorted(
        (time, duration)
        for place, (time, duration) in enumerate(zip(table.times, table.durations, strict=True))
        if place not in missing and time >= clock.first
    )
    ticks = _supported([time for time, _ in timed], clock)
    last_duration = timed[len(ticks) - 1][1]
    end = end_tick(ticks, last_duration if last_duration * clock.base <= _LONGEST_GAP_S else 0)
    return length_ms(clock, ticks[-1], end), len(ticks), _gaps(ticks, clock)


def _supported(ticks: list[int], clock: Clock) -> list[int]:
    """Times (rising) up to the first long gap that no more frames follow than came before: the rest are wild."""
    longest = int(_LONGEST_GAP_S / clock.base)
    for place, (before, after) in enumerate(pairwise(ticks), 1):
        if after - before > longest and 2 * place >= len(ticks):
            return ticks[:place]
    return ticks


def _gaps(ticks: list[int], clock: Clock) -> tuple[tuple[int, int], ...]:
    short = int(_GAP_MS / clock.base / 1000)
    far = ((before, after) for before, after in pairwise(ticks) if after - before > short)
    return tuple((clock.ms(before) + 1, clock.ms(after)) for before, after in far)


def _counted_ms(video: Video, table: _Table) -> _Measured:
    times: list[int | None] = list(table.times)
    for place in table.untimed:
        times[place] = None
    line = timeline(times if video.trusts_times else [None] * len(times), video.base, video.rate)
    ticks = _supported(line.ticks, line.clock)
    return length_ms(line.clock, ticks[-1], end_tick(ticks, 0)), len(ticks), _gaps(ticks, line.clock)


def _tail_ms(video: Video, clock: Clock) -> int | None:
    """Length from the last packets; None where seeking to the end does not show them."""
    last: int | None = None
    for target in (_FAR, None):
        tick = target if target is not None else (last or 0) - round(_TAIL_S / clock.base)
        if not video.seek(max(tick, clock.first)):
            return None
        table = _Table()
        for packet in video.packets():
            if video.presented(packet) and packet.pts is not None:
                table.add(packet)
        if not table.times:
            return None
        last = max(table.times)
    if len(table.times) < min(REORDER, 2) or last is None or last < clock.first:
        return None
    length = _timed_ms(table, clock)[0]
    return length if length <= LONGEST_MS else None  # a wild time may be the last: then all packets tell


def _fps(video: Video, length: int, count: int) -> float:
    rate = video.stream.average_rate
    if rate and 0 < rate <= 1000:
        return float(rate)
    return count * 1000 / length if count > 0 else float(video.rate)

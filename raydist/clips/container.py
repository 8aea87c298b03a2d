"""container: an open video file: its video stream, its packets, its decoder.

Reads     a `Source`; FFmpeg gets the file object, plain formats only
Gives     packets of the first stream that is a video, one decoder without threads, seeking
Promises  declared sizes are checked before anything is decoded; every error is a SourceError with its reason
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from raydist.clips.bitstream import LeadingPictures, hevc_length_bytes, is_hidden
from raydist.clips.opening import open_stream
from raydist.clips.source import Source, refuse_formats, refuse_size, shown
from raydist.clips.timeline import Clock
from raydist.errors import SourceError
from raydist.records import Limits

VideoPacket: TypeAlias = "Packet[VideoStream]"

REORDER = 33
"""Packets after which no earlier time can follow: codecs hold back at most 16 frames, or 32 fields."""
_BUFFER_BYTES = 32 << 10
"""PyAV's default: so far FFmpeg reads beyond what it needs."""
_COPIES_OF_THE_LAST = frozenset({"gif", "apng", "flashsv", "flashsv2", "zmbv", "tscc", "cinepak", "qtrle", "msrle"})
"""Codecs whose packets may be marked as key and still build on the picture before."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the first packets tell."""

    clock: Clock | None
    """None: the packets have no times of their own, so frames must be counted."""
    packet: VideoPacket
    """The first one."""


@dataclass
class Video:
    """One open file. Not thread-safe; `packets_read` counts for tests and reports."""

    source: Source
    limits: Limits
    container: av.container.InputContainer
    stream: VideoStream
    decoder: VideoCodecContext
    packets_read: int = 0
    codec: str = field(init=False)
    """Name of the codec, whatever decoder reads it."""

    def __post_init__(self) -> None:
        self.codec = str(self.decoder.codec.canonical_name)
        self._hides = self.codec in ("vp8", "vp9")
        length_bytes = hevc_length_bytes(self.decoder.extradata)
        self._leading = LeadingPictures(length_bytes) if self.codec == "hevc" else None

    @property
    def base(self) -> Fraction:
        """Seconds a tick."""
        base = self.stream.time_base
        return Fraction(base.numerator, base.denominator) if base else Fraction(1, 1000)

    @property
    def rate(self) -> Fraction:
        """Frames a second, as far as the container knows; 25 if it does not."""
        for rate in (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate):
            if rate and 0 < rate <= 100_000:
                return Fraction(rate.numerator, rate.denominator)
        return Fraction(25)

    @property
    def trusts_keys(self) -> bool:
        """Whether a packet marked as key may be a place to start from."""
        return self.codec not in _COPIES_OF_THE_LAST

    @property
    def trusts_times(self) -> bool:
        """Whether packets' times are presentation times: AVI knows decoding order only."""
        return not (self.container.format.name == "avi" and self.decoder.has_b_frames)

    def presented(self, packet: VideoPacket) -> bool:
        """Whether a packet, the next in decoding order, stands for a frame that is shown.

        Not cut off by an edit list, no hidden reference, no picture whose references an edit has taken away.
        """
        if self._leading is not None and self._leading.drops(memoryview(packet)):
            return False
        return not packet.is_discard and not (self._hides and is_hidden(self.codec, memoryview(packet)))

    def packets(self) -> Iterator[VideoPacket]:
        """Packets of the video stream from where the file stands; damaged stretches are skipped, the end ends it."""
        errors = 0
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.size:  # to a decoder an empty packet means the end
                        self.packets_read += 1
                        yield packet
                return
            except MemoryError:
                raise
            except IndexError:  # PyAV's, at the end of a file in which streams appeared on the way
                return
            except FFmpegError:
                errors += 1
                if errors > 100:  # a demuxer that fails without moving on
                    return
            except OSError as error:
                raise SourceError("unreadable", f"{shown(self.source.location)}: {error.strerror}") from error

    def decode(self, packet: VideoPacket | None) -> tuple[list[VideoFrame], bool]:
        """Frames that this packet brings out, and whether the decoder complained. None drains.

        Raises:
            SourceError: too_large.
        """
        try:
            frames = self.decoder.decode(packet)
        except MemoryError:
            raise
        except (FFmpegError, ValueError):  # ValueError: no frames from a decoder that could not be opened
            return [], True
        for frame in frames:
            self.check_size(frame.width, frame.height)
        return frames, False

    def check_size(self, width: int, height: int) -> None:
        """Refuse pictures beyond the limit.

        Raises:
            SourceError: too_large.
        """
        refuse_size(self.source, width, height, self.limits.pixels)

    def seek(self, tick: int) -> bool:
        """Go to a key packet at or before a tick; False where the container cannot."""
        if self._leading is not None:
            self._leading.forget()
        try:
            self.container.seek(tick, stream=self.stream)
        except (FFmpegError, OverflowError):
            return False
        return True

    def expect(self, low: int, high: int) -> None:
        """Prepare for reading all packets of [low, high): a file on a server then comes in few requests."""
        entries = self.stream.index_entries
        if not self.source.is_remote or not len(entries):
            return
        first = max(0, entries.search_timestamp(low))
        last = entries.search_timestamp(high, backward=False, any_frame=True)
        self._expect(first, last + REORDER if last >= 0 else len(entries) - 1)

    def expect_head(self) -> None:
        """The same for the first packets."""
        if self.source.is_remote and len(self.stream.index_entries):
            self._expect(0, REORDER)

    def _expect(self, first: int, last: int) -> None:
        entries = self.stream.index_entries
        start, end = entries[first], entries[min(last, len(entries) - 1)]
        if start.size and end.size and start.pos < end.pos:  # an index of key frames alone has no sizes
            self.source.expect(start.pos, end.pos + end.size + _BUFFER_BYTES)

    def rewind(self) -> None:
        """Start over, with a new decoder: seeking to the start fails on raw streams and lands elsewhere on others."""
        if self._leading is not None:
            self._leading.forget()
        self.container.close()
        self.container, self.stream, self.decoder = open_stream(self.source, self.limits)

    def close(self) -> None:
        """Close the container; the source stays open."""
        self.container.close()


@contextmanager
def open_video(source: Source, limits: Limits, *, quick: bool = False) -> Iterator[Video]:
    """Open the video in a source.

    Args:
        quick: take the container's word for what the stream holds, where it is known to be enough.

    Raises:
        SourceError: picture, refused_format, not_a_video, no_video_stream, encrypted, too_large or unreadable.
    """
    refuse_formats(source, limits.pixels)
    video = Video(source, limits, *open_stream(source, limits, quick=quick))
    try:
        yield video
    finally:
        video.close()


def read_head(video: Video) -> Head:
    """The file's clock, from its first packets; leaves the file somewhere behind them.

    Where the first packet is no place to start from, or frames come before it, the first frame that decodes is the
    first that is presented.

    Raises:
        SourceError: no_frames, or too_large.
    """
    first: VideoPacket | None = None
    times: list[int] = []
    usable = True
    video.expect_head()
    for packet in video.packets():
        first = first or packet
        if video.presented(packet):
            usable = usable and packet.pts is not None
            times.append(packet.pts or 0)
            if len(times) >= REORDER:
                break
    if first is None or not times:
        raise no_frames(video, "it has no packets")
    usable = usable and video.trusts_times and video.stream.time_base is not None
    if not usable or len(set(times)) < len(times):
        return Head(None, first)
    clean = first.is_keyframe and first.pts is not None and (first.is_discard or min(times) >= first.pts)
    if not clean:
        frame = first_frame(video)
        if frame.pts is None or _run_backwards(times, frame.pts):
            return Head(None, first)
        return Head(Clock(frame.pts, video.base), first)
    return Head(Clock(min(times), video.base), first)


def _run_backwards(times: list[int], first: int) -> bool:
    """Whether more packets behind the first frame's lie before it in time than a codec can hold back."""
    behind = times[times.index(first) :] if first in times else []
    return sum(time < first for time in behind) > REORDER // 2


def first_frame(video: Video) -> VideoFrame:
    """The first frame that decodes, from the start of the file.

    Raises:
        SourceError: no_frames, or too_large.
    """
    video.rewind()
    for packet in video.packets():
        frames, _ = video.decode(packet)
        if frames:
            return frames[0]
    frames, _ = video.decode(None)
    if not frames:
        raise no_frames(video, "none of its packets decodes")
    return frames[0]


def no_frames(video: Video, why: str) -> SourceError:
    """The error for a video of which nothing can be seen."""
    return SourceError("no_frames", f"{shown(video.source.location)} ({video.codec}) gives no frame: {why}")

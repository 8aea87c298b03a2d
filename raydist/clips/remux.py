"""remux: packets of a span as an mp4 of their own, where that is exactly the span.

Promises  a copy holds the span's presented frames and no other packet, begins with a key frame that nothing in it
          reaches behind, is shown upright in SDR with square pixels, and was decoded once without a complaint; else
          there is none
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame

from raydist.clips.bitstream import ParameterSets
from raydist.clips.container import Video, VideoPacket
from raydist.clips.encode import LONGEST_S
from raydist.clips.hdr import is_hdr
from raydist.clips.picture import is_mirrored, rotation
from raydist.clips.stretch import Stretch

_CODECS = frozenset({"h264", "hevc", "av1", "vp9"})
_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers whose packets mp4 can hold as they are."""
_LAYOUTS = frozenset({"yuv420p", "yuvj420p"})
"""What browsers and providers decode."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A span without a change."""

    data: bytes
    width_px: int
    height_px: int


class Copier:
    """Copies spans of one open file."""

    def __init__(self, video: Video, max_px: int, max_bytes: int) -> None:
        self._video = video
        self._max_px = max_px
        self._max_bytes = max_bytes
        extradata = video.decoder.extradata or b""
        self._sets = ParameterSets(video.codec, extradata)
        fits = max(video.decoder.width, video.decoder.height) <= max_px
        known = video.codec in _CODECS and video.container.format.name in _FORMATS
        self._may = known and fits and (bool(extradata) or video.codec == "vp9")
        """Whether a span of this file may be copied at all."""

    def copy(self, stretch: Stretch, ticks: Sequence[int], high: int) -> Copy | None:
        """A span as it is, or None.

        Args:
            stretch: the packets around it.
            ticks: of its presented frames, rising, at least one.
            high: tick of its end.
        """
        if not self._may or stretch.kept is None:
            return None
        run = _run(stretch, ticks)
        if not run or sum(packet.size for packet in run) > self._max_bytes or not self._is_whole(run):
            return None
        try:
            data = self._mp4(run, ticks, high)
            size = None if len(data) > self._max_bytes else self._look(data, ticks)
        except (FFmpegError, ValueError):  # a muxer or a decoder that refuses it
            return None
        return Copy(data, *size) if size else None

    def _is_whole(self, run: Sequence[VideoPacket]) -> bool:
        """Whether decoding can begin with the first packet, by what the file's header says."""
        return self._sets.begins(memoryview(run[0])) and all(self._sets.know(memoryview(packet)) for packet in run)

    def _mp4(self, run: Sequence[VideoPacket], ticks: Sequence[int], high: int) -> bytes:
        file = io.BytesIO()
        # Decoding times of our own: Matroska has none. They rise as the frames do, and lie before each frame's.
        late = max(tick - (packet.pts or 0) for tick, packet in zip(ticks, run, strict=True))
        stays = max(1, min(high - ticks[-1], int(LONGEST_S / self._video.base)))
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream_from_template(self._video.stream, opaque=True)
            if stream.codec_context.pix_fmt is None:  # what mp4's header says of VP9 is made of it
                stream.codec_context.pix_fmt = "yuv420p"
            for given, tick in zip(run, ticks, strict=True):
                assert given.pts is not None
                packet: Packet[Any] = Packet(bytes(given))
                packet.stream = stream
                packet.time_base = self._video.base
                packet.pts, packet.dts = given.pts - ticks[0], tick - late - ticks[0]
                # mp4 knows no durations but the distances of decoding times, and that of the last packet: to the end.
                packet.duration = stays + ticks[-1] - given.pts if tick == ticks[-1] else given.duration or 0
                packet.is_keyframe = given.is_keyframe
                container.mux(packet)
        return file.getvalue()

    def _look(self, data: bytes, ticks: Sequence[int]) -> tuple[int, int] | None:
        """Width and height, if a decoder finds in it what should be there."""
        base = self._video.base
        expected = [(tick - ticks[0]) * base for tick in ticks]
        times: list[Fraction] = []
        shapes: set[tuple[int, int]] = set()
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            decoder = stream.codec_context
            decoder.thread_count, decoder.thread_type = 1, "NONE"
            for packet in container.demux(stream):
                for frame in decoder.decode(packet if packet.size else None):
                    self._may = self._may and _is_plain(frame)
                    times.append((frame.pts or 0) * Fraction(stream.time_base or 1))
                    shapes.add((frame.width, frame.height))
                if not self._may:
                    return None
            aspect = decoder.sample_aspect_ratio or stream.sample_aspect_ratio or 1
        near = len(times) == len(expected) and all(
            abs(time - wanted) < Fraction(1, 1000) for time, wanted in zip(times, expected, strict=True)
        )
        if not near or len(shapes) > 1 or aspect != 1:
            return None
        (shape,) = shapes
        return shape if max(shape) <= self._max_px else None


def _is_plain(frame: VideoFrame) -> bool:
    """Whether any player shows a frame as it is meant."""
    return (
        frame.format.name in _LAYOUTS
        and not is_hdr(frame.color_trc)
        and not rotation(frame)
        and not is_mirrored(frame)
        and not frame.is_corrupt
    )


def _run(stretch: Stretch, ticks: Sequence[int]) -> list[VideoPacket]:
    """The packets that hold these frames; none where others lie between them, or they cannot do without others."""
    assert stretch.kept is not None
    wanted = set(ticks)
    places = [place for place, time in enumerate(stretch.times) if time in wanted and stretch.shown[place]]
    first, after = places[0], places[-1] + 1
    run = stretch.kept[first:after]
    if len(run) != len(ticks) or stretch.times[first] != ticks[0] or not stretch.keys[first]:
        return []
    return [] if any(packet.is_corrupt for packet in run) else run

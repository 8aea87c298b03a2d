"""footage: every frame of a file by a plain reading of all of it, and whether what was cut out of it shows its span."""

# Shape legend: H height, W width

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image
from videos import full_decode

from raydist.clips.picture import Converter
from raydist.records import CUT_RATE, Cut, Span

ALIKE = 16.0
"""Mean difference in levels, of pictures that were drawn and then encoded twice; of two neighbours it is more."""


_BETWEEN_S = Fraction(1, 4)
"""Between films of different encoders, whose first frames may be decoded that long before they are shown."""


class Source:
    """Every presented frame of a file by a plain reading of all of it: its time in ms after the first, what it shows in
    small, and a digest of its pixels.
    """

    def __init__(self, path: Path) -> None:
        frames = sorted(full_decode(path), key=lambda frame: frame.pts or 0)
        first, base = frames[0].pts or 0, Fraction(frames[0].time_base or 1)
        self.times_ms = [int(((frame.pts or 0) - first) * base * 1000 // 1) for frame in frames]
        self.shapes, self.digests, smalls = [], [], []
        for pixels in upright(frames):
            self.shapes.append(pixels.shape[:2])
            self.digests.append(hash(pixels.tobytes()))
            smalls.append(small(pixels))
        self._smalls = np.stack(smalls)

    def inside(self, span: Span) -> list[int]:
        return [place for place, ms in enumerate(self.times_ms) if span.start_ms <= ms < span.end_ms]

    def distances(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Mean difference of a picture to each frame, in levels."""
        return np.asarray(np.abs(self._smalls - small(pixels)).mean(axis=(1, 2, 3)))


def upright(frames: Iterable[VideoFrame]) -> Iterator[NDArray[np.uint8]]:
    """Pixels as a person sees them, at the size in which they are coded."""
    convert = Converter(None, "viclip", hashes=False)
    for frame in frames:
        picture = convert(frame)
        assert picture is not None
        yield picture.pixels


def small(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.asarray(Image.fromarray(pixels).resize((48, 32), Image.Resampling.BOX)).astype(np.int16)


def opened(data: bytes) -> tuple[list[int], list[NDArray[np.uint8]], int]:
    """Times in ms and pictures of an mp4, and its length in ms; it holds one stream, of video."""
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        frames = list(container.decode(video=0))
        assert container.duration is not None
        times = [round(float((frame.pts or 0) * Fraction(frame.time_base or 1)) * 1000) for frame in frames]
        return times, list(upright(frames)), container.duration // 1000


def check(source: Source, cut: Cut, rate: int = CUT_RATE, noise: float = 0.0, *, may_be_copied: bool = False) -> None:
    """A cut shows its span: each picture is the source's at that time, none from outside, no stretch left out.

    Args:
        noise: levels by which a picture may look more like another frame; frames of real footage may be all alike.
        may_be_copied: the cut does not say whether it was.
    """
    inside = source.inside(cut.span)
    assert (cut.reason, cut.detail) == ("", "")
    times, pictures, length_ms = opened(cut.data)
    first_ms = source.times_ms[inside[0]]
    assert times[0] == 0
    at_ms = {source.times_ms[place]: place for place in inside}
    places = [next(at_ms[ms] for ms in near(first_ms + time_ms) if ms in at_ms) for time_ms in times]
    assert places == sorted(set(places))
    assert {picture.shape[:2] for picture in pictures} == {(cut.height_px, cut.width_px)}
    if cut.copied:
        assert places == inside
        assert [hash(picture.tobytes()) for picture in pictures] == [source.digests[place] for place in inside]
    else:
        for place, picture in zip(places, pictures, strict=True):
            off = source.distances(picture)
            assert off[place] < ALIKE
            assert off[place] <= off.min() + noise
        assert may_be_copied or len(places) <= -(-(cut.span.end_ms - cut.span.start_ms) * rate // 1000)
    # Between pictures no more time passes than the rate or the source itself asks for, up to the span's end.
    gaps = np.diff([source.times_ms[place] for place in inside], append=cut.span.end_ms)
    assert max(np.diff(times, append=length_ms)) <= 1000 / rate + max(gaps) + 2
    assert abs(first_ms + length_ms - cut.span.end_ms) <= 2 or may_be_copied


def near(time_ms: int) -> tuple[int, int, int]:
    """Times that a whole number of ms may stand for, the likeliest first."""
    return time_ms, time_ms - 1, time_ms + 1


def join_real(paths: Sequence[Path], out: Path) -> Path:
    """Put the video of H.264 files in mp4 behind each other, packet by packet: real footage, long enough for clips.

    As a transport stream they may differ in size, rate and encoder; as mp4 all must have one header.
    """
    as_units = out.suffix == ".ts"
    with av.open(str(out), "w") as target:
        stream = None
        offset = Fraction(0)
        for path in paths:
            with av.open(str(path)) as source:
                given = source.streams.video[0]
                assert given.time_base is not None
                stream = stream or target.add_stream_from_template(given, opaque=True)
                units = BitStreamFilterContext("h264_mp4toannexb", given) if as_units else None
                packets = [packet for packet in source.demux(given) if packet.size]
                start = min(packet.pts or 0 for packet in packets)
                end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
                for packet in packets:
                    shift = round(offset / given.time_base) - start
                    for part in units.filter(packet) if units else [packet]:
                        assert part.pts is not None
                        assert part.dts is not None
                        part.pts, part.dts, part.stream = part.pts + shift, part.dts + shift, stream
                        target.mux(part)
                offset += (end - start) * given.time_base + (_BETWEEN_S if as_units else 0)
    return out


def spans_of(length_ms: int, step_ms: int) -> list[Span]:
    return [Span(start_ms=ms, end_ms=min(ms + step_ms, length_ms)) for ms in range(0, length_ms, step_ms)]

"""exact: the frames of one span, decoding no more than they need.

Decodes   each group of pictures once, from its key packet to its last wanted frame; what no wanted frame builds on is
          left out
Promises  the pictures that decoding the whole file would give, or `SequentialNeededError` where the container's times,
          seeking or key flags do not allow that
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from av.packet import Packet
from av.video.frame import PictureType

from raydist.clips.container import Head, Video, VideoPacket
from raydist.clips.picture import Converter, Picture
from raydist.clips.sampling import Choose, Chosen, choose
from raydist.clips.stretch import SequentialNeededError, Stretch, StretchReader
from raydist.records import Span

_SMALL_BYTES = 64 << 20
"""A damaged file up to this size may be decoded from its start for the best result; a larger one is filled."""

Result = tuple[Chosen, dict[int, Picture]]
"""What was wanted of a span, and the pictures that were got, by key."""


class ExactReader:
    """Reads spans of one open file, each at a cost that does not depend on where it lies."""

    def __init__(self, video: Video, head: Head, convert: Converter, choose: Choose = choose) -> None:
        self.stretches = StretchReader(video, head)
        self._choose = choose
        self._video = video
        self._clock = self.stretches.clock
        self._decoder = StretchDecoder(self.stretches, convert)

    def read(self, span: Span, frames: int) -> Result:
        """The wanted frames of a span, and the pictures of those that decode.

        Raises:
            SequentialNeededError: see above.
            SourceError: too_large.
        """
        return self.read_stretch(*self.stretch(span), frames)

    def read_stretch(self, stretch: Stretch, ticks: list[int], frames: int) -> Result:
        """The same of a stretch that was read already.

        Args:
            ticks: of the span's presented frames, rising.
        """
        keys = self._choose(ticks, frames)
        times_ms = [self._clock.ms(key) for key in keys]
        chosen = Chosen(keys, times_ms, times_ms)
        return chosen, self.pictures(stretch, keys)

    def bounds(self, span: Span) -> tuple[int, int]:
        """A span in ticks."""
        return max(self._clock.first, self._clock.tick(span.start_ms)), self._clock.tick(span.end_ms)

    def stretch(self, span: Span) -> tuple[Stretch, list[int]]:
        """The packets around a span, and the ticks of its presented frames, rising.

        Raises:
            SequentialNeededError: see above.
        """
        low, high = self.bounds(span)
        stretch = self.stretches.around(low, high)
        ticks = stretch.ticks(low, high)
        if len(set(ticks)) < len(ticks):
            raise SequentialNeededError("times repeat", count_frames=True)
        if not ticks and low == self._clock.first:
            raise SequentialNeededError("the first frame is not where it was")
        if max(stretch.times) < low:  # times that start anew mislead a search
            raise SequentialNeededError("the file ends before the span begins")
        return stretch, ticks

    def pictures(self, stretch: Stretch, keys: list[int]) -> dict[int, Picture]:
        """The pictures at these ticks, as many as decode.

        Raises:
            SequentialNeededError: see above.
            SourceError: too_large.
        """
        pictures = self.sound_pictures(stretch, keys)
        return self._decoder.through(stretch, sorted(set(keys))) if pictures is None else pictures

    def sound_pictures(self, stretch: Stretch, keys: list[int]) -> dict[int, Picture] | None:
        """The pictures at these ticks; None where something in the stretch is not sound.

        Raises:
            SequentialNeededError: see above.
            SourceError: too_large.
        """
        wanted = sorted(set(keys))
        return self._decoder.sparsely(stretch, wanted) if wanted else {}


class StretchDecoder:
    """Wanted frames of a stretch of packets."""

    def __init__(self, stretches: StretchReader, convert: Converter) -> None:
        self._stretches = stretches
        self._video = stretches.video
        self._convert = convert
        self._small = self._video.source.bytes <= _SMALL_BYTES

    def sparsely(self, stretch: Stretch, wanted: list[int]) -> dict[int, Picture] | None:
        """What the wanted frames build on and no more; None where a decoder complained or something did not come.

        Raises:
            SequentialNeededError, SourceError: as `ExactReader`.
        """
        pictures, complained, lies = self._decode(stretch, self._runs(stretch, wanted), set(wanted), skip=True)
        if lies and not complained:
            raise SequentialNeededError("packets marked as key that are none")
        if len(pictures) == len(wanted) and not complained and not any(p.corrupt for p in pictures.values()):
            return pictures
        return None

    def through(self, stretch: Stretch, wanted: list[int]) -> dict[int, Picture]:
        """Decode on through all of the stretch, for the best of what is damaged.

        What a decoder puts in the place of lost blocks depends on all frames before; frames may also be not as
        dispensable as they said.

        Raises:
            SequentialNeededError, SourceError: as `ExactReader`.
        """
        whole = [(0, max(last for _, last in self._runs(stretch, wanted)))]
        pictures, complained, lies = self._decode(stretch, whole, set(wanted), skip=False)
        missing = len(wanted) - len(pictures)
        if missing and not complained and (self._small or 4 * missing > len(wanted)):
            raise SequentialNeededError("packets that give no frame", count_frames=True)
        if (lies and self._small) or not pictures:
            raise SequentialNeededError("nothing sound to start from")
        return pictures

    def _runs(self, stretch: Stretch, wanted: list[int]) -> list[tuple[int, int]]:
        """First and last packet of each part to decode: from a key packet to the last wanted frame behind it."""
        place = {time: i for i, time in enumerate(stretch.times) if stretch.shown[i]}
        runs: list[tuple[int, int]] = []
        for time in wanted:
            last = place[time]
            first = next((i for i in range(last, 0, -1) if self._starts(stretch, i, time)), 0)
            if runs and first <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return runs

    def _starts(self, stretch: Stretch, place: int, time: int) -> bool:
        return self._video.trusts_keys and stretch.keys[place] and stretch.times[place] <= time

    def _decode(
        self, stretch: Stretch, runs: list[tuple[int, int]], wanted: set[int], *, skip: bool
    ) -> tuple[dict[int, Picture], bool, bool]:
        """Decode runs of packets; also whether the decoder complained, and whether a key packet was none."""
        decoder = self._video.decoder
        pictures: dict[int, Picture] = {}
        complained = lies = False
        packets = enumerate(self._stretches.packets(stretch))
        for first, last in runs:
            decoder.flush_buffers()
            key_time = stretch.times[first]
            key_works = first == 0 and stretch.at_head
            for packet in chain(self._needed(stretch, packets, first, last, wanted if skip else None), [None]):
                frames, complaint = self._video.decode(packet)
                complained |= complaint
                for frame in frames:
                    if frame.pts == key_time:
                        key_works |= frame.pict_type == PictureType.I
                    if frame.pts in wanted and frame.pts not in pictures:
                        picture = self._convert(frame)
                        if picture is not None:
                            pictures[frame.pts] = picture
            lies |= not key_works
        decoder.flush_buffers()
        return pictures, complained, lies

    def _needed(
        self,
        stretch: Stretch,
        packets: Iterator[tuple[int, VideoPacket]],
        first: int,
        last: int,
        wanted: set[int] | None,
    ) -> Iterator[VideoPacket]:
        """The packets of a run that the wanted frames build on, with the decoder told what to skip; None: all."""
        decoder = self._video.decoder
        decoder.skip_frame = "DEFAULT"
        parts: dict[int, list[slice]] | None = None
        if wanted is not None and stretch.needs is not None:
            targets = [place for place in range(first, last + 1) if stretch.times[place] in wanted]
            parts = stretch.needs.of(first, last, [first, *targets])
        for place, packet in _between(packets, first, last):
            if parts is not None:
                if place in parts:
                    yield _cut(packet, parts[place])
                continue
            if wanted is not None and stretch.needs is None:
                is_needed = packet.pts in wanted or packet.pts == stretch.times[first]
                decoder.skip_frame = "DEFAULT" if is_needed else "NONREF"
            yield packet
        decoder.skip_frame = "DEFAULT"


def _cut(packet: VideoPacket, parts: list[slice]) -> VideoPacket:
    """Some bytes of a packet as a packet."""
    if not parts:
        return packet
    data = memoryview(packet)
    cut: Packet[Any] = Packet(b"".join(data[part] for part in parts))
    cut.pts, cut.dts, cut.time_base = packet.pts, packet.dts, packet.time_base
    return cut


def _between(packets: Iterator[tuple[int, VideoPacket]], first: int, last: int) -> Iterator[tuple[int, VideoPacket]]:
    for place, packet in packets:
        if place >= first:
            yield place, packet
        if place >= last:
            return

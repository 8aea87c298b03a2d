"""exact: the frames of one span, reading and decoding no more than they need.

Reads     the packets from the last key packet before the span to its end, wherever in the file that is
Decodes   each group of pictures once, from its key packet to its last wanted frame; frames that no other refers to are
          skipped unless wanted
Promises  the pictures that decoding the whole file would give, or `SequentialNeededError` where the container's times,
          seeking or key flags do not allow that
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from av.video.frame import PictureType

from raydist.clips.container import REORDER, Head, Video, VideoPacket
from raydist.clips.picture import Converter, Picture
from raydist.clips.sampling import middle_ranks
from raydist.clips.timeline import Clock
from raydist.records import Span

_SMALL_BYTES = 64 << 20
"""A damaged file up to this size may be decoded from its start for the best result; a larger one is filled."""
_KEPT_BYTES = 64 << 20
"""Packets of a span up to this size stay in memory; beyond it they are read twice."""


class SequentialNeededError(Exception):
    """The plan does not hold for this file; it must be decoded from its start.

    `count_frames`: packets do not stand for frames one to one, so ranks are those of decoded frames.
    """

    def __init__(self, why: str, *, count_frames: bool = False) -> None:
        super().__init__(why)
        self.count_frames = count_frames


@dataclass(frozen=True, slots=True)
class Chosen:
    """The frames that the recipe asks for in one span."""

    keys: list[int]
    """Of each of the T frames, in order; a key that repeats is a frame that repeats."""
    times_ms: list[int]


Result = tuple[Chosen, dict[int, Picture]]
"""What was wanted of a span, and the pictures that were got, by key."""


def choose(presented: list[int], frames: int) -> list[int]:
    """The recipe's frames among the presented frames of a span, given in order of presentation."""
    return [presented[rank] for rank in middle_ranks(len(presented), frames)] if presented else []


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The packets around a span, in decoding order, from a key packet on."""

    start_tick: int
    """Where to seek to read them again."""
    dropped: int
    """Packets between there and the first of them."""
    times: list[int]
    keys: list[bool]
    shown: list[bool]
    kept: list[VideoPacket] | None
    """None: too large to keep."""
    at_head: bool
    """Whether the first of them is the file's first."""
    layered: bool
    """HEVC with temporal sub-layers."""


class SpanReader:
    """Reads spans of one open file, each at a cost that does not depend on where it lies."""

    def __init__(self, video: Video, head: Head, convert: Converter) -> None:
        assert head.clock is not None
        self._video = video
        self._head = head
        self._clock: Clock = head.clock
        self._convert = convert
        self._small = video.source.bytes <= _SMALL_BYTES

    def read(self, span: Span, frames: int) -> Result:
        """The wanted frames of a span, and the pictures of those that decode.

        Raises:
            SequentialNeededError: see above.
            SourceError: too_large.
        """
        low, high = max(self._clock.first, self._clock.tick(span.start_ms)), self._clock.tick(span.end_ms)
        stretch = self._stretch(low, high)
        ticks = sorted(
            time for time, shown in zip(stretch.times, stretch.shown, strict=True) if shown and low <= time < high
        )
        if len(set(ticks)) < len(ticks):
            raise SequentialNeededError("times repeat", count_frames=True)
        if not ticks and low == self._clock.first:
            raise SequentialNeededError("the first frame is not where it was")
        keys = choose(ticks, frames)
        chosen = Chosen(keys, [self._clock.ms(key) for key in keys])
        if not chosen.keys:
            return chosen, {}
        return chosen, self._pictures(stretch, sorted(set(chosen.keys)))

    def _stretch(self, low: int, high: int) -> _Stretch:
        """Seek to a key packet at or before `low`, going back further until there is one."""
        second = max(1, round(1 / self._video.base))
        back = 0
        while True:
            target = low - back
            at_start = target <= self._clock.first
            if at_start:
                # Decoding times start before presentation times; a seek to the first of these can land behind it.
                target = min(self._clock.first, self._head.packet.dts or self._clock.first)
            if not self._video.seek(target):
                raise SequentialNeededError("the container cannot seek")
            stretch = self._collect(target, low, high)
            if stretch is not None:
                return stretch
            if at_start:
                raise SequentialNeededError("no key packet where there should be one")
            back = max(second, back * 2)

    def _collect(self, target: int, low: int, high: int) -> _Stretch | None:
        times: list[int] = []
        keys: list[bool] = []
        shown: list[bool] = []
        kept: list[VideoPacket] | None = []
        dropped = size = beyond = 0
        at_head = layered = False
        for packet in self._video.packets():
            if packet.pts is None:
                raise SequentialNeededError("packets without times", count_frames=True)
            if not times:
                at_head = self._is_first(packet)
                if not at_head and not (packet.is_keyframe and packet.pts <= low and self._video.trusts_keys):
                    dropped += 1
                    beyond += packet.pts > low
                    if beyond >= REORDER:
                        return None
                    continue
                beyond = 0
            times.append(packet.pts)
            keys.append(packet.is_keyframe)
            shown.append(self._video.presented(packet))
            layered = layered or self._video.is_layered(packet)
            size += packet.size
            if kept is not None:
                kept.append(packet)
                if size > _KEPT_BYTES:
                    kept = None
            beyond = beyond + 1 if packet.pts >= high else 0
            if beyond >= REORDER:
                break
        return _Stretch(target, dropped, times, keys, shown, kept, at_head, layered) if times else None

    def _is_first(self, packet: VideoPacket) -> bool:
        first = self._head.packet
        return bool(packet.pts == first.pts and packet.dts == first.dts and packet.size == first.size)

    def _pictures(self, stretch: _Stretch, wanted: list[int]) -> dict[int, Picture]:
        runs = self._runs(stretch, wanted)
        pictures, complained, lies = self._decode(stretch, runs, set(wanted), skip=True)
        if lies and not complained:
            raise SequentialNeededError("packets marked as key that are none")
        if len(pictures) == len(wanted) and not complained and not any(p.corrupt for p in pictures.values()):
            return pictures
        # Damage, or frames that were not as dispensable as they said: decode on through all of the span. What a decoder
        # puts in the place of lost blocks depends on all frames before.
        whole = [(0, max(last for _, last in runs))]
        pictures, complained_again, lies = self._decode(stretch, whole, set(wanted), skip=False)
        missing = len(wanted) - len(pictures)
        if missing and not (complained or complained_again) and (self._small or 4 * missing > len(wanted)):
            raise SequentialNeededError("packets that give no frame", count_frames=True)
        if (lies and self._small) or not pictures:
            raise SequentialNeededError("nothing sound to start from")
        return pictures

    def _runs(self, stretch: _Stretch, wanted: list[int]) -> list[tuple[int, int]]:
        """First and last packet of each stretch to decode: from a key packet to the last wanted frame behind it."""
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

    def _starts(self, stretch: _Stretch, place: int, time: int) -> bool:
        return self._video.trusts_keys and stretch.keys[place] and stretch.times[place] <= time

    def _decode(
        self, stretch: _Stretch, runs: list[tuple[int, int]], wanted: set[int], *, skip: bool
    ) -> tuple[dict[int, Picture], bool, bool]:
        """Decode runs of packets; also whether the decoder complained, and whether a key packet was none."""
        decoder = self._video.decoder
        skip = skip and self._may_skip(stretch)
        pictures: dict[int, Picture] = {}
        complained = lies = False
        packets = enumerate(self._packets(stretch))
        for first, last in runs:
            decoder.flush_buffers()
            key_time = stretch.times[first]
            key_works = self._is_head(stretch, first)
            for packet in chain(_between(packets, first, last), [None]):
                needed = not skip or packet is None or packet.pts in wanted or packet.pts == key_time
                decoder.skip_frame = "DEFAULT" if needed else "NONREF"
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

    def _may_skip(self, stretch: _Stretch) -> bool:
        """Whether what calls itself no reference is none: not for AV1, nor for HEVC with temporal sub-layers."""
        return self._video.codec != "av1" and not stretch.layered

    def _is_head(self, stretch: _Stretch, place: int) -> bool:
        return place == 0 and stretch.at_head

    def _packets(self, stretch: _Stretch) -> Iterable[VideoPacket]:
        if stretch.kept is not None:
            return stretch.kept
        return self._again(stretch)

    def _again(self, stretch: _Stretch) -> Iterator[VideoPacket]:
        if not self._video.seek(stretch.start_tick):
            raise SequentialNeededError("the container cannot seek")
        for i, packet in enumerate(self._video.packets()):
            if i >= stretch.dropped:
                yield packet


def _between(packets: Iterator[tuple[int, VideoPacket]], first: int, last: int) -> Iterator[VideoPacket]:
    for place, packet in packets:
        if place >= first:
            yield packet
        if place >= last:
            return

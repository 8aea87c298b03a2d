"""stretch: the packets around a span, from a key packet on, and what can be known of them without decoding.

Reads     from the last key packet before a span to the span's end, wherever in the file that is; or, where the
          container has an index, only the heads of some groups of pictures
Promises  a cost that does not depend on where in the file the span lies, or `SequentialNeededError` where the
          container's times, seeking or key flags do not allow that
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from raydist.clips.container import REORDER, Head, Video, VideoPacket
from raydist.clips.needed import Needs, needs
from raydist.clips.timeline import Clock

_KEPT_BYTES = 64 << 20
"""Packets of a stretch up to this size stay in memory; beyond it they are read twice."""


class SequentialNeededError(Exception):
    """The plan does not hold for this file; it must be decoded from its start.

    `count_frames`: packets do not stand for frames one to one, so ranks are those of decoded frames.
    """

    def __init__(self, why: str, *, count_frames: bool = False) -> None:
        super().__init__(why)
        self.count_frames = count_frames


@dataclass(slots=True)
class Stretch:
    """Packets in decoding order, from a key packet on."""

    start_tick: int
    """Where to seek to read them again."""
    needs: Needs | None
    dropped: int = 0
    """Packets between there and the first of them."""
    times: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    kept: list[VideoPacket] | None = field(default_factory=list)
    """None: too large to keep."""
    bytes: int = 0
    at_head: bool = False
    """Whether the first of them is the file's first."""

    def ticks(self, low: int, high: int) -> list[int]:
        """Times of the presented frames in [low, high), rising; may repeat."""
        return sorted(t for t, shown in zip(self.times, self.shown, strict=True) if shown and low <= t < high)

    def key_ticks(self) -> list[int]:
        """Times of the presented key frames."""
        return [t for t, shown, key in zip(self.times, self.shown, self.keys, strict=True) if shown and key]


class StretchReader:
    """Reads stretches of one open file."""

    def __init__(self, video: Video, head: Head) -> None:
        assert head.clock is not None
        self.video = video
        self.clock: Clock = head.clock
        self._head = head

    def around(self, low: int, high: int) -> Stretch:
        """The stretch that holds all frames in [low, high), from a key packet at or before `low`.

        Raises:
            SequentialNeededError: see above.
        """
        second = max(1, round(1 / self.video.base))
        back = 0
        while True:
            target = low - back
            at_start = target <= self.clock.first
            if at_start:
                # Decoding times start before presentation times; a seek to the first of these can land behind it.
                dts = self._head.packet.dts
                target = self.clock.first if dts is None else min(self.clock.first, dts)
            if not self.video.seek(target):
                raise SequentialNeededError("the container cannot seek")
            self.video.expect(target, high)
            stretch = self._collect(target, low, high)
            if stretch is not None:
                return stretch
            if at_start:
                return self._from_the_start(target, low, high)
            back = max(second, back * 2)

    def _from_the_start(self, target: int, low: int, high: int) -> Stretch:
        """Where seeking to the first frames lands behind them, as in transport streams."""
        self.video.rewind()
        stretch = self._collect(target, low, high)
        if stretch is None or stretch.kept is None or not stretch.at_head:
            raise SequentialNeededError("no key packet where there should be one")
        return stretch

    def heads(self, wanted: Mapping[int, int]) -> Stretch | None:
        """The heads of some groups of pictures.

        Args:
            wanted: time of a key packet -> up to and with the first frame at or after which its group is read.

        Returns:
            None where the file does not bear out its index.
        """
        stretch = self._stretch(min(wanted))
        for key, until in sorted(wanted.items()):
            if not self.video.seek(key) or not self._add_head(stretch, key, until):
                return None
        return stretch

    def packets(self, stretch: Stretch) -> Iterable[VideoPacket]:
        """Its packets, read again where they were not kept.

        Raises:
            SequentialNeededError: see above.
        """
        return self._again(stretch) if stretch.kept is None else stretch.kept

    def _stretch(self, start_tick: int) -> Stretch:
        return Stretch(start_tick, needs(self.video.codec, self.video.decoder.extradata))

    def _collect(self, target: int, low: int, high: int) -> Stretch | None:
        stretch = self._stretch(target)
        beyond = 0
        for packet in self.video.packets():
            if packet.pts is None:
                raise SequentialNeededError("packets without times", count_frames=True)
            if not stretch.times:
                stretch.at_head = self._is_first(packet)
                if not stretch.at_head and not (packet.is_keyframe and packet.pts <= low and self.video.trusts_keys):
                    stretch.dropped += 1
                    beyond += packet.pts > low
                    if beyond >= REORDER:
                        return None
                    continue
                beyond = 0
            self._add(stretch, packet, packet.pts)
            beyond = beyond + 1 if packet.pts >= high else 0
            if beyond >= REORDER:
                break
        return stretch if stretch.times else None

    def _add_head(self, stretch: Stretch, key: int, until: int) -> bool:
        """Add packets from a key packet at `key` on, until the first frame at or after `until` is among them."""
        found: int | None = None
        beyond = start = 0
        for number, packet in enumerate(self.video.packets()):
            if packet.pts is None:
                return False
            if number == 0:
                if not packet.is_keyframe or (stretch.times and packet.pts <= stretch.times[-1]):
                    return False
                stretch.at_head = stretch.at_head or (not stretch.times and self._is_first(packet))
                start = packet.pts
            self._add(stretch, packet, packet.pts)
            if packet.pts < start:  # it builds on the group before, which is not here
                stretch.shown[-1] = False
            if stretch.kept is None:
                return False
            if packet.pts >= until and stretch.shown[-1]:
                found = packet.pts if found is None else min(found, packet.pts)
            beyond += packet.pts >= until
            # What comes later is not shown before it is decoded.
            is_first = found is not None and packet.dts is not None and packet.dts >= found
            if found is not None and (found <= until or beyond >= REORDER or is_first):
                return True
        return found is not None

    def _add(self, stretch: Stretch, packet: VideoPacket, time: int) -> None:
        stretch.times.append(time)
        stretch.keys.append(packet.is_keyframe)
        stretch.shown.append(self.video.presented(packet))
        if stretch.needs is not None:
            stretch.needs.note(packet)
        stretch.bytes += packet.size
        if stretch.kept is not None:
            stretch.kept.append(packet)
            if stretch.bytes > _KEPT_BYTES:
                stretch.kept = None

    def _is_first(self, packet: VideoPacket) -> bool:
        first = self._head.packet
        return bool(packet.pts == first.pts and packet.dts == first.dts and packet.size == first.size)

    def _again(self, stretch: Stretch) -> Iterator[VideoPacket]:
        if not self.video.seek(stretch.start_tick):
            raise SequentialNeededError("the container cannot seek")
        for i, packet in enumerate(self.video.packets()):
            if i >= stretch.dropped:
                yield packet
